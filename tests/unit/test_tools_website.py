"""The static site: packs that hold what the models hold, live panels in the widgets' places, pages that fetch nothing."""

import base64
import json
import re
import zlib

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_drawing import CLASSIFIER, IMAGES, MODEL
from test_tools_refresh import PIXEL, Images

from tools import website
from vae_utils.classifier import Classifier

CLASSIFIER_FOLDED = website.folded(Classifier().eval())
README = (website.ROOT / "README.md").read_text(encoding="utf-8")


def unpacked(script):
    """The header and bytes of a pack, and its arrays."""
    header, data = re.fullmatch(rb'.*?\{ header: (\{.*\}), data: "(.*)" \};\n', script).groups()
    header, body = json.loads(header), zlib.decompress(base64.b64decode(data))
    return header, {n: np.frombuffer(body, p["kind"], p["count"], p["at"]) for n, p in header["arrays"].items()}


def test_a_pack_holds_arrays_as_they_are_and_weights_in_half_precision():
    arrays = {"few": torch.arange(3, dtype=torch.uint8), "numbers": torch.randn(5)}
    header, found = unpacked(website.pack("model", {"a": 1}, arrays, website.networks(MODEL, CLASSIFIER_FOLDED)))
    assert header["meta"] == {"a": 1} and found["few"].tolist() == [0, 1, 2]
    assert np.array_equal(found["numbers"], arrays["numbers"].numpy())
    assert all(place["at"] % np.dtype(place["kind"]).itemsize == 0 for place in header["arrays"].values())
    assert {name: len(layers) for name, layers in header["networks"].items()} == {
        "encoder": 4,
        "decoder": 4,
        "classifier": 6,
    }
    weights = sum(array.size for array in found.values() if array.dtype == np.float16)
    assert weights == sum(p.numel() for p in [*MODEL.parameters(), *CLASSIFIER_FOLDED.parameters()])


def test_folding_the_normalisation_into_the_convolutions_changes_no_reading():
    mine = Classifier().eval()
    for layer in mine.layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        before = mine(IMAGES)
        torch.testing.assert_close(website.folded(mine)(IMAGES), before, rtol=1e-4, atol=1e-5)
    assert CLASSIFIER.layers[1].num_features == 24  # another one is left alone


def test_live_panels_stand_where_widgets_stood():
    about = {"image/png": {"alt": 'A "drawing" and more.', "panel": "code"}}
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("w", outputs=[new_output("display_data", {"image/png": PIXEL}, metadata=about)]),
        new_code_cell("PlaneExplorer(plane)"),
    ]
    page = website.refresh.page(website.live(new_notebook(cells=cells)), "01_x")
    places = re.findall(r'<div class="vae-live" data-panel="(\w+)">', page)
    assert places == ["code", "plane"] and Images(page).alts == ['A "drawing" and more.'] and PIXEL in page


def test_pages_link_the_playground_and_fetch_nothing(tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title")]), tmp_path / "01_x.ipynb")
    page = website.notebook_page(tmp_path / "01_x.ipynb")
    assert (
        'href="playground.html"' in page and "Content-Security-Policy" in page and "connect-src" not in website.POLICY
    )
    assert re.findall(r'<script[^>]*src="([^"]+)"', page) == [f"assets/{name}" for name in website.SCRIPTS]
    for source in [*website.SOURCE.iterdir(), *website.STATIC.iterdir()]:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\beval\(|new Function|\bimport\(", text), source.name


def test_a_notebook_whose_outputs_were_cleared_is_named(tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title")]), tmp_path / "01_x.ipynb")
    with pytest.raises(ValueError, match=r"01_x\.ipynb shows no figure"):
        website.about(tmp_path / "01_x.ipynb", "", ("", "", ""))


def test_the_index_finds_every_notebook_in_the_readme():
    assert [row[1] for row in website.ROW.findall(README)] == [path.stem for path in website.refresh.find([])]

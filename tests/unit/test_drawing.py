"""Pen strokes become an image in MNIST's frame; the widget answers whatever it is asked, and stands still without a kernel."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tools import strokes
from vae_utils import drawing, panels, settings, widgets
from vae_utils.classifier import Classifier
from vae_utils.data import ImageData
from vae_utils.drawing import PEN, SIDE, framed, ink
from vae_utils.model import VAE
from vae_utils.training import seeded

with seeded(0):
    MODEL, CLASSIFIER, IMAGES = VAE(10).eval(), Classifier().eval(), torch.rand(40, 1, 28, 28)
LABELS = torch.arange(40) % 10
DATA = ImageData("digits", "random", tuple("0123456789"), *([IMAGES] * 3), *([LABELS] * 3))
LINE = [[[0.5, 0.2], [0.5, 0.8]]]


@pytest.fixture(scope="module")
def found():
    return panels.Panels(MODEL, DATA, classifier=CLASSIFIER)


def test_the_pen_draws_a_round_line_of_its_width():
    image = ink(LINE)
    assert image.shape == (SIDE, SIDE) and image.min() == 0 and image.max() == 1
    assert image[SIDE // 2].sum() == pytest.approx(PEN, abs=0.1)
    assert image.sum() == pytest.approx(0.6 * SIDE * PEN + math.pi * PEN**2 / 4, rel=0.02)
    assert ink([[[0.5, 0.5]]]).sum() == pytest.approx(math.pi * PEN**2 / 4, rel=0.05)  # a dot


@pytest.mark.parametrize("shift", [0, 0.2, -0.19])
def test_a_drawing_is_centred_wherever_it_was_drawn(shift):
    image = framed([[[0.5 + shift, 0.3 + shift], [0.6 + shift, 0.7 + shift]]])
    assert image.shape == (1, 1, 28, 28) and image.dtype == torch.float32
    place = torch.arange(28.0)
    for axis in (2, 3):
        weight = image.sum(dim=(0, 1, 5 - axis))
        assert abs((weight * place).sum() / weight.sum() - 14) < 0.6


@pytest.mark.parametrize(
    ("strokes", "named"),
    [
        ([], "empty"),
        ([[]], "empty"),
        ([[[0.5, math.nan]]], "nan"),
        ([[[0.5, 0.5], [math.inf, 0.5]]], "inf"),
        ([[[0.5, 1.5]]], r"1\.5"),
        ([[[0.5, 0.5, 0.5]]], r"\(1, 3\)"),
        ([[[0.5, 0.5]] * 20_001], "20001"),
    ],
)
def test_what_is_no_drawing_is_refused_by_name(strokes, named):
    with pytest.raises(ValueError, match=named):
        ink(strokes)


def test_the_synthetic_drawings_are_few_readable_and_in_the_frame():
    images, digits = drawing.synthetic_drawings()
    assert 10 <= len(images) <= 100 and digits.bincount().min() == digits.bincount().max()
    assert 70 < images.flatten(1).sum(1).mean() < 130 and images.amax() <= 1  # as much ink as MNIST's digits, about 103


def test_the_script_makes_the_drawings_that_are_committed(monkeypatch, tmp_path):
    from tools import strokes

    committed = strokes.FILE.read_bytes()
    monkeypatch.setattr(strokes, "FILE", tmp_path / "strokes.json")
    strokes.main([])
    assert (tmp_path / "strokes.json").read_bytes() == committed


def test_the_widget_answers_refuses_by_name_and_goes_on(found, monkeypatch):
    widget = widgets.DrawDigit(MODEL, DATA, "code", classifier=CLASSIFIER)
    sent = []
    monkeypatch.setattr(widget, "send", sent.append)
    for request in ({"strokes": LINE}, {"strokes": [[[0.5, math.nan]]]}, {"strokes": "x"}, {}, {"strokes": LINE}):
        widget._answer(widget, {"id": len(sent), "panels": ["look", "code"]} | request)
    assert [message["id"] for message in sent] == [0, 1, 2, 3, 4]
    assert [("error" in message["reply"]) for message in sent] == [False, True, True, True, False]
    assert "nan" in sent[1]["reply"]["error"] and sent[0]["reply"] == sent[4]["reply"]
    with pytest.raises(ValueError, match="'guess'"):
        widgets.DrawDigit(MODEL, DATA, "guess", classifier=CLASSIFIER)


@pytest.mark.parametrize("panel", panels.Panels.NAMES[1:])
def test_without_a_kernel_a_described_picture_stands_there(monkeypatch, panel):
    shown = []
    monkeypatch.setattr(drawing, "display", lambda data, metadata, raw: shown.append((data, metadata)))
    widgets.DrawDigit(MODEL, DATA, panel, classifier=CLASSIFIER)._ipython_display_()
    [(data, metadata)] = shown
    assert "application/vnd.jupyter.widget-view+json" in data and metadata["image/png"]["panel"] == panel
    assert "synthetic drawing" in metadata["image/png"]["alt"]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"])))).std() > 1


def test_an_installed_package_holds_the_front_end():
    project = (settings.project_root() / "pyproject.toml").read_text(encoding="utf-8")
    assert '"vae_utils.static"' in project and not {"draw.js", "draw.css", "strokes.json"} - {
        file.name for file in drawing.STATIC.iterdir()
    }


def test_asking_the_script_of_the_drawings_for_help_writes_nothing(monkeypatch):
    monkeypatch.setattr(strokes, "write_atomically", None)
    with pytest.raises(SystemExit, match="0"):
        strokes.main(["--help"])

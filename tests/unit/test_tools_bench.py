"""The yardstick itself: both sides of a comparison do what they claim to, and every learner reports."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from tools import bench, refresh
from vae_utils.data import ImageData

STAND_IN = """
from types import SimpleNamespace
class LatentExplorer:
    def __init__(self, vae, images, order):
        self.sliders, self.error = [SimpleNamespace(value=0.0) for _ in order], SimpleNamespace(value="")
vae, data, order = None, SimpleNamespace(test_images=[]), [0, 1]
"""


@pytest.fixture
def images():
    return torch.randint(0, 256, (128, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255


def test_the_recipe_sees_the_images_that_fit_sees_and_learns(images):
    pictures = bench.Pictures(images)
    assert torch.allclose(torch.stack([pictures[n] for n in range(len(pictures))]), images, atol=1e-6)
    torch.manual_seed(0)
    model = bench.Perceptron()
    before = bench.test_loss(model, images)
    bench.recipe(model, images, epochs=3)
    assert bench.test_loss(model, images) < before


def test_a_race_times_both_sides_and_says_when_the_loss_was_not_reached(images, monkeypatch, capsys):
    monkeypatch.setattr(bench, "EPOCHS", 3)
    labels = torch.zeros(len(images), dtype=torch.long)
    data = ImageData("mnist", "MNIST", ("0",), images, images, images, labels, labels, labels)
    result = bench.race("a recipe", bench.Perceptron, bench.perceptron, data, lambda model, x, seed: None, [0])
    [told] = result["rounds"]
    assert min(told.values()) > 0 and result["ratios"] == [told["recipe_s"] / told["our_s"]]
    assert not result["reached"] and "BUT NOT TO THE SAME LOSS" in capsys.readouterr().out


def test_a_model_of_any_side_has_the_articles_layers(images):
    ours, theirs = (sum(p.numel() for p in model.parameters()) for model in (bench.sized(28, 10), bench.article()))
    assert ours == theirs
    small = torch.nn.functional.interpolate(images[:4], size=16)
    assert bench.sized(16, 3).decode(bench.sized(16, 3).encode(small)[0]).shape == small.shape


def test_the_page_shows_the_figures_that_were_committed():
    results = json.loads((bench.ROOT / "docs" / "speed.json").read_text())
    page = (bench.ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert all(table in page for table in bench.tables(results).values())
    assert bench.headlines(results) == results


def test_damaged_figures_of_before_are_named_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "load", lambda: None)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "bench.json").write_text("{")
    with pytest.raises(SystemExit, match=r"bench\.json is damaged"):
        bench.main(["speed"])
    assert (tmp_path / "build" / "bench.json").read_text() == "{"


def test_both_perceptrons_have_the_same_layers():
    theirs, ours = (sum(p.numel() for p in net.parameters()) for net in (bench.Perceptron(), bench.perceptron()))
    assert theirs == ours


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_that_of_the_largest_process_below():
    child = "import time; block = b'x' * 300_000_000; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    _, peak = bench.peak_memory([sys.executable, "-c", parent], {})
    assert 286 < peak < 400
    with pytest.raises(SystemExit, match="status 3"):
        bench.peak_memory([sys.executable, "-c", "raise SystemExit(3)"], {})


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def test_the_interactive_part_ends_with_the_last_widget(tmp_path):
    path = write(tmp_path / "some.ipynb", "a = 1", "LatentExplorer(vae)", "b = 2", "LatentExplorer(other)", "c = 3")
    assert bench.interactive_part(path) == ["a = 1", "LatentExplorer(vae)", "b = 2", "LatentExplorer(other)"]
    assert len(bench.interactive_part(*refresh.find(["03"]))) > 10
    with pytest.raises(ValueError, match="plain"):
        bench.interactive_part(write(tmp_path / "plain.ipynb", "a = 1"))


def test_every_learner_reports_its_moves_and_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "MOVE_SLIDERS", bench.MOVE_SLIDERS.replace("range(200)", "range(20)"))
    path = write(tmp_path / "some.ipynb", STAND_IN, "LatentExplorer(vae, data.test_images, order)")
    one, two = bench.at_once(2, path, {})
    assert len(one["milliseconds"]) == 20 and one["milliseconds"] == sorted(one["milliseconds"])
    assert two["opened"] > 0 and two["resident"] >= two["own_share"] >= 0


def test_a_cell_that_fails_is_told_in_the_kernels_words(tmp_path):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        bench.at_once(1, write(tmp_path / "some.ipynb", "1 / 0", "LatentExplorer(vae)"), {})


def test_a_table_takes_the_place_between_its_own_marks():
    page = "<!-- a -->\n<!-- end -->\n\nwords\n\n<!-- b -->\n| old |\n<!-- end -->\n"
    page = bench.replaced(bench.replaced(page, "a", "| 1 |"), "b", "| 2 |")
    assert page == "<!-- a -->\n| 1 |\n<!-- end -->\n\nwords\n\n<!-- b -->\n| 2 |\n<!-- end -->\n"


def test_the_cost_of_one_size_is_measured():
    seconds, mib = bench.one_size(images=64, side=16)
    assert seconds > 0
    assert mib > 50 or not Path("/proc/self/status").exists()

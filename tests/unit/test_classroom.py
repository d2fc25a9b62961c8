"""Several kernels at once, as learners on one server have them."""

import nbformat
import pytest

from vae_utils import classroom, notebooks

STAND_IN = """
from types import SimpleNamespace
class LatentExplorer:
    def __init__(self, vae, images, order):
        self.sliders, self.error = [SimpleNamespace(value=0.0) for _ in order], SimpleNamespace(value="")
vae, data, order = None, SimpleNamespace(test_images=[]), [0, 1]
"""


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def test_the_interactive_part_ends_with_the_last_widget(tmp_path):
    path = write(tmp_path / "some.ipynb", "a = 1", "LatentExplorer(vae)", "b = 2", "LatentExplorer(other)", "c = 3")
    assert classroom.interactive_part(path) == ["a = 1", "LatentExplorer(vae)", "b = 2", "LatentExplorer(other)"]


def test_a_notebook_without_widgets_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"plain\.ipynb has no cell.*give notebook 03"):
        classroom.interactive_part(write(tmp_path / "plain.ipynb", "a = 1"))


def test_notebook_03_has_an_interactive_part_and_more_after_it():
    [path] = notebooks.find(["03"])
    code_cells = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    assert 10 < len(classroom.interactive_part(path)) < code_cells


def test_every_learner_reports_its_moves_and_its_memory(tmp_path):
    path = write(tmp_path / "some.ipynb", STAND_IN, "LatentExplorer(vae, data.test_images, order)")
    everyone = classroom.at_once(2, path)
    assert len(everyone) == 2
    for one in everyone:
        assert len(one["milliseconds"]) == 200 and one["milliseconds"] == sorted(one["milliseconds"])
        assert one["opened"] > 0 and one["resident"] >= one["own_share"] >= 0


def test_a_cell_that_fails_is_told_in_the_kernels_words(tmp_path):
    path = write(tmp_path / "some.ipynb", "1 / 0", "LatentExplorer(vae)")
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        classroom.at_once(1, path)


def test_a_widget_that_shows_an_error_is_not_timed(tmp_path):
    broken = STAND_IN.replace('value=""', 'value="no picture"')
    path = write(tmp_path / "some.ipynb", broken, "LatentExplorer(vae, data.test_images, order)")
    with pytest.raises(RuntimeError, match="no picture"):
        classroom.at_once(1, path)

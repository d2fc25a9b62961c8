"""Badges and the address to clone from are written by one script, and are those of the git remote."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from vae_utils import address, settings

HOME = "https://github.com/someone/five-superpowers"


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/someone/five-superpowers.git\n",
        "https://github.com/someone/five-superpowers/",
        "https://user:secret@github.com/someone/five-superpowers.git",
        "git@github.com:someone/five-superpowers.git",
        "ssh://git@github.com/someone/five-superpowers",
    ],
)
def test_a_remote_becomes_an_address_without_anybodys_password(remote):
    assert address.https_address(remote) == HOME


def test_a_folder_is_no_address(tmp_path):
    with pytest.raises(ValueError, match=r"'\.\./elsewhere'.*https://github\.com/OWNER/NAME"):
        address.https_address("../elsewhere")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert address.remote_address(tmp_path) == ""
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", f"{HOME}.git"], check=True)
    assert address.remote_address(tmp_path) == HOME


def test_badges_open_this_very_notebook_and_say_how_to_get_them_where_there_is_no_address():
    line = address.badges(HOME, "03_generation.ipynb")
    assert "colab.research.google.com/github/someone/five-superpowers/blob/HEAD/notebooks/03_generation.ipynb)" in line
    assert "mybinder.org/v2/gh/someone/five-superpowers/HEAD?labpath=notebooks%2F03_generation.ipynb)" in line
    assert "git remote add origin" in address.badges("", "03_generation.ipynb")
    assert address.badges("https://example.org/a/b") == "[Get the series](https://example.org/a/b)"


def notebook(*tags):
    cells = [nbformat.v4.new_code_cell("old", metadata={"tags": [tag]}) for tag in tags]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_notebook_gets_badges_and_a_setup_cell_that_runs(tmp_path):
    written = address.notebook_with(notebook("badges", "setup"), "01.ipynb", HOME)
    assert HOME.split("/")[-1] in written.cells[0].source
    command = [sys.executable, "-c", written.cells[1].source + "\nprint(environment.__file__)"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    beside, alone = (
        subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        for folder in (settings.project_root() / "notebooks", tmp_path)
    )
    assert Path(beside.stdout.strip()).parent == settings.project_root() / "vae_utils"
    assert f"get the whole series. {HOME}" in alone.stderr


def test_a_place_that_is_gone_is_named():
    with pytest.raises(ValueError, match="0 cells tagged 'setup'"):
        address.notebook_with(notebook("badges"), "01.ipynb", HOME)
    with pytest.raises(ValueError, match="<!-- badges -->"):
        address.readme_with("no place", HOME)


def test_readme_and_notebooks_are_up_to_date():
    assert address.write(address.remote_address(), check=True) == []

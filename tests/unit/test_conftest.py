"""Running the notebooks as tests touches nothing of the user's."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from vae_utils import settings


@pytest.fixture
def run(tmp_path):
    """Runs pytest with the project's conftest on a notebook `01_tiny`; results lie in a folder with files of the user's."""
    shutil.copy(settings.project_root() / "conftest.py", tmp_path)
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "01_tiny.ipynb")
    results = tmp_path / "results"
    (results / "mnist").mkdir(parents=True)
    for name in ("thesis.txt", "mnist/02_other.json", "mnist/01_tiny.json"):
        (results / name).write_text(json.dumps("mine"))

    def run(*options):
        command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", *options]
        variables = os.environ | {"VAE_RESULTS_DIR": str(results), "PYTHONPATH": str(settings.project_root())}
        variables.pop("PYTEST_ADDOPTS", None)
        subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL, check=True)
        return sorted(str(path.relative_to(results)) for path in results.rglob("*.*"))

    return run


def test_collecting_touches_no_result(run):
    assert run("--collect-only") == ["mnist/01_tiny.json", "mnist/02_other.json", "thesis.txt"]


def test_running_replaces_the_figures_of_this_notebook_alone(run):
    assert run() == ["mnist/02_other.json", "thesis.txt"]

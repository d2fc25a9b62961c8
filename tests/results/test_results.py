"""Did the notebooks measure, in this session, what the reference says? Runs after them."""

import json
from pathlib import Path

import pytest

from vae_utils import settings
from vae_utils.claims import read_results

REFERENCE = Path(__file__).parent.parent / "reference"
NOTEBOOKS = sorted(path.stem for path in (settings.project_root() / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_measured_figures_agree_with_the_reference(notebook, request):
    cells = (item for item in request.session.items if type(item).__name__ == "IPyNbCell")
    if not any(item.path.stem == notebook for item in cells):
        pytest.skip("the notebook was not run in this session: use make test")
    results = {
        dataset: result for (dataset, name), result in read_results(settings.results_dir()).items() if name == notebook
    }
    assert len(results) == 1, f"the notebook left {len(results)} result files in {settings.results_dir()}"
    [(dataset, result)] = results.items()
    assert all(result["verdicts"].values()), result["verdicts"]
    reference = REFERENCE / dataset / f"{notebook}.json"
    if not reference.exists():
        pytest.skip(f"no reference results for the data set {dataset}")
    expected = json.loads(reference.read_text(encoding="utf-8"))
    assert set(result["measured"]) == set(expected), "figures came or went: run make reference"
    off = {
        name: (value, expected[name])
        for name, value in result["measured"].items()
        if abs(value - expected[name]["mean"]) > expected[name]["tolerance"]
    }
    assert not off, f"outside the tolerance: {off}"

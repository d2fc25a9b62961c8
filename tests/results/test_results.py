"""Did the notebooks measure, in this session, what the reference says? Runs after them."""

import json
from pathlib import Path

import pytest

from vae_utils import notebooks, settings
from vae_utils.claims import read_results

REFERENCE = Path(__file__).parent.parent / "reference"


@pytest.mark.parametrize("notebook", [path.stem for path in notebooks.find([])])
def test_measured_figures_agree_with_the_reference(notebook):
    results = {
        dataset: result for (dataset, name), result in read_results(settings.results_dir()).items() if name == notebook
    }
    if not results:
        pytest.skip("the notebook was not run in this session: use make test")
    for dataset, result in results.items():
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

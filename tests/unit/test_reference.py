"""The tolerance of a reference figure comes from its spread over the seeds."""

import json

import pytest

from tools import reference
from tools.reference import with_tolerance


@pytest.mark.parametrize(
    ("dataset", "values", "mean", "tolerance"),
    [
        ("mnist", [1.0, 1.2, 1.1], 1.1, 0.4),  # four standard deviations
        ("digits", [1.0, 1.2, 1.1], 1.1, 0.6),  # six
        ("mnist", [50.1, 50.1, 50.1], 50.1, 1.0),  # two per cent
        ("digits", [50.1, 50.1, 50.1], 50.1, 5.01),  # ten
        ("mnist", [0.0, 0.0, 0.0], 0.0, 1.0),  # a count may be off by one
    ],
)
def test_tolerance_is_some_standard_deviations_a_share_of_the_size_or_one_of_a_count(dataset, values, mean, tolerance):
    reference = with_tolerance([{"figure": value} for value in values], dataset)
    assert reference == {"figure": {"mean": pytest.approx(mean), "tolerance": pytest.approx(tolerance, rel=0.01)}}


def test_room_is_made_for_a_run_that_lies_apart_and_only_for_that(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    path = tmp_path / "tests" / "reference" / "mnist" / "01_some.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: {"mean": 1.0, "tolerance": 0.2} for name in ("near", "far")}))
    run = {("mnist", "01_some"): {"measured": {"near": 1.05, "far": 1.3}}}
    monkeypatch.setattr(reference, "read_results", lambda folder: run)
    reference.widen(tmp_path)
    found = json.loads(path.read_text())
    assert found["near"]["tolerance"] == 0.2 and found["far"]["tolerance"] == pytest.approx(0.6)

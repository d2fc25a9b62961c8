"""The tolerance of a reference figure comes from its spread over the seeds."""

import pytest

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

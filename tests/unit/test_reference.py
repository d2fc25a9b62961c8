"""The tolerance of a reference figure comes from its spread over the seeds."""

import pytest
from reference import with_tolerance


@pytest.mark.parametrize(
    ("values", "mean", "tolerance"),
    [
        ([1.0, 1.2, 1.1], 1.1, 0.4),  # twice the range
        ([50.1, 50.1, 50.1], 50.1, 1.0),  # two per cent
        ([0.0, 0.0, 0.0], 0.0, 1.0),  # a count may be off by one
    ],
)
def test_tolerance_is_twice_the_range_two_per_cent_or_one_of_a_count(values, mean, tolerance):
    reference = with_tolerance([{"figure": value} for value in values])
    assert reference == {"figure": {"mean": pytest.approx(mean), "tolerance": pytest.approx(tolerance, rel=0.01)}}

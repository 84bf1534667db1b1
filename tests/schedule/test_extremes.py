"""Rounding at joins of growing cycles, and lengths too long for a float."""

import math

import numpy as np
import pytest
import torch

from ratecraft import ScheduleError, constant, epochs, linear, percent, steps
from ratecraft.schedule._pieces import slack


def join_of(cycle, grow, k):
    """Return where cycle k begins, in exact integers."""
    return cycle * (grow**k - 1) // (grow - 1)


def readings(curve, t):
    """Return the value at one time from each way to evaluate a curve."""
    return {
        "number": curve(t),
        "numpy": curve.values(np.array([t])).item(),
        "numpy, not sorted": curve.values(np.array([t, 0.0]))[0].item(),
        "torch": curve.values(torch.tensor([t, 0.0], dtype=torch.float64))[0].item(),
    }


# The logarithm alone is one cycle too low at some of these joins and one too high before others.
JOINS = [
    *[(grow, cycle, k) for grow in (2, 3, 10) for cycle in (7, 1000, 10**6) for k in (1, 5, 9)],
    *[(10, 7, 6), (3, 1000, 10), (2, 97, 8), (2, 97, 9), (2, 97, 11), (2, 1000, 11), (2, 9000, 7)],
]


@pytest.mark.parametrize(("grow", "cycle", "k"), JOINS)
def test_a_growing_cycle_owns_its_start_and_nothing_before_it(grow, cycle, k):
    curve = linear(1, 0, over=cycle).repeat(12, grow=grow, decay=0.5).resolve()
    join = join_of(cycle, grow, k)
    for reader, value in readings(curve, float(join)).items():
        assert value == pytest.approx(0.5**k, rel=1e-12), reader
    for slacks in (1.5, 2, 4):
        before = join - slacks * slack(join)
        for reader, value in readings(curve, before).items():
            assert value == pytest.approx(0, abs=1e-8), (reader, slacks)


@pytest.mark.parametrize(
    ("length", "units"),
    [
        (steps(1e308) + epochs(1e308), {"steps_per_epoch": 1}),  # the sum overflows
        (epochs(1e308), {"steps_per_epoch": 1e10}),
        (percent(1e300), {"total_steps": 10**18}),
        (steps(1.1e18), {}),
    ],
    ids=["sum", "product", "percent", "steps"],
)
def test_lengths_that_overflow_raise(length, units):
    with pytest.raises(ScheduleError, match=r"measures (inf|1\.1e\+18) steps; a length must be"):
        constant(1, over=length).resolve(**units)


@pytest.mark.parametrize("grow", [0.5, 0.97, 0.1, 0.01])
@pytest.mark.parametrize("cycle", [7, 10**6, 10**12])
def test_shrinking_cycles_are_defined_up_to_their_end(grow, cycle):
    # 3000 of them are as long as infinitely many in floats, so the last index is not determined.
    curve = linear(1, 0, over=cycle).repeat(3000, grow=grow).resolve()
    end = curve.natural_length
    assert end == pytest.approx(cycle / (1 - grow), rel=1e-12)
    for ulps in (*range(-12, 13), -100, -1000):
        for reader, value in readings(curve, end + ulps * math.ulp(end)).items():
            assert 0 <= value <= 1, (reader, ulps)

"""Ownership of times: the slack at joins, and left limits, at any size of t."""

import math
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ratecraft import Duration, constant, epochs, linear, staircase, steps, warmup
from ratecraft.schedule._pieces import SLACK, geometric_sum, slack

SIZES = [10**3, 10**6, 10**7, 10**9, 10**12]


def readings(curve, t):
    """Return the values at one time from the four ways to evaluate a curve."""
    times = np.array([t, t - 100.0])
    return {
        curve(t),
        curve.values(times[::-1])[1].item(),  # sorted: slices
        curve.values(times)[0].item(),  # not sorted: a chain of where
        curve.values(torch.from_numpy(times))[0].item(),
    }


def joined(at):
    return {
        "sequence": constant(1, over=at).then(constant(2)),
        "staircase": staircase([1, 2], at=[at]),
        "reversed": staircase([2, 1], at=[5], over=at + Duration(steps=5)).reversed(),
        "sum": constant(1, over=at - 50).then(constant(1, over=50), constant(2)),
        "over": (constant(1, over=at).then(constant(2))).over(at + 100),
    }


COMBINATIONS = list(joined(steps(1000)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_join_belongs_to_the_later_part_and_the_step_before_to_the_earlier(combination, size):
    curve = joined(steps(size))[combination].resolve()
    assert readings(curve, size) == {2}
    assert readings(curve, size - 1) == {1}
    assert readings(curve, size + 1) == {2}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_join_within_the_slack_belongs_to_the_later_part(combination, size):
    late = max(2 * math.ulp(size), 0.5e-9)  # the join is just after the step
    curve = joined(steps(size + late))[combination].resolve()
    assert readings(curve, size) == {2}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_join_beyond_the_slack_belongs_to_the_earlier_part(combination, size):
    late = max(16 * math.ulp(size), 3e-9)
    curve = joined(steps(size + late))[combination].resolve()
    assert readings(curve, size) == {1}


@pytest.mark.parametrize("size", [10**3, 10**6, 10**9])
def test_the_cycles_of_a_repeat_begin_at_their_steps(size):
    third = linear(1, 0, over=steps(1 / 3)).repeat().resolve()
    tenth = linear(1, 0, over=epochs(0.1)).repeat().resolve(steps_per_epoch=3)
    assert all(abs(x - 1) < 1e-5 for x in readings(third, size))
    assert all(abs(x - 1) < 1e-5 for x in readings(tenth, size * 3))


@pytest.mark.parametrize("total", SIZES)
@pytest.mark.parametrize("early", [0, 2, -2])
def test_the_end_value_is_the_left_limit_despite_rounding(total, early):
    nudge = early * math.ulp(total)
    curve = constant(1, over=steps(total + nudge)).then(constant(2)).resolve(total_steps=total + 5)
    assert curve(total) == 2
    curve = staircase([1, 2], at=[steps(total + nudge)]).resolve(total_steps=total)
    assert readings(curve, total) == {1}
    assert readings(curve, total + 1) == {1}


def test_the_slack_is_a_billionth_or_four_ulp():
    assert slack(0) == slack(1000) == SLACK == 1e-9
    for t in (1e8, 1e9, 1e15):
        assert 4 * math.ulp(t) <= slack(t) <= 8 * math.ulp(t)
    grid = [2.0**k for k in range(60)]
    assert [slack(t) for t in grid] == sorted(slack(t) for t in grid)


@pytest.mark.parametrize("growth", [0.5, 0.999, 1 - 1e-12, 1, 1 + 1e-12, 1.0009, 1.0011, 2, 3.5])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 50])
def test_a_geometric_sum_keeps_its_digits_near_growth_one(growth, n):
    expected = math.fsum(growth**i for i in range(n))
    assert geometric_sum(growth, n, math.expm1) == pytest.approx(expected, rel=1e-12)
    array = geometric_sum(growth, np.array([float(n)]), np.expm1)
    assert array[0] == pytest.approx(expected, rel=1e-12)


def test_parts_shorter_than_the_slack_are_skipped():
    nothing = steps(1e-12)
    s = constant(1, over=5).then(constant(9, over=nothing), warmup(5))
    assert s.resolve()(5) == pytest.approx(0)
    assert constant(1, over=5).then(constant(9, over=nothing)).resolve(total_steps=5)(5) == 1
    assert linear(1, 0.5, over=nothing).repeat(3, decay=0.5).resolve()(5) == 0.125
    cycles = constant(9, over=nothing).repeat(3)
    assert constant(1, over=5).then(cycles, constant(2)).resolve()(5) == 2


def test_a_long_sequence_of_fractions_does_not_drift():
    # 30,000 times 0.3 added up one by one misses the last joins by 1e-8 steps.
    parts = [constant(i, over=epochs(0.1)) for i in range(1, 30_001)]
    curve = constant(0, over=epochs(0.1)).then(*parts).resolve(steps_per_epoch=3)
    whole = list(range(0, 9000, 3))
    assert [curve(k) for k in whole] == [10 * k / 3 for k in whole]
    assert curve.values(whole).tolist() == [10 * k / 3 for k in whole]


def test_cycles_beyond_2_to_the_53_are_indexed_without_a_loop():
    # There i + 1 == i, so a loop that corrects the index by steps of 1 never ends.
    curve = constant(1, over=3).repeat(grow=1 + 2**-52).resolve()
    times = np.geomspace(1e16, 1e18, 300)  # a third of them need a correction
    with time_limit(seconds=30):
        assert [curve(t) for t in times.tolist()] == [1] * len(times)
        assert curve(1e18) == 1
    assert curve.values(times).tolist() == [1] * len(times)


@contextmanager
def time_limit(seconds):
    """Raise TimeoutError in the block after that time, so that a hang fails the test."""

    def fail(*_):
        raise TimeoutError(f"not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_a_join_near_the_start_of_a_long_reversal_is_not_missed() -> None:
    # Reversed, the join is 2e-4 after step 5: two ulp of the length.
    length = 1e12
    levels = staircase([2, 1], at=[steps(length - 5 - 2e-4)], over=steps(length))
    curve = levels.reversed().resolve(total_steps=steps(length))
    assert [curve(4), curve(5), curve(6)] == [1, 2, 2]
    assert curve.values([4, 5, 6]).tolist() == [1, 2, 2]
    assert curve.values([6, 5, 4]).tolist() == [2, 2, 1]

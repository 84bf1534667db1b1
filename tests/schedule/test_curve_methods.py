"""Methods of Curve: first_below, sum, diff, left, cursor and bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPOCH, schedules

from ratecraft import ScheduleError, constant, cosine, linear, steps, tokens, triangular, warmup

LONG = 200_000  # more than CHUNK_STEPS


def test_first_below() -> None:
    curve = linear(1, 0).resolve(total_steps=LONG)
    assert curve.first_below(0.25) == 150_001
    assert curve.first_below(1.1) == 0
    assert curve.first_below(0) is None
    assert curve.first_below(1 / LONG * 1.5) == LONG - 1


def test_sum_is_the_area() -> None:
    assert linear(1, 0).resolve(total_steps=4).sum() == 2.5
    assert constant(0.5).resolve(total_steps=LONG).sum() == LONG / 2
    values = cosine(1, 0).resolve(total_steps=LONG).values()
    assert cosine(1, 0).resolve(total_steps=LONG).sum() == pytest.approx(
        math.fsum(values), rel=1e-14
    )


def test_diff_returns_the_first_and_the_largest_difference() -> None:
    flat, falling = (
        constant(1).resolve(total_steps=LONG),
        constant(1).then(linear(1, 0, over=100)).resolve(total_steps=LONG),
    )
    assert flat.diff(flat) == (None, 0.0, None)
    difference = flat.diff(falling)
    assert difference.first == LONG - 99
    assert difference.at == LONG - 1
    assert difference.largest == pytest.approx(0.99)


def test_diff_of_runs_of_different_length_holds_the_shorter() -> None:
    short, long = warmup(4).resolve(total_steps=4), warmup(4).resolve(total_steps=8)
    assert short.diff(long) == (None, 0.0, None)
    cut = warmup(8).resolve(total_steps=4)
    assert cut.diff(warmup(8).resolve(total_steps=8)) == long_difference(cut)


def long_difference(cut):
    full = np.arange(8) / 8
    held = np.minimum(full, cut(10))
    gap = abs(full - held)
    return int((gap > 0).argmax()), gap.max(), int(gap.argmax())


def test_natural_length_is_the_schedules_own() -> None:
    assert warmup(500).resolve(total_steps=300).natural_length == 500
    assert warmup(500).resolve(total_steps=900).natural_length == 500
    assert cosine(1, 0).resolve(total_steps=900).natural_length == 900
    assert math.isinf(triangular(5).resolve().natural_length)


def test_endless_curves_and_token_clocks_raise_where_steps_are_needed() -> None:
    for method in (lambda c: c.sum(), lambda c: c.first_below(1), lambda c: c.diff(c), list, len):
        with pytest.raises(ScheduleError, match="needs total_steps="):
            method(constant(1).resolve())
        with pytest.raises(ScheduleError, match="token clock"):
            method(cosine(1, 0).resolve(total_steps=tokens(1e6)))


def test_iteration_yields_every_step_once() -> None:
    curve = cosine(1, 0).resolve(total_steps=steps(33.5))
    assert list(curve) == [curve(k) for k in range(34)]


# NaN and left limits -----------------------------------------------------------------------------


def test_there_is_no_value_at_nan():
    curve = cosine(1, 0).resolve(total_steps=4)
    for c in (curve, constant(1).resolve()):
        with pytest.raises(ScheduleError, match="no value at nan"):
            c(math.nan)
    for times in ([math.nan], [0.0, math.nan, 1.0], [[math.nan]]):
        with pytest.raises(ScheduleError, match="no value at nan"):
            curve.values(times)
    assert curve(math.inf) == 0
    assert curve(-math.inf) == 1


def test_the_left_limit_is_the_end_value_of_the_previous_part():
    curve = linear(1, 0.5, over=4).then(constant(0.1)).resolve(total_steps=8)
    assert [curve.left(t) for t in (-1, 0, 2, 4, 5, 8, 100)] == [1, 1, 0.75, 0.5, 0.1, 0.1, 0.1]
    assert [curve(t) for t in (0, 2, 4)] == [1, 0.75, 0.1]
    assert linear(1, 0.5).then(constant(0, over=0)).resolve(total_steps=8).left(8) == 0.5


# Cursors and bounds -------------------------------------------------------------------------------


@given(schedules(), st.lists(st.floats(0, 120), max_size=30))
def test_a_cursor_returns_the_values_of_its_curve(schedule, times):
    try:
        curve = schedule.resolve(total_steps=60, steps_per_epoch=EPOCH)
    except ScheduleError:
        return
    read = curve.cursor()
    for t in [0.0, *times, 59.0, 60.0, 1e9, 0.5]:
        assert read(t) == curve(t)


def test_a_cursor_raises_at_nan():
    read = cosine(1, 0).resolve(total_steps=4).cursor()
    assert read(1.0) == cosine(1, 0).resolve(total_steps=4)(1)
    assert read(-1.0) == 1
    with pytest.raises(ScheduleError, match="no value at nan"):
        read(math.nan)


def test_no_value_exceeds_the_bound():
    assert (3 * linear(1, -2)).resolve(total_steps=4).bound == 9
    assert constant(0).resolve().bound == 0

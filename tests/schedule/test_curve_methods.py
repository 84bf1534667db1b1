"""What a curve can be asked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPOCH, schedules

from ratecraft import ScheduleError, constant, cosine, linear, steps, tokens, triangular, warmup

LONG = 200_000  # more than the steps that are read at a time


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


def test_diff_says_where_two_curves_part_and_where_they_are_furthest() -> None:
    flat, bent = (
        constant(1).resolve(total_steps=LONG),
        constant(1).then(linear(1, 0, over=100)).resolve(total_steps=LONG),
    )
    assert flat.diff(flat) == (None, 0.0, None)
    difference = flat.diff(bent)
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


def test_an_endless_curve_and_a_token_clock_refuse_to_be_listed() -> None:
    for ask in (lambda c: c.sum(), lambda c: c.first_below(1), lambda c: c.diff(c), list, len):
        with pytest.raises(ScheduleError, match="needs total_steps="):
            ask(constant(1).resolve())
        with pytest.raises(ScheduleError, match="token clock"):
            ask(cosine(1, 0).resolve(total_steps=tokens(1e6)))


def test_iteration_gives_every_step_once() -> None:
    curve = cosine(1, 0).resolve(total_steps=steps(33.5))
    assert list(curve) == [curve(k) for k in range(34)]


# Times that are none, and left limits ------------------------------------------------------------


def test_there_is_no_value_at_nan():
    curve = cosine(1, 0).resolve(total_steps=4)
    for endless_or_not in (curve, constant(1).resolve()):
        with pytest.raises(ScheduleError, match="no value at nan"):
            endless_or_not(math.nan)
    for times in ([math.nan], [0.0, math.nan, 1.0], [[math.nan]]):
        with pytest.raises(ScheduleError, match="no value at nan"):
            curve.values(times)
    assert curve(math.inf) == 0
    assert curve(-math.inf) == 1


def test_the_left_limit_is_what_the_part_before_ends_at():
    curve = linear(1, 0.5, over=4).then(constant(0.1)).resolve(total_steps=8)
    assert [curve.left(t) for t in (-1, 0, 2, 4, 5, 8, 100)] == [1, 1, 0.75, 0.5, 0.1, 0.1, 0.1]
    assert [curve(t) for t in (0, 2, 4)] == [1, 0.75, 0.1]
    assert linear(1, 0.5).then(constant(0, over=0)).resolve(total_steps=8).left(8) == 0.5


# Cursors and bounds -------------------------------------------------------------------------------


@given(schedules(), st.lists(st.floats(0, 120), max_size=30))
def test_a_cursor_reads_what_its_curve_reads(schedule, times):
    try:
        curve = schedule.resolve(total_steps=60, steps_per_epoch=EPOCH)
    except ScheduleError:
        return
    read = curve.cursor()
    for t in [0.0, *times, 59.0, 60.0, 1e9, 0.5]:
        assert read(t) == curve(t)


def test_a_cursor_refuses_what_is_no_time():
    read = cosine(1, 0).resolve(total_steps=4).cursor()
    assert read(1.0) == cosine(1, 0).resolve(total_steps=4)(1)
    assert read(-1.0) == 1
    with pytest.raises(ScheduleError, match="no value at nan"):
        read(math.nan)


def test_no_value_exceeds_the_bound():
    assert (3 * linear(1, -2)).resolve(total_steps=4).bound == 9
    assert constant(0).resolve().bound == 0

"""`str` of a schedule is how it was written where functions for whole schedules are involved."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import VERBS, leaves, lengths, numbers, schedules

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    epochs,
    exp_range,
    knee,
    linear,
    linear_to_zero,
    noam,
    one_cycle,
    parse,
    percent,
    power_scheduler,
    restarts,
    trapezoid,
    triangular,
    triangular2,
    warmup,
    wsd,
)
from ratecraft.schedule._parser import RECIPES

WRITTEN = [
    (wsd(20), "wsd(20)"),
    (wsd(20, percent(10)), "wsd(20, percent(10))"),
    (
        wsd(epochs(1) + 100, shape="linear", end=0.1),
        'wsd(epochs(1) + 100, shape="linear", end=0.1)',
    ),
    (trapezoid(20, 30), "trapezoid(20, 30)"),
    (knee(percent(50), warmup=5), "knee(percent(50), warmup=5)"),
    (linear_to_zero(), "linear_to_zero()"),
    (noam(4000, 512), "noam(4000, 512)"),
    (power_scheduler(10, 100), "power_scheduler(10, 100)"),
    (one_cycle(three_phase=True), "one_cycle(three_phase=True)"),
    (triangular(5, None, 0.2), "triangular(5, None, 0.2)"),
    (triangular2(5, low=0), "triangular2(5, low=0)"),
    (exp_range(0.5, 2), "exp_range(0.5, 2)"),
    (restarts(10, grow=2), "restarts(10, grow=2)"),
    (0.1 * wsd(20), "0.1 * wsd(20)"),
    (wsd(20) * 3e-4, "0.0003 * wsd(20)"),
    (2 * (3 * wsd(20)), "2 * (3 * wsd(20))"),
    (3 * noam(4000, 512), "3 * noam(4000, 512)"),
    (noam(4000, 512).clip(high=1), "noam(4000, 512).clip(high=1)"),
    ((0.1 * wsd(20)).clip(high=0.05), "(0.1 * wsd(20)).clip(high=0.05)"),
    (wsd(20) * cosine(1, 0), "wsd(20) * cosine(1, 0)"),
    (cosine(1, 0) * (2 * wsd(20)), "cosine(1, 0) * (2 * wsd(20))"),
    (cosine(1, 0) * power_scheduler(9, 90), "cosine(1, 0) * power_scheduler(9, 90)"),
    (wsd(20).rescale(0.1, 1).over(50), "wsd(20).rescale(0.1, 1).over(50)"),
    (wsd(20).repeat(2, decay=0.5).reversed(), "wsd(20).repeat(2, decay=0.5).reversed()"),
    (warmup(5).then(wsd(20)), "warmup(5).then(wsd(20))"),
    (wsd(20).then(constant(1, 9)), "wsd(20).then(constant(1, over=9))"),
    (warmup(5).then(wsd(9).then(warmup(5))), "warmup(5).then(wsd(9).then(warmup(5)))"),
    (warmup(5).then(wsd(9)).then(warmup(5)), "warmup(5).then(wsd(9)).then(warmup(5))"),
    (warmup(5).then(2 * wsd(9)).then(warmup(5)), "warmup(5).then(2 * wsd(9)).then(warmup(5))"),
    ((2 * wsd(9)).then(warmup(5)), "(2 * wsd(9)).then(warmup(5))"),
    (linear_to_zero().over(100), "linear_to_zero().over(100)"),
    (linear_to_zero().over(100).over(50), "linear_to_zero().over(100).over(50)"),
    (wsd(np.int64(20), end=np.float32(0.5)), "wsd(20, end=0.5)"),
    (wsd(torch.tensor(20), end=np.float64(0.1)), "wsd(20, end=0.1)"),
]


@pytest.mark.parametrize(("schedule", "text"), WRITTEN, ids=[text for _, text in WRITTEN])
def test_str_is_the_call_of_a_function_for_a_whole_schedule(schedule, text):
    assert str(schedule) == text
    assert parse(text) == schedule
    assert str(parse(text)) == text


def test_every_function_for_a_whole_schedule_is_covered():
    assert all(any(text.startswith(f"{word}(") for _, text in WRITTEN) for word in RECIPES)


def test_repr_is_that_of_the_parts():
    parts = "warmup(20).then(constant(1)).then(one_minus_sqrt(1, 0, over=percent(20)))"
    assert repr(wsd(20)) == parts
    assert repr(0.1 * wsd(20)) == f"0.1 * {parts}"
    assert repr([wsd(20)]) == f"[{parts}]"


def test_equal_schedules_may_differ_in_str_and_not_in_hash():
    call, parts = trapezoid(20, 30), parse(repr(trapezoid(20, 30)))
    assert call == parts
    assert hash(call) == hash(parts)
    assert str(call) != str(parts)
    assert len({call, parts}) == 1


def test_a_changed_copy_does_not_keep_the_text():
    changed = linear_to_zero()._replace(end=0.5)
    assert str(changed) == "linear(1, 0.5)"


def test_the_order_of_calls_does_not_change_earlier_schedules():
    schedule = wsd(20)
    assert str(warmup(5).then(schedule)) == "warmup(5).then(wsd(20))"
    assert str(schedule) == "wsd(20)"
    assert schedule.then() is schedule


# Laws --------------------------------------------------------------------------------------------

SHAPES = st.sampled_from(["linear", "cosine", "1-sqrt", "square"])
POSITIVE = st.integers(1, 40)
CALLS = st.one_of(
    st.builds(wsd, lengths, lengths, SHAPES),
    st.builds(wsd, lengths, shape=SHAPES, end=numbers),
    st.builds(trapezoid, lengths, lengths, numbers),
    st.builds(knee, lengths, lengths),
    st.builds(linear_to_zero, lengths),
    st.builds(noam, POSITIVE, model_width=POSITIVE),
    st.builds(power_scheduler, POSITIVE, POSITIVE),
    st.builds(one_cycle, lengths, three_phase=st.booleans()),
    st.builds(triangular, POSITIVE, st.none() | POSITIVE),
    st.builds(triangular2, POSITIVE, low=numbers),
    st.builds(exp_range, st.sampled_from([0.5, 0.99]), POSITIVE),
    st.builds(restarts, POSITIVE, grow=st.sampled_from([1, 1.5, 2])),
    st.builds(restarts, n=st.integers(1, 4), end=numbers),
)


@st.composite
def written(draw):
    """Draw schedules of calls for whole schedules, single shapes and method calls."""
    parts = CALLS | CALLS | leaves()
    a = draw(parts)
    for verb in draw(st.lists(st.sampled_from([*VERBS, "then", "before"]), max_size=4)):
        try:
            match verb:
                case "then":
                    a = a.then(draw(parts).over(draw(lengths)))
                case "before":
                    a = draw(parts).over(draw(lengths)).then(a, draw(leaves()))
                case "product":
                    b = draw(parts)
                    a = a * (2 * b) if draw(st.booleans()) else b * a
                case "scale":
                    a = draw(numbers) * a
                case "repeat" | "endless":
                    a = a.repeat(draw(st.integers(1, 4)), decay=0.5)
                case "clip":
                    a = a.clip(high=draw(numbers))
                case "rescale":
                    a = a.rescale(draw(numbers), draw(numbers))
                case "over":
                    a = a.over(draw(lengths))
                case _:
                    a = a.reversed()
        except ScheduleError:
            pass
    return a


@given(written())
def test_parse_reads_str(schedule):
    again = parse(str(schedule))
    assert again == schedule
    assert str(again) == str(schedule)
    assert repr(again) == repr(schedule)
    assert hash(again) == hash(schedule)


@given(written())
def test_copies_keep_str(schedule):
    copies = [copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))]  # noqa: S301
    assert {str(other) for other in copies} == {str(schedule)}
    assert set(copies) == {schedule}


@given(schedules())
def test_str_is_repr_where_no_such_function_is_involved(schedule):
    assert str(schedule) == repr(schedule)


def test_a_shape_that_prints_as_another_stays_so():
    assert str(linear(0, 1, over=5)) == repr(linear(0, 1, over=5)) == "warmup(5)"

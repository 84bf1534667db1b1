"""What a mutation run (see docs/benchmarks.md) found that no other test would have noticed."""

import json

import numpy as np
import pytest

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    custom,
    decay,
    epochs,
    levels,
    linear,
    multiplicative,
    percent,
    polynomial,
    staircase,
    steps,
    to_dict,
    tokens,
    warmup,
)


def test_what_is_left_for_an_open_part_is_exact_and_a_rounding_is_nothing():
    rounded = (
        warmup(epochs(0.1) + epochs(0.2))
        .then(cosine(1, 0))
        .resolve(total_steps=epochs(0.3), steps_per_epoch=10)
    )
    assert rounded.natural_length == pytest.approx(3, abs=1e-9)
    assert warmup(steps(9.5)).then(cosine(1, 0)).resolve(total_steps=10).natural_length == 10


def test_the_part_after_an_endless_one_is_the_one_that_is_named():
    with pytest.raises(ScheduleError, match=r"^constant\(3, over=4\) comes after constant\(2\)"):
        warmup(4).then(constant(2)).then(constant(3, over=4)).resolve()


def test_a_sequence_of_no_length_reads_its_last_end():
    parts = [constant(value, over=0) for value in (1, 2, 3)]
    assert parts[0].then(*parts[1:]).resolve(total_steps=4)(2) == 3


@pytest.mark.parametrize(
    "body",
    [
        cosine(over=percent(50)) * warmup(4),
        warmup(4) * cosine(over=percent(50)),
        warmup(4).over(percent(50)),
        staircase([1, 0.5], at=[percent(50)], over=10),
        staircase([1, 0.5], every=percent(50), over=10),
    ],
    ids=repr,
)
def test_a_closed_cycle_that_names_percent_is_circular(body):
    with pytest.raises(ScheduleError, match="percent is of the cycle, whose length it would"):
        body.repeat(2)


def test_a_closed_cycle_without_percent_is_none():
    assert warmup(4).over(5).repeat(2).resolve(total_steps=10).natural_length == 10


def test_percent_in_every_leaf_is_of_the_run():
    stairs = staircase([1, 0.5], at=[percent(50)]).resolve(total_steps=10)
    assert [stairs(4), stairs(5)] == [1, 0.5]
    assert custom(lambda t: t, over=percent(50)).resolve(total_steps=10)(9) == pytest.approx(5)


def test_joins_inside_a_stretched_cycle_are_as_sharp_as_outside():
    # In cycle 10 a nanosecond of slack inside would be a microsecond outside.
    curve = levels([(5, 1), (5, 0.1)]).repeat(grow=2).resolve()
    start = 10 * (2**10 - 1)
    join = start + 5 * 2**10
    for t, value in ((join - 1e-6, 1), (join, 0.1), (start - 1e-6, 0.1), (start, 1)):
        assert curve(t) == value
        assert curve.values([t])[0] == value


def test_a_function_is_asked_for_every_time_and_for_left_limits():
    curve = custom(lambda t: t, over=10).resolve()
    times = [0, 0.25, 0.5, 1, 2.75, 9.5]
    assert [curve(t) for t in times] == times
    assert curve.values(times).tolist() == times
    assert custom(lambda t: t // 1, over=1).resolve()(5) == 0
    assert custom(lambda t: t // 30, over=60).resolve()(60) == 1


def test_left_limits_within_the_first_step():
    assert levels([(steps(0.5), 1), (5, 0.1)]).resolve().left(0.5) == 1


def test_limits_may_meet_and_are_named():
    assert cosine().clip(0.5, 0.5).resolve(total_steps=4)(0) == 0.5
    with pytest.raises(TypeError, match=r"^\.clip\(low=\) must be a number"):
        cosine().clip("1")
    for make, what in (
        (lambda: cosine().rescale("0", 1), r"^\.rescale\(low\) must be"),
        (lambda: cosine().rescale(0, "1"), r"^\.rescale\(high\) must be"),
        (lambda: cosine().repeat(2, grow="2"), "^grow= must be"),
        (lambda: cosine().repeat(2, decay="2"), "^decay= must be"),
        (lambda: cosine(over=4).over("4"), r"^\.over\(\) must be"),
        (lambda: cosine().over("4"), r"^\.over\(\) must be"),
    ):
        with pytest.raises(TypeError, match=what):
            make()


def test_numbers_of_numpy_become_pythons():
    assert repr(cosine().repeat(np.int64(3))) == "cosine(1, 0).repeat(3)"
    assert repr(staircase([-0.0, np.float64(2)], at=[5])) == "staircase([0, 2], at=[5])"


def test_a_height_that_no_float_holds_is_refused():
    with pytest.raises(ScheduleError, match="too long or too high"):
        constant(1, over=1).repeat(10**6, decay=2).resolve()


def test_curves_that_differ_at_the_first_step_only():
    one, other = (
        linear(1, 0).resolve(total_steps=4),
        levels([(1, 2), (3, 0)]).resolve(total_steps=4),
    )
    assert levels([(1, 1), (3, 0)]).resolve(total_steps=4).diff(other) == (0, 1.0, 0)
    assert one.diff(one) == (None, 0.0, None)


def test_a_line_from_above_one_is_no_warm_up():
    assert repr(linear(1.5, 1, over=10)) == "linear(1.5, 1, over=10)"
    assert repr(linear(1, 1.5, over=10)) == "linear(1, 1.5, over=10)"


def test_what_is_kept_is_pythons_own():
    data = to_dict(cosine(np.float64(1), np.float32(0.5)).repeat(np.int64(3)))
    assert json.loads(json.dumps(data)) == data
    assert type(cosine().repeat(np.int64(3)).n) is int
    stairs = staircase([1, np.int64(2)], at=[5])
    assert {type(value) for value in stairs.values} == {float}
    ramp = polynomial(1, np.float64(0), np.float64(2))
    assert (type(ramp.end), type(ramp.parameters[0])) == (float, float)


def test_less_than_one_of_a_unit_is_positive_too():
    assert repr(epochs(0.5) + 100) == "epochs(0.5) + 100"
    assert repr(100 - epochs(0.5)) == "100 - epochs(0.5)"


def test_a_run_in_tokens_counts_tokens_also_where_the_batches_are_known():
    curve = linear(1, 0).resolve(total_steps=tokens(1000), tokens_per_step=10, steps_per_epoch=5)
    assert curve.horizon.clock == "tokens"
    with pytest.raises(ScheduleError, match="not defined on the token clock"):
        len(curve)


def test_percent_of_a_table_of_products_is_of_the_run():
    assert multiplicative(lambda k: 0.5, over=percent(50)).resolve(total_steps=8)(7) == 0.125


def test_bounds_are_bounds():
    assert decay(0.5).resolve().bound == 1
    assert linear(-3, 1).clip(high=1).resolve(total_steps=4).bound >= 3


def test_an_object_that_is_called_is_named_by_its_kind():
    class Bumpy:
        def __call__(self, t):
            return 1.0

    assert repr(custom(Bumpy())).endswith("Bumpy>)")

"""Tests for mutants that no other test caught; see docs/explanation/benchmarks.md."""

import numpy as np
import pytest

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    custom,
    decay,
    epochs,
    linear,
    multiplicative,
    percent,
    polynomial,
    staircase,
    steps,
    tokens,
    warmup,
)


def test_the_room_of_an_open_part_is_exact():
    rounded = (
        warmup(epochs(0.1) + epochs(0.2))
        .then(cosine(1, 0))
        .resolve(total_steps=epochs(0.3), steps_per_epoch=10)
    )
    assert rounded.natural_length == pytest.approx(3, abs=1e-9)
    assert warmup(steps(9.5)).then(cosine(1, 0)).resolve(total_steps=10).natural_length == 10


def test_the_part_after_an_endless_one_is_in_the_message():
    with pytest.raises(ScheduleError, match=r"^constant\(3, over=4\) follows constant\(2\)"):
        warmup(4).then(constant(2)).then(constant(3, over=4)).resolve()


def test_a_sequence_of_length_zero_has_its_last_end_value():
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
def test_repeating_a_closed_cycle_with_percent_raises(body):
    with pytest.raises(ScheduleError, match="percent is of the cycle, so it cannot set"):
        body.repeat(2)


def test_a_closed_cycle_without_percent_can_be_repeated():
    assert warmup(4).over(5).repeat(2).resolve(total_steps=10).natural_length == 10


def test_percent_in_every_leaf_is_of_the_run():
    stairs = staircase([1, 0.5], at=[percent(50)]).resolve(total_steps=10)
    assert [stairs(4), stairs(5)] == [1, 0.5]
    assert custom(lambda t: t, over=percent(50)).resolve(total_steps=10)(9) == pytest.approx(5)


def test_joins_inside_a_stretched_cycle_are_as_sharp_as_outside():
    # In cycle 10 a slack of 1e-9 inside the cycle would be 1e-6 outside.
    curve = staircase([1, 0.1], lengths=[5, 5]).repeat(grow=2).resolve()
    start = 10 * (2**10 - 1)
    join = start + 5 * 2**10
    for t, value in ((join - 1e-6, 1), (join, 0.1), (start - 1e-6, 0.1), (start, 1)):
        assert curve(t) == value
        assert curve.values([t])[0] == value


def test_a_custom_function_is_called_at_every_time_and_for_left_limits():
    curve = custom(lambda t: t, over=10).resolve()
    times = [0, 0.25, 0.5, 1, 2.75, 9.5]
    assert [curve(t) for t in times] == times
    assert curve.values(times).tolist() == times
    assert custom(lambda t: t // 1, over=1).resolve()(5) == 0
    assert custom(lambda t: t // 30, over=60).resolve()(60) == 1


def test_left_limits_within_the_first_step():
    assert staircase([1, 0.1], lengths=[steps(0.5), 5]).resolve().left(0.5) == 1


def test_equal_limits_are_valid_and_wrong_types_raise_with_the_name():
    assert cosine().clip(0.5, 0.5).resolve(total_steps=4)(0) == 0.5
    with pytest.raises(TypeError, match=r"^\.clip\(low=\) must be a number"):
        cosine().clip("1")
    for make, message in (
        (lambda: cosine().rescale("0", 1), r"^\.rescale\(low\) must be"),
        (lambda: cosine().rescale(0, "1"), r"^\.rescale\(high\) must be"),
        (lambda: cosine().repeat(2, grow="2"), "^grow= must be"),
        (lambda: cosine().repeat(2, decay="2"), "^decay= must be"),
        (lambda: cosine(over=4).over("4"), r"^\.over\(\) must be"),
        (lambda: cosine().over("4"), r"^\.over\(\) must be"),
    ):
        with pytest.raises(TypeError, match=message):
            make()


def test_numpy_numbers_become_python_numbers_in_the_text():
    assert repr(cosine().repeat(np.int64(3))) == "cosine(1, 0).repeat(3)"
    assert repr(staircase([-0.0, np.float64(2)], at=[5])) == "staircase([0, 2], at=[5])"


def test_a_cycle_height_that_overflows_raises():
    with pytest.raises(ScheduleError, match="too long or too high"):
        constant(1, over=1).repeat(10**6, decay=2).resolve()


def test_curves_that_differ_at_the_first_step_only():
    line, other = (
        linear(1, 0).resolve(total_steps=4),
        staircase([2, 0], lengths=[1, 3]).resolve(total_steps=4),
    )
    assert staircase([1, 0], lengths=[1, 3]).resolve(total_steps=4).diff(other) == (0, 1.0, 0)
    assert line.diff(line) == (None, 0.0, None)


def test_a_line_from_above_one_is_not_printed_as_a_warm_up():
    assert repr(linear(1.5, 1, over=10)) == "linear(1.5, 1, over=10)"
    assert repr(linear(1, 1.5, over=10)) == "linear(1, 1.5, over=10)"


def test_stored_values_are_python_numbers():
    fall = cosine(np.float64(1), np.float32(0.5))
    assert (type(fall.start), type(fall.end)) == (float, float)
    assert type(cosine().repeat(np.int64(3)).n) is int
    stairs = staircase([1, np.int64(2)], at=[5])
    assert {type(value) for value in stairs.values} == {float}
    ramp = polynomial(1, np.float64(0), np.float64(2))
    assert (type(ramp.end), type(ramp.parameters[0])) == (float, float)


def test_the_text_of_fractions_of_a_unit():
    assert repr(epochs(0.5) + 100) == "epochs(0.5) + 100"
    assert repr(100 - epochs(0.5)) == "100 - epochs(0.5)"


def test_a_run_in_tokens_is_on_the_token_clock_even_with_tokens_per_step():
    curve = linear(1, 0).resolve(total_steps=tokens(1000), tokens_per_step=10, steps_per_epoch=5)
    assert curve.horizon.clock == "tokens"
    with pytest.raises(ScheduleError, match="not defined on the token clock"):
        len(curve)


def test_percent_in_multiplicative_is_of_the_run():
    assert multiplicative(lambda k: 0.5, over=percent(50)).resolve(total_steps=8)(7) == 0.125


def test_bound_is_an_upper_bound():
    assert decay(0.5).resolve().bound == 1
    assert linear(-3, 1).clip(high=1).resolve(total_steps=4).bound >= 3


def test_a_callable_object_is_printed_by_its_class():
    class Bumpy:
        def __call__(self, t):
            return 1.0

    assert repr(custom(Bumpy())).endswith("Bumpy>)")

"""Lengths: arithmetic, text and measured size."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import lengths

from ratecraft import (
    Duration,
    ScheduleError,
    constant,
    epochs,
    linear,
    parse_length,
    percent,
    samples,
    steps,
    tokens,
    warmup,
)
from ratecraft.schedule._duration import Horizon, as_duration, as_number, number_text

SIZES = {"epochs": 100, "samples": 32, "tokens": 1000}
STEPS, _ = Horizon.of_run(None, SIZES)


def test_sums_and_differences_keep_each_unit_apart():
    length = percent(30) + epochs(2) + 100 - steps(1) + samples(5) - tokens(7)
    assert length == Duration(percent=30, epochs=2, steps=99, samples=5, tokens=-7)
    assert epochs(1) + epochs(2) == epochs(3)
    assert 100 + epochs(1) == epochs(1) + 100
    assert 100 - epochs(1) == Duration(epochs=-1, steps=100)
    assert np.int64(5) + epochs(1) == epochs(1) + 5


def test_equal_lengths_have_equal_hashes():
    assert len({steps(5), steps(5.0), 2 + steps(3), steps(6) - 1}) == 1
    assert epochs(1) != steps(1)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (steps(500), "steps(500)"),
        (steps(1.5), "steps(1.5)"),
        (steps(0), "steps(0)"),
        (steps(5) - 5, "steps(0)"),
        (epochs(1) + 100, "epochs(1) + 100"),
        (100 + epochs(1), "epochs(1) + 100"),
        (100 - epochs(1), "100 - epochs(1)"),
        (percent(30) - 1, "percent(30) - 1"),
        (percent(30) - steps(0.5), "percent(30) - steps(0.5)"),
        (0 - epochs(1), "0 - epochs(1)"),
        (0 - steps(3), "0 - steps(3)"),
        (0 - epochs(1) - 2, "0 - epochs(1) - 2"),
        (epochs(1) - percent(10) + 5, "epochs(1) + 5 - percent(10)"),
        (tokens(3e9), "tokens(3000000000)"),
        (tokens(3e15), "tokens(3000000000000000.0)"),
        (samples(9) + steps(1e15), "steps(1000000000000000.0) + samples(9)"),
        (epochs(0.1) + epochs(0.2), "epochs(0.30000000000000004)"),
    ],
)
def test_the_text_names_positive_units_first_and_whole_steps_as_ints(length, text):
    assert repr(length) == text
    assert parse_length(text) == length


def test_as_an_argument_whole_steps_are_a_plain_int():
    assert str(steps(500)) == "500"
    assert str(steps(1.5)) == "steps(1.5)"
    assert str(epochs(1) + 100) == "epochs(1) + 100"
    assert repr(warmup(steps(500))) == "warmup(500)"


@given(lengths)
def test_the_text_of_a_length_reads_back_as_an_equal_one(length):
    length = as_duration(length, "a length")
    again = parse_length(repr(length))
    assert again == length
    assert hash(again) == hash(length)
    assert repr(again) == repr(length)
    assert parse_length(str(length)) == length


@given(lengths, lengths)
def test_a_sum_measures_the_sum(a, b):
    a, b = as_duration(a, "a"), as_duration(b, "b")

    def size(length):
        # An offset keeps negative differences measurable.
        return STEPS.measure(length + 10_000, 1000, "x") - 10_000

    assert size(a + b) == pytest.approx(size(a) + size(b), abs=1e-9)
    assert size(a - b) == pytest.approx(size(a) - size(b), abs=1e-9)


def test_each_unit_has_the_size_of_the_horizon():
    assert STEPS.measure(percent(10), 250, "x") == 25
    assert STEPS.measure(epochs(0.5), 250, "x") == 50
    assert STEPS.measure(samples(64), 250, "x") == 2
    assert STEPS.measure(tokens(500), 250, "x") == 0.5
    assert STEPS.measure(percent(100) - 1, 5, "x") == 4


def test_on_the_token_clock_everything_is_measured_in_tokens():
    clock, _ = Horizon.of_run(tokens(1e6), SIZES)
    assert clock.measure(tokens(7), 1e6, "x") == 7
    assert clock.measure(steps(2), 1e6, "x") == 2000
    assert clock.measure(epochs(1), 1e6, "x") == 100_000
    assert clock.measure(samples(16), 1e6, "x") == 500
    assert clock.measure(percent(10), 1e6, "x") == 100_000


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (steps(1), r"needs tokens_per_step= \(tokens per step\)"),
        (
            epochs(1),
            r"needs steps_per_epoch= \(steps per epoch\) and tokens_per_step= \(tokens per step\)",
        ),
        (samples(1), r"needs tokens_per_step= \(tokens per step\)"),
    ],
)
def test_on_the_token_clock_other_units_need_their_size(length, words):
    clock, _ = Horizon.of_run(tokens(1e6), {})
    with pytest.raises(ScheduleError, match=words):
        clock.measure(length, 1, "x")


@pytest.mark.parametrize(
    ("length", "size"),
    [(steps(5) - epochs(1), "-95"), (percent(1) - 20, "-10"), (steps(2e18), "2e+18")],
)
def test_an_invalid_length_raises_with_its_size(length, size):
    with pytest.raises(ScheduleError) as error_info:
        STEPS.measure(length, 1000, "here")
    assert str(error_info.value).startswith(f"here: {length} measures {size} steps")


@pytest.mark.parametrize("word", [steps, epochs, percent, samples, tokens])
def test_negative_lengths_raise(word):
    with pytest.raises(ScheduleError, match=rf"{word.__name__}\(-1\): a length must be >= 0"):
        word(-1)


def test_multiplying_a_length_raises_with_what_to_write():
    for product in (lambda: 3 * epochs(1), lambda: epochs(1) * 3, lambda: epochs(1) * epochs(2)):
        with pytest.raises(TypeError, match=r"write the product inside, e\.g\. epochs\(2 \* n\)"):
            product()


@pytest.mark.parametrize("other", [0.5, "3", None, True])
def test_adding_other_types_to_a_length_raises(other):
    for operate in (lambda: epochs(1) + other, lambda: other - epochs(1)):
        with pytest.raises(TypeError, match="must be"):
            operate()


def test_a_bare_float_raises_with_both_readings():
    with pytest.raises(TypeError) as error_info:
        as_duration(0.1, "over=")
    assert "write percent(10) for a share of the run, or steps(0.1) for steps" in str(
        error_info.value
    )


def test_a_sum_too_large_for_a_float_raises():
    with pytest.raises(ScheduleError, match="must be finite"):
        steps(1.7e308) + steps(1.7e308)


def test_a_length_cannot_be_changed_and_copies_are_equal():
    length = epochs(1) + 100
    with pytest.raises(AttributeError, match="cannot change 'steps' of a Duration"):
        length.steps = 3
    assert pickle.loads(pickle.dumps(length)) == copy.copy(length) == length  # noqa: S301


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_reads_back_to_the_last_bit(number):
    number = as_number(number, "x")
    text = number_text(number)
    assert float(text) == number
    assert len(text) <= len(repr(number))


def test_two_infinite_units_raise():
    lengths = epochs(1e308) - samples(1e308)
    with pytest.raises(ScheduleError, match="measures"):
        constant(1, over=lengths).resolve(steps_per_epoch=1e10, samples_per_step=1e-10)


def test_a_run_without_a_step_raises():
    for total in (0, steps(1e-12), steps(1e-9)):
        with pytest.raises(ScheduleError, match="a run needs at least one step"):
            linear(1, 0).resolve(total_steps=total)
    assert len(linear(1, 0).resolve(total_steps=steps(2e-9))) == 1

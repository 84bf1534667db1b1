"""Curve: values as arrays, single values, length and clocks."""

import math
import time

import numpy as np
import pytest
import torch

from ratecraft import (
    ScheduleError,
    constant,
    cooldown,
    cosine,
    custom,
    epochs,
    linear,
    percent,
    samples,
    staircase,
    steps,
    tokens,
    warmup,
)

CURVE = warmup(10).then(cosine(1, 0.1)).resolve(total_steps=100)
PAST_FLOAT32 = 2**24 + 1


# Arrays ------------------------------------------------------------------------------------------


def test_values_returns_every_step_of_the_run():
    values = CURVE.values()
    assert values.dtype == np.float64
    assert values.shape == (100,)
    assert values.tolist() == [CURVE(k) for k in range(100)] == list(CURVE)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float64"])
def test_numpy_steps_of_any_exact_type_give_float64(dtype):
    values = CURVE.values(np.arange(50, dtype=dtype))
    assert values.dtype == np.float64
    assert values.tolist() == CURVE.values()[:50].tolist()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float64])
def test_torch_steps_give_a_float64_tensor(dtype):
    values = CURVE.values(torch.arange(50, dtype=dtype))
    assert values.dtype == torch.float64
    assert values.device == torch.device("cpu")
    np.testing.assert_allclose(values.numpy(), CURVE.values()[:50], rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "steps_array",
    [
        np.arange(3, dtype=np.float32),
        np.arange(3, dtype=np.float16),
        torch.arange(3, dtype=torch.float32),
        torch.arange(3, dtype=torch.bfloat16),
    ],
)
def test_small_float_dtypes_raise(steps_array):
    with pytest.raises(TypeError, match=r"float.* cannot hold 2\*\*24 \+ 1; give int64 or float64"):
        CURVE.values(steps_array)


@pytest.mark.parametrize(
    "steps_array",
    [
        np.array([True]),
        np.array([1j]),
        torch.tensor([True]),
        torch.tensor([1j]),
        ["1"],
        [True],
        [None],
    ],
)
def test_non_numeric_steps_raise(steps_array):
    with pytest.raises(TypeError, match="step numbers"):
        CURVE.values(steps_array)


def test_values_takes_lists_ranges_and_numbers():
    assert CURVE.values([5, 5.5]).tolist() == [0.5, 0.55]
    assert CURVE.values(range(3)).tolist() == [0, 0.1, 0.2]
    assert CURVE.values(5) == 0.5
    assert CURVE.values(np.int64(5)) == 0.5
    assert CURVE.values(np.float64(5)) == 0.5
    assert CURVE.values(torch.tensor(5)).item() == 0.5


EVERY_PIECE = {
    "ramp": cosine(),
    "constant": constant(2),
    "staircase": staircase([1, 2, 3], every=7),
    "level at 0": staircase([1, 2], at=[0]),
    "sequence": warmup(10).then(linear(1, 0)),
    "product": warmup(10) * linear(1, 0),
    "scale": 3 * cosine(),
    "clip": cosine().clip(0.2, 0.8),
    "low clip": cosine().clip(low=0.2),
    "rescale": cosine().rescale(1, 3),
    "repeat": linear(1, 0).repeat(3),
    "growing repeat": linear(1, 0).repeat(3, grow=2, decay=0.5),
    "endless repeat": linear(1, 0, over=7).repeat(),
    "reversed": warmup(10).then(linear(1, 0)).reversed(),
    "over": linear(1, 0, over=50).over(20),
    "custom": custom(lambda t: t // 3),
    "empty": constant(2, over=0).repeat(3),
}


@pytest.mark.parametrize("name", EVERY_PIECE)
@pytest.mark.parametrize("shape", [(0,), (1,), (24,), (4, 6), (2, 3, 4), (0, 3), ()])
def test_an_array_of_any_shape_keeps_its_shape(name, shape):
    curve = EVERY_PIECE[name].resolve(total_steps=steps(33.5))
    times = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    expected = np.array([curve(t) for t in times.ravel()]).reshape(shape)
    np.testing.assert_allclose(curve.values(times), expected, rtol=0, atol=1e-14)
    tensor = curve.values(torch.from_numpy(times))
    assert tuple(tensor.shape) == shape
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", EVERY_PIECE)
def test_values_does_not_modify_its_argument(name):
    curve = EVERY_PIECE[name].resolve(total_steps=40)
    for times in (np.arange(-3.0, 50), np.arange(50.0, -3, -1), torch.arange(-3.0, 50).double()):
        before = times.copy() if isinstance(times, np.ndarray) else times.clone()
        curve.values(times)
        assert (times == before).all()


def test_large_step_numbers_are_exact():
    curve = staircase([1, 2], at=[PAST_FLOAT32]).resolve()
    for array in (np.array, torch.tensor):
        values = curve.values(array([PAST_FLOAT32 - 1, PAST_FLOAT32]))
        assert values.tolist() == [1, 2]


def test_values_have_no_gradient():
    times = torch.arange(5, dtype=torch.float64)
    assert not CURVE.values(times).requires_grad


# Single values -----------------------------------------------------------------------------------


def test_a_call_returns_a_python_float():
    for schedule in EVERY_PIECE.values():
        curve = schedule.resolve(total_steps=40)
        for t in (0, 1, 7, 7.5, 39, 40, 41):
            assert type(curve(t)) is float


def test_numpy_and_torch_scalars_are_valid_times():
    assert CURVE(np.int64(5)) == CURVE(np.float64(5)) == CURVE(torch.tensor(5)) == 0.5


@pytest.mark.parametrize("t", [-1, -0.5, -1e300, -math.inf])
def test_before_zero_the_value_at_zero_holds(t):
    for schedule in EVERY_PIECE.values():
        curve = schedule.resolve(total_steps=40)
        assert curve(t) == curve(0)
        assert curve.values([t]).item() == curve(0)


@pytest.mark.parametrize("t", [40, 41, 1e300, math.inf])
def test_past_the_end_the_last_value_holds(t):
    for schedule in EVERY_PIECE.values():
        curve = schedule.resolve(total_steps=40)
        assert curve(t) == curve(40)
        assert curve.values([t]).item() == curve(40)


def test_an_endless_curve_is_finite_at_infinity():
    assert staircase([1, 2], at=[30]).resolve()(math.inf) == 2
    assert math.isfinite(warmup(7).repeat(grow=1.5).resolve()(1e300))


def test_the_billionth_step_costs_as_much_as_the_tenth():
    curve = linear(1, 0, over=4).repeat(grow=1.001).resolve()

    def cost(t):
        best = math.inf
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(200):
                curve(t)
            best = min(best, time.perf_counter() - begin)
        return best

    assert cost(10**9) < 20 * cost(10)


# Length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "count"),
    [
        (4, 4),
        (steps(33.5), 34),
        (epochs(0.1) + epochs(0.2), 3),  # measures 3.0000000000000004
        (steps(0.25), 1),
        (steps(4 + 1e-12), 4),
        (epochs(2) - 1, 19),
    ],
)
def test_the_number_of_steps_is_the_total_rounded_up(total, count):
    curve = linear(1, 0).resolve(total_steps=total, steps_per_epoch=10)
    assert len(curve) == len(list(curve)) == len(curve.values()) == count


def test_an_endless_curve_has_no_length():
    curve = constant(1).resolve()
    assert curve.length == math.inf
    with pytest.raises(ScheduleError, match=r"len\(\) needs total_steps=: this curve is endless"):
        len(curve)
    with pytest.raises(ScheduleError, match=r"values\(\) without steps needs total_steps="):
        curve.values()
    assert curve.values([0, 10**9]).tolist() == [1, 1]


def test_repr_of_a_curve():
    assert repr(warmup(4).resolve(total_steps=10)) == "<Curve of warmup(4), 10 steps>"
    assert repr(warmup(4).resolve()) == "<Curve of warmup(4), endless steps>"
    curve = warmup(tokens(9)).resolve(total_steps=tokens(90))
    assert repr(curve) == "<Curve of warmup(tokens(9)), 90 tokens>"
    assert warmup(4).resolve(total_steps=10).schedule == warmup(4)


# Clocks ------------------------------------------------------------------------------------------


def test_on_the_step_clock_tokens_are_divided_by_those_per_step():
    curve = warmup(tokens(1000)).resolve(total_steps=100, tokens_per_step=250)
    assert [curve(k) for k in (0, 1, 2, 4, 5)] == [0, 0.25, 0.5, 1, 1]
    assert warmup(samples(64)).resolve(total_steps=100, samples_per_step=32)(1) == 0.5
    assert constant(1).resolve(total_steps=tokens(1000) + 1, tokens_per_step=250).length == 5


def test_on_the_token_clock_t_counts_tokens_consumed_before_the_step():
    curve = warmup(tokens(1000)).then(linear(1, 0)).resolve(total_steps=tokens(11_000))
    consumed = np.cumsum([0, 300, 300, 600, 4800, 5000])
    assert curve.length == 11_000
    expected = [0, 0.3, 0.6, 0.98, 0.5, 0]
    assert [curve(t) for t in consumed] == pytest.approx(expected)
    assert curve.values(consumed).tolist() == pytest.approx(expected)


def test_on_the_token_clock_percent_is_of_all_tokens():
    curve = constant(1).then(cooldown(percent(20))).resolve(total_steps=tokens(10_000))
    assert curve(9000) == 0.5


def test_on_the_sample_clock_t_counts_samples():
    curve = warmup(samples(640)).resolve(total_steps=samples(6400))
    assert curve(320) == 0.5


@pytest.mark.parametrize("unit", ["tokens", "samples"])
def test_len_and_values_raise_on_another_clock(unit):
    length = tokens(100) if unit == "tokens" else samples(100)
    curve = linear(1, 0).resolve(total_steps=length)
    for count in (lambda: len(curve), curve.values, lambda: list(curve)):
        with pytest.raises(ScheduleError, match=rf"the {unit[:-1]} clock.*positions in {unit}"):
            count()
    assert curve.values([50]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (10, r"needs tokens_per_step= \(tokens per step\)"),
        (
            epochs(1),
            r"needs steps_per_epoch= \(steps per epoch\) and tokens_per_step= \(tokens per step\)",
        ),
    ],
)
def test_on_the_token_clock_steps_and_epochs_need_their_size(length, words):
    with pytest.raises(ScheduleError, match=words):
        warmup(length).resolve(total_steps=tokens(1000))
    curve = warmup(length).resolve(
        total_steps=tokens(10_000), tokens_per_step=50, steps_per_epoch=10
    )
    assert curve(250) == 0.5


def test_a_total_of_several_units_stays_on_the_step_clock():
    assert constant().resolve(total_steps=epochs(1) + 10, steps_per_epoch=100).length == 110
    with pytest.raises(ScheduleError, match="needs tokens_per_step="):
        constant().resolve(total_steps=tokens(1000) + 10)

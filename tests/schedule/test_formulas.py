"""Every formula against its textbook form in 50 digits, for a number, numpy and torch.

Errors are in ulps of the larger end, or of the value itself where noted. The tolerance is 4, plus
the rounding of a shape's argument, as noted in its row.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mpmath import mp, mpf

from ratecraft import (
    cooldown,
    cosine,
    decay,
    exp_decay,
    exponential,
    inverse_sqrt,
    linear,
    one_minus_sqrt,
    polynomial,
    power_law,
    rex,
    sqrt,
    square,
    steps,
    tanh,
    warmup,
)

LENGTHS = (steps(33.5), 97, 1000, 2**20 + 1)
ENDS = ((1, 0), (0, 1), (1, 0.1), (0.04, 1), (0.7, -1.3), (3, 2 / 3), (-1e-3, -5))
# Evaluating the formulas would miss an end here: 49 * (1 / 49) < 1 and 3 + (0.1 - 3) > 0.1.
ENDS += ((49, 1), (0.1, 3))


# Textbook forms: x = t / L from s to e ------------------------------------------------------


def line(x, s, e):
    return s + (e - s) * x


def half_cosines(n):
    return lambda x, s, e: e + (s - e) * (1 + mp.cos(mp.pi * n * x)) / 2


def ratio(x, s, e):
    return s * (e / s) ** x


def power_of_rest(p):
    return lambda x, s, e: (s - e) * (1 - x) ** mpf(p) + e


def one_minus(p):
    return lambda x, s, e: (s - e) * (1 - x ** mpf(p)) + e


def hyperbolic(low, high):
    return lambda x, s, e: e + (s - e) / 2 * (1 - mp.tanh(low * (1 - x) + high * x))


def reflected(x, s, e):
    return e + (s - e) * (1 - x) / (mpf(1) / 2 + (1 - x) / 2)


class Shape(NamedTuple):
    name: str
    word: object
    textbook: object
    ulps: float = 4
    exact: bool = True
    """Whether both ends are the given numbers."""
    monotone: bool = True
    ends: tuple = ENDS

    def __str__(self):
        return self.name


POSITIVE = ((1, 0.1), (1, 1e-3), (1e-6, 1), (3, 2 / 3), (-1e-3, -5), (49, 1), (0.1, 3))
SHAPES = [
    Shape("linear", linear, line),
    Shape("cosine", lambda s, e, over: cosine(s, e, over=over), half_cosines(1)),
    # The argument of the cosine reaches n pi / 2, and is right to a rounding of that.
    Shape("cosine_2", lambda s, e, over: cosine(s, e, 2, over), half_cosines(2), 6, False, False),
    Shape("cosine_7", lambda s, e, over: cosine(s, e, 7, over), half_cosines(7), 14, False, False),
    # x is right to half an ulp, which ratio^x multiplies by |log ratio|, here up to 13.8.
    Shape("exponential", exponential, ratio, 8, ends=POSITIVE),
    Shape("polynomial_1", lambda s, e, over: polynomial(s, e, over=over), power_of_rest(1)),
    Shape("polynomial_0.9", lambda s, e, over: polynomial(s, e, 0.9, over), power_of_rest(0.9)),
    Shape("polynomial_3", lambda s, e, over: polynomial(s, e, 3, over), power_of_rest(3)),
    Shape("sqrt", sqrt, power_of_rest(0.5)),
    Shape("one_minus_sqrt", one_minus_sqrt, one_minus(0.5)),
    Shape("square", square, one_minus(2)),
    Shape("tanh", lambda s, e, over: tanh(s, e, over=over), hyperbolic(-7, 3), exact=False),
    Shape(
        "tanh_2", lambda s, e, over: tanh(s, e, -1.5, 0.3, over), hyperbolic(-1.5, 0.3), exact=False
    ),
    Shape("rex", rex, reflected),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mp.workdps(50):
        yield


def points(length, count=60):
    """Return times from 0 to the length: on steps, between them, and next to both ends."""
    inside = np.random.default_rng(7).uniform(0, length, count)
    whole = np.floor(inside)
    # A part is over within 1e-9 of its end: test_nodes.py and test_pieces.py cover that.
    near_ends = [math.ulp(0.0), 1e-9, 1e-3, length - 1e-3, length - 1e-6]
    return np.unique([0.0, *inside, *whole, *near_ends, length])


def readings(curve, times):
    """Return the values from each way to evaluate: single, numpy sorted and unsorted, torch."""
    shuffled = np.random.default_rng(1).permutation(len(times))
    unsorted = np.empty(len(times))
    unsorted[shuffled] = curve.values(times[shuffled])
    return {
        "number": np.array([curve(t) for t in times.tolist()]),
        "numpy": curve.values(times),
        "numpy, not sorted": unsorted,
        "torch": curve.values(torch.from_numpy(times)).numpy(),
    }


def worst(values, exact, size):
    """Return the largest error in ulps of `size`, which is a number or one number a value."""
    sizes = np.broadcast_to(size, values.shape).tolist()
    return max(
        float(abs(mpf(v) - e) / mpf(math.ulp(abs(s))))
        for v, e, s in zip(values.tolist(), exact, sizes, strict=True)
    )


# Ramps ---------------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("over", LENGTHS, ids=str)
def test_a_ramp_is_its_textbook_formula(shape, over):
    for start, end in shape.ends:
        curve = shape.word(start, end, over).resolve()
        length = curve.natural_length
        times = points(length)
        exact = [shape.textbook(mpf(t) / length, mpf(start), mpf(end)) for t in times.tolist()]
        for reader, values in readings(curve, times).items():
            error = worst(values, exact, max(abs(start), abs(end)))
            assert error <= shape.ulps, (reader, start, end)


@shapes
def test_the_ends_of_a_ramp_are_the_given_numbers(shape):
    for start, end in shape.ends:
        curve = shape.word(start, end, 97).resolve()
        first, last = start, end
        if not shape.exact:  # then the ends are values of the formula, the same for every reader
            first, last = curve(0), curve(97)
            size = math.ulp(max(abs(start), abs(end)))
            assert abs(first - shape.textbook(mpf(0), mpf(start), mpf(end))) <= shape.ulps * size
            assert abs(last - shape.textbook(mpf(1), mpf(start), mpf(end))) <= shape.ulps * size
        times = np.array([-5.0, 0.0, 97.0, 98.0, 1e9])
        for values in readings(curve, times).values():
            assert values.tolist() == [first, first, last, last, last]
        within = shape.word(start, end, 97).clip(low=-99).resolve()
        assert [within(t) for t in times] == [first, first, last, last, last]


@shapes
@pytest.mark.parametrize("over", [97, 2000])
def test_monotone_ramps_are_monotone(shape, over):
    times = np.arange(over + 1.0)
    for start, end in shape.ends:
        for values in readings(shape.word(start, end, over).resolve(), times).values():
            steps_up = np.diff(values) * math.copysign(1, end - start)
            assert (steps_up >= 0).all() == shape.monotone, (start, end)


@shapes
def test_a_ramp_stays_between_its_ends(shape):
    for start, end in shape.ends:
        slip = 4 * math.ulp(max(abs(start), abs(end)))
        for values in readings(shape.word(start, end, 97).resolve(), points(97, 500)).values():
            assert values.min() >= min(start, end) - slip
            assert values.max() <= max(start, end) + slip


TO_ZERO = {
    "linear": (linear(1, 0, 10_000), line, 1),
    "cosine": (cosine(1, 0, over=10_000), half_cosines(1), 6),
    "polynomial": (polynomial(1, 0, 3, 10_000), power_of_rest(3), 6),
    "sqrt": (sqrt(1, 0, 10_000), power_of_rest(0.5), 2),
    "rex": (rex(1, 0, 10_000), reflected, 3),
}


@pytest.mark.parametrize("name", TO_ZERO)
def test_a_fall_to_zero_keeps_its_relative_accuracy(name):
    # In ulps of the value itself: for the cosine the textbook form loses 16384 of them here.
    schedule, textbook, ulps = TO_ZERO[name]
    times = np.append(np.arange(9000.0, 10_000), [9999.5, 9999.999])
    exact = [textbook(mpf(t) / 10_000, mpf(1), mpf(0)) for t in times.tolist()]
    for reader, values in readings(schedule.resolve(), times).items():
        assert worst(values, exact, np.array([float(v) for v in exact])) <= ulps, reader


def test_a_rise_from_zero_keeps_its_relative_accuracy():
    times = np.append(np.arange(1.0, 1000), [1e-3, 0.5])
    rises = {cosine(0, 1, over=10_000): half_cosines(1), linear(0, 1, 10_000): line}
    for schedule, textbook in rises.items():
        exact = [textbook(mpf(t) / 10_000, mpf(0), mpf(1)) for t in times.tolist()]
        for reader, values in readings(schedule.resolve(), times).items():
            assert worst(values, exact, np.array([float(v) for v in exact])) <= 6, reader


WORDS = [
    (warmup(97), line, (0, 1)),
    (warmup(97, start=0.3), line, (0.3, 1)),
    (cooldown(97), line, (1, 0)),
    (cooldown(97, end=0.1), line, (1, 0.1)),
    (warmup(97, shape="cosine"), half_cosines(1), (0, 1)),
    (warmup(97, start=0.01, shape="exponential"), ratio, (0.01, 1)),
    (cooldown(97, end=0.01, shape="exponential"), ratio, (1, 0.01)),
    (cooldown(97, shape="cosine"), half_cosines(1), (1, 0)),
    (cooldown(97, shape="1-sqrt"), one_minus(0.5), (1, 0)),
    (cooldown(97, end=0.1, shape="square"), one_minus(2), (1, 0.1)),
]


@pytest.mark.parametrize(
    ("schedule", "textbook", "ends"), WORDS, ids=[repr(schedule) for schedule, *_ in WORDS]
)
def test_warm_ups_and_cooldowns_are_the_same_formulas(schedule, textbook, ends):
    times = points(97)
    start, end = map(mpf, ends)
    exact = [textbook(mpf(t) / 97, start, end) for t in times.tolist()]
    for reader, values in readings(schedule.resolve(), times).items():
        assert worst(values, exact, 1.0) <= 4, reader


# Clocked shapes: in ulps of the value itself, since they have no end ---------------------------

CLOCK = np.unique([0.0, 1e-9, 0.5, 1, 2, 9.75, 10, 11, *np.geomspace(12, 1e6, 60).round(3)])


@pytest.mark.parametrize("gamma", [0.5, 0.97, 0.9999, 1])
@pytest.mark.parametrize("every", [1, 7, steps(2.5), 1000], ids=str)
def test_a_decay_is_gamma_to_the_power_of_time(gamma, every):
    curve = decay(gamma, every).resolve()
    width = every if isinstance(every, int) else every.steps
    exact = [mpf(gamma) ** (mpf(t) / width) for t in CLOCK.tolist()]
    for reader, values in readings(curve, CLOCK).items():
        assert worst(values, exact, 1.0) <= 1, reader
        assert (np.diff(values) <= 0).all()
        assert values[0] == 1


def test_a_decay_may_grow_over_a_length_of_its_own():
    curve = decay(1.01, 7, over=1000).resolve()
    times = points(1000)
    exact = [mpf(1.01) ** (mpf(t) / 7) for t in times.tolist()]
    sizes = np.array([float(v) for v in exact])
    for reader, values in readings(curve, times).items():
        assert worst(values, exact, sizes) <= 3, reader  # 1.01^143 is e^1.4


@pytest.mark.parametrize("k", [0.001, 0.1, 2])
def test_an_exponential_decay_is_e_to_minus_k_t(k):
    # exp(-k) is rounded once, and t = 700 / k of these roundings are multiplied: in absolute
    # terms that is never more than 1 / e of an ulp of 1.
    exact = [mp.exp(-mpf(k) * t) for t in CLOCK.tolist()]
    for reader, values in readings(exp_decay(k).resolve(), CLOCK).items():
        assert worst(values, exact, 1.0) <= 2 + 1 / k * (k < 0.1), reader


@pytest.mark.parametrize("exponent", [-0.5, -0.51, -1, -2.5])
@pytest.mark.parametrize(("scale", "shift"), [(100, 0), (100, 10), (100, 100), (7, 300)])
def test_a_power_law_is_a_power_of_the_time_and_never_above_one(exponent, scale, shift):
    curve = power_law(exponent, scale, shift).resolve()
    shares = [(mpf(t) + shift) / scale for t in CLOCK.tolist()]
    exact = [share ** mpf(exponent) if share > 1 else mpf(1) for share in shares]
    sizes = np.array([float(v) for v in exact])
    for reader, values in readings(curve, CLOCK).items():
        assert worst(values, exact, sizes) <= 2 + 2 * abs(exponent), reader
        assert (np.diff(values) <= 0).all()


def test_a_power_law_holds_one_until_its_timescale():
    times = np.array([-3.0, 0, 50, 89.999, 90, 90.001, 390])
    for values in readings(power_law(-0.5, 100, 10).resolve(), times).values():
        assert values[:5].tolist() == [1, 1, 1, 1, 1]
        assert values[5] < 1
        assert values[6] == 0.5


@pytest.mark.parametrize("scale", [1, 100, steps(33.5)], ids=str)
def test_an_inverse_square_root_begins_at_one(scale):
    width = scale if isinstance(scale, int) else scale.steps
    exact = [mp.sqrt(width / (mpf(t) + width)) for t in CLOCK.tolist()]
    sizes = np.array([float(v) for v in exact])
    for reader, values in readings(inverse_sqrt(scale).resolve(), CLOCK).items():
        assert worst(values, exact, sizes) <= 2, reader
        assert values[0] == 1
        assert (np.diff(values) <= 0).all()


# Arrays of any form ----------------------------------------------------------------------------


@shapes
def test_a_formula_keeps_the_form_of_its_array(shape):
    start, end = shape.ends[2]
    curve = shape.word(start, end, 97).resolve()
    grid = np.arange(12).reshape(3, 4) * 9
    expected = [[curve(t) for t in row] for row in grid.tolist()]
    for values in (curve.values(grid), curve.values(torch.from_numpy(grid)).numpy()):
        np.testing.assert_allclose(values, expected, rtol=0, atol=shape.ulps * math.ulp(1.0))
    single = curve.values(np.array(9.0))
    assert single.shape == ()
    assert abs(single - curve(9)) <= shape.ulps * math.ulp(1.0)

"""Functions for single shapes: hand-computed values, text and errors."""

import math

import numpy as np
import pytest

from ratecraft import (
    ScheduleError,
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    epochs,
    exp_decay,
    exponential,
    inverse_sqrt,
    linear,
    multiplicative,
    one_minus_sqrt,
    parse,
    percent,
    polynomial,
    power_law,
    rex,
    sqrt,
    square,
    staircase,
    steps,
    tanh,
    untuned_warmup,
    warmup,
)

ROOT = math.sqrt(0.5)
TANH_7, TANH_3, TANH_2 = math.tanh(-7), math.tanh(3), math.tanh(-2)

# Each row: a schedule, its text, and its values by time in a run of 100 steps.
VALUES = [
    (constant(), "constant(1)", {0: 1, 50: 1, 1000: 1}),
    (constant(0.25, over=10), "constant(0.25, over=10)", {0: 0.25, 99: 0.25}),
    (linear(2, 1), "linear(2, 1)", {0: 2, 25: 1.75, 75: 1.25, 100: 1}),
    (linear(0, -1, over=10), "linear(0, -1, over=10)", {5: -0.5, 10: -1, 99: -1}),
    (linear(1, 1), "constant(1)", {0: 1, 99: 1}),
    (cosine(), "cosine(1, 0)", {0: 1, 25: (1 + ROOT) / 2, 50: 0.5, 75: (1 - ROOT) / 2, 100: 0}),
    (cosine(0.5, 1), "cosine(0.5, 1)", {0: 0.5, 25: 0.75 - ROOT / 4, 50: 0.75, 100: 1}),
    (cosine(1, 0.2, 2), "cosine(1, 0.2, 2)", {0: 1, 25: 0.6, 50: 0.2, 75: 0.6, 101: 1}),
    (cosine(1, 0, 7), "cosine(1, 0, 7)", {0: 1, 50: 0.5, 100 / 7: 0, 200 / 7: 1, 600 / 7: 1}),
    (cosine(1, 0, 0.5), "cosine(1, 0, 0.5)", {0: 1, 50: (1 + ROOT) / 2, 101: 0.5}),
    (cosine(1, 0, over=50), "cosine(1, 0, over=50)", {25: 0.5, 50: 0, 99: 0}),
    (exponential(1, 1e-4), "exponential(1, 0.0001)", {0: 1, 25: 0.1, 50: 0.01, 75: 1e-3}),
    (exponential(-1, -4), "exponential(-1, -4)", {0: -1, 50: -2, 100: -4}),
    (exponential(2, 8, 50), "exponential(2, 8, over=50)", {25: 4, 50: 8, 99: 8}),
    (polynomial(1, 0), "polynomial(1, 0, 1)", {0: 1, 25: 0.75}),
    (polynomial(1, 0, 3), "polynomial(1, 0, 3)", {50: 0.125, 75: 1 / 64}),
    (polynomial(0, 1, 2, 50), "polynomial(0, 1, 2, over=50)", {25: 0.75, 50: 1}),
    (sqrt(), "polynomial(1, 0, 0.5)", {0: 1, 75: 0.5, 99: 0.1}),
    (sqrt(1, 0.5), "polynomial(1, 0.5, 0.5)", {75: 0.75, 100: 0.5}),
    (one_minus_sqrt(), "one_minus_sqrt(1, 0)", {1: 0.9, 25: 0.5, 49: 0.3, 100: 0}),
    (one_minus_sqrt(1, 0.5, 50), "one_minus_sqrt(1, 0.5, over=50)", {12.5: 0.75, 50: 0.5}),
    (square(), "square(1, 0)", {10: 0.99, 50: 0.75, 100: 0}),
    (square(2, 1, epochs(2)), "square(2, 1, over=epochs(2))", {10: 1.75, 20: 1}),
    (tanh(), "tanh(1, 0, -7, 3)", {0: (1 - TANH_7) / 2, 70: 0.5, 101: (1 - TANH_3) / 2}),
    (tanh(0, 2, -2, 0), "tanh(0, 2, -2, 0)", {0: 1 + TANH_2, 50: 1 + math.tanh(-1), 101: 1}),
    (rex(), "rex(1, 0)", {0: 1, 20: 8 / 9, 50: 2 / 3, 80: 1 / 3, 100: 0}),
    (rex(0, 3, over=50), "rex(0, 3, over=50)", {25: 1, 50: 3}),
    (decay(0.5), "decay(0.5, every=1)", {0: 1, 0.5: ROOT, 1: 0.5, 3: 0.125}),
    (decay(0.1, epochs(2)), "decay(0.1, every=epochs(2))", {10: 0.1**0.5, 20: 0.1, 40: 0.01}),
    (decay(4, 10, over=20), "decay(4, every=10, over=20)", {5: 2, 10: 4, 20: 16, 99: 16}),
    (exp_decay(0), "decay(1, every=1)", {0: 1, 99: 1}),
    (exp_decay(1, 10), f"decay({math.exp(-1)!r}, every=10)", {10: math.exp(-1), 5: 0.60653066}),
    (inverse_sqrt(25), "inverse_sqrt(25)", {0: 1, 75: 0.5, 99: math.sqrt(25 / 124)}),
    (inverse_sqrt(epochs(1), over=30), "inverse_sqrt(epochs(1), over=30)", {30: 0.5, 99: 0.5}),
    (power_law(-1, 20), "power_law(-1, 20)", {0: 1, 19: 1, 20: 1, 40: 0.5, 80: 0.25}),
    (power_law(-2, 20, 10), "power_law(-2, 20, shift=10)", {9: 1, 10: 1, 30: 0.25}),
    (power_law(-0.5, 1, 1), "inverse_sqrt(1)", {0: 1, 3: 0.5, 99: 0.1}),
    (power_law(-0.5, 8, 2), "power_law(-0.5, 8, shift=2)", {6: 1, 30: 0.5}),
    (power_law(-1, 20, 20), "power_law(-1, 20, shift=20)", {0: 1, 20: 0.5}),
    (power_law(-1, 20, over=40), "power_law(-1, 20, over=40)", {40: 0.5, 99: 0.5}),
    (warmup(10), "warmup(10)", {0: 0, 5: 0.5, 10: 1, 99: 1}),
    (warmup(percent(10), 0.5), "warmup(percent(10), start=0.5)", {0: 0.5, 5: 0.75, 10: 1}),
    (warmup(10, 1), "constant(1, over=10)", {0: 1, 99: 1}),
    (cooldown(10), "cooldown(10)", {0: 1, 5: 0.5, 10: 0}),
    (cooldown(50, end=0.5), "cooldown(50, end=0.5)", {25: 0.75, 50: 0.5, 99: 0.5}),
    (staircase([3, 2, 1], every=40), "staircase([3, 2, 1], every=40)", {39: 3, 40: 2, 80: 1}),
    (staircase([1, 2], at=[epochs(3)]), "staircase([1, 2], at=[epochs(3)])", {29: 1, 30: 2}),
    (staircase((5,), at=()), "staircase([5], at=[])", {0: 5, 99: 5}),
    (staircase([0.5], lengths=[30]), "constant(0.5, over=30)", {0: 0.5, 99: 0.5}),
    (
        staircase([0.5, 2, 0], lengths=(epochs(1), 20, 5)),
        "constant(0.5, over=epochs(1)).then(constant(2, over=20)).then(constant(0, over=5))",
        {9: 0.5, 10: 2, 29: 2, 30: 0, 99: 0},
    ),
]
rows = pytest.mark.parametrize(
    ("schedule", "text", "numbers"), VALUES, ids=[text for _, text, _ in VALUES]
)


@rows
def test_values_follow_the_formula(schedule, text, numbers):
    # Past the end the left limit holds, so the value at 100 is the end value.
    curve = schedule.resolve(total_steps=100, steps_per_epoch=10)
    for t, value in numbers.items():
        assert curve(t) == pytest.approx(value, rel=1e-8, abs=1e-15), t
    expected = [curve(t) for t in numbers]
    np.testing.assert_allclose(curve.values(list(numbers)), expected, rtol=1e-15, atol=1e-16)


@rows
def test_repr_parses_to_an_equal_schedule(schedule, text, numbers):
    assert repr(schedule) == text
    assert parse(text) == schedule
    assert hash(parse(text)) == hash(schedule)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("sqrt(1, 0.1)", sqrt(1, 0.1)),
        ("exp_decay(0.1, every=epochs(1))", exp_decay(0.1, epochs(1))),
        ("power_law(-0.51, 100, 10, over=50)", power_law(-0.51, 100, 10, 50)),
        ("warmup(10, shape='cosine')", cosine(0, 1, over=10)),
        ("warmup(10, start=0.1, hold=4)", constant(0.1, over=4).then(warmup(6, start=0.1))),
        ("warmup(untuned_warmup(0.99))", warmup(200)),
        ("cooldown(10, shape='1-sqrt')", one_minus_sqrt(1, 0, 10)),
        (
            "staircase([0.5, 2], lengths=[epochs(1), 20])",
            staircase([0.5, 2], lengths=[epochs(1), 20]),
        ),
        ("tanh(low=-1, high=1)", tanh(1, 0, -1, 1)),
    ],
)
def test_parse_knows_every_function(text, schedule):
    assert parse(text) == schedule
    assert parse(repr(schedule)) == schedule


# Warm-ups ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (warmup(4), [0, 0.25, 0.5, 0.75, 1, 1]),
        (warmup(4, 0.2), [0.2, 0.4, 0.6, 0.8, 1, 1]),
        (warmup(4, shape="cosine"), [0, 0.5 - ROOT / 2, 0.5, 0.5 + ROOT / 2, 1, 1]),
        (warmup(4, 0.5, shape="cosine"), [0.5, 0.75 - ROOT / 4, 0.75, 0.75 + ROOT / 4, 1, 1]),
        (warmup(4, 1 / 16, shape="exponential"), [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1]),
        (warmup(4, hold=2), [0, 0, 0, 0.5, 1, 1]),
        (warmup(4, 0.5, hold=2), [0.5, 0.5, 0.5, 0.75, 1, 1]),
        (warmup(4, 0.25, shape="exponential", hold=2), [0.25, 0.25, 0.25, 0.5, 1, 1]),
        (warmup(4, 0.25, hold=4), [0.25, 0.25, 0.25, 0.25, 1, 1]),
        (warmup(4, 0.25, shape="constant"), [0.25, 0.25, 0.25, 0.25, 1, 1]),
        (warmup(4, 0.25, shape="constant", hold=2), [0.25, 0.25, 0.25, 0.25, 1, 1]),
    ],
    ids=repr,
)
def test_warm_up_values_for_every_shape(schedule, values):
    lrs = schedule.then(constant(1)).resolve(total_steps=6).values()
    np.testing.assert_allclose(lrs, values, rtol=1e-15, atol=0)


def test_a_constant_warm_up_jumps_only_if_a_part_follows():
    alone = warmup(4, 0.25, shape="constant")
    assert alone == constant(0.25, over=4)
    assert alone.resolve()(5) == 0.25


def test_the_hold_is_part_of_the_length_and_may_be_of_another_unit():
    schedule = warmup(percent(10), 0.5, hold=epochs(1))
    assert repr(schedule) == (
        "constant(0.5, over=epochs(1)).then(warmup(percent(10) - epochs(1), start=0.5))"
    )
    curve = schedule.resolve(total_steps=100, steps_per_epoch=5)
    assert [curve(t) for t in (0, 5, 7.5, 10)] == [0.5, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("beta2", "length"), [(0.999, 2000), (0.99, 200), (0.95, 40), (0.9, 20), (0, 2), (0.3, 3)]
)
def test_untuned_warmup_is_two_over_one_minus_beta2(beta2, length):
    assert untuned_warmup(beta2) == steps(length)


def test_untuned_warmup_defaults_to_adams_beta2():
    assert untuned_warmup() == untuned_warmup(0.999)


# Cooldowns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "same"),
    [
        (cooldown(10, 0.1, shape="linear"), linear(1, 0.1, over=10)),
        (cooldown(10, 0.1, shape="cosine"), cosine(1, 0.1, over=10)),
        (cooldown(10, 0.1, shape="exponential"), exponential(1, 0.1, over=10)),
        (cooldown(10, 0.1, shape="1-sqrt"), one_minus_sqrt(1, 0.1, over=10)),
        (cooldown(10, 0.1, shape="square"), square(1, 0.1, over=10)),
    ],
)
def test_a_cooldown_is_the_ramp_of_its_shape(schedule, same):
    assert schedule == same


# Single shapes -------------------------------------------------------------------------------


def test_a_tanh_does_not_reach_its_ends():
    curve = tanh(1, 0, over=100).resolve()
    assert 1 - curve(0) == pytest.approx(8.3e-7, rel=0.01)
    assert curve(100) == pytest.approx(2.47e-3, rel=0.01)
    assert curve(100) == curve(99.9999999999) == curve(10**9)
    assert curve(0) == curve(-3)


@pytest.mark.parametrize(("n", "last"), [(1, 0), (2, 1), (3, 0), (4, 1), (7, 0), (8, 1)])
def test_a_cosine_of_n_half_cycles_ends_at_an_extreme(n, last):
    curve = cosine(1, 0, n, over=840).resolve()
    assert curve(840) == pytest.approx(last, abs=1e-15)
    turns = [curve(840 * i / n) for i in range(n)]
    assert turns == pytest.approx([1, 0, 1, 0, 1, 0, 1, 0][:n], abs=1e-15)


@pytest.mark.parametrize("n", [3.5, 1e6, 2.0**53, 1e18, 5e-324])
@pytest.mark.parametrize("total_steps", [1, 3, 1000, 10**18])
def test_a_cosine_of_any_number_of_half_cycles_has_values(n, total_steps):
    curve = cosine(1, 0.25, half_cycles=n).resolve(total_steps=total_steps)
    at = [0, 0.3, 1, 2, 999, 10**18]
    assert all(0.25 <= curve(t) <= 1 for t in at)
    np.testing.assert_allclose(curve.values(at), [curve(t) for t in at], rtol=0, atol=1e-9)


def test_the_default_of_half_cycles_is_one():
    assert cosine(1, 0, 1.0) == cosine(1, 0) == cosine()


def test_an_inverse_square_root_after_its_warm_up_is_the_transformer_schedule():
    curve = warmup(100).then(inverse_sqrt(100)).resolve()
    for t in (1, 50, 100, 101, 400, 10_000):
        assert curve(t) == pytest.approx(min(t / 100, (100 / t) ** 0.5), rel=1e-15)


def test_a_shifted_power_law_continues_a_warm_up():
    curve = warmup(10).then(power_law(-0.5, 40, shift=10)).resolve()
    assert [curve(t) for t in (10, 39, 40, 160)] == [1, 1, 1, 0.5]


def test_a_timescale_may_be_a_percent_of_the_run():
    curve = decay(0.5, every=percent(10)).resolve(total_steps=1000)
    assert [curve(t) for t in (0, 100, 300)] == [1, 0.5, 0.125]
    curve = inverse_sqrt(percent(1)).resolve(total_steps=2500)
    assert curve(75) == 0.5


def test_only_a_growing_decay_needs_the_run_length():
    assert decay(0.5).resolve()(10_000) == 0
    assert decay(1).resolve()(10**18) == 1
    with pytest.raises(ScheduleError, match=r"^decay\(2, every=1\) grows without limit; give it"):
        decay(2).resolve()
    assert decay(2, every=10).resolve(total_steps=20)(10) == 2


def test_multiplicative_is_a_running_product():
    factors = [math.nan, 0.5, 3.0, 0.25]
    curve = multiplicative(lambda k: factors[k]).resolve(total_steps=4)
    assert curve.values().tolist() == [1, 0.5, 1.5, 0.375]
    assert curve(1000) == 0.375
    after = warmup(2).then(multiplicative(lambda k: factors[k], over=3)).then(constant(9))
    assert after.resolve(total_steps=7).values().tolist() == [0, 0.5, 1, 0.5, 1.5, 9, 9]


@pytest.mark.parametrize(("total", "calls"), [(1, 0), (4, 3), (steps(4.5), 4)])
def test_multiplicative_calls_its_function_once_per_step_from_1(total, calls):
    calls_made = []
    multiplicative(lambda k: calls_made.append(k) or 1).resolve(total_steps=total)
    assert calls_made == list(range(1, calls + 1))


def test_multiplicative_of_length_zero_has_no_effect():
    curve = warmup(4).then(multiplicative(lambda k: 0.5, over=0)).resolve()
    assert curve(4) == 1


def test_functions_are_equal_by_identity_and_print_their_names():
    def halve(k):
        return 0.5

    name = f"{__name__}.{halve.__qualname__}"
    assert repr(multiplicative(halve)) == f"multiplicative(<{name}>)"
    assert repr(multiplicative(halve, over=4)) == f"multiplicative(<{name}>, over=4)"
    assert multiplicative(halve) == multiplicative(halve) != multiplicative(lambda k: 0.5)
    assert custom(halve) != multiplicative(halve)
    with pytest.raises(ScheduleError, match=r"a multiplicative\(\) function cannot be read"):
        parse(repr(multiplicative(halve)))


# Errors --------------------------------------------------------------------------------------

REFUSED = {
    "constant nan": (lambda: constant(math.nan), "must be finite, not nan"),
    "end inf": (lambda: linear(1, math.inf), "end must be finite, not inf"),
    "half_cycles 0": (lambda: cosine(1, 0, 0), "cosine: half_cycles=0 must be > 0"),
    "half_cycles < 0": (lambda: cosine(1, 0, -2), "cosine: half_cycles=-2 must be > 0"),
    "half_cycles inf": (lambda: cosine(1, 0, math.inf), "cosine: a parameter must be finite"),
    "half_cycles 1e308": (lambda: cosine(1, 0, 1e308), "half_cycles=1e+308 must be at most 1e18"),
    "half_cycles > 1e18": (
        lambda: cosine(half_cycles=math.nextafter(1e18, math.inf)),
        "cosine: half_cycles=1.0000000000000001e+18 must be at most 1e18",
    ),
    "power 0": (lambda: polynomial(1, 0, 0), "polynomial: power=0 must be > 0"),
    "tanh": (lambda: tanh(1, 0, -math.inf), "tanh: a parameter must be finite, not -inf"),
    "exponential 0": (
        lambda: exponential(1, 0),
        "exponential(1, 0): both ends must have the same sign and a finite ratio; write for "
        "example exponential(1, 0.001)",
    ),
    "exponential from 0": (lambda: exponential(0, 1), "exponential(0, 1): both ends must have"),
    "exponential sides": (lambda: exponential(1, -1), "exponential(1, -1): both ends must have"),
    "exponential ratio": (lambda: exponential(1e-300, 1e300), "both ends must have the same sign"),
    "warmup from 0": (lambda: warmup(4, shape="exponential"), "exponential(0, 1): both ends must"),
    "cooldown to 0": (lambda: cooldown(4, shape="exponential"), "exponential(1, 0): both ends"),
    "warmup shape": (
        lambda: warmup(4, shape="lin"),
        "warmup: shape= must be one of 'linear', 'cosine', 'exponential', 'constant', not 'lin'",
    ),
    "cooldown shape": (
        lambda: cooldown(4, shape="sqrt"),
        "cooldown: shape= must be one of 'linear', 'cosine', 'exponential', '1-sqrt', 'square', "
        "not 'sqrt'",
    ),
    "beta2 1": (lambda: untuned_warmup(1), "untuned_warmup: beta2=1.0 must be >= 0 and < 1"),
    "beta2 < 0": (lambda: untuned_warmup(-0.1), "untuned_warmup: beta2=-0.1 must be >= 0 and < 1"),
    "beta2 nan": (lambda: untuned_warmup(math.nan), "beta2 must be finite, not nan"),
    "gamma 0": (lambda: decay(0), "decay: gamma=0 must be > 0"),
    "gamma < 0": (lambda: decay(-0.5), "decay: gamma=-0.5 must be > 0"),
    "k": (lambda: exp_decay(math.inf), "k must be finite, not inf"),
    "exponent 0": (
        lambda: power_law(0, 10),
        "power_law: exponent=0 must be < 0; for a rise write polynomial(start, end, power)",
    ),
    "exponent > 0": (lambda: power_law(0.5, 10), "power_law: exponent=0.5 must be < 0"),
    "no levels": (lambda: staircase([], every=1), "staircase([]): needs at least one level"),
    "none of them": (
        lambda: staircase([1]),
        "staircase needs exactly one of every=, at= and lengths=; write ",
    ),
    "both": (lambda: staircase([1, 2], every=1, at=[1]), "staircase needs exactly one of every="),
    "every and lengths": (
        lambda: staircase([1], every=1, lengths=[1]),
        "staircase needs exactly one of every=",
    ),
    "at and lengths": (
        lambda: staircase([1], at=[], lengths=[1]),
        "staircase needs exactly one of every=",
    ),
    "at": (
        lambda: staircase([1, 2, 3], at=[1]),
        "staircase: 3 levels need 2 times in at=, not 1; the first level begins at 0",
    ),
    "level nan": (lambda: staircase([1, math.nan], at=[1]), "a level must be finite, not nan"),
    "no lengths": (lambda: staircase([], lengths=[]), "staircase([]): needs at least one level"),
    "lengths": (
        lambda: staircase([1, 2, 3], lengths=[1, 2]),
        "staircase: 3 levels need 3 lengths in lengths=, not 2",
    ),
    "lengths and over": (
        lambda: staircase([1, 2], lengths=[1, 2], over=5),
        "staircase: lengths= already sets the total length; leave over= out",
    ),
    "k too small": (lambda: exp_decay(-1000), "exp_decay: k=-1000 is too small: e^-k overflows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_arguments_raise(name):
    make, message = REFUSED[name]
    with pytest.raises(ScheduleError) as caught:
        make()
    assert message in str(caught.value)


WRONG_TYPES = {
    "a text": (lambda: constant("1"), "constant: value must be a number, not '1' (str)"),
    "bool": (lambda: cosine(True, 0), "cosine: start must be a number, not True (bool)"),
    "end": (lambda: rex(1, None), "end must be a number, not None (NoneType)"),
    "power": (lambda: polynomial(1, 0, "2"), "polynomial: a parameter must be a number, not '2'"),
    "over": (lambda: linear(1, 0, 0.5), "over= must be an int (steps), steps(), epochs() or"),
    "warmup": (lambda: warmup(None), "warmup: over= must be a length, not None"),
    "hold": (lambda: warmup(10, hold=0.5), "warmup: hold= must be an int (steps)"),
    "cooldown": (lambda: cooldown("10"), "cooldown: over= must be an int (steps)"),
    "gamma": (lambda: decay("0.5"), "decay must be a number, not '0.5' (str)"),
    "every": (lambda: decay(0.5, 0.5), "every= must be an int (steps)"),
    "a number for lengths": (
        lambda: staircase([1], lengths=5),
        "staircase: lengths= must be a list, not 5",
    ),
    "a root": (lambda: one_minus_sqrt("1"), "one_minus_sqrt: start must be a number, not '1'"),
    "a square": (lambda: square(1, "0"), "square: end must be a number, not '0'"),
    "sqrt": (lambda: sqrt(None), "sqrt: start must be a number, not None"),
    "k": (lambda: exp_decay("1"), "k must be a number, not '1' (str)"),
    "beta2": (lambda: untuned_warmup("0.9"), "beta2 must be a number, not '0.9' (str)"),
    "timescale": (lambda: inverse_sqrt(0.5), "timescale= must be an int (steps)"),
    "scale": (lambda: power_law(-1, None), "timescale= must be a length, not None"),
    "shift": (lambda: power_law(-1, 10, 0.5), "shift= must be an int (steps)"),
    "values": (lambda: staircase(5, every=1), "staircase: values must be a list, not 5"),
    "text": (lambda: staircase("123", every=1), "staircase: values must be a list, not '123'"),
    "level": (lambda: staircase([1, "2"], every=1), "staircase: a level must be a number, not '2'"),
    "at": (lambda: staircase([1, 2], at=5), "staircase: at= must be a list, not 5"),
    "time": (lambda: staircase([1, 2], at=[0.5]), "at= must be an int (steps)"),
    "width": (lambda: staircase([1, 2], every=0.5), "every= must be an int (steps)"),
    "pair": (
        lambda: staircase([(5, 1)], lengths=[5]),
        "staircase: a level must be a number, not (5, 1)",
    ),
    "pair as a length": (
        lambda: staircase([1], lengths=[(5, 1)]),
        "staircase: a length must be an int (steps)",
    ),
    "swapped": (
        lambda: staircase([5], lengths=[0.1]),
        "staircase: a length must be an int (steps)",
    ),
    "no list": (lambda: staircase([1], lengths="ab"), "must be a list, not 'ab'"),
    "custom": (lambda: custom(0.5), "custom() takes a function of t, not 0.5"),
    "product": (lambda: multiplicative([1]), "multiplicative() takes a function of k, not [1]"),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_arguments_of_the_wrong_type_raise(name):
    make, message = WRONG_TYPES[name]
    with pytest.raises(TypeError) as caught:
        make()
    assert message in str(caught.value)


WHEN_RESOLVED = {
    "open": (
        lambda: cosine().resolve(),
        "cosine(1, 0) needs total_steps=, or over= as a length of its own",
    ),
    "product": (
        lambda: multiplicative(abs).resolve(),
        "multiplicative(<builtins.abs>) is tabulated step by step and needs total_steps= or over=",
    ),
    "factor": (
        lambda: multiplicative(lambda k: math.inf if k == 2 else 1).resolve(total_steps=4),
        " at 2 must be finite, not inf",
    ),
    "too large": (lambda: multiplicative(lambda k: 1e200).resolve(total_steps=4), "overflows"),
    "every 0": (
        lambda: decay(0.5, every=0).resolve(total_steps=4),
        "decay(0.5, every=0): 0 measures 0 steps; it must be > 0",
    ),
    "timescale 0": (
        lambda: inverse_sqrt(epochs(0)).resolve(total_steps=4),
        "inverse_sqrt(0): 0 measures 0 steps; it must be > 0",
    ),
    "levels 0": (
        lambda: staircase([1, 2], every=0).resolve(total_steps=4),
        "staircase: every= measures 0 steps; it must be > 0",
    ),
    "down": (
        lambda: staircase([1, 2, 3], at=[30, 20]).resolve(total_steps=40),
        "staircase: the times in at= must not decrease, but 20 follows 30",
    ),
    "growth": (lambda: decay(2, over=5000).resolve(), "overflows: its values are not finite"),
    "hold": (
        lambda: warmup(5, hold=10).resolve(total_steps=20),
        "measures -5 steps; a length must be >= 0 and at most 1e18",
    ),
    "percent": (
        lambda: decay(0.5, every=percent(1)).resolve(),
        "percent(1) needs total_steps=, since percent is of the run",
    ),
    "epoch": (
        lambda: power_law(-1, epochs(1)).resolve(total_steps=4),
        "power_law(-1, epochs(1)): epochs(1) needs steps_per_epoch= (steps per epoch)",
    ),
}


@pytest.mark.parametrize("name", WHEN_RESOLVED)
def test_a_leaf_that_does_not_fit_a_run_raises(name):
    make, message = WHEN_RESOLVED[name]
    with pytest.raises(ScheduleError) as caught:
        make()
    assert message in str(caught.value)

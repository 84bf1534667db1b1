"""Functions for whole schedules: hand-computed values, text and errors."""

import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from ratecraft import (
    ScheduleError,
    constant,
    cooldown,
    cosine,
    epochs,
    exp_range,
    exponential,
    knee,
    linear,
    linear_to_zero,
    noam,
    one_cycle,
    one_minus_sqrt,
    parse,
    percent,
    power_law,
    power_scheduler,
    restarts,
    square,
    steps,
    trapezoid,
    triangular,
    triangular2,
    warmup,
    wsd,
)

ROOT = math.sqrt(0.5)

# Each row: a schedule, its text, the length of the run, and its values by step.
VALUES = [
    (
        wsd(10),
        "warmup(10).then(constant(1)).then(one_minus_sqrt(1, 0, over=percent(20)))",
        100,
        {0: 0, 5: 0.5, 10: 1, 79: 1, 80: 1, 85: 0.5, 100: 0},
    ),
    (
        wsd(epochs(1), epochs(2), "linear", 0.1),
        "warmup(epochs(1)).then(constant(1)).then(cooldown(epochs(2), end=0.1))",
        100,
        {5: 0.5, 10: 1, 80: 1, 90: 0.55, 100: 0.1},
    ),
    (
        wsd(10, 20, "cosine"),
        "warmup(10).then(constant(1)).then(cosine(1, 0, over=20))",
        100,
        {80: 1, 85: 0.5 + ROOT / 2, 90: 0.5, 95: 0.5 - ROOT / 2, 100: 0},
    ),
    (
        wsd(10, 20, "exponential", 0.01),
        "warmup(10).then(constant(1)).then(exponential(1, 0.01, over=20))",
        100,
        {80: 1, 90: 0.1, 100: 0.01},
    ),
    (
        wsd(10, 20, shape="1-sqrt", end=0.5),
        "warmup(10).then(constant(1)).then(one_minus_sqrt(1, 0.5, over=20))",
        100,
        {80: 1, 85: 0.75, 100: 0.5},
    ),
    (
        wsd(10, 20, "square"),
        "warmup(10).then(constant(1)).then(square(1, 0, over=20))",
        100,
        {80: 1, 90: 0.75, 95: 0.4375, 100: 0},
    ),
    (
        trapezoid(percent(10), percent(30)),
        "warmup(percent(10)).then(constant(1)).then(cooldown(percent(30)))",
        200,
        {0: 0, 10: 0.5, 20: 1, 140: 1, 155: 0.75, 185: 0.25, 200: 0},
    ),
    (
        trapezoid(10, 20, 0.5),
        "warmup(10).then(constant(1)).then(cooldown(20, end=0.5))",
        100,
        {80: 1, 90: 0.75, 100: 0.5},
    ),
    (
        knee(percent(50)),
        "constant(1, over=percent(50)).then(linear(1, 0))",
        100,
        {0: 1, 49: 1, 50: 1, 75: 0.5, 99: 0.02, 100: 0},
    ),
    (
        knee(50, warmup=epochs(1)),
        "warmup(epochs(1)).then(constant(1, over=50)).then(linear(1, 0))",
        100,
        {5: 0.5, 10: 1, 60: 1, 80: 0.5, 100: 0},
    ),
    (linear_to_zero(), "linear(1, 0)", 100, {0: 1, 25: 0.75, 100: 0}),
    (
        linear_to_zero(percent(20)),
        "warmup(percent(20)).then(linear(1, 0))",
        100,
        {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0},
    ),
    (
        one_cycle(),
        "cosine(0.04, 1, over=percent(30)).then(cosine(1, 4e-06))",
        100,
        {0: 0.04, 15: 0.52, 30: 1, 65: 0.500002, 100: 4e-6},
    ),
    (
        one_cycle(20, 0.5, 0, three_phase=True),
        "cosine(0.5, 1, over=20).then(cosine(1, 0.5, over=20)).then(cosine(0.5, 0))",
        100,
        {0: 0.5, 10: 0.75, 20: 1, 30: 0.75, 40: 0.5, 70: 0.25, 100: 0},
    ),
    (
        one_cycle(percent(30), 0.1, 0, "linear"),
        "warmup(percent(30), start=0.1).then(linear(1, 0))",
        100,
        {0: 0.1, 15: 0.55, 30: 1, 65: 0.5, 100: 0},
    ),
    (
        one_cycle(epochs(2), 0.1, 0.02, "linear", True),
        "warmup(epochs(2), start=0.1).then(cooldown(epochs(2), end=0.1)).then(linear(0.1, 0.02))",
        100,
        {0: 0.1, 10: 0.55, 20: 1, 30: 0.55, 40: 0.1, 70: 0.06, 100: 0.02},
    ),
    (
        triangular(4),
        "warmup(4).then(cooldown(4)).repeat().rescale(0.1, 1)",
        100,
        {0: 0.1, 2: 0.55, 4: 1, 6: 0.55, 8: 0.1, 12: 1, 84: 1, 88: 0.1},
    ),
    (
        triangular(epochs(1), down=20, low=0.5),
        "warmup(epochs(1)).then(cooldown(20)).repeat().rescale(0.5, 1)",
        100,
        {0: 0.5, 5: 0.75, 10: 1, 20: 0.75, 30: 0.5, 40: 1},
    ),
    (
        triangular2(4, low=0),
        "warmup(4).then(cooldown(4)).repeat(decay=0.5).rescale(0, 1)",
        100,
        {0: 0, 4: 1, 8: 0, 12: 0.5, 14: 0.25, 20: 0.25, 28: 0.125},
    ),
    (
        triangular2(2, 6, 0.2),
        "warmup(2).then(cooldown(6)).repeat(decay=0.5).rescale(0.2, 1)",
        100,
        {0: 0.2, 2: 1, 5: 0.6, 8: 0.2, 10: 0.6, 18: 0.4},
    ),
    (
        exp_range(0.5, 2, low=0),
        "(warmup(2).then(cooldown(2)).repeat() * decay(0.5, every=1)).rescale(0, 1)",
        100,
        {0: 0, 1: 0.25, 2: 0.25, 3: 0.0625, 4: 0, 6: 1 / 64},
    ),
    (
        exp_range(0.25, 1, 3, 0.5),
        "(warmup(1).then(cooldown(3)).repeat() * decay(0.25, every=1)).rescale(0.5, 1)",
        100,
        {0: 0.5, 1: 0.625, 4: 0.5, 5: 0.5 + 0.5 * 0.25**5},
    ),
    (
        restarts(10),
        "cosine(1, 0, over=10).repeat()",
        100,
        {0: 1, 5: 0.5, 10: 1, 15: 0.5, 95: 0.5, 100: 0},
    ),
    (
        restarts(10, grow=2, decay=0.5),
        "cosine(1, 0, over=10).repeat(grow=2, decay=0.5)",
        100,
        {5: 0.5, 10: 0.5, 20: 0.25, 30: 0.25, 50: 0.125, 70: 0.125},
    ),
    (
        restarts(n=4, end=0.2),
        "cosine(1, 0).repeat(4).rescale(0.2, 1)",
        100,
        {0: 1, 12.5: 0.6, 25: 1, 37.5: 0.6, 75: 1, 100: 0.2},
    ),
    (
        restarts(n=2, grow=3),
        "cosine(1, 0).repeat(2, grow=3)",
        100,
        {0: 1, 12.5: 0.5, 25: 1, 62.5: 0.5, 100: 0},
    ),
    (
        restarts(epochs(1), 3, decay=0.5, end=0.2),
        "cosine(1, 0, over=epochs(1)).repeat(3, decay=0.5).rescale(0.2, 1)",
        100,
        {0: 1, 5: 0.6, 10: 0.6, 15: 0.4, 20: 0.4, 30: 0.2, 99: 0.2},
    ),
    (
        power_scheduler(10, 20, -1, 20),
        "warmup(10).then(power_law(-1, 20, shift=10)) * "
        "constant(1).then(exponential(1, 0.01, over=20))",
        100,
        {0: 0, 5: 0.5, 10: 1, 20: 1, 40: 0.5, 80: 0.25, 90: 1 / 45, 100: 0.002},
    ),
    (
        power_scheduler(0, epochs(2), -0.5, percent(50), 0.25),
        "power_law(-0.5, epochs(2)) * constant(1).then(exponential(1, 0.25, over=percent(50)))",
        160,
        {0: 1, 20: 1, 80: 0.5, 120: 6**-0.5 / 2, 160: 8**-0.5 / 4},
    ),
]
rows = pytest.mark.parametrize(
    ("schedule", "text", "total", "numbers"), VALUES, ids=[text for _, text, *_ in VALUES]
)


@rows
def test_values_follow_the_definition(schedule, text, total, numbers):
    curve = schedule.resolve(total_steps=total, steps_per_epoch=10)
    for t, value in numbers.items():
        assert curve(t) == pytest.approx(value, rel=1e-14, abs=1e-16), t
    expected = [curve(t) for t in numbers]
    np.testing.assert_allclose(curve.values(list(numbers)), expected, rtol=1e-15, atol=1e-16)
    tensor = torch.tensor(list(numbers), dtype=torch.float64)
    np.testing.assert_allclose(curve.values(tensor).numpy(), expected, rtol=1e-14, atol=1e-16)


@rows
def test_repr_is_that_of_the_parts_and_parses(schedule, text, total, numbers):
    assert repr(schedule) == text
    assert parse(text) == schedule
    assert hash(parse(text)) == hash(schedule)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("wsd(percent(5), shape='linear')", wsd(percent(5), shape="linear")),
        ("trapezoid(warmup=5, cooldown=10)", trapezoid(5, 10)),
        ("knee(explore=epochs(2))", knee(epochs(2))),
        ("linear_to_zero()", linear_to_zero()),
        ("noam(4000, 512)", noam(4000, 512)),
        ("power_scheduler(5, 10)", power_scheduler(5, 10)),
        ("one_cycle(percent(30) - 1, shape='linear')", one_cycle(percent(30) - 1, shape="linear")),
        ("triangular(5)", triangular(5)),
        ("triangular2(5, low=0)", triangular2(5, low=0)),
        ("exp_range(gamma=0.9, up=5)", exp_range(0.9, 5)),
        ("1e-3 * restarts(10, grow=2)", 1e-3 * restarts(10, grow=2)),
    ],
)
def test_parse_knows_every_function(text, schedule):
    assert parse(text) == schedule
    assert parse(repr(schedule)) == schedule


# The parts of recipes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "parts"),
    [
        (
            wsd(500, percent(10), "square", 0.1),
            warmup(500).then(constant(1)).then(square(1, 0.1, percent(10))),
        ),
        (wsd(500), warmup(500).then(constant(1)).then(one_minus_sqrt(1, 0, percent(20)))),
        (trapezoid(5, 10), wsd(5, 10, "linear")),
        (trapezoid(5, 10, 0.1), warmup(5).then(constant(1)).then(cooldown(10, 0.1))),
        (knee(10), constant(1, 10).then(linear(1, 0))),
        (knee(10, 0), knee(10)),
        (linear_to_zero(steps(0)), linear(1, 0)),
        (one_cycle(), cosine(0.04, 1, over=percent(30)).then(cosine(1, 4e-6))),
        (triangular(2), triangular(2, 2, 0.1)),
        (triangular2(2), triangular2(2, 2, 0.1)),
        (exp_range(0.9, 2), exp_range(0.9, 2, 2, 0.1)),
        (restarts(10, 1), cosine(1, 0, over=10).repeat(1)),
        (restarts(n=3), cosine(1, 0).repeat(3)),
        (
            power_scheduler(5, 10),
            warmup(5).then(power_law(-0.51, 10, 5))
            * constant(1).then(exponential(1, 0.01, percent(20))),
        ),
        (noam(4, 25), 0.1 * warmup(4).then(power_law(-0.5, 4, 4))),
    ],
    ids=repr,
)
def test_a_recipe_equals_its_parts(schedule, parts):
    assert schedule == parts


# Against the papers and torch --------------------------------------------------------------------


@pytest.mark.parametrize(("before", "width"), [(4000, 512), (10, 64), (1, 1)])
def test_noam_is_the_formula_of_the_transformer(before, width):
    schedule = noam(before, width)
    curve = schedule.resolve()
    for t in (1, 2, before // 2 or 1, before - 1 or 1, before, before + 1, 3 * before, 10**6):
        formula = width**-0.5 * min(t**-0.5, t * before**-1.5)
        assert curve(t) == pytest.approx(formula, rel=4e-16)
    assert curve(0) == 0
    assert max(curve(t) for t in range(3 * before)) == curve(before)
    assert parse(repr(schedule)) == schedule


def test_noam_takes_integers_of_numpy():
    assert noam(np.int64(4), np.int32(25)) == noam(4, 25)


def test_noam_prints_its_scale_and_its_parts():
    assert repr(noam(4, 25)) == "0.1 * warmup(4).then(inverse_sqrt(4))"


def torch_lrs(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


@pytest.mark.parametrize(("up", "down"), [(10, None), (7, 13)])
@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_triangular_schedules_equal_torchs_cyclic_lr(mode, up, down):
    def make(optimizer):
        return lr_scheduler.CyclicLR(
            optimizer, 0.1, 1.0, up, down, mode, gamma=0.99, cycle_momentum=False
        )

    words = {
        "triangular": triangular(up, down),
        "triangular2": triangular2(up, down),
        "exp_range": exp_range(0.99, up, down),
    }
    ours = words[mode].resolve().values(range(200))
    np.testing.assert_allclose(ours, torch_lrs(make, 200), rtol=0, atol=2e-15)


@pytest.mark.parametrize("first", [1, 10])
@pytest.mark.parametrize("grow", [1, 2, 3])
def test_restarts_equal_torchs_warm_restarts(first, grow):
    def make(optimizer):
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, grow, eta_min=0.1)

    ours = restarts(first, grow=grow, end=0.1).resolve().values(range(150))
    np.testing.assert_allclose(ours, torch_lrs(make, 150), rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_three_phase_one_cycle_equals_torch_except_for_its_last_steps(shape):
    def make(optimizer):
        strategy = {"cosine": "cos", "linear": "linear"}[shape]
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, 100, pct_start=0.3, anneal_strategy=strategy, three_phase=True,
            cycle_momentum=False,
        )  # fmt: skip

    # torch's rise ends at step 0.3 * 100 - 1, its way back at 2 * 0.3 * 100 - 2.
    ours = (
        one_cycle(percent(30) - 1, shape=shape, three_phase=True).resolve(total_steps=100).values()
    )
    theirs = torch_lrs(make, 100)
    np.testing.assert_allclose(ours[:59], theirs[:59], rtol=0, atol=1e-15)
    # torch reaches the end value at the last step; ours reaches it one step later.
    assert theirs[99] == pytest.approx(4e-6)
    assert 4e-6 < ours[99] < 4e-5 + 0.04 / 40


def test_the_power_scheduler_counts_time_from_the_start_of_the_run():
    curve = power_scheduler(percent(10), percent(25)).resolve(total_steps=1000)
    for t in (100, 200, 250, 251, 500, 799):
        assert curve(t) == pytest.approx(min(1, (t / 250) ** -0.51), rel=1e-14)
    assert curve(900) == pytest.approx((900 / 250) ** -0.51 * 0.1, rel=1e-14)
    assert curve(50) == 0.5


# Errors --------------------------------------------------------------------------------------

REFUSED = {
    "wsd shape": (
        lambda: wsd(10, 10, "sqrt"),
        "cooldown: shape= must be one of 'linear', 'cosine', 'exponential', '1-sqrt', 'square', "
        "not 'sqrt'",
    ),
    "wsd to 0": (lambda: wsd(10, 10, "exponential"), "both ends must have the same sign"),
    "one_cycle": (
        lambda: one_cycle(shape="square"),
        "one_cycle: shape= must be one of 'cosine', 'linear', not 'square'",
    ),
    "restarts": (
        restarts,
        "restarts: write first= (length of the first cycle) or n= (number of cycles)",
    ),
    "restarts 0": (lambda: restarts(10, 0), ".repeat(0): needs at least one cycle"),
    "restarts endless": (lambda: restarts(10, grow=0.5), ".repeat() without n needs grow >= 1"),
    "restarts percent": (lambda: restarts(percent(10)), "percent is of the cycle"),
    "power end": (lambda: power_scheduler(5, 10, end=0), "both ends must have the same sign"),
    "power exponent": (lambda: power_scheduler(5, 10, 1), "exponent=1 must be < 0"),
    "noam huge": (lambda: noam(10**400, 512), "noam: warmup is too large for a float"),
    "noam warmup": (lambda: noam(0, 512), "noam: warmup=0 must be an int >= 1"),
    "noam bool": (lambda: noam(True, 512), "noam: warmup=True must be an int >= 1"),
    "noam length": (lambda: noam(epochs(1), 512), "noam: warmup=epochs(1) must be an int >= 1"),
    "noam width": (lambda: noam(4000, 0.5), "noam: model_width=0.5 must be an int >= 1"),
    "noam width < 1": (lambda: noam(4000, -1), "noam: model_width=-1 must be an int >= 1"),
    "triangle percent": (lambda: triangular(percent(10)), "percent is of the cycle"),
    "gamma": (lambda: exp_range(0, 10), "decay: gamma=0 must be > 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_arguments_raise(name):
    make, message = REFUSED[name]
    with pytest.raises(ScheduleError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: wsd(0.1),
        lambda: wsd(10, 0.1),
        lambda: trapezoid(10, None),
        lambda: knee(0.5),
        lambda: knee(10, 0.5),
        lambda: linear_to_zero(0.5),
        lambda: one_cycle(0.3),
        lambda: triangular(0.5),
        lambda: triangular2(4, 0.5),
        lambda: exp_range(0.9, "4"),
        lambda: restarts(0.5),
        lambda: power_scheduler(0.1, 10),
        lambda: power_scheduler(1, 0.1),
        lambda: power_scheduler(1, 10, cooldown=0.2),
    ],
)
def test_a_bare_fraction_as_length_raises(make):
    with pytest.raises(TypeError, match=r"must be (an int \(steps\)|a length)"):
        make()


@pytest.mark.parametrize(
    ("schedule", "total", "message"),
    [
        (wsd(100, 50), 120, "no room: -30 steps left for constant(1)"),
        (one_cycle(percent(60), three_phase=True), 100, "no room: -20 steps left"),
        (knee(100), 90, "no room: -10 steps left for linear(1, 0)"),
        (wsd(10), None, "needs total_steps="),
        (restarts(n=4), None, "divides the run into cycles and needs total_steps="),
        (triangular(0), 10, "a cycle of length 0 cannot be repeated endlessly"),
    ],
    ids=repr,
)
def test_a_recipe_that_does_not_fit_a_run_raises(schedule, total, message):
    with pytest.raises(ScheduleError) as caught:
        schedule.resolve(total_steps=total)
    assert message in str(caught.value)

"""Convex bound: published values, the formula, and functions that use it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratecraft import (
    constant,
    cooldown,
    cosine,
    epochs,
    exponential,
    linear,
    percent,
    steps,
    warmup,
    wsd,
)
from ratecraft.errors import ScheduleError, SettingError
from ratecraft.forecasting import bound, cooldown_gains, extend, transfer

PUBLISHED_BOUNDS = [
    ("linear", linear(1, 0), ".10063", ".04956"),
    ("1-sqrt", cooldown(percent(100), shape="1-sqrt"), ".10124", ".07380"),
    ("cosine", cosine(1, 0), ".10339", ".04824"),
    ("cosine to .1", cosine(1, 0.1), ".10405", ".04360"),
    ("wsd 1-sqrt", wsd(0, shape="1-sqrt"), ".10729", ".02685"),
    ("wsd linear", wsd(0, shape="linear"), ".10932", ".02537"),
    ("constant", constant(1), ".13754", ".01818"),
]


@pytest.mark.parametrize(
    ("schedule", "best", "lr"),
    [a[1:] for a in PUBLISHED_BOUNDS],
    ids=[a[0] for a in PUBLISHED_BOUNDS],
)
def test_published_bounds(schedule, best: str, lr: str) -> None:
    result = bound(schedule.resolve(total_steps=400))
    assert f"{result.best:.5f}"[1:] == best
    assert f"{result.lr:.5f}"[1:] == lr
    assert result.at(result.lr) == pytest.approx(result.best, rel=1e-12)
    assert result.at(2 * result.lr) > result.best < result.at(result.lr / 2)


@pytest.mark.parametrize("total", [1, 2, 100, 1600, 25600])
def test_bound_of_a_constant_lr_has_a_closed_form(total: int) -> None:
    harmonic = math.fsum(1 / k for k in range(1, total))
    best = bound(constant(1).resolve(total_steps=total)).best
    assert best * math.sqrt(total) == pytest.approx(math.sqrt(1 + harmonic), rel=1e-12)


def direct(lrs, gradients):
    """Return start and noise by the formula in the docstring, in quadratic time."""
    total = math.fsum(lrs)
    noise = [(u * g) ** 2 for u, g in zip(lrs, gradients, strict=True)]
    inner = math.fsum(
        lrs[k] / math.fsum(lrs[k + 1 :]) * math.fsum(noise[k:]) / math.fsum(lrs[k:])
        for k in range(len(lrs) - 1)
    )
    return 1 / (2 * total), math.fsum(noise) / (2 * total) + inner / 2


@given(st.integers(2, 60), st.floats(0, 1), st.lists(st.floats(0.1, 10), min_size=60, max_size=60))
def test_bound_equals_the_formula(total: int, end: float, gradients: list[float]) -> None:
    curve = warmup(2).then(cosine(1, end)).resolve(total_steps=total + 1)
    lrs = curve.values().tolist()
    while lrs[-1] == 0:
        lrs.pop()
    norms = [*gradients, 1.0][: total + 1]
    result = bound(curve, gradient=norms)
    start, noise = direct(lrs, norms[: len(lrs)])
    assert result.start == pytest.approx(start, rel=1e-9)
    assert result.noise == pytest.approx(noise, rel=1e-9)


@given(st.floats(1e-6, 1e3), st.floats(0.01, 100), st.floats(0.01, 100))
def test_bound_scales_with_gradient_and_distance(
    factor: float, gradient: float, distance: float
) -> None:
    shape = warmup(5).then(cosine(1, 0))
    unscaled = bound(shape.resolve(total_steps=50))
    scaled = bound((factor * shape).resolve(total_steps=50), gradient=gradient, distance=distance)
    assert scaled.best == pytest.approx(unscaled.best * gradient * distance, rel=1e-9)
    assert scaled.lr * factor == pytest.approx(unscaled.lr * distance / gradient, rel=1e-9)


def test_zero_lrs_at_the_end_do_not_change_the_bound() -> None:
    whole = linear(1, 0, over=50).resolve(total_steps=50)
    longer = linear(1, 0, over=50).then(constant(0)).resolve(total_steps=80)
    assert bound(longer) == bound(whole)


def test_transfer_multiplies_by_the_ratio_of_best_lrs() -> None:
    a, b = wsd(0, shape="linear").resolve(total_steps=400), linear(1, 0).resolve(total_steps=400)
    assert transfer(1e-3, a, b) == pytest.approx(1e-3 * 0.04956 / 0.02537, rel=1e-3)
    assert transfer(transfer(1e-3, a, b), b, a) == pytest.approx(1e-3)


@pytest.mark.parametrize(("times", "factor"), [(1.5, 0.637), (2, 0.533), (3, 0.431), (4, 0.375)])
def test_extend_of_a_finished_wsd(times: float, factor: float) -> None:
    schedule, new_total_steps = wsd(0, shape="linear"), int(4000 * times)
    result = extend(schedule, 4000, new_total_steps)
    assert result.resume_step == 3200
    assert round(result.factor, 3) == factor
    # A search on a grid of 1/400 gives these, cut to three digits.
    assert round(result.factor * 400) * 25 // 10 == {1.5: 637, 2: 532, 3: 430, 4: 375}[times]
    optimum = bound(schedule.resolve(total_steps=4000)).lr
    lrs = schedule.resolve(total_steps=new_total_steps).values().tolist()
    changed = lrs[:3200] + [result.factor * u for u in lrs[3200:]]
    start, noise = direct_fast(changed)
    assert math.sqrt(start / noise) == pytest.approx(optimum, rel=1e-6)
    if result.cooldown is not None:
        longer = wsd(0, percent(100 * result.cooldown), shape="linear").resolve(
            total_steps=new_total_steps
        )
        assert bound(longer).lr == pytest.approx(optimum, rel=1e-6)
        assert result.cooldown_start == round(new_total_steps * (1 - result.cooldown))
    assert (result.cooldown is None) == (times == 4)
    assert f"multiply the lrs by {factor}" in str(result)


def direct_fast(lrs):
    """Return start and noise by the formula, with running sums from the end."""
    tail = noise = inner = 0.0
    for u in reversed(lrs):
        before = tail
        tail, noise = tail + u, noise + u * u
        if before:
            inner += u / before * noise / tail
    return 1 / (2 * tail), noise / (2 * tail) + inner / 2


def test_cooldown_gains_diminish() -> None:
    bounds = cooldown_gains(3e-4 * wsd(0, shape="linear"), 400)
    bests = [bound.best for bound in bounds.values()]
    gains = [a - b for a, b in itertools.pairwise(bests)]
    assert bests == sorted(bests, reverse=True)
    assert gains[0] / 0.05 > gains[1] / 0.1 > gains[2] / 0.1


def test_invalid_arguments_raise() -> None:
    with pytest.raises(
        SettingError, match=r"is -0\.5 at step 0; the bound needs lrs of at least 0"
    ):
        bound((-0.5 * constant(1)).resolve(total_steps=10))
    with pytest.raises(SettingError, match="no lr above 0"):
        bound(constant(0).resolve(total_steps=10))
    with pytest.raises(ScheduleError, match="needs total_steps="):
        bound(constant(1).resolve())
    with pytest.raises(SettingError, match="has 3 values for 10 steps"):
        bound(constant(1).resolve(total_steps=10), gradient=[1, 2, 3])
    with pytest.raises(SettingError, match="must be finite numbers above 0"):
        bound(constant(1).resolve(total_steps=10), distance=0)
    with pytest.raises(SettingError, match="lr=0: expected a number above 0"):
        transfer(0, constant(1).resolve(total_steps=10), constant(1).resolve(total_steps=10))
    with pytest.raises(SettingError, match="expected more steps than the 100"):
        extend(wsd(0), 100, 100)
    with pytest.raises(ScheduleError, match="and a last part with a length of its own"):
        extend(cosine(1, 0), 100, 200)
    with pytest.raises(ScheduleError, match="expected a part that takes the remaining steps"):
        extend(constant(1, over=50).then(linear(1, 0, over=50)), 100, 200)
    with pytest.raises(ScheduleError, match="differs from the run over 100 from the start"):
        extend(wsd(percent(10)), 100, 200)


def test_lengths_in_epochs() -> None:
    schedule = warmup(epochs(1)).then(constant(1)).then(cooldown(percent(20)))
    same = warmup(steps(10)).then(constant(1)).then(cooldown(percent(20)))
    assert extend(schedule, 100, 200, steps_per_epoch=10) == extend(same, 100, 200)
    assert cooldown_gains(schedule, 100, [0.2], steps_per_epoch=10) == cooldown_gains(
        same, 100, [0.2]
    )
    exponential_end = warmup(10).then(constant(1)).then(exponential(1, 0.1, over=percent(20)))
    assert extend(exponential_end, 100, 200).factor < 1


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_bound_of_a_shape_in_any_scale(scale: float) -> None:
    scaled, unscaled = (bound((k * linear(1, 0)).resolve(total_steps=400)) for k in (scale, 1.0))
    assert scaled.best == pytest.approx(unscaled.best)
    assert scaled.lr == pytest.approx(unscaled.lr / scale)


def test_invalid_curve_gradient_or_lr_raises() -> None:
    with pytest.raises(
        TypeError, match=r"takes a curve, not linear.*pass schedule\.resolve\(total_steps="
    ):
        bound(linear(1, 0))
    with pytest.raises(SettingError, match="must be finite numbers above 0"):
        bound(linear(1, 0).resolve(total_steps=10), gradient=math.inf)
    with pytest.raises(SettingError, match="lr=0: expected a number above 0"):
        bound(linear(1, 0).resolve(total_steps=10)).at(0)
    assert list(cooldown_gains(wsd(100), 400)) == [0.05, 0.1, 0.2, 0.3, 0.4, 0.6]

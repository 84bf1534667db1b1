"""The bound: anchors, laws, and its uses."""

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

ANCHORS = [
    ("linear", linear(1, 0), ".10063", ".04956"),
    ("1-sqrt", cooldown(percent(100), shape="1-sqrt"), ".10124", ".07380"),
    ("cosine", cosine(1, 0), ".10339", ".04824"),
    ("cosine to .1", cosine(1, 0.1), ".10405", ".04360"),
    ("wsd 1-sqrt", wsd(0, shape="1-sqrt"), ".10729", ".02685"),
    ("wsd linear", wsd(0, shape="linear"), ".10932", ".02537"),
    ("constant", constant(1), ".13754", ".01818"),
]


@pytest.mark.parametrize(
    ("schedule", "best", "lr"), [a[1:] for a in ANCHORS], ids=[a[0] for a in ANCHORS]
)
def test_anchors_hold_to_the_last_digit(schedule, best: str, lr: str) -> None:
    found = bound(schedule.resolve(total_steps=400))
    assert f"{found.best:.5f}"[1:] == best
    assert f"{found.lr:.5f}"[1:] == lr
    assert found.at(found.lr) == pytest.approx(found.best, rel=1e-12)
    assert found.at(2 * found.lr) > found.best < found.at(found.lr / 2)


@pytest.mark.parametrize("total", [1, 2, 100, 1600, 25600])
def test_of_a_constant_lr_it_is_known_exactly(total: int) -> None:
    harmonic = math.fsum(1 / k for k in range(1, total))
    found = bound(constant(1).resolve(total_steps=total)).best
    assert found * math.sqrt(total) == pytest.approx(math.sqrt(1 + harmonic), rel=1e-12)


def direct(lrs, gradients):
    """The formula as it is written, in quadratic time."""
    total = math.fsum(lrs)
    noise = [(u * g) ** 2 for u, g in zip(lrs, gradients, strict=True)]
    inner = math.fsum(
        lrs[k] / math.fsum(lrs[k + 1 :]) * math.fsum(noise[k:]) / math.fsum(lrs[k:])
        for k in range(len(lrs) - 1)
    )
    return 1 / (2 * total), math.fsum(noise) / (2 * total) + inner / 2


@given(st.integers(2, 60), st.floats(0, 1), st.lists(st.floats(0.1, 10), min_size=60, max_size=60))
def test_it_is_the_formula(total: int, end: float, gradients: list[float]) -> None:
    curve = warmup(2).then(cosine(1, end)).resolve(total_steps=total + 1)
    lrs = curve.values().tolist()
    while lrs[-1] == 0:
        lrs.pop()
    norms = [*gradients, 1.0][: total + 1]
    found = bound(curve, gradient=norms)
    start, noise = direct(lrs, norms[: len(lrs)])
    assert found.start == pytest.approx(start, rel=1e-9)
    assert found.noise == pytest.approx(noise, rel=1e-9)


@given(st.floats(1e-6, 1e3), st.floats(0.01, 100), st.floats(0.01, 100))
def test_scales_come_out(factor: float, gradient: float, distance: float) -> None:
    shape = warmup(5).then(cosine(1, 0))
    one = bound(shape.resolve(total_steps=50))
    other = bound((factor * shape).resolve(total_steps=50), gradient=gradient, distance=distance)
    assert other.best == pytest.approx(one.best * gradient * distance, rel=1e-9)
    assert other.lr * factor == pytest.approx(one.lr * distance / gradient, rel=1e-9)


def test_lrs_of_0_at_the_end_change_nothing() -> None:
    whole = linear(1, 0, over=50).resolve(total_steps=50)
    longer = linear(1, 0, over=50).then(constant(0)).resolve(total_steps=80)
    assert bound(longer) == bound(whole)


def test_a_lr_is_transferred_by_the_ratio_of_the_best_ones() -> None:
    a, b = wsd(0, shape="linear").resolve(total_steps=400), linear(1, 0).resolve(total_steps=400)
    assert transfer(1e-3, a, b) == pytest.approx(1e-3 * 0.04956 / 0.02537, rel=1e-3)
    assert transfer(transfer(1e-3, a, b), b, a) == pytest.approx(1e-3)


@pytest.mark.parametrize(("times", "factor"), [(1.5, 0.637), (2, 0.533), (3, 0.431), (4, 0.375)])
def test_a_finished_wsd_is_extended(times: float, factor: float) -> None:
    plan, to = wsd(0, shape="linear"), int(4000 * times)
    found = extend(plan, 4000, to)
    assert found.since == 3200
    assert round(found.factor, 3) == factor
    # As a search in steps of 1/400 finds them, cut to three digits.
    assert round(found.factor * 400) * 25 // 10 == {1.5: 637, 2: 532, 3: 430, 4: 375}[times]
    wanted = bound(plan.resolve(total_steps=4000)).lr
    levels = plan.resolve(total_steps=to).values().tolist()
    changed = levels[:3200] + [found.factor * u for u in levels[3200:]]
    start, noise = direct_fast(changed)
    assert math.sqrt(start / noise) == pytest.approx(wanted, rel=1e-6)
    if found.cooldown is not None:
        longer = wsd(0, percent(100 * found.cooldown), shape="linear").resolve(total_steps=to)
        assert bound(longer).lr == pytest.approx(wanted, rel=1e-6)
        assert found.begins == round(to * (1 - found.cooldown))
    assert (found.cooldown is None) == (times == 4)
    assert f"multiply the lrs by {factor}" in str(found)


def direct_fast(lrs):
    """The formula with running sums from the end."""
    tail = noise = inner = 0.0
    for u in reversed(lrs):
        before = tail
        tail, noise = tail + u, noise + u * u
        if before:
            inner += u / before * noise / tail
    return 1 / (2 * tail), noise / (2 * tail) + inner / 2


def test_the_next_piece_of_cooldown_buys_less() -> None:
    found = cooldown_gains(3e-4 * wsd(0, shape="linear"), 400)
    bests = [each.best for each in found.values()]
    gains = [a - b for a, b in itertools.pairwise(bests)]
    assert bests == sorted(bests, reverse=True)
    assert gains[0] / 0.05 > gains[1] / 0.1 > gains[2] / 0.1


def test_what_has_no_bound_is_told() -> None:
    with pytest.raises(SettingError, match=r"is -0\.5 at step 0; a bound needs lrs of 0 up"):
        bound((-0.5 * constant(1)).resolve(total_steps=10))
    with pytest.raises(SettingError, match="no lr above 0"):
        bound(constant(0).resolve(total_steps=10))
    with pytest.raises(ScheduleError, match="needs total_steps="):
        bound(constant(1).resolve())
    with pytest.raises(SettingError, match="has 3 values for 10 steps"):
        bound(constant(1).resolve(total_steps=10), gradient=[1, 2, 3])
    with pytest.raises(SettingError, match="expected numbers above 0"):
        bound(constant(1).resolve(total_steps=10), distance=0)
    with pytest.raises(SettingError, match="lr=0: expected a number above 0"):
        transfer(0, constant(1).resolve(total_steps=10), constant(1).resolve(total_steps=10))
    with pytest.raises(SettingError, match="expected more steps than the 100"):
        extend(wsd(0), 100, 100)
    with pytest.raises(ScheduleError, match="a schedule whose last part has a length of its own"):
        extend(cosine(1, 0), 100, 200)
    with pytest.raises(ScheduleError, match="no part before the last takes what is left"):
        extend(constant(1, over=50).then(linear(1, 0, over=50)), 100, 200)
    with pytest.raises(ScheduleError, match="differs from the run over 100 from the start"):
        extend(wsd(percent(10)), 100, 200)


def test_epochs_are_understood() -> None:
    plan = warmup(epochs(1)).then(constant(1)).then(cooldown(percent(20)))
    same = warmup(steps(10)).then(constant(1)).then(cooldown(percent(20)))
    assert extend(plan, 100, 200, steps_per_epoch=10) == extend(same, 100, 200)
    assert cooldown_gains(plan, 100, [0.2], steps_per_epoch=10) == cooldown_gains(same, 100, [0.2])
    exponential_end = warmup(10).then(constant(1)).then(exponential(1, 0.1, over=percent(20)))
    assert extend(exponential_end, 100, 200).factor < 1


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_any_scale_of_a_shape_has_a_bound(scale: float) -> None:
    found, plain = (bound((k * linear(1, 0)).resolve(total_steps=400)) for k in (scale, 1.0))
    assert found.best == pytest.approx(plain.best)
    assert found.lr == pytest.approx(plain.lr / scale)


def test_more_that_has_no_bound_is_told() -> None:
    with pytest.raises(TypeError, match=r"give schedule\.resolve\(total\), a curve"):
        bound(linear(1, 0))
    with pytest.raises(SettingError, match="expected numbers above 0"):
        bound(linear(1, 0).resolve(total_steps=10), gradient=math.inf)
    with pytest.raises(SettingError, match="lr=0: expected a number above 0"):
        bound(linear(1, 0).resolve(total_steps=10)).at(0)
    assert list(cooldown_gains(wsd(100), 400)) == [0.05, 0.1, 0.2, 0.3, 0.4, 0.6]

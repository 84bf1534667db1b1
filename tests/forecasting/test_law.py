"""The law: published anchors, real curves that were not fitted, and what it refuses."""

import math

import numpy as np
import pytest
from curves import PEAK, PLANS, SIZES, real_logs

from ratecraft import constant, cosine, exponential, linear, warmup, wsd
from ratecraft.errors import LogError
from ratecraft.forecasting import Law, Log, fit

PUBLISHED = {
    "25M": (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
    "100M": (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
}
METRICS = {
    "25M": (".9988", ".00376", ".00465", ".00110", ".00409"),
    "100M": (".9983", ".00435", ".00592", ".00142", ".00583"),
}
FITTED_BY_THEM = ("cosine_24000", "constant_24000", "wsdcon_9")
# As their code has it: up from 0 at step 0 to the peak at step 2159.
THEIR_WARMUP = warmup(2159).then(constant(1, over=1))


def their_plan(name):
    after = {
        "constant": constant(1),
        "cosine": cosine(1, 0.1),
        "wsd": constant(1).then(exponential(1, 0.1, over=4000)),
        "wsdld": constant(1).then(linear(1, 0.1, over=4000)),
        "wsdcon_18": constant(1, over=5840).then(constant(0.6)),
        "wsdcon_3": constant(1, over=5840).then(constant(0.1)),
    }
    kind = name if name in after else name.partition("_")[0]
    return PEAK * THEIR_WARMUP.then(after[kind])


@pytest.mark.parametrize("size", SIZES)
def test_published_parameters_give_the_published_metrics(size) -> None:
    law = Law.published(PUBLISHED[size], PEAK)
    rows = []
    for name, log in real_logs(size).items():
        if name in FITTED_BY_THEM:
            continue
        lrs = their_plan(name).resolve(total_steps=PLANS[name][1]).values()
        # Their loss at step t has seen the lr of step t.
        gaps = law.losses(lrs, [k + 1 for k in log.steps]) - log.losses
        losses = np.asarray(log.losses)
        explained = 1 - (gaps**2).sum() / ((losses - losses.mean()) ** 2).sum()
        share = np.abs(gaps) / losses
        rows.append([
            explained, np.abs(gaps).mean(), (gaps**2).mean() ** 0.5, share.mean(), share.max()
        ])  # fmt: skip
    found = np.mean(rows, axis=0)
    for value, told in zip(found, METRICS[size], strict=True):
        assert abs(value - float(told)) <= 0.5 * 10.0 ** (1 - len(told)) * (1 + 1e-3), (value, told)


def unseen(size, *names):
    """Fit some of the real runs; return the others' names, R2, mean errors and final errors."""
    logs = real_logs(size)
    law = fit([logs[name] for name in names])
    rows = {}
    for name, log in logs.items():
        losses = np.asarray(log.losses)
        gaps = law.losses(log.every_lr, log.steps) - losses
        explained = 1 - (gaps**2).sum() / ((losses - losses.mean()) ** 2).sum()
        rows[name] = explained, np.abs(gaps).mean(), gaps[-1]
    return {name: row for name, row in rows.items() if name not in names}


@pytest.mark.parametrize("size", SIZES)
def test_two_short_runs_foresee_seven_others(size) -> None:
    rows = unseen(size, "constant_24000", "wsdcon_9")
    assert len(rows) == 7
    assert np.mean([row[0] for row in rows.values()]) >= 0.997
    assert np.mean([row[1] for row in rows.values()]) <= 0.0050
    assert abs(rows["cosine_72000"][2]) <= 0.025


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["wsd_20000_24000", "wsdld_20000_24000"])
def test_one_wsd_run_foresees_eight_others(size, name) -> None:
    rows = unseen(size, name)
    assert len(rows) == 8
    assert np.mean([abs(row[2]) for row in rows.values()]) <= 0.015


def made(plan, total, law, peak=0.01, every=20, noise=0.0, name="run"):
    """Return the log of a run that follows the law."""
    curve = (peak * plan).resolve(total_steps=total)
    steps = list(range(every, total + 1, every))
    losses = law.losses(curve.values(), steps)
    losses = losses * np.exp(noise * np.random.default_rng(0).standard_normal(len(losses)))
    return Log(steps, losses.tolist(), schedule=curve, name=name)


TRUE = Law(2.5, 0.9, 0.45, 0.2, 0.012)


def test_a_law_is_found_again_from_what_follows_it() -> None:
    logs = [made(wsd(50, 400), 2000, TRUE), made(warmup(50).then(constant(1)), 2000, TRUE)]
    for full in (False, True):
        law = fit(logs, full=full).law
        other = made(warmup(50).then(cosine(1, 0)), 3000, TRUE)
        foreseen = law.losses(other.every_lr, other.steps[10:])
        assert foreseen == pytest.approx(other.losses[10:], rel=4e-3)
    assert fit(logs).law.beta == 0.6


def test_changes_gathered_into_nodes_are_as_good_as_each_alone(monkeypatch) -> None:
    log = made(warmup(200).then(cosine(1, 0)), 5000, TRUE)
    for nodes, near in ((10**6, 1e-5), (250, 1e-4)):
        monkeypatch.setattr("ratecraft.forecasting._law.READ", nodes)
        found = TRUE.losses(log.every_lr, log.steps)
        assert np.asarray(log.losses) == pytest.approx(found, rel=near)


def test_a_drop_is_not_gathered_with_what_lies_elsewhere() -> None:
    plan = warmup(100).then(constant(1, over=900)).then(constant(0.1))
    lrs = plan.resolve(total_steps=2000).values()
    law = Law(2.5, 0.9, 0.45, 0.2, 0.012, warmup=True)
    before, after = law.losses(lrs, [1000, 1100])
    up = (
        0.2
        * sum(  # the rises of the warm-up count as drops below zero
            0.01 * (1 - (1 + 0.012 * u**-0.6 * s) ** -0.6)
            for u, s in ((k / 100, sum(lrs[k:1000])) for k in range(1, 101))
        )
    )
    assert before == pytest.approx(2.5 + 0.9 * (sum(lrs[:1000]) / 1000) ** -0.45 + up, rel=1e-4)
    assert after < before - 0.03


def test_what_runs_cannot_tell_is_told() -> None:
    wave = made(warmup(50).then(cosine(1, 0)), 2000, TRUE)
    flat = made(warmup(50).then(constant(1)), 2000, TRUE)
    good = made(wsd(50, 400), 2000, TRUE)
    assert "none of the runs stays at its peak lr" in fit([wave]).notes[0]
    assert "none of the runs lets its lr fall" in fit([flat]).notes[0]
    assert fit([good]).notes == fit([wave, flat]).notes == ()
    late = Log(good.steps[20:], good.losses[20:], [0.01] * 80, name="late.csv")
    assert "the lrs of late.csv begin at step 420; those before" in fit([late, good]).notes[0]


def test_noise_makes_it_less_sure() -> None:
    quiet, loud = (fit([made(wsd(50, 400), 2000, TRUE, noise=noise)]) for noise in (0.0001, 0.02))
    lrs = (0.01 * warmup(50).then(cosine(1, 0))).resolve(total_steps=2000).values()
    doubts = [math.sqrt((g := law.slopes(lrs, 2000)) @ law.spread @ g) for law in (quiet, loud)]
    assert doubts[1] > 2 * doubts[0]
    assert loud.error == pytest.approx(0.02, rel=0.3)


def test_what_cannot_be_fitted_is_refused() -> None:
    run = made(wsd(50, 400), 2000, TRUE, name="a")
    with pytest.raises(LogError, match="no logs"):
        fit([])
    other = made(wsd(50, 400), 2000, TRUE, peak=0.02, name="b")
    with pytest.raises(LogError, match=r"a has a peak lr of 0\.01, b of 0\.02"):
        fit([run, other])
    early = Log(
        range(1, 20),
        [5.0] * 19,
        schedule=(0.1 * warmup(15).then(constant(1))).resolve(total_steps=30),
    )
    with pytest.raises(LogError, match="4 losses after its warm-up of 15 steps"):
        fit([early])

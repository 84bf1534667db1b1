"""Forecasts: bands that hold on real curves, ties, doubts, refusals."""

import math

import numpy as np
import pytest
from curves import PLANS, SIZES, real_logs

from ratecraft import constant, cosine, epochs, linear, one_cycle, percent, polynomial, warmup, wsd
from ratecraft.errors import LogError, ResultError, ScheduleError, SettingError
from ratecraft.forecasting import Law, Log, fit, forecast, recommend
from ratecraft.forecasting._law import _Course
from ratecraft.results import load

TRAINED = [("constant_24000", "wsdcon_9"), ("wsd_20000_24000",), ("wsdld_20000_24000",)]
FOUR = ("constant_24000", "cosine_24000", "wsd_20000_24000", "wsdld_20000_24000")


def foreseen(size, names):
    """Forecast every real run that is not among the fitted ones; return runs by name."""
    logs = real_logs(size)
    found = {}
    for total in (16000, 24000, 72000):
        plans = {n: plan for n, (plan, long) in PLANS.items() if long == total}
        result = forecast([logs[n] for n in names], plans, total)
        found |= {one.name: one for one in result.candidates if one.name not in names}
    return logs, found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", TRAINED, ids=" ".join)
def test_bands_hold_what_really_happened_and_say_something(size, names) -> None:
    logs, found = foreseen(size, names)
    assert len(found) == 9 - len(names)
    inside = [one.low <= logs[name].losses[-1] <= one.high for name, one in found.items()]
    assert np.mean(inside) >= 0.8
    widths = [(one.high - one.low) / 2 / one.loss for one in found.values()]
    assert np.mean(widths) < 0.012


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", TRAINED, ids=" ".join)
def test_the_order_of_four_real_runs_is_right_but_for_ties(size, names) -> None:
    logs = real_logs(size)
    result = forecast([logs[n] for n in names], {n: PLANS[n][0] for n in FOUR}, 24000)
    order = [one.name for one in result.candidates]
    truth = {n: logs[n].losses[-1] for n in FOUR}
    for i, better in enumerate(order):
        for worse in order[i + 1 :]:
            assert truth[better] < truth[worse] or (better, worse) in result.tied
    assert len(result.tied) <= 2


TRUE = Law(2.5, 0.9, 0.45, 0.2, 0.012)


def made(plan, total, peak=0.01, name="run"):
    curve = (peak * plan).resolve(total_steps=total)
    steps = list(range(20, total + 1, 20))
    return Log(steps, TRUE.losses(curve.values(), steps).tolist(), schedule=curve, name=name)


LOG = made(wsd(50, 400), 2000)


def test_candidates_are_ranked_and_the_answer_is_a_sentence(tmp_path) -> None:
    plans = {"wave": warmup(50).then(cosine(1, 0)), "fall": wsd(50, 300, shape="linear")}
    plans["flat"] = warmup(50).then(constant(1))
    result = forecast(LOG, plans, 2000)
    exact = {
        name: TRUE.losses((0.01 * plan).resolve(total_steps=2000).values(), [2000])[0]
        for name, plan in plans.items()
    }
    assert [one.name for one in result.candidates] == sorted(exact, key=exact.get)
    best = result.candidates[0]
    assert best.schedule == "0.01 * warmup(50).then(constant(1)).then(cooldown(300))"
    assert best.loss == best.losses[-1]
    assert best.steps[-1] == 2000
    assert result.verdict().startswith(f"fall would end at {best.loss:.4g} (")
    assert result.verdict().endswith(f" below {result.candidates[1].name}")
    assert load(result.save(tmp_path / "f.json")) == result
    path = tmp_path / "g.json"
    path.write_text(path.with_name("f.json").read_text().replace('"low"', '"deep"'))
    with pytest.raises(ResultError, match="is a damaged Forecast"):
        load(path)
    near = {"a": wsd(50, 400), "b": wsd(50, 401), "flat": plans["flat"]}
    tied = forecast(LOG, near, 2000)
    assert tied.tied in ((("a", "b"),), (("b", "a"),))
    assert "the law cannot tell" in tied.verdict()
    assert "any of the others" in forecast(LOG, [wsd(50, 400), wsd(50, 401)], 2000).verdict()
    assert forecast(LOG, [wsd(50, 400)], 2000).verdict().endswith(")")


def test_a_schedule_is_a_factor_or_the_lr_itself() -> None:
    factor, lr = wsd(50), 0.01 * wsd(50)
    pair = forecast(LOG, {"factor": factor, "lr": lr}, 1000).candidates
    assert pair[0].loss == pair[1].loss
    assert pair[0].schedule == pair[1].schedule
    with pytest.raises(ScheduleError, match=r"b has a peak of 0\.02, the logged runs of 0\.01"):
        forecast(LOG, {"b": 0.02 * wsd(50)}, 1000)
    with pytest.raises(ScheduleError, match="b falls below 0"):
        forecast(LOG, {"b": polynomial(1, -1)}, 1000)
    by_epochs = warmup(epochs(1)).then(cosine(1, 0))
    same = warmup(50).then(cosine(1, 0))
    told = [
        forecast(LOG, {"a": s}, 2000, steps_per_epoch=50).candidates[0].loss
        for s in (by_epochs, same)
    ]
    assert told[0] == told[1]


def test_what_is_outside_the_law_is_said() -> None:
    plans = {
        "low": warmup(50).then(constant(1, over=500)).then(constant(0.2)),
        "again": one_cycle(),
        "saw": warmup(50).then(cosine(1, 0, over=500).repeat()),
        "wsd": wsd(50),
    }
    notes = {one.name: " ".join(one.notes) for one in forecast(LOG, plans, 2000).candidates}
    assert "a long plateau at a low lr" in notes["low"]
    assert "lrs that rise again" in notes["saw"]
    assert notes["wsd"] == notes["again"] == ""
    (one,) = forecast(LOG, {"wsd": wsd(50)}, 20000).candidates
    assert one.notes == ("10 times as long as the longest logged run",)


def test_weak_logs_have_wider_bands() -> None:
    wave = made(warmup(50).then(cosine(1, 0)), 2000)
    plan = {"wsd": wsd(50)}
    strong, weak = forecast(LOG, plan, 2000), forecast(wave, plan, 2000)
    widths = [r.candidates[0].high - r.candidates[0].low for r in (strong, weak)]
    assert widths[1] > 2 * widths[0]
    assert weak.notes
    assert not strong.notes


def test_the_recommended_schedule_is_the_best_of_its_family_by_the_law() -> None:
    result = recommend(LOG, 3000)
    assert len(result.candidates) == 10
    assert result.candidates[0].schedule.startswith("0.01 * warmup(50).then(constant(1))")
    best = min(
        TRUE.losses(
            (0.01 * wsd(50, percent(c), shape="linear")).resolve(total_steps=3000).values(), [3000]
        )[0]
        for c in (5, 10, 20, 40, 60, 80)
    )
    chosen = result.candidates[0].curve(3000).values()
    assert TRUE.losses(chosen, [3000])[0] <= best + 1e-3
    assert "warmup(7)" in recommend(LOG, 300, warm=7).candidates[0].name
    assert recommend(LOG, 300, warm=0).candidates[0].name.startswith("constant(1).then(")
    with pytest.raises(SettingError, match="a warm-up of 50 steps in a run of 80"):
        recommend(LOG, 80)


def test_nothing_to_foresee_is_told() -> None:
    with pytest.raises(ScheduleError, match="no schedules to foresee"):
        forecast(LOG, [], 100)
    with pytest.raises(TypeError, match="a Schedule was expected, not 'cosine"):
        forecast(LOG, {"a": "cosine(1, 0)"}, 100)
    with pytest.raises(LogError, match="no logs"):
        forecast([], [wsd(50)], 100)


def test_what_rises_again_is_never_told_to_be_best() -> None:
    saw = warmup(50).then(cosine(1, 0, over=50).repeat())
    result = forecast(LOG, {"saw": saw, "wsd": wsd(50)}, 2000)
    assert [one.name for one in result.candidates] == ["wsd", "saw"]
    early = linear(0.5, 0, over=500).then(linear(0, 1, over=1500))
    (one,) = forecast(LOG, {"early": early}, 2000).candidates
    assert "lrs that rise again" in " ".join(one.notes)
    (one,) = forecast(LOG, {"slow": warmup(1500).then(constant(1))}, 2000).candidates
    assert "more than half of it is warm-up" in " ".join(one.notes)


def test_notes_are_the_same_for_very_long_runs() -> None:
    plain = warmup(50).then(cosine(1, 0))
    (one,) = forecast(LOG, {"a": plain}, 2_000_000).candidates
    assert one.notes == ("1000 times as long as the longest logged run",)


def test_logs_that_the_law_does_not_fit_are_told() -> None:
    steps = list(range(20, 2001, 20))
    over = [2 + 2 * (k / 1000 - 1) ** 2 for k in steps]
    fits = Log(steps, over, schedule=(0.01 * wsd(50)).resolve(total_steps=2000), name="u")
    assert "of the logged losses unexplained" in " ".join(forecast(fits, [wsd(50)], 2000).notes)
    small = [math.exp(-k / 200) for k in steps]
    gone = Log(steps, small, schedule=(0.01 * wsd(50)).resolve(total_steps=2000), name="gone")
    with pytest.raises(LogError, match="these losses do not follow it"):
        forecast(gone, [wsd(50), warmup(50).then(constant(1))], 4000)


def test_bands_grow_with_the_noise() -> None:
    rng = np.random.default_rng(0)
    widths, inside = [], []
    for noise in (0.01, 0.1, 0.3):
        for _ in range(5):
            losses = np.asarray(LOG.losses) * np.exp(noise * rng.standard_normal(len(LOG.losses)))
            log = Log(LOG.steps, losses.tolist(), schedule=LOG.schedule)
            (one,) = forecast(log, {"wsd": wsd(50, 400)}, 2000).candidates
            inside.append(one.low <= LOG.losses[-1] <= one.high)
            widths.append(one.high - one.low)
    assert np.mean(widths[10:]) > 3 * np.mean(widths[:5])
    assert np.mean(inside) >= 0.8


def test_two_logs_of_one_name_are_both_kept() -> None:
    flat = made(warmup(50).then(constant(1)), 2000)
    assert list(forecast([LOG, flat], [wsd(50)], 2000).logs) == ["run", "run #2"]


def test_rounded_and_jittering_lrs_are_gathered() -> None:
    jitter = np.random.default_rng(0).standard_normal(5000) * 1e-6
    lrs = (0.01 * wsd(50, 1000)).resolve(total_steps=5000).values() * (1 + jitter)
    steps = list(range(1, 5001))
    log = Log(steps, TRUE.losses(lrs, steps).tolist(), lrs.round(6).tolist())
    assert log.warmup <= 50
    course = _Course(log.every_lr, [5000])
    assert len(course.drops) < 1000
    assert fit([log]).error < 0.002


@pytest.mark.parametrize("total", [0, -3, 1.5, 10**12])
def test_a_length_that_is_none_is_told(total) -> None:
    with pytest.raises(ScheduleError, match="expected a number of steps, at least 1"):
        forecast(LOG, [wsd(50)], total)
    with pytest.raises(ScheduleError, match="expected a number of steps, at least 1"):
        recommend(LOG, total)


def test_a_single_schedule_is_one_and_a_path_is_no_log() -> None:
    assert len(forecast(LOG, wsd(50), 2000).candidates) == 1
    with pytest.raises(TypeError, match=r"read_logs\(path\) gives some"):
        forecast("run.csv", wsd(50), 2000)

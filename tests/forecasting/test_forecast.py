"""Forecasts: intervals on published loss curves, ties, notes, errors."""

import math

import numpy as np
import pytest
from curves import SCHEDULES, SIZES, real_logs

from ratecraft import constant, cosine, epochs, linear, one_cycle, percent, polynomial, warmup, wsd
from ratecraft.errors import LogError, ResultError, ScheduleError, SettingError
from ratecraft.forecasting import Law, Log, fit, forecast, recommend
from ratecraft.forecasting._law import _LRChanges
from ratecraft.results import load

FITTED = [("constant_24000", "wsdcon_9"), ("wsd_20000_24000",), ("wsdld_20000_24000",)]
FOUR = ("constant_24000", "cosine_24000", "wsd_20000_24000", "wsdld_20000_24000")


def forecast_others(size, names):
    """Return the logs, and the forecasts of all runs except the fitted ones, by name."""
    logs = real_logs(size)
    entries = {}
    for total_steps in (16000, 24000, 72000):
        schedules = {
            n: schedule for n, (schedule, steps) in SCHEDULES.items() if steps == total_steps
        }
        result = forecast([logs[n] for n in names], schedules, total_steps)
        entries |= {entry.name: entry for entry in result.entries if entry.name not in names}
    return logs, entries


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", FITTED, ids=" ".join)
def test_intervals_contain_the_real_losses_and_are_narrow(size, names) -> None:
    logs, entries = forecast_others(size, names)
    assert len(entries) == 9 - len(names)
    inside = [entry.low <= logs[name].losses[-1] <= entry.high for name, entry in entries.items()]
    assert np.mean(inside) >= 0.8
    widths = [(entry.high - entry.low) / 2 / entry.loss for entry in entries.values()]
    assert np.mean(widths) < 0.012


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", FITTED, ids=" ".join)
def test_order_of_four_real_runs_is_right_except_for_ties(size, names) -> None:
    logs = real_logs(size)
    result = forecast([logs[n] for n in names], {n: SCHEDULES[n][0] for n in FOUR}, 24000)
    order = [entry.name for entry in result.entries]
    truth = {n: logs[n].losses[-1] for n in FOUR}
    for i, better in enumerate(order):
        for worse in order[i + 1 :]:
            assert truth[better] < truth[worse] or (better, worse) in result.tied
    assert len(result.tied) <= 2


TRUE = Law(2.5, 0.9, 0.45, 0.2, 0.012)


def synthetic_log(schedule, total_steps, peak_lr=0.01, name="run"):
    curve = (peak_lr * schedule).resolve(total_steps=total_steps)
    steps = list(range(20, total_steps + 1, 20))
    return Log(steps, TRUE.losses(curve.values(), steps).tolist(), schedule=curve, name=name)


LOG = synthetic_log(wsd(50, 400), 2000)


def test_entries_are_ranked_and_the_verdict_is_a_sentence(tmp_path) -> None:
    schedules = {"wave": warmup(50).then(cosine(1, 0)), "fall": wsd(50, 300, shape="linear")}
    schedules["flat"] = warmup(50).then(constant(1))
    result = forecast(LOG, schedules, 2000)
    exact = {
        name: TRUE.losses((0.01 * schedule).resolve(total_steps=2000).values(), [2000])[0]
        for name, schedule in schedules.items()
    }
    assert [entry.name for entry in result.entries] == sorted(exact, key=exact.get)
    best = result.entries[0]
    assert best.schedule == "0.01 * warmup(50).then(constant(1)).then(cooldown(300))"
    assert best.loss == best.losses[-1]
    assert best.steps[-1] == 2000
    assert result.verdict().startswith(f"fall would end at {best.loss:.4g} (")
    assert result.verdict().endswith(f" below {result.entries[1].name}")
    assert load(result.save(tmp_path / "f.json")) == result
    path = tmp_path / "g.json"
    path.write_text(path.with_name("f.json").read_text().replace('"low"', '"deep"'))
    with pytest.raises(ResultError, match="is a damaged Forecast"):
        load(path)
    near = {"a": wsd(50, 400), "b": wsd(50, 401), "flat": schedules["flat"]}
    tied = forecast(LOG, near, 2000)
    assert tied.tied in ((("a", "b"),), (("b", "a"),))
    assert "the law cannot rank it above" in tied.verdict()
    assert "above any other schedule" in forecast(LOG, [wsd(50, 400), wsd(50, 401)], 2000).verdict()
    assert forecast(LOG, [wsd(50, 400)], 2000).verdict().endswith(")")


def test_schedule_is_a_factor_or_an_lr() -> None:
    factor, lr = wsd(50), 0.01 * wsd(50)
    pair = forecast(LOG, {"factor": factor, "lr": lr}, 1000).entries
    assert pair[0].loss == pair[1].loss
    assert pair[0].schedule == pair[1].schedule
    with pytest.raises(ScheduleError, match=r"b has a peak of 0\.02, the logged runs one of 0\.01"):
        forecast(LOG, {"b": 0.02 * wsd(50)}, 1000)
    with pytest.raises(ScheduleError, match="b falls below 0"):
        forecast(LOG, {"b": polynomial(1, -1)}, 1000)
    by_epochs = warmup(epochs(1)).then(cosine(1, 0))
    same = warmup(50).then(cosine(1, 0))
    losses = [
        forecast(LOG, {"a": s}, 2000, steps_per_epoch=50).entries[0].loss for s in (by_epochs, same)
    ]
    assert losses[0] == losses[1]


def test_notes_name_schedules_outside_the_law() -> None:
    schedules = {
        "low": warmup(50).then(constant(1, over=500)).then(constant(0.2)),
        "again": one_cycle(),
        "saw": warmup(50).then(cosine(1, 0, over=500).repeat()),
        "wsd": wsd(50),
    }
    notes = {entry.name: " ".join(entry.notes) for entry in forecast(LOG, schedules, 2000).entries}
    assert "a long plateau at a low lr" in notes["low"]
    assert "its lr rises again" in notes["saw"]
    assert notes["wsd"] == notes["again"] == ""
    (entry,) = forecast(LOG, {"wsd": wsd(50)}, 20000).entries
    assert entry.notes == ("10 times as long as the longest logged run",)


def test_weak_logs_widen_the_intervals() -> None:
    cosine_log = synthetic_log(warmup(50).then(cosine(1, 0)), 2000)
    schedules = {"wsd": wsd(50)}
    strong, weak = forecast(LOG, schedules, 2000), forecast(cosine_log, schedules, 2000)
    widths = [r.entries[0].high - r.entries[0].low for r in (strong, weak)]
    assert widths[1] > 2 * widths[0]
    assert weak.notes
    assert not strong.notes


def test_recommended_schedule_has_the_lowest_loss_of_its_family() -> None:
    result = recommend(LOG, 3000)
    assert len(result.entries) == 10
    assert result.entries[0].schedule.startswith("0.01 * warmup(50).then(constant(1))")
    best = min(
        TRUE.losses(
            (0.01 * wsd(50, percent(c), shape="linear")).resolve(total_steps=3000).values(), [3000]
        )[0]
        for c in (5, 10, 20, 40, 60, 80)
    )
    chosen = result.entries[0].curve(3000).values()
    assert TRUE.losses(chosen, [3000])[0] <= best + 1e-3
    assert "warmup(7)" in recommend(LOG, 300, warmup_steps=7).entries[0].name
    assert recommend(LOG, 300, warmup_steps=0).entries[0].name.startswith("constant(1).then(")
    with pytest.raises(SettingError, match="a warmup of 50 steps in a run of 80"):
        recommend(LOG, 80)


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ScheduleError, match="the same schedule is given twice"):
        forecast(LOG, [cosine(1, 0), cosine(1, 0)], 2000)
    with pytest.raises(TypeError, match=r"not 'wsd\(5\)'; ratecraft.parse reads a text"):
        forecast(LOG, "wsd(5)", 2000)
    with pytest.raises(ScheduleError, match="schedules= is empty; pass at least one"):
        forecast(LOG, [], 100)
    with pytest.raises(TypeError, match="expected a Schedule, not 'cosine"):
        forecast(LOG, {"a": "cosine(1, 0)"}, 100)
    with pytest.raises(LogError, match="no logs"):
        forecast([], [wsd(50)], 100)


def test_schedule_with_rising_lr_is_never_ranked_first() -> None:
    saw = warmup(50).then(cosine(1, 0, over=50).repeat())
    result = forecast(LOG, {"saw": saw, "wsd": wsd(50)}, 2000)
    assert [entry.name for entry in result.entries] == ["wsd", "saw"]
    early = linear(0.5, 0, over=500).then(linear(0, 1, over=1500))
    (entry,) = forecast(LOG, {"early": early}, 2000).entries
    assert "its lr rises again" in " ".join(entry.notes)
    (entry,) = forecast(LOG, {"slow": warmup(1500).then(constant(1))}, 2000).entries
    assert "more than half of it is warmup" in " ".join(entry.notes)


def test_notes_are_the_same_for_very_long_runs() -> None:
    plain = warmup(50).then(cosine(1, 0))
    (entry,) = forecast(LOG, {"a": plain}, 2_000_000).entries
    assert entry.notes == ("1000 times as long as the longest logged run",)


def test_logs_that_do_not_follow_the_law() -> None:
    steps = list(range(20, 2001, 20))
    over = [2 + 2 * (k / 1000 - 1) ** 2 for k in steps]
    overfitting = Log(steps, over, schedule=(0.01 * wsd(50)).resolve(total_steps=2000), name="u")
    assert "the law misses the logged losses by" in " ".join(
        forecast(overfitting, [wsd(50)], 2000).notes
    )
    small = [math.exp(-k / 200) for k in steps]
    decaying = Log(
        steps, small, schedule=(0.01 * wsd(50)).resolve(total_steps=2000), name="decaying"
    )
    with pytest.raises(LogError, match="the logged losses do not follow the law"):
        forecast(decaying, [wsd(50), warmup(50).then(constant(1))], 4000)


def test_intervals_widen_with_noise() -> None:
    rng = np.random.default_rng(0)
    widths, inside = [], []
    for noise in (0.01, 0.1, 0.3):
        for _ in range(5):
            losses = np.asarray(LOG.losses) * np.exp(noise * rng.standard_normal(len(LOG.losses)))
            log = Log(LOG.steps, losses.tolist(), schedule=LOG.schedule)
            (entry,) = forecast(log, {"wsd": wsd(50, 400)}, 2000).entries
            inside.append(entry.low <= LOG.losses[-1] <= entry.high)
            widths.append(entry.high - entry.low)
    assert np.mean(widths[10:]) > 3 * np.mean(widths[:5])
    assert np.mean(inside) >= 0.8


def test_logs_with_equal_names_are_numbered() -> None:
    constant_log = synthetic_log(warmup(50).then(constant(1)), 2000)
    assert list(forecast([LOG, constant_log], [wsd(50)], 2000).logs) == ["run", "run #2"]


def test_rounded_and_noisy_lrs_are_grouped() -> None:
    jitter = np.random.default_rng(0).standard_normal(5000) * 1e-6
    lrs = (0.01 * wsd(50, 1000)).resolve(total_steps=5000).values() * (1 + jitter)
    steps = list(range(1, 5001))
    log = Log(steps, TRUE.losses(lrs, steps).tolist(), lrs.round(6).tolist())
    assert log.warmup_steps <= 50
    changes = _LRChanges(log.every_lr, [5000])
    assert len(changes.drops) < 1000
    assert fit([log]).error < 0.002


@pytest.mark.parametrize("total_steps", [0, -3, 1.5, 10**12])
def test_invalid_total_steps_raises(total_steps) -> None:
    with pytest.raises(ScheduleError, match="expected a number of steps, 1 to 20,000,000"):
        forecast(LOG, [wsd(50)], total_steps)
    with pytest.raises(ScheduleError, match="expected a number of steps, 1 to 20,000,000"):
        recommend(LOG, total_steps)


def test_single_schedule_is_accepted_and_a_path_is_not() -> None:
    assert len(forecast(LOG, wsd(50), 2000).entries) == 1
    with pytest.raises(TypeError, match=r"read_logs\(path\) returns a list"):
        forecast("run.csv", wsd(50), 2000)

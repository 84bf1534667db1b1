"""Law: published metrics, published loss curves that were not fitted, invalid logs."""

import math
import re

import numpy as np
import pytest
import torch
from curves import PEAK_LR, SCHEDULES, SIZES, real_logs
from sklearn.datasets import load_digits
from torch import nn

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
FITTED_BY_AUTHORS = ("cosine_24000", "constant_24000", "wsdcon_9")
# In the code of the authors the lr rises from 0 at step 0 to the peak at step 2159.
AUTHORS_WARMUP = warmup(2159).then(constant(1, over=1))


def authors_schedule(name):
    endings = {
        "constant": constant(1),
        "cosine": cosine(1, 0.1),
        "wsd": constant(1).then(exponential(1, 0.1, over=4000)),
        "wsdld": constant(1).then(linear(1, 0.1, over=4000)),
        "wsdcon_18": constant(1, over=5840).then(constant(0.6)),
        "wsdcon_3": constant(1, over=5840).then(constant(0.1)),
    }
    key = name if name in endings else name.partition("_")[0]
    return PEAK_LR * AUTHORS_WARMUP.then(endings[key])


def published_law(floor, amplitude, alpha, drop, speed, beta, gamma) -> Law:
    """The law of Luo et al., whose lrs are not scaled."""
    amplitude *= (1000 * PEAK_LR) ** -alpha
    speed *= PEAK_LR ** (1 - gamma)
    return Law(floor, amplitude, alpha, drop * PEAK_LR, speed, beta, gamma)


def losses_with_warmup(law, lrs, steps):
    """The losses of a law whose sum includes the warmup, in which a rise is a negative drop."""
    u = lrs / lrs.max()
    rises = np.diff(u, prepend=0.0)[: u.argmax() + 1]
    u_k = u[: len(rises), None]
    sums = np.concatenate([[0.0], np.cumsum(u)])
    since = np.maximum(sums[np.asarray(steps, int)] - sums[: len(rises), None], 0.0)
    fractions = 1 - (1 + law.speed * np.maximum(u_k, 1e-9) ** -law.gamma * since) ** -law.beta
    return law.losses(lrs, steps) + law.drop * (rises[:, None] * fractions).sum(axis=0)


@pytest.mark.parametrize("size", SIZES)
def test_published_parameters_give_the_published_metrics(size, monkeypatch) -> None:
    # In larger groups of lr changes one metric would be rounded to another last digit.
    monkeypatch.setattr("ratecraft.forecasting._law.EVAL_NODES", 20_000)
    law = published_law(*PUBLISHED[size])
    rows = []
    for name, log in real_logs(size).items():
        if name in FITTED_BY_AUTHORS:
            continue
        lrs = authors_schedule(name).resolve(total_steps=SCHEDULES[name][1]).values()
        # The loss at step t of the authors includes step t.
        gaps = losses_with_warmup(law, lrs, [k + 1 for k in log.steps]) - log.losses
        losses = np.asarray(log.losses)
        explained = 1 - (gaps**2).sum() / ((losses - losses.mean()) ** 2).sum()
        share = np.abs(gaps) / losses
        rows.append([
            explained, np.abs(gaps).mean(), (gaps**2).mean() ** 0.5, share.mean(), share.max()
        ])  # fmt: skip
    for value, text in zip(np.mean(rows, axis=0), METRICS[size], strict=True):
        half_digit = 0.5 * 10.0 ** (1 - len(text))
        assert abs(value - float(text)) <= half_digit * (1 + 1e-3), (value, text)


def held_out(size, *names):
    """Fit the named runs; return R2, mean error and final error of the other runs, by name."""
    logs = real_logs(size)
    law = fit([logs[name] for name in names]).law
    rows = {}
    for name, log in logs.items():
        losses = np.asarray(log.losses)
        gaps = law.losses(log.every_lr, log.steps) - losses
        explained = 1 - (gaps**2).sum() / ((losses - losses.mean()) ** 2).sum()
        rows[name] = explained, np.abs(gaps).mean(), gaps[-1]
    return {name: row for name, row in rows.items() if name not in names}


@pytest.mark.parametrize("size", SIZES)
def test_fit_to_two_short_runs_predicts_seven_others(size) -> None:
    rows = held_out(size, "constant_24000", "wsdcon_9")
    assert len(rows) == 7
    assert np.mean([row[0] for row in rows.values()]) >= 0.997
    assert np.mean([row[1] for row in rows.values()]) <= 0.0050
    assert abs(rows["cosine_72000"][2]) <= 0.025


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["wsd_20000_24000", "wsdld_20000_24000"])
def test_fit_to_one_wsd_run_predicts_eight_others(size, name) -> None:
    rows = held_out(size, name)
    assert len(rows) == 8
    assert np.mean([abs(row[2]) for row in rows.values()]) <= 0.015


def synthetic_log(schedule, total_steps, law, peak_lr=0.01, every=20, noise=0.0, name="run"):
    """Return the log of a run that follows the law."""
    curve = (peak_lr * schedule).resolve(total_steps=total_steps)
    steps = list(range(every, total_steps + 1, every))
    losses = law.losses(curve.values(), steps)
    losses = losses * np.exp(noise * np.random.default_rng(0).standard_normal(len(losses)))
    return Log(steps, losses.tolist(), schedule=curve, name=name)


TRUE = Law(2.5, 0.9, 0.45, 0.2, 0.012)


def test_fit_recovers_the_law_of_synthetic_logs() -> None:
    logs = [
        synthetic_log(wsd(50, 400), 2000, TRUE),
        synthetic_log(warmup(50).then(constant(1)), 2000, TRUE),
    ]
    for full in (False, True):
        law = fit(logs, full=full).law
        other = synthetic_log(warmup(50).then(cosine(1, 0)), 3000, TRUE)
        predicted = law.losses(other.every_lr, other.steps[10:])
        assert predicted == pytest.approx(other.losses[10:], rel=4e-3)
    assert fit(logs).law.beta == 0.6


def test_grouped_lr_changes_give_the_same_losses(monkeypatch) -> None:
    log = synthetic_log(warmup(200).then(cosine(1, 0)), 5000, TRUE)
    for nodes, rel_tol in ((10**6, 1e-5), (250, 1e-4)):
        monkeypatch.setattr("ratecraft.forecasting._law.EVAL_NODES", nodes)
        losses = TRUE.losses(log.every_lr, log.steps)
        assert np.asarray(log.losses) == pytest.approx(losses, rel=rel_tol)


def test_drop_is_not_grouped_with_distant_changes() -> None:
    schedule = warmup(100).then(constant(1, over=900)).then(constant(0.1))
    lrs = schedule.resolve(total_steps=2000).values()
    before, after = TRUE.losses(lrs, [1000, 1100])
    assert before == pytest.approx(2.5 + 0.9 * (sum(lrs[:1000]) / 1000) ** -0.45, rel=1e-4)
    assert after < before - 0.03


def test_notes_name_the_weaknesses_of_a_fit() -> None:
    cosine_log = synthetic_log(warmup(50).then(cosine(1, 0)), 2000, TRUE)
    constant_log = synthetic_log(warmup(50).then(constant(1)), 2000, TRUE)
    wsd_log = synthetic_log(wsd(50, 400), 2000, TRUE)
    assert "no run stays at its peak lr" in fit([cosine_log]).notes[0]
    assert "no run decays its lr" in fit([constant_log]).notes[0]
    assert fit([wsd_log]).notes == fit([cosine_log, constant_log]).notes == ()
    late = Log(wsd_log.steps[20:], wsd_log.losses[20:], [0.01] * 80, name="late.csv")
    assert "the lrs of late.csv start at step 420; earlier ones" in fit([late, wsd_log]).notes[0]


def test_validation_losses_that_rise_get_a_note() -> None:
    """A network that learns digits with wrong labels by heart."""
    images, digits = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32)
    digits = torch.tensor(digits)
    torch.manual_seed(0)
    labels = torch.where(torch.rand(300) < 0.3, torch.randint(0, 10, (300,)), digits[:300])
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: dict[str, list[float]] = {"train": [], "val": []}
    for step in range(1, 601):
        batch = torch.randint(0, 300, (32,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            with torch.no_grad():
                val_loss = nn.functional.cross_entropy(model(images[300:]), digits[300:])
            losses["train"].append(loss.item())
            losses["val"].append(val_loss.item())
    log = Log(range(20, 601, 20), losses["val"], [3e-3] * 30, name="a", columns={"loss": "val"})
    (note,) = [note for note in fit([log]).notes if "overfits" in note]
    assert re.match(r"the val of a rises by [0-9.]+% after step \d+, as when a model", note)
    assert losses["val"][-1] > 1.1 * min(losses["val"])
    falling = Log(range(20, 601, 20), losses["train"], [3e-3] * 30)
    assert not any("overfits" in note for note in fit([falling]).notes)


@pytest.mark.parametrize("noise", [0, 0.01, 0.1])
@pytest.mark.parametrize("every", [1, 20, 200])
def test_noisy_losses_that_fall_get_no_note(noise, every) -> None:
    log = synthetic_log(wsd(50, 400), 2000, TRUE, every=every, noise=noise)
    assert not any("rises" in note for note in fit([log]).notes)


@pytest.mark.parametrize("size", SIZES)
def test_losses_of_language_models_get_no_note_that_they_rise(size) -> None:
    notes = [note for log in real_logs(size).values() for note in fit([log]).notes]
    assert not any("rises" in note for note in notes)


def test_noise_increases_the_uncertainty() -> None:
    precise, noisy = (
        fit([synthetic_log(wsd(50, 400), 2000, TRUE, noise=noise)]) for noise in (0.0001, 0.02)
    )
    lrs = (0.01 * warmup(50).then(cosine(1, 0))).resolve(total_steps=2000).values()
    deviations = [
        math.sqrt((g := law.slopes(lrs, 2000)) @ law.covariance @ g) for law in (precise, noisy)
    ]
    assert deviations[1] > 2 * deviations[0]
    assert noisy.error == pytest.approx(0.02, rel=0.3)


def test_invalid_logs_raise() -> None:
    run = synthetic_log(wsd(50, 400), 2000, TRUE, name="a")
    with pytest.raises(LogError, match="no logs"):
        fit([])
    other = synthetic_log(wsd(50, 400), 2000, TRUE, peak_lr=0.02, name="b")
    with pytest.raises(LogError, match=r"a has a peak lr of 0\.01, b of 0\.02"):
        fit([run, other])
    early = Log(
        range(1, 20),
        [5.0] * 19,
        schedule=(0.1 * warmup(15).then(constant(1))).resolve(total_steps=30),
    )
    with pytest.raises(LogError, match="4 losses after its warmup of 15 steps"):
        fit([early])

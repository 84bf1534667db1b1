"""Predicted losses of schedules that were not run, and the best schedules of the WSD family."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

from ratecraft._keywords import explain_arguments
from ratecraft.errors import LogError, ScheduleError, SettingError
from ratecraft.results import Forecast, ForecastEntry
from ratecraft.results._base import MAX_STEPS
from ratecraft.schedule import Curve, Schedule, constant, percent, polynomial, warmup
from ratecraft.schedule._nodes import schedules_by_name

from ._law import LAW_PARAMETERS, PEAK_LR_REL_TOL, FittedLaw, fit
from ._log import Log

if TYPE_CHECKING:
    from numpy.typing import NDArray


LAW_REL_ERROR: Final = 0.005  # of the law itself on published loss curves
WEAK_FIT_REL_ERROR: Final = 0.01  # the same for a fit with notes
MAX_FORECAST_POINTS: Final = 200  # of a predicted curve
COOLDOWN_PERCENTS: Final = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 95)
COOLDOWN_POWERS: Final = (0.5, 1, 1.5, 2)
COOLDOWN_ENDS: Final = (0, 0.03, 0.1)
MAX_RECOMMENDATIONS: Final = 10
RISING_LR_NOTE: Final = (
    "its lr rises again, which the law does not model: it is listed last, and its loss is not "
    "reliable"
)


@explain_arguments(
    "forecast() takes logs, schedules (a list or a dict of names) and total_steps; write the rest "
    "by name: forecast(logs, [cosine(1, 0), wsd(500)], 10_000)"
)
def forecast(
    logs: Log | Sequence[Log],
    schedules: Mapping[str, Schedule] | Sequence[Schedule],
    total_steps: int,
    *,
    steps_per_epoch: float | None = None,
) -> Forecast:
    """Predict the final loss of schedules that were not run, from the logs of finished runs.

    A `Law` is fitted to the logs and evaluated for each schedule. The half width of an interval is
    0.5 % of the loss, the error of the law on published loss curves (1 % if the logs leave the law
    uncertain), plus two standard deviations of the fit. Two schedules are tied if they differ by
    less than 0.5 % or by less than two standard deviations of their difference.

    Args:
        logs: log of one run, or of several with the same model, data, batch size and peak lr. A
            run with a plateau and a decay, such as a WSD, is most informative.
        schedules: schedules by name, or a list whose texts are the names. Each is a factor of the
            peak learning rate of the logs, or has learning rates with that peak as values.
        total_steps: number of steps of the runs to predict.
        steps_per_epoch: needed for schedules with lengths in epochs.

    Raises:
        LogError: the logs are not usable.
        ScheduleError: a schedule cannot be resolved, or has another peak.

    >>> from ratecraft import cosine, wsd
    >>> curve, steps = (0.01 * wsd(50)).resolve(total_steps=1000), range(20, 1001, 20)
    >>> log = Log(steps, [2 + 3 * k**-0.4 for k in steps], schedule=curve)
    >>> result = forecast(log, {"cosine": cosine(1, 0), "wsd": wsd(50)}, 2000)
    >>> [entry.name for entry in result.entries], result.total_steps
    (['wsd', 'cosine'], 2000)
    """
    total_steps = _as_steps(total_steps)
    by_name = schedules_by_name(schedules)
    if not by_name:
        raise ScheduleError("schedules= is empty; pass at least one schedule to forecast")
    log_list = [logs] if isinstance(logs, Log) else list(logs)
    fitted = fit(log_list)
    run = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    curves = {name: _lr_curve(name, by_name[name], fitted.peak_lr, run) for name in by_name}
    return _forecast(fitted, log_list, curves, total_steps, steps_per_epoch)


@explain_arguments(
    "recommend() takes logs and total_steps, and no schedule: it proposes its own; for yours write "
    "forecast(logs, schedules, total_steps)"
)
def recommend(
    logs: Log | Sequence[Log],
    total_steps: int,
    *,
    warmup_steps: int | None = None,
    steps_per_epoch: float | None = None,
) -> Forecast:
    """Return a forecast of the ten best of 132 schedules of the WSD family for the next run.

    Each has a warmup, a plateau, and a decay (1 - x)^power to an end value over the last part of
    the run.

    Args:
        logs: as in `forecast`.
        total_steps: number of steps of the next run.
        warmup_steps: number of warmup steps; that of the first log if ``None``.
        steps_per_epoch: steps per epoch, for the result.

    Raises:
        LogError: the logs are not usable.
        SettingError: the warmup takes half of the run or more.

    >>> from ratecraft import wsd
    >>> curve, steps = (0.01 * wsd(10)).resolve(total_steps=200), range(4, 201, 4)
    >>> log = Log(steps, [2 + 3 * k**-0.4 for k in steps], schedule=curve)
    >>> recommend(log, 400).entries[0].schedule.partition(".then(poly")[0]
    '0.01 * warmup(10).then(constant(1))'
    """
    total_steps = _as_steps(total_steps)
    log_list = [logs] if isinstance(logs, Log) else list(logs)
    fitted = fit(log_list)
    warmup_steps = log_list[0].warmup_steps if warmup_steps is None else warmup_steps
    if not 0 <= warmup_steps < total_steps // 2:
        raise SettingError(
            f"a warmup of {warmup_steps} steps in a run of {total_steps}; expected less than half "
            "of the run: set warmup_steps="
        )
    start = warmup(warmup_steps).then(constant(1)) if warmup_steps else constant(1)
    curves, losses = {}, {}
    for share, power, end in itertools.product(COOLDOWN_PERCENTS, COOLDOWN_POWERS, COOLDOWN_ENDS):
        if share * total_steps / 100 < total_steps - warmup_steps:
            schedule = start.then(polynomial(1, end, power, over=percent(share)))
            curve = (fitted.peak_lr * schedule).resolve(total_steps=total_steps)
            curves[str(schedule)] = curve
            losses[str(schedule)] = fitted.law.losses(curve.values(), [total_steps])[0]
    best = sorted(curves, key=losses.__getitem__)[:MAX_RECOMMENDATIONS]
    best_curves = {name: curves[name] for name in best}
    return _forecast(fitted, log_list, best_curves, total_steps, steps_per_epoch)


def _as_steps(total_steps: object) -> int:
    if isinstance(total_steps, SupportsIndex) and 0 < index(total_steps) <= MAX_STEPS:
        return index(total_steps)
    raise ScheduleError(
        f"total_steps={total_steps!r}: expected a number of steps, 1 to {MAX_STEPS:,}"
    )


def _lr_curve(name: str, schedule: Schedule, peak_lr: float, run: Mapping[str, Any]) -> Curve:
    curve = schedule.resolve(**run)
    values = curve.values()
    highest = float(values.max())
    if (values < 0).any():
        raise ScheduleError(f"{name} falls below 0")
    if abs(highest / peak_lr - 1) <= PEAK_LR_REL_TOL:
        return curve
    if abs(highest - 1) <= PEAK_LR_REL_TOL:
        return (peak_lr * schedule).resolve(**run)
    raise ScheduleError(
        f"{name} has a peak of {highest:.4g}, the logged runs one of {peak_lr:.4g}; pass schedules "
        "with the peak lr of the logs, or factors with a peak of 1"
    )


def _forecast(
    fitted: FittedLaw,
    logs: Sequence[Log],
    curves: Mapping[str, Curve],
    total_steps: int,
    steps_per_epoch: float | None,
) -> Forecast:
    rows = [_entry(fitted, logs, name, curve) for name, curve in curves.items()]
    # A schedule outside the validity of the law never ranks first.
    rows.sort(key=lambda row: (RISING_LR_NOTE in row[0].notes, row[0].loss))
    tied = []
    for (first, a), (second, b) in itertools.combinations(rows, 2):
        uncertainty = _uncertainty(fitted, a - b)
        if abs(second.loss - first.loss) < max(LAW_REL_ERROR * first.loss, uncertainty):
            tied.append((first.name, second.name))
    return Forecast(
        entries=tuple(entry for entry, _ in rows),
        tied=tuple(tied),
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        peak_lr=fitted.peak_lr,
        logs={
            name: (tuple(map(int, log.steps)), tuple(map(float, log.losses)))
            for name, log in zip(_unique_names(logs), logs, strict=True)
        },
        law={name: getattr(fitted.law, name) for name in LAW_PARAMETERS},
        error=fitted.error,
        notes=fitted.notes,
    )


def _entry(
    fitted: FittedLaw, logs: Sequence[Log], name: str, curve: Curve
) -> tuple[ForecastEntry, NDArray[Any]]:
    import numpy as np

    lrs, total_steps = curve.values(), len(curve)
    first = int((lrs >= (1 - PEAK_LR_REL_TOL) * fitted.peak_lr).argmax()) + 1
    start = min(first + total_steps // 50, total_steps)
    steps = np.unique(np.linspace(start, total_steps, MAX_FORECAST_POINTS).round())
    losses = fitted.law.losses(lrs, steps)
    if not (losses > 0).all() or not np.isfinite(losses).all():
        raise LogError(
            f"fitted to {', '.join(log.name for log in logs)}, the law predicts a final loss of "
            f"{losses[-1]:.3g} for {name}: the logged losses do not follow the law, or there are "
            "too few of them"
        )
    slopes, loss = fitted.slopes(lrs, total_steps), float(losses[-1])
    rel_error = WEAK_FIT_REL_ERROR if fitted.notes else LAW_REL_ERROR
    half_width = rel_error * loss + _uncertainty(fitted, slopes)
    entry = ForecastEntry(
        name,
        repr(curve.schedule),
        loss,
        loss - half_width,
        loss + half_width,
        tuple(map(int, steps)),
        tuple(losses.tolist()),
        _notes(lrs, fitted.peak_lr, logs),
    )
    return entry, slopes


def _uncertainty(fitted: FittedLaw, slopes: NDArray[Any]) -> float:
    return 2 * math.sqrt(slopes @ fitted.covariance @ slopes)  # two standard deviations


def _unique_names(logs: Sequence[Log]) -> list[str]:
    names = [log.name for log in logs]
    counts = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} #{k + 1}" if k else name for name, k in zip(names, counts, strict=True)]


def _notes(lrs: NDArray[Any], peak_lr: float, logs: Sequence[Log]) -> tuple[str, ...]:
    import numpy as np

    notes = []
    u, total_steps = lrs / peak_lr, len(lrs)
    # A plateau is a fifth of the run with a constant lr, checked at 200 evenly spaced steps.
    samples = u[np.linspace(0, total_steps - 1, min(200, total_steps)).astype(int)]
    windows = np.lib.stride_tricks.sliding_window_view(samples, max(len(samples) // 5, 1))
    constant_lr = windows.max(axis=1) - windows.min(axis=1) < PEAK_LR_REL_TOL / 2
    if (constant_lr & (windows.max(axis=1) < 0.5) & (windows.min(axis=1) > 0.02)).any():
        notes.append("a long plateau at a low lr ends at a lower loss than the law predicts")
    fallen = u < np.maximum.accumulate(u) - PEAK_LR_REL_TOL
    rest = u[int(fallen.argmax()) :] if fallen.any() else u[:0]
    if (rest > np.minimum.accumulate(rest) + PEAK_LR_REL_TOL).any():
        notes.append(RISING_LR_NOTE)
    if (u >= 1 - PEAK_LR_REL_TOL).argmax() > total_steps / 2:
        notes.append("more than half of it is warmup, which the law does not model well")
    longest = max(len(log.every_lr) for log in logs)
    if total_steps > 4 * longest:
        notes.append(f"{total_steps / longest:.0f} times as long as the longest logged run")
    return tuple(notes)

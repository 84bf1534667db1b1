"""The loss that schedules would have had, which to choose, and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

from ratecraft.errors import LogError, ScheduleError, SettingError
from ratecraft.results import Forecast, ForecastEntry
from ratecraft.schedule import Schedule, constant, percent, polynomial, warmup

from ._law import FIELDS, SAME, FittedLaw, fit
from ._logs import LONGEST, Log

if TYPE_CHECKING:
    from numpy.typing import NDArray


MODEL: Final = 0.005  # of the loss: what the law itself is off by, on real curves
WEAK: Final = 0.01  # likewise, where the runs leave it open
DRAWN: Final = 200  # losses of a predicted curve

COOLDOWNS: Final = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 95)
POWERS: Final = (0.5, 1, 1.5, 2)
FLOORS: Final = (0, 0.03, 0.1)
KEPT: Final = 10
RISES: Final = "lrs that rise again are outside this law: put last, and not to be relied on"


def forecast(
    logs: Log | Sequence[Log],
    schedules: Mapping[str, Schedule] | Sequence[Schedule],
    total_steps: int,
    *,
    steps_per_epoch: float | None = None,
) -> Forecast:
    """Return the loss that schedules would have ended with, best first, from runs that were made.

    A multi-power law (`ratecraft.forecasting._law.Law`) is fitted to the logs and read under each
    schedule. Bands are 0.5 % of the loss, which is what the law itself is off by on real curves
    (twice that where the runs leave it open), and two standard deviations of the fit. Schedules
    whose difference is below either are tied.

    Args:
        logs: one run's log or several, of one model, data, batch size and peak lr. A run with
            a plateau and a decay (a WSD) says most.
        schedules: by name, or a list whose texts are the names; factors of the peak lr of the
            logs, or lrs themselves with that peak.
        total_steps: length of the runs to foresee, in steps.
        steps_per_epoch: steps per epoch, if schedules speak of epochs.

    Raises:
        LogError: logs that cannot be used.
        ScheduleError: a schedule that cannot be resolved, or with another peak.

    >>> from ratecraft import cosine, wsd
    >>> made = 0.01 * wsd(50)
    >>> steps = range(20, 1001, 20)
    >>> losses = [2 + 3 * k**-0.4 for k in steps]
    >>> log = Log(steps, losses, schedule=made.resolve(total_steps=1000))
    >>> found = forecast(log, {"cosine": cosine(1, 0), "wsd": wsd(50)}, 2000)
    >>> [each.name for each in found.candidates], found.total
    (['wsd', 'cosine'], 2000)
    """
    given = [logs] if isinstance(logs, Log) else list(logs)
    named = _named(schedules)
    total_steps = _steps(total_steps)
    return _forecast(fit(given), given, named, total_steps, steps_per_epoch)


def recommend(
    logs: Log | Sequence[Log],
    total_steps: int,
    *,
    warm: int | None = None,
    steps_per_epoch: float | None = None,
) -> Forecast:
    """Return a forecast of the ten best of 132 schedules of the WSD family, best first.

    Warm-up, plateau, and a fall (1 - x)^power over the last part of the run, down to a floor.

    Args:
        logs: as for `forecast`.
        total_steps: length of the run to come, in steps.
        warm: steps of warm-up; default as many as the first log took.
        steps_per_epoch: steps per epoch.

    Raises:
        LogError: logs that cannot be used.
        SettingError: a run too short for its warm-up.

    >>> from ratecraft import wsd
    >>> steps = range(4, 201, 4)
    >>> losses = [2 + 3 * k**-0.4 for k in steps]
    >>> log = Log(steps, losses, schedule=(0.01 * wsd(10)).resolve(total_steps=200))
    >>> found = recommend(log, 400)
    >>> len(found.candidates), found.candidates[0].schedule.partition(".then(poly")[0]
    (10, '0.01 * warmup(10).then(constant(1))')
    """
    given = [logs] if isinstance(logs, Log) else list(logs)
    total_steps = _steps(total_steps)
    law = fit(given)
    up = given[0].warmup if warm is None else warm
    if not 0 <= up < total_steps // 2:
        raise SettingError(
            f"a warm-up of {up} steps in a run of {total_steps}; say a shorter one with warm="
        )
    start = warmup(up).then(constant(1)) if up else constant(1)
    found = {}
    for share, power, floor in itertools.product(COOLDOWNS, POWERS, FLOORS):
        if share * total_steps / 100 < total_steps - up:
            made = start.then(polynomial(1, floor, power, over=percent(share)))
            found[repr(made)] = made
    losses = {}
    for name, schedule in found.items():
        lrs = (
            (law.peak * schedule)
            .resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
            .values()
        )
        losses[name] = float(law.losses(lrs, [total_steps])[0])
    best = sorted(found, key=losses.__getitem__)[:KEPT]
    return _forecast(law, given, {name: found[name] for name in best}, total_steps, steps_per_epoch)


def _steps(total_steps: object) -> int:
    if (
        not isinstance(total_steps, SupportsIndex)
        or not 0 < (count := index(total_steps)) <= LONGEST
    ):
        raise ScheduleError(f"total_steps={total_steps!r}: expected a number of steps, at least 1")
    return count


def _named(schedules: Mapping[str, Schedule] | Sequence[Schedule]) -> dict[str, Schedule]:
    if isinstance(schedules, Schedule):
        schedules = [schedules]
    named = dict(schedules) if isinstance(schedules, Mapping) else {repr(s): s for s in schedules}
    for name, schedule in named.items():
        if not isinstance(schedule, Schedule):
            raise TypeError(f"{name}: a Schedule was expected, not {schedule!r}")
    if not named:
        raise ScheduleError("no schedules to foresee")
    return named


def _forecast(
    law: FittedLaw,
    logs: Sequence[Log],
    named: Mapping[str, Schedule],
    total_steps: int,
    steps_per_epoch: float | None,
) -> Forecast:
    import numpy as np

    found: list[tuple[ForecastEntry, NDArray[Any]]] = []
    for name, schedule in named.items():
        scaled = _at_peak(name, schedule, law.peak, total_steps, steps_per_epoch)
        lrs = scaled.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch).values()
        first = int((lrs >= (1 - SAME) * law.peak).argmax()) + 1
        steps = np.unique(
            np.linspace(min(first + total_steps // 50, total_steps), total_steps, DRAWN).round()
        )
        losses = law.losses(lrs, steps)
        if not (losses > 0).all() or not np.isfinite(losses).all():
            raise LogError(
                f"fitted to {', '.join(log.name for log in logs)}, the law would have {name} end "
                f"at {losses[-1]:.3g}: these losses do not follow it, or are too few for it"
            )
        slopes = law.slopes(lrs, total_steps)
        doubt = 2 * math.sqrt(slopes @ law.spread @ slopes)
        loss = float(losses[-1])
        half = (WEAK if law.notes else MODEL) * loss + doubt
        one = ForecastEntry(
            name,
            repr(scaled),
            loss,
            loss - half,
            loss + half,
            tuple(map(int, steps)),
            tuple(losses.tolist()),
            _doubts(lrs, law.peak, total_steps, logs),
        )
        found.append((one, slopes))
    # Of what the law was never right about it shall not say that it is the best.
    found.sort(key=lambda each: (RISES in each[0].notes, each[0].loss))
    tied = []
    for (one, a), (other, b) in itertools.combinations(found, 2):
        doubt = 2 * math.sqrt((a - b) @ law.spread @ (a - b))
        if abs(other.loss - one.loss) < max(MODEL * one.loss, doubt):
            tied.append((one.name, other.name))
    return Forecast(
        candidates=tuple(one for one, _ in found),
        tied=tuple(tied),
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        peak=law.peak,
        logs={
            name: (tuple(map(int, log.steps)), tuple(map(float, log.losses)))
            for name, log in zip(_names(logs), logs, strict=True)
        },
        law={name: getattr(law.law, name) for name in FIELDS},
        error=law.error,
        notes=law.notes,
    )


def _names(logs: Sequence[Log]) -> list[str]:
    """Return the logs' names, told apart where several have one."""
    names: list[str] = []
    for log in logs:
        count = sum(log.name == name.partition(" #")[0] for name in names)
        names.append(f"{log.name} #{count + 1}" if count else log.name)
    return names


def _at_peak(
    name: str, schedule: Schedule, peak: float, total_steps: int, steps_per_epoch: float | None
) -> Schedule:
    """Return a schedule as the lr itself, or say that its peak is not that of the logs."""
    lrs = schedule.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch).values()
    highest = float(lrs.max()) if len(lrs) else 0.0
    if (lrs < 0).any():
        raise ScheduleError(f"{name} falls below 0")
    if abs(highest / peak - 1) <= SAME:
        return schedule
    if abs(highest - 1) <= SAME:
        return peak * schedule
    raise ScheduleError(
        f"{name} has a peak of {highest:.4g}, the logged runs of {peak:.4g}; the law knows one "
        "peak lr: give schedules with that peak, or factors with a peak of 1"
    )


def _doubts(
    lrs: NDArray[Any], peak: float, total_steps: int, logs: Sequence[Log]
) -> tuple[str, ...]:
    """Return why this schedule is foreseen less surely than others."""
    import numpy as np

    notes = []
    u = lrs / peak
    # A plateau is a fifth of the run in which nothing moves, seen at 200 places of it.
    some = u[np.linspace(0, total_steps - 1, min(200, total_steps)).astype(int)]
    windows = np.lib.stride_tricks.sliding_window_view(some, max(len(some) // 5, 1))
    still = windows.max(axis=1) - windows.min(axis=1) < SAME / 2
    if (still & (windows.max(axis=1) < 0.5) & (windows.min(axis=1) > 0.02)).any():
        notes.append("a long plateau at a low lr turns out better than the law says")
    fallen = u < np.maximum.accumulate(u) - SAME
    after = u[int(fallen.argmax()) :] if fallen.any() else u[:0]
    if (after > np.minimum.accumulate(after) + SAME).any():
        notes.append(RISES)
    if (u >= 1 - SAME).argmax() > total_steps / 2:
        notes.append("more than half of it is warm-up, which the law knows little of")
    longest = max(len(log.every_lr) for log in logs)
    if total_steps > 4 * longest:
        notes.append(f"{total_steps / longest:.0f} times as long as the longest logged run")
    return tuple(notes)

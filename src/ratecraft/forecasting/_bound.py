"""Convex bound on the final loss of a schedule, and learning rates transferred with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import Curve, Schedule, percent
from ratecraft.schedule._nodes import Then, Wrapped

from ._log import first_true

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bound:
    """Upper bound on the suboptimality of the final weights: at(lr) = start / lr + lr * noise.

    Attributes:
        start: D^2 / (2 sum u), the term of the distance from the initial weights.
        noise: the term of the gradients.
    """

    start: float
    noise: float

    @property
    def lr(self) -> float:
        """Factor on the schedule that minimizes the bound, sqrt(start / noise)."""
        return math.sqrt(self.start) / math.sqrt(self.noise)

    @property
    def best(self) -> float:
        """Minimum of the bound, 2 sqrt(start * noise)."""
        return 2 * math.sqrt(self.start) * math.sqrt(self.noise)

    def at(self, lr: float) -> float:
        """Return the bound for ``lr`` times the schedule.

        Raises:
            SettingError: ``lr`` is not above 0.
        """
        if not 0 < lr < math.inf:
            raise SettingError(f"lr={lr}: expected a number above 0")
        return self.start / lr + lr * self.noise


def bound(curve: Curve, *, gradient: float | Sequence[float] = 1.0, distance: float = 1.0) -> Bound:
    """Return an upper bound on E f(final weights) - min f of subgradient descent.

    For convex f with E|gradient_t|^2 <= G_t^2, |initial weights - optimum| = D and learning rates
    lr * u_1, ..., lr * u_T the bound is start / lr + lr * noise, where

    start = D^2 / (2 sum u),
    noise = sum u^2 G^2 / (2 sum u)
    + 1/2 sum_{k<T} u_k / (sum_{t>k} u_t) * (sum_{t>=k} u_t^2 G_t^2) / (sum_{t>=k} u_t).

    It does not predict the loss of a neural network, but the ratio of two schedules' bounds carries
    over: to a few percent, for cooldowns and run lengths (Schaipp et al.). Its best learning rate
    falls with T^-1/2, that of language models with T^-1/4.

    Args:
        curve: resolved schedule, in any scale. Learning rates of 0 at its end are ignored.
        gradient: G, one number for all steps or one for each step, as from `gradient_norms`.
        distance: D.

    Raises:
        SettingError: an lr is below 0, none is above 0, or ``gradient`` has another length.
        ScheduleError: the curve has no end.

    >>> from ratecraft import linear
    >>> round(bound(linear(1, 0).resolve(total_steps=400)).best, 5)
    0.10063

    Source: Defazio et al. 2023, arXiv 2310.07831, theorem 10; Schaipp et al., arXiv 2501.18965.
    """
    import numpy as np

    if not isinstance(curve, Curve):
        raise TypeError(
            f"bound() takes a curve, not {curve!r}; pass schedule.resolve(total_steps=...)"
        )
    lrs, norms = curve.values(), np.asarray(gradient, dtype=float)
    if norms.ndim and len(norms) != len(lrs):
        raise SettingError(
            f"gradient= has {len(norms)} values for {len(lrs)} steps; pass one for each step"
        )
    if not all(0 < value < math.inf for value in (norms.min(), norms.max(), distance)):
        raise SettingError("gradient= and distance= must be finite numbers above 0")
    if (step := first_true(lrs < 0)) is not None:
        raise SettingError(
            f"{curve.schedule} is {lrs[step]:g} at step {step}; the bound needs lrs of at least 0"
        )
    if not (lrs > 0).any():
        raise SettingError(f"{curve.schedule} has no lr above 0")
    return _bound(lrs, norms, distance)


def _bound(lrs: NDArray[Any], norms: NDArray[Any] | float = 1.0, distance: float = 1.0) -> Bound:
    import numpy as np

    # Steps with an lr of 0 at the end change no weights, and would cause a division by zero.
    end = int(np.flatnonzero(lrs)[-1]) + 1
    # Scaled to a peak of 1, so that no square underflows or overflows.
    peak = float(lrs.max())
    u = lrs[:end] / peak
    squares = (u * np.broadcast_to(norms, lrs.shape)[:end]) ** 2
    # Summed from the end: differences of cumulative sums would cancel.
    tail, tail_squares = np.cumsum(u[::-1])[::-1], np.cumsum(squares[::-1])[::-1]
    inner = u[:-1] / tail[1:] * tail_squares[:-1] / tail[:-1]
    total = float(tail[0])
    noise = float(tail_squares[0] / total + inner.sum()) / 2
    return Bound(distance**2 / (2 * total) / peak, noise * peak)


def transfer(lr: float, tuned: Curve, target: Curve) -> float:
    """Return the learning rate for a schedule, given a tuned one for another schedule.

    It is lr * bound(target).lr / bound(tuned).lr: D and G cancel. Resolve both schedules over the
    same number of steps: the bound lowers the learning rate of a longer run too much.

    Args:
        lr: learning rate that was tuned for the schedule ``tuned``, which it multiplies.
        tuned: schedule that ``lr`` was tuned for, resolved.
        target: schedule to find a learning rate for, resolved over as many steps.

    Raises:
        SettingError: ``lr`` is not above 0, or `bound` raises it.

    >>> from ratecraft import linear, wsd
    >>> tuned = wsd(0, shape="linear").resolve(total_steps=400)
    >>> target = linear(1, 0).resolve(total_steps=400)
    >>> round(transfer(1e-3, tuned, target), 6)
    0.001953
    """
    if not 0 < lr < math.inf:
        raise SettingError(f"lr={lr}: expected a number above 0")
    return lr * bound(target).lr / bound(tuned).lr


@dataclass(frozen=True, slots=True)
class Extension:
    """Two ways to extend a finished run from a checkpoint before its cooldown.

    Attributes:
        resume_step: first step of the finished run's cooldown. Before it both runs agree.
        factor: factor on all lrs from ``resume_step`` on, with a cooldown over the same fraction
            of the run; ``None`` if no factor restores the optimum.
        cooldown: alternatively, fraction of the longer run to cool down over, with unchanged lrs;
            ``None`` if no fraction restores the optimum.
        cooldown_start: first step of that cooldown; below ``resume_step``, it needs an earlier
            checkpoint.
    """

    resume_step: int
    factor: float | None
    cooldown: float | None
    cooldown_start: int | None

    def __str__(self) -> str:
        options = []
        if self.factor is not None:
            start = f"from step {self.resume_step:,} on"
            options.append(f"{start} multiply the lrs by {self.factor:.3g}")
        if self.cooldown is not None and self.cooldown_start is not None:
            start = f"from step {self.cooldown_start:,} on"
            if self.cooldown_start < self.resume_step:
                start += ", which needs an earlier checkpoint"
            options.append(f"keep the lrs and cool down over the last {self.cooldown:.0%}, {start}")
        return "; or ".join(options) or "neither lower lrs nor a longer cooldown is enough"


def extend(
    schedule: Schedule,
    total_steps: int,
    new_total_steps: int,
    *,
    steps_per_epoch: float | None = None,
) -> Extension:
    """Return how to extend a finished run, assuming that its learning rate was optimal.

    A longer run has a lower optimal learning rate under the bound. From the checkpoint before the
    cooldown on, lower learning rates or a longer cooldown restore the optimum.

    Args:
        schedule: schedule whose last part has a length of its own, such as `wsd`.
        total_steps: number of steps of the finished run.
        new_total_steps: number of steps of the longer run.
        steps_per_epoch: steps per epoch, for a schedule with lengths in epochs.

    Raises:
        ScheduleError: the last part has no length of its own, or both runs differ from the start.
        SettingError: ``new_total_steps`` is not above ``total_steps``.

    >>> from ratecraft import wsd
    >>> extension = extend(wsd(0, shape="linear"), 4000, 8000)
    >>> extension.resume_step, round(extension.factor, 3), round(extension.cooldown, 3)
    (3200, 0.533, 0.633)

    Source: Schaipp et al. 2025, arXiv 2501.18965, section 5.
    """
    if not new_total_steps > total_steps:
        raise SettingError(
            f"new_total_steps={new_total_steps}: expected more steps than the {total_steps} of "
            "the finished run"
        )
    _cooldown_of(schedule)  # its error comes before that of a run that cannot resume
    old, new = (
        schedule.resolve(total_steps=n, steps_per_epoch=steps_per_epoch)
        for n in (total_steps, new_total_steps)
    )
    first = old.diff(new).first
    if first is None or first < 2:  # the first lr of a warmup is 0 in both
        raise ScheduleError(
            f"{schedule} over {new_total_steps} steps differs from the run over {total_steps} "
            "from the start, so it cannot resume from it; write the lengths of the parts before "
            "the cooldown in steps"
        )
    resume_step = first - 1  # the first lr of the cooldown equals the lr before it
    optimum, lrs = bound(old).lr, new.values()

    def gap_of_factor(factor: float) -> float:
        changed = lrs.copy()
        changed[resume_step:] *= factor
        return _bound(changed).lr - optimum

    def gap_of_cooldown(share: float) -> float:
        gains = cooldown_gains(schedule, new_total_steps, [share], steps_per_epoch=steps_per_epoch)
        return gains[share].lr - optimum if gains else math.nan

    share = _first_root(gap_of_cooldown, [k / 50 for k in range(50, 0, -1)])
    return Extension(
        resume_step,
        # There may be a second root far below 1, where the best lr falls again.
        _first_root(gap_of_factor, [0.9**k for k in range(60)]),
        share,
        None if share is None else round(new_total_steps * (1 - share)),
    )


def cooldown_gains(
    schedule: Schedule,
    total_steps: int,
    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8),
    *,
    steps_per_epoch: float | None = None,
) -> dict[float, Bound]:
    """Return the bound for cooldowns of several lengths, by length.

    Args:
        schedule: schedule whose last part has a length of its own, such as `wsd`.
        total_steps: number of steps of the run.
        shares: lengths of the last part, as fractions of the run. Those that leave no room for
            the other parts are left out of the result.
        steps_per_epoch: steps per epoch, for a schedule with lengths in epochs.

    Raises:
        ScheduleError: the last part of the schedule has no length of its own.

    >>> from ratecraft import wsd
    >>> bounds = cooldown_gains(wsd(0, shape="linear"), 400, (0.1, 0.2, 0.4))
    >>> [round(bound.best, 5) for bound in bounds.values()]
    [0.11614, 0.10932, 0.10376]
    """
    with_cooldown, gains = _cooldown_of(schedule), {}
    for share in shares:
        with suppress(ScheduleError):  # warmup and cooldown together are longer than the run
            curve = with_cooldown(share).resolve(
                total_steps=total_steps, steps_per_epoch=steps_per_epoch
            )
            gains[share] = bound(curve)
    return gains


def _cooldown_of(schedule: Schedule) -> Callable[[float], Schedule]:
    """Return the schedule as a function of the share of the run that its last part takes."""
    if isinstance(schedule, Wrapped):
        with_inner_cooldown = _cooldown_of(schedule.schedule)
        return lambda share: schedule._replace(schedule=with_inner_cooldown(share))
    *first_parts, last_part = schedule.parts if isinstance(schedule, Then) else (schedule,)
    takes_rest = any(part._is_open() for part in first_parts)
    if not takes_rest or getattr(last_part, "over_", None) is None:
        raise ScheduleError(
            f"{schedule}: expected a part that takes the remaining steps, and a last part with a "
            "length of its own, such as warmup(500).then(constant(1)).then(cooldown(percent(20)))"
        )
    return lambda share: Then((*first_parts, last_part._replace(over_=percent(100 * share))))


def _first_root(gap: Callable[[float], float], points: Sequence[float]) -> float | None:
    """Return the first root of a function between consecutive points, or ``None``."""
    from scipy.optimize import brentq

    gaps = ((point, gap(point)) for point in points)
    for (a, gap_a), (b, gap_b) in itertools.pairwise(gaps):
        if gap_a * gap_b <= 0:  # not so if one of them is nan
            return float(brentq(gap, a, b, rtol=1e-9))
    return None

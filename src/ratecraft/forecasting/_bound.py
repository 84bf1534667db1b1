"""A bound on what any schedule leaves, from its shape alone: to rank, to transfer, to extend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import Curve, Schedule, percent
from ratecraft.schedule._nodes import Sequence as Parts
from ratecraft.schedule._nodes import Wrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound on the suboptimality of the last weights, as a function of the lr.

    at(lr) = start / lr + lr * noise.

    Attributes:
        start: D^2 / (2 sum u): what is left of the way from the initial weights.
        noise: what the noise of the last steps leaves.
        lr: what the shape times this gives is the best lr: sqrt(start / noise).
        best: the bound there: 2 sqrt(start * noise).
    """

    start: float
    noise: float

    @property
    def lr(self) -> float:
        """The factor on the shape with which the bound is lowest."""
        return math.sqrt(self.start) / math.sqrt(self.noise)

    @property
    def best(self) -> float:
        """The bound at that factor."""
        return 2 * math.sqrt(self.start) * math.sqrt(self.noise)

    def at(self, lr: float) -> float:
        """Return the bound for ``lr`` times the shape.

        Args:
            lr: what the shape is multiplied by.

        Raises:
            SettingError: an lr that is not above 0.
        """
        if not 0 < lr < math.inf:
            raise SettingError(f"lr={lr}: expected a number above 0")
        return self.start / lr + lr * self.noise


def bound(curve: Curve, *, gradient: float | Sequence[float] = 1.0, distance: float = 1.0) -> Bound:
    """Return a bound on E f(last weights) - min f of subgradient descent under a curve.

    For convex f with E|gradient_t|^2 <= G_t^2 and |first weights - optimum| = D, lrs
    lr * u_1 .. lr * u_T:

    start = D^2 / (2 sum u),
    noise = sum u^2 G^2 / (2 sum u)
    + 1/2 sum_{k<T} u_k / (sum_{t>k} u_t) * (sum_{t>=k} u_t^2 G_t^2) / (sum_{t>=k} u_t).

    Nothing is known of the loss of a network by it; that ratios between shapes carry over is
    what was measured (Schaipp et al.: cooldown and length, within some per cent). Its best lr
    falls with T^-1/2, where real logs show T^-1/4.

    Args:
        curve: a resolved schedule, any multiple of the shape; lrs of 0 at its end are left out.
        gradient: G, for all steps or one by one (`gradient_norms` has them from a Probe).
        distance: D.

    Raises:
        SettingError: an lr below 0, no lr above 0, or gradients of another length.
        ScheduleError: a curve without an end.

    >>> from ratecraft import constant, linear
    >>> round(bound(linear(1, 0).resolve(total_steps=400)).best, 5)
    0.10063
    >>> round(bound(constant(1).resolve(total_steps=400)).lr, 5)
    0.01818

    Source: Defazio et al. 2023, arXiv 2310.07831, theorem 10; Schaipp et al. 2025,
    arXiv 2501.18965.
    """
    if not isinstance(curve, Curve):
        raise TypeError(f"give schedule.resolve(total), a curve, not {curve!r}")
    lrs = curve.values()
    return _bound(lrs, gradient, distance, repr(curve.schedule))


def _bound(
    lrs: NDArray[Any], gradient: float | Sequence[float], distance: float, name: str
) -> Bound:
    import numpy as np

    norms = np.asarray(gradient, dtype=float)
    if norms.ndim and len(norms) != len(lrs):
        raise SettingError(
            f"gradient= has {len(norms)} values for {len(lrs)} steps; give one for each step"
        )
    finite = np.isfinite(norms).all() and math.isfinite(distance)
    if not finite or not (norms > 0).all() or not distance > 0:
        raise SettingError("gradient= and distance= are norms; expected numbers above 0")
    if (lrs < 0).any():
        at = int((lrs < 0).argmax())
        raise SettingError(f"{name} is {lrs[at]:g} at step {at}; a bound needs lrs of 0 up")
    if not (lrs > 0).any():
        raise SettingError(f"{name} has no lr above 0")
    # LRs of 0 at the end change no weights, and would divide by zero.
    end = int(np.flatnonzero(lrs)[-1]) + 1
    # Of shapes by their highest lr, which nothing depends on, so that no square is 0 or inf.
    peak = float(lrs.max())
    u = lrs[:end] / peak
    noise = (u * norms if norms.ndim == 0 else u * norms[:end]) ** 2
    # Sums from each step to the end, taken from the end: differences would cancel.
    tail, tail_noise = np.cumsum(u[::-1])[::-1], np.cumsum(noise[::-1])[::-1]
    inner = u[:-1] / tail[1:] * tail_noise[:-1] / tail[:-1]
    total_steps = float(tail[0])
    start, left = (
        distance**2 / (2 * total_steps),
        float(tail_noise[0] / total_steps + inner.sum()) / 2,
    )
    return Bound(start / peak, left * peak)


def transfer(lr: float, tried: Curve, wanted: Curve) -> float:
    """Return the lr for another schedule from one that was tuned: the ratio of their best ones.

    ``lr * bound(wanted).lr / bound(tried).lr``; D and G cancel. Over the same number of
    steps, that is: for a longer run the bound lowers lrs too much.

    Args:
        lr: what the tried schedule was multiplied by, as tuned.
        tried: that schedule, resolved.
        wanted: the other one, resolved over as many steps.

    Raises:
        SettingError: as `bound`; an lr that is not above 0.

    >>> from ratecraft import linear, wsd
    >>> tried, wanted = wsd(0, shape="linear").resolve(total_steps=400), linear(1, 0).resolve(total_steps=400)
    >>> round(transfer(1e-3, tried, wanted), 6)
    0.001953
    """
    if not 0 < lr < math.inf:
        raise SettingError(f"lr={lr}: expected a number above 0")
    return lr * bound(wanted).lr / bound(tried).lr


@dataclass(frozen=True, slots=True)
class Extension:
    """StepOptions a finished run may go on, from before its cooldown, with the lr it was tuned for.

    Attributes:
        since: the step to go on from: before it both runs are the same.
        factor: what to multiply all lrs from there on by, with the same share of cooldown;
            None where nothing is right.
        cooldown: or the share of the longer run to cool down over, with the same lrs; None
            where none is enough.
        begins: where that cooldown begins; before ``since`` it takes an earlier checkpoint.
    """

    since: int
    factor: float | None
    cooldown: float | None
    begins: int | None

    def __str__(self) -> str:
        ways = []
        if self.factor is not None:
            ways.append(f"from step {self.since:,} on multiply the lrs by {self.factor:.3g}")
        if self.cooldown is not None and self.begins is not None:
            early = ", which takes an earlier checkpoint" if self.begins < self.since else ""
            ways.append(
                f"keep the lrs and cool down over the last {self.cooldown:.0%}, from step "
                f"{self.begins:,} on{early}"
            )
        return "; or ".join(ways) or "neither lower lrs nor a longer cooldown would do"


def extend(
    schedule: Schedule, total_steps: int, to: int, *, steps_per_epoch: float | None = None
) -> Extension:
    """Return how to lengthen a finished run whose lr was good, as the bound sees it.

    From the checkpoint before the cooldown there are two ways to keep the best lr where it
    was: lower lrs from there on, or a longer cooldown.

    Args:
        schedule: one that ends in a part of its own length, as a WSD does.
        total_steps: steps of the finished run.
        to: steps of the longer one.
        steps_per_epoch: steps per epoch, if the schedule speaks of epochs.

    Raises:
        ScheduleError: a schedule without such an end, or that differs from the start.
        SettingError: ``to`` is not longer.

    >>> from ratecraft import wsd
    >>> found = extend(wsd(0, shape="linear"), 4000, 8000)
    >>> found.since, round(found.factor, 3), round(found.cooldown, 3)
    (3200, 0.533, 0.633)

    Source: Schaipp et al. 2025, arXiv 2501.18965, section 5.
    """
    if not to > total_steps:
        raise SettingError(
            f"to={to}: expected more steps than the {total_steps} of the finished run"
        )
    _, remade = _ending(schedule)
    old, new = (
        schedule.resolve(total_steps=n, steps_per_epoch=steps_per_epoch) for n in (total_steps, to)
    )
    first = old.diff(new).first
    if first is None or first < 2:  # the first lr of a warm-up is 0 in both
        raise ScheduleError(
            f"{schedule!r} over {to} steps differs from the run over {total_steps} from the start, so "
            "it cannot go on from it; give lengths in steps to what comes before the end"
        )
    since = first - 1  # where the cooldown of the finished run begins: its first lr is the same
    wanted, lrs = bound(old).lr, new.values()

    def gap(factor: float) -> float:
        changed = lrs.copy()
        changed[since:] *= factor
        return _bound(changed, 1.0, 1.0, repr(schedule)).lr - wanted

    def gap_of_share(share: float) -> float:
        return (
            bound(remade(share).resolve(total_steps=to, steps_per_epoch=steps_per_epoch)).lr
            - wanted
        )

    shares = [k / 50 for k in range(50, 0, -1) if _fits(remade(k / 50), to, steps_per_epoch)]
    share = _crossing(gap_of_share, shares)
    return Extension(
        since,
        # Far below 1 the best lr falls again: the first crossing is the one that is meant.
        _crossing(gap, [0.9**k for k in range(60)]),
        share,
        None if share is None else round(to * (1 - share)),
    )


def cooldown_gains(
    schedule: Schedule,
    total_steps: int,
    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8),
    *,
    steps_per_epoch: float | None = None,
) -> dict[float, Bound]:
    """Return the bound for cooldowns of different lengths: what the next 10 % of it would buy.

    Args:
        schedule: one that ends in a part of its own length, as a WSD does.
        total_steps: steps of the run.
        shares: lengths of that part, as shares of the run; those without room are left out.
        steps_per_epoch: steps per epoch, if the schedule speaks of epochs.

    Raises:
        ScheduleError: a schedule without such an end.

    >>> from ratecraft import wsd
    >>> found = cooldown_gains(wsd(0, shape="linear"), 400, (0.1, 0.2, 0.4))
    >>> [round(each.best, 5) for each in found.values()]
    [0.11614, 0.10932, 0.10376]
    """
    _, remade = _ending(schedule)
    return {
        share: bound(
            remade(share).resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        )
        for share in shares
        if _fits(remade(share), total_steps, steps_per_epoch)
    }


ENDING: Final = (
    "expected a schedule whose last part has a length of its own, as in "
    "warmup(500).then(constant(1)).then(cooldown(percent(20)))"
)


def _ending(schedule: Schedule) -> tuple[Schedule, Callable[[float], Schedule]]:
    """Return a schedule's last part, and what makes it of another share of the run."""
    if isinstance(schedule, Wrapped):
        inner, within = _ending(schedule.schedule)
        # A wrapper is one of several frozen dataclasses, each with this field.
        kind: Any = schedule
        return inner, lambda share: dataclasses.replace(kind, schedule=within(share))
    if not isinstance(schedule, Parts) or getattr(schedule.parts[-1], "over_", None) is None:
        raise ScheduleError(f"{schedule!r}: {ENDING}")
    last: Any = schedule.parts[-1]
    if not any(part._is_open() for part in schedule.parts[:-1]):
        raise ScheduleError(f"{schedule!r}: no part before the last takes what is left; {ENDING}")

    def remade(share: float) -> Schedule:
        ending = dataclasses.replace(last, over_=percent(100 * share))
        return Parts((*schedule.parts[:-1], ending))

    return last, remade


def _fits(schedule: Schedule, total_steps: int, steps_per_epoch: float | None) -> bool:
    try:
        schedule.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    except ScheduleError:  # no room beside the warm-up
        return False
    return True


def _crossing(gap: Callable[[float], float], places: Sequence[float]) -> float | None:
    """Return where a function first crosses 0 on the way along some places; None if nowhere."""
    from scipy.optimize import brentq

    before, value = places[0], gap(places[0])
    for place in places[1:]:
        after = gap(place)
        if value * after <= 0:
            return float(brentq(gap, before, place, rtol=1e-9))
        before, value = place, after
    return None

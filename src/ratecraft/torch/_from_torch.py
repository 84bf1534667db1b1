"""from_torch: a live scheduler of torch read back into a schedule."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Final

from torch.optim import lr_scheduler as theirs
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ratecraft.errors import BindingError
from ratecraft.schedule import (
    Schedule,
    constant,
    cosine,
    custom,
    decay,
    linear,
    multiplicative,
    polynomial,
    staircase,
    steps,
)

from ._scheduler import ScheduleLR
from .drop_in import _schedulers as drop_in

NEAR: Final = 1e-6  # relative: recursion in float32 is no better


def from_torch(scheduler: Any) -> Schedule | dict[str, Schedule]:
    """Return the schedule of a torch scheduler: its lrs over the calls of its ``step()``.

    Go on with it as ``ScheduleLR(optimizer, lr=from_torch(s), start=s.last_epoch)``. Momentum,
    which OneCycleLR and CyclicLR set on the way, is not part of it.

    Args:
        scheduler: a scheduler of ``torch.optim.lr_scheduler`` or of `ratecraft.torch.drop_in`.

    Returns:
        One schedule, or one for each param group, by name or number, where they differ.

    Raises:
        TypeError: no scheduler.
        BindingError: no schedule says the same: it follows a metric, its class is not torch's, or
            the optimizer's lr is not what this scheduler alone would have made of it;
            or it is a `ScheduleLR`, whose schedule is ``scheduler.curve.schedule``.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> from_torch(torch.optim.lr_scheduler.StepLR(optimizer, 30))
    0.1 * constant(1, over=30).repeat(decay=0.1)
    """
    if isinstance(scheduler, ScheduleLR):
        return _of_ours(scheduler)
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"from_torch() reads a torch scheduler, not {type(scheduler).__name__}")
    groups = scheduler.optimizer.param_groups
    lrs = [_lr(scheduler, i) for i in range(len(groups))]
    for i, (group, lr) in enumerate(zip(groups, lrs, strict=True)):
        epoch = _epoch(scheduler)
        tabulated = "multiplicative(" in repr(lr)  # that alone needs an end
        said, found = (
            lr.resolve(total_steps=epoch + 1 if tabulated else None)(epoch),
            float(group["lr"]),
        )
        if not math.isclose(said, found, rel_tol=NEAR, abs_tol=1e-15):
            raise BindingError(
                f"group {i} has lr {found:g}, where this {type(scheduler).__name__} alone would "
                f"have set {said:g} at epoch {epoch}: somebody else changes it, too"
            )
    if all(lr == lrs[0] for lr in lrs):
        return lrs[0]
    return {str(group.get("name", i)): lrs[i] for i, group in enumerate(groups)}


def _of_ours(scheduler: ScheduleLR) -> Schedule | dict[str, Schedule]:
    raise BindingError(
        f"a ScheduleLR has its schedule already: {scheduler.curve.schedule!r} is "
        "scheduler.curve.schedule"
    )


def _epoch(scheduler: Any) -> int:
    if isinstance(scheduler, theirs.ChainedScheduler):
        return max(_epoch(part) for part in scheduler._schedulers)
    return int(scheduler.last_epoch)


def _kind(scheduler: Any) -> str:
    """Return the name of torch's class; a subclass of somebody's may do anything."""
    kind = type(scheduler)
    if kind in (getattr(theirs, kind.__name__, None), getattr(drop_in, kind.__name__, None)):
        return kind.__name__
    raise BindingError(
        f"{kind.__module__}.{kind.__name__} is not torch's own class, and may do anything; write "
        "its schedule in the notation, or as custom(function)"
    )


def _lr(scheduler: Any, i: int) -> Schedule:
    """Return the lrs of group i."""
    kind = _kind(scheduler)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise BindingError("a ReduceLROnPlateau follows a metric, and no schedule can say that")
    if kind == "SequentialLR":
        return _sequence(scheduler, i)
    if kind == "ChainedScheduler":
        factor, *others = [_factor(part, i) for part in scheduler._schedulers]
        for other in others:
            factor = factor * other
        return _base(scheduler._schedulers[0], i) * factor
    if kind == "CyclicLR":
        return _cycles(scheduler).rescale(float(scheduler.base_lrs[i]), float(scheduler.max_lrs[i]))
    if kind == "OneCycleLR":
        return _one_cycle(scheduler, scheduler.optimizer.param_groups[i])
    floor = getattr(scheduler, "eta_min", 0)
    base = _base(scheduler, i)
    if floor:
        return _waves(scheduler).rescale(float(floor), base)
    return base * _factor(scheduler, i)


def _base(scheduler: Any, i: int) -> float:
    if hasattr(scheduler, "_schedulers"):
        return _base(scheduler._schedulers[0], i)
    return float(scheduler.base_lrs[i])


def _factor(scheduler: Any, i: int) -> Schedule:
    """Return what a scheduler multiplies group i's base lr by."""
    kind = _kind(scheduler)
    match kind:
        case "StepLR":
            return constant(1, over=_steps(scheduler.step_size)).repeat(decay=scheduler.gamma)
        case "MultiStepLR":
            at = sorted(scheduler.milestones.elements())
            levels = [scheduler.gamma**n for n in range(len(at) + 1)]
            return staircase(levels, at=[_steps(x) for x in at])
        case "ConstantLR":
            return staircase([scheduler.factor, 1], at=[_steps(scheduler.total_iters)])
        case "LinearLR":
            ends = scheduler.start_factor, scheduler.end_factor
            return linear(*ends, over=_steps(scheduler.total_iters))
        case "ExponentialLR":
            return decay(scheduler.gamma)
        case "PolynomialLR":
            return polynomial(1, 0, scheduler.power, over=_steps(scheduler.total_iters))
        case "CosineAnnealingLR" | "CosineAnnealingWarmRestarts" if not scheduler.eta_min:
            return _waves(scheduler)
        case "LambdaLR":
            return custom(scheduler.lr_lambdas[i])
        case "MultiplicativeLR":
            return multiplicative(scheduler.lr_lambdas[i])
    raise BindingError(
        f"a {kind} writes lrs and cannot be multiplied with others by torch; write the product "
        "in the notation"
    )


def _steps(n: Any) -> Any:
    """Return a number of torch's as a length; torch counts in whole epochs, or means to."""
    return n if isinstance(n, int) else steps(n)


def _waves(scheduler: Any) -> Schedule:
    if _kind(scheduler) == "CosineAnnealingLR":  # torch's rises again after T_max
        length = _steps(scheduler.T_max)
        return cosine(1, 0, over=length).then(cosine(0, 1, over=length)).repeat()
    return cosine(1, 0, over=scheduler.T_0).repeat(grow=scheduler.T_mult)


def _cycles(scheduler: Any) -> Schedule:
    if scheduler._scale_fn_custom is not None:
        raise BindingError("a CyclicLR with a scale_fn of its own has no notation")
    up = scheduler.step_ratio * scheduler.total_size
    down = scheduler.total_size - up
    triangle = linear(0, 1, over=_whole(up)).then(linear(1, 0, over=_whole(down)))
    if scheduler.mode == "exp_range":
        return triangle.repeat() * decay(scheduler.gamma)
    return triangle.repeat(decay=0.5 if scheduler.mode == "triangular2" else 1)


def _whole(n: float) -> Any:
    return int(n) if float(n).is_integer() else steps(n)


def _one_cycle(scheduler: Any, group: dict[str, Any]) -> Schedule:
    ramp = cosine if scheduler._anneal_func_type == "cos" else linear
    parts, start = [], 0.0
    for phase in scheduler._schedule_phases:
        ends = float(group[phase["start_lr"]]), float(group[phase["end_lr"]])
        parts.append(ramp(*ends, over=_whole(phase["end_step"] - start)))
        start = phase["end_step"]
    return parts[0].then(*parts[1:])


def _sequence(scheduler: Any, i: int) -> Schedule:
    for part in scheduler._schedulers:
        if _kind(part) in ("MultiplicativeLR", "ChainedScheduler", "SequentialLR"):
            raise BindingError(
                f"torch has no beginning of its own for a {_kind(part)} inside a SequentialLR; "
                "write the sequence in the notation"
            )
    lrs = [_lr(part, i) for part in scheduler._schedulers]
    spans = [b - a for a, b in pairwise([0, *scheduler._milestones])]
    timed = [lr.over(span) for lr, span in zip(lrs, spans, strict=False)]
    first, *others = [*timed, lrs[-1]]
    return first.then(*others)

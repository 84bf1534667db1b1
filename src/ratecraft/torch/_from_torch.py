"""from_torch: convert a torch scheduler to a schedule."""

import math
import operator
from functools import reduce
from itertools import pairwise
from typing import Any, Final

from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

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

from . import drop_in
from ._hyperparam import by_group
from ._scheduler import ScheduleLR

CURRENT_LR_REL_TOL: Final = 1e-6  # torch's recursive formulas in float32 are no more accurate


def from_torch(scheduler: Any) -> Schedule | dict[str, Schedule]:
    """Return the schedule of a torch scheduler: its lrs over the calls of its ``step()``.

    To continue with it, write ``ScheduleLR(optimizer, lr=from_torch(s),
    initial_step=s.last_epoch)``. The momentum that OneCycleLR and CyclicLR set is not included.

    Args:
        scheduler: a scheduler of ``torch.optim.lr_scheduler`` or of `ratecraft.torch.drop_in`.

    Returns:
        One schedule; or, if they differ, a dict with one for each param group by name or index.

    Raises:
        TypeError: ``scheduler`` is not a torch scheduler.
        BindingError: no schedule is equal to it: it follows a metric, its class is not torch's,
            or other code has changed the optimizer's lr; or it is a `ScheduleLR`, whose schedule
            is ``scheduler.curve.schedule``.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> from_torch(torch.optim.lr_scheduler.StepLR(optimizer, 30))
    0.1 * constant(1, over=30).repeat(decay=0.1)
    """
    if isinstance(scheduler, ScheduleLR):
        raise BindingError(
            f"a ScheduleLR has its schedule already, {scheduler.curve.schedule!r}; write "
            "scheduler.curve.schedule"
        )
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"from_torch() takes a torch scheduler, not {type(scheduler).__name__}")
    groups = scheduler.optimizer.param_groups
    lrs = [_lr(scheduler, i) for i in range(len(groups))]
    epoch = _epoch(scheduler)
    for i, (group, lr) in enumerate(zip(groups, lrs, strict=True)):
        needs_total = "multiplicative(" in repr(lr)  # the only shape that is tabulated
        expected = lr.resolve(total_steps=epoch + 1 if needs_total else None)(epoch)
        current = float(group["lr"])
        if not math.isclose(expected, current, rel_tol=CURRENT_LR_REL_TOL, abs_tol=1e-15):
            raise BindingError(
                f"group {i} has lr {current:g}, but this {type(scheduler).__name__} alone would "
                f"have set {expected:g} at epoch {epoch}: other code changes the lr, too"
            )
    return by_group(groups, lrs)


def _epoch(scheduler: Any) -> int:
    if isinstance(scheduler, torch_schedulers.ChainedScheduler):
        return max(_epoch(part) for part in scheduler._schedulers)
    return int(scheduler.last_epoch)


def _class_name(scheduler: Any) -> str:
    """Return the name of torch's class, and refuse other classes, which may behave differently."""
    cls = type(scheduler)
    name = cls.__name__
    if cls in (getattr(torch_schedulers, name, None), getattr(drop_in, name, None)):
        return name
    raise BindingError(
        f"{cls.__module__}.{name} is not one of torch's classes, so its formula is unknown; write "
        "its schedule in ratecraft's notation, or as custom(function)"
    )


def _lr(scheduler: Any, i: int) -> Schedule:
    match _class_name(scheduler):
        case "ReduceLROnPlateau":
            raise BindingError("a ReduceLROnPlateau follows a metric and has no schedule")
        case "SequentialLR":
            return _sequence(scheduler, i)
        case "ChainedScheduler":
            factors = [_factor(part, i) for part in scheduler._schedulers]
            return _base(scheduler, i) * reduce(operator.mul, factors)
        case "CyclicLR":
            ends = float(scheduler.base_lrs[i]), float(scheduler.max_lrs[i])
            return _triangles(scheduler).rescale(*ends)
        case "OneCycleLR":
            return _one_cycle(scheduler, scheduler.optimizer.param_groups[i])
    if eta_min := getattr(scheduler, "eta_min", 0):
        return _cosine_cycles(scheduler).rescale(float(eta_min), _base(scheduler, i))
    return _base(scheduler, i) * _factor(scheduler, i)


def _base(scheduler: Any, i: int) -> float:
    if hasattr(scheduler, "_schedulers"):
        return _base(scheduler._schedulers[0], i)
    return float(scheduler.base_lrs[i])


def _factor(scheduler: Any, i: int) -> Schedule:
    """Return the schedule of the factor on group i's base lr."""
    name = _class_name(scheduler)
    match name:
        case "StepLR":
            return constant(1, over=steps(scheduler.step_size)).repeat(decay=scheduler.gamma)
        case "MultiStepLR":
            at = sorted(scheduler.milestones.elements())
            levels = [scheduler.gamma**n for n in range(len(at) + 1)]
            return staircase(levels, at=[steps(x) for x in at])
        case "ConstantLR":
            return staircase([scheduler.factor, 1], at=[steps(scheduler.total_iters)])
        case "LinearLR":
            ends = scheduler.start_factor, scheduler.end_factor
            return linear(*ends, over=steps(scheduler.total_iters))
        case "ExponentialLR":
            return decay(scheduler.gamma)
        case "PolynomialLR":
            return polynomial(1, 0, scheduler.power, over=steps(scheduler.total_iters))
        case "CosineAnnealingLR" | "CosineAnnealingWarmRestarts" if not scheduler.eta_min:
            return _cosine_cycles(scheduler)
        case "LambdaLR":
            return custom(scheduler.lr_lambdas[i])
        case "MultiplicativeLR":
            return multiplicative(scheduler.lr_lambdas[i])
    raise BindingError(
        f"a {name} sets the lr itself, so torch cannot multiply it with other schedulers; write "
        "the product in ratecraft's notation"
    )


def _cosine_cycles(scheduler: Any) -> Schedule:
    if _class_name(scheduler) == "CosineAnnealingLR":  # in torch it rises again after T_max
        length = steps(scheduler.T_max)
        return cosine(1, 0, over=length).then(cosine(0, 1, over=length)).repeat()
    return cosine(1, 0, over=scheduler.T_0).repeat(grow=scheduler.T_mult)


def _triangles(scheduler: Any) -> Schedule:
    if scheduler._scale_fn_custom is not None:
        raise BindingError("a CyclicLR with a custom scale_fn has no notation")
    up = scheduler.step_ratio * scheduler.total_size
    down = scheduler.total_size - up
    triangle = linear(0, 1, over=steps(up)).then(linear(1, 0, over=steps(down)))
    if scheduler.mode == "exp_range":
        return triangle.repeat() * decay(scheduler.gamma)
    return triangle.repeat(decay=0.5 if scheduler.mode == "triangular2" else 1)


def _one_cycle(scheduler: Any, group: dict[str, Any]) -> Schedule:
    ramp = cosine if scheduler._anneal_func_type == "cos" else linear
    parts, start = [], 0.0
    for phase in scheduler._schedule_phases:
        ends = float(group[phase["start_lr"]]), float(group[phase["end_lr"]])
        parts.append(ramp(*ends, over=steps(phase["end_step"] - start)))
        start = phase["end_step"]
    return reduce(Schedule.then, parts)


def _sequence(scheduler: Any, i: int) -> Schedule:
    for name in map(_class_name, scheduler._schedulers):
        if name in ("MultiplicativeLR", "ChainedScheduler", "SequentialLR"):
            raise BindingError(
                f"torch cannot restart a {name} inside a SequentialLR; write the sequence in "
                "ratecraft's notation"
            )
    *lrs, last = [_lr(part, i) for part in scheduler._schedulers]
    spans = [end - start for start, end in pairwise([0, *scheduler._milestones])]
    parts = [lr.over(span) for lr, span in zip(lrs, spans, strict=True)]
    return reduce(Schedule.then, [*parts, last])

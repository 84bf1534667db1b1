"""doctor: find mistakes in a training setup before or during training."""

import copy
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import SWALR, AveragedModel

from ratecraft.schedule import Finding, Schedule, check
from ratecraft.torch._hyperparam import innermost_optimizer
from ratecraft.torch._scheduler import ScheduleLR
from ratecraft.torch._step_hooks import steps_same

from ._describe import chain_parts, copy_on_dummy_optimizer, first_names
from ._setup import ScheduleEnd, SchedulerUsage, TrainingSetup, schedule_end

RUN_LENGTH_REL_TOL: Final = 0.01  # a schedule length this close to the run's fits it
# A scheduler counts as stepped too often if it has at least this many calls per step and at least
# this many calls more than steps. Fewer extra calls may belong to steps that AMP skipped.
MIN_CALLS_PER_STEP: Final = 1.8
MIN_EXTRA_CALLS: Final = 8
MIN_STEPS_PER_EPOCH: Final = 5  # a schedule this many times shorter than the run may be in epochs
MIN_CALLS_TO_JUDGE: Final = 3  # from this many calls on it is clear how often they come
STATE_CHECK_STEPS: Final = 10  # steps for which a loaded state is compared
PLAIN_TYPES: Final = (bool, int, float, str, type(None), torch.Tensor, torch.nn.Parameter)

_error, _warning = partial(Finding, "error"), partial(Finding, "warning")


def doctor(*objects: Any, total_steps: int | None = None, done: int | None = None) -> list[Finding]:
    """Return the mistakes in a training setup, worst first, without changing anything.

    It finds: a scheduler that is not attached to the optimizer that steps; a scheduler whose
    length is in steps but that is stepped once an epoch, or several times per step; a schedule
    length that differs from the run's; schedules of several optimizers that together take more
    steps than Lightning's ``max_steps``, which counts all their steps; parameters that are in no
    optimizer, in two, or in none of the models; a scheduler state that does not restore the
    scheduler; and for each `ScheduleLR` the findings of `check`.

    Call it after building everything, and again after a few steps: then it can tell how often
    each scheduler is stepped. It reads the number of steps from optimizers like Adam, which count
    them, from a trainer, or from ``done=``.

    Args:
        objects: models, optimizers, schedulers, a Lightning ``Trainer`` (during fit, for example
            in ``on_train_start``), a Hugging Face ``Trainer`` or an Accelerate ``Accelerator``, in
            any order, also in lists and dicts.
        total_steps: steps that the run will take; default: read from the trainer.
        done: steps taken so far.

    Raises:
        TypeError: an object of another type, or a length that is not an int.
        BindingError: ``total_steps`` < 1, ``done`` < 0, or a Lightning trainer that is not fitting.

    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD([model.weight], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 500)
    >>> for finding in doctor(model, optimizer, scheduler, total_steps=1000):
    ...     print(finding.level, finding.message)
    error no optimizer holds 1 of 2 trainable parameters: bias
    error OneCycleLR ends after 500 of the run's 1000 steps, and raises an error there
    """
    setup = TrainingSetup(objects, total_steps, done)
    findings = [*_optimizer_findings(setup), *_parameter_findings(setup)]
    for usage in setup.schedulers:
        findings += _call_findings(usage)
        findings += _length_findings(usage, setup)
        findings += _state_findings(usage)
    findings += _joint_length_findings(setup)
    findings += _schedule_findings(setup)
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _optimizer_findings(setup: TrainingSetup) -> Iterator[Finding]:
    optimizers = list(map(innermost_optimizer, setup.optimizers))
    for usage in setup.schedulers:
        if setup.trainer_builds_optimizer:
            yield _error(
                f"the Trainer was given a {usage.name} without its optimizer, and builds another "
                "optimizer: it trains at a constant lr and logs the schedule",
                "pass optimizers=(optimizer, scheduler), or call "
                "ratecraft.integrations.for_trainer(trainer, ...)",
            )
        elif optimizers and not any(steps_same(usage.optimizer, each) for each in optimizers):
            yield _error(
                f"{usage.name} is not attached to the optimizer that steps, "
                f"which stays at {_lrs(setup.optimizers[0])} while the log shows the schedule",
                "build the scheduler on the optimizer that steps, after that optimizer is rebuilt "
                "for the last time",
            )
        if isinstance(usage.scheduler, ScheduleLR) and usage.scheduler.is_removed:
            yield _error(
                "this ScheduleLR was removed and is attached to no optimizer", "build a new one"
            )
    if not setup.schedulers or setup.trainer_builds_optimizer:
        return
    attached = [usage.optimizer for usage in setup.schedulers]
    scheduled = [any(steps_same(each, o) for each in attached) for o in optimizers]
    for i, optimizer in enumerate(setup.optimizers):
        if not scheduled[i]:
            number = f" (number {i + 1})" if len(setup.optimizers) > 1 else ""
            yield Finding(
                "note" if any(scheduled) else "warning",
                f"no scheduler is attached to {type(optimizer).__name__}{number}, which stays at "
                f"{_lrs(optimizer)}",
                "build a scheduler for it, unless a constant lr is intended",
            )


def _lrs(optimizer: Optimizer) -> str:
    lrs = dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups)
    return "lr " + ", ".join(lrs)


def _parameter_findings(setup: TrainingSetup) -> Iterator[Finding]:
    if not setup.models or not setup.optimizers:
        return
    optimizer_counts: Counter[int] = Counter()
    for optimizer in setup.optimizers:
        optimizer_counts.update({id(p) for g in optimizer.param_groups for p in g["params"]})
    named = [pair for model in setup.models for pair in model.named_parameters()]
    known = {id(p) for _, p in named}
    trainable = {id(p): name for name, p in named if p.requires_grad}
    modules = [module for model in setup.models for module in model.modules()]
    averaged = [module for module in modules if isinstance(module, AveragedModel)]
    averages = {id(p) for module in averaged for p in module.parameters()}
    held = optimizer_counts.keys()
    missing = [name for key, name in trainable.items() if key not in held | averages]
    if missing and not held & known:
        yield _error(
            "no optimizer holds any of the model's parameters: it was built for another model",
            "build the optimizer after the model's last parameter is in place",
        )
        return
    if missing:
        yield _error(
            f"no optimizer holds {len(missing)} of {len(trainable)} trainable parameters: "
            f"{first_names(missing)}",
            "add them to a param group, or set requires_grad=False to freeze them",
        )
    if unknown := len(held - known):
        yield _warning(
            f"the optimizer holds {unknown} tensors that the model does not have",
            "build the optimizer after the model's last parameter is in place; pass every trained "
            "model to doctor()",
        )
    if shared := sum(count > 1 for count in optimizer_counts.values()):
        yield _warning(
            f"{shared} parameters are in more than one optimizer, and each optimizer updates them",
            "remove them from all optimizers but one",
        )


def _call_findings(usage: SchedulerUsage) -> Iterator[Finding]:
    """Find schedulers that are stepped more often than their optimizer."""
    if usage.counts_optimizer_steps or isinstance(usage.scheduler, ReduceLROnPlateau):
        return
    calls, done, total_steps = usage.calls, usage.done, usage.total_steps
    fix = (
        "call step() once after each optimizer.step(), not for every batch or process; or use "
        "ratecraft.torch.ScheduleLR, which counts the optimizer's steps"
    )
    end, calls_per_step = schedule_end(usage.scheduler), usage.stepped.calls_per_step or 1.0
    if calls_per_step > 1:  # Accelerate steps it for each process
        if end and total_steps and _is_close(end.calls, total_steps * calls_per_step):
            return  # the schedule was built for that many calls, as in Accelerate's examples
        yield Finding(
            "error" if end and total_steps else "warning",
            f"{usage.name} is stepped {calls_per_step:g} times per step: {usage.evidence}",
            fix,
        )
    elif done and calls >= MIN_CALLS_PER_STEP * done and calls - done >= MIN_EXTRA_CALLS:
        yield _error(
            f"{usage.name} is stepped {calls / done:.3g} times per step: {calls} calls of "
            f"step() in {done} steps",
            f"{fix}. If only the optimizer's or only the scheduler's state was loaded, load both",
        )


def _length_findings(usage: SchedulerUsage, setup: TrainingSetup) -> Iterator[Finding]:
    """Find schedulers that end before or after their run."""
    if any(isinstance(other.scheduler, SWALR) for other in setup.schedulers):
        return  # SWALR replaces the other schedulers before the run ends
    for scheduler in chain_parts(usage.scheduler):
        end = schedule_end(scheduler)
        if end is not None and usage.total_steps is not None:
            part = replace(usage, stepped=replace(usage.stepped, scheduler=scheduler))
            yield from _end_findings(part, end, usage.total_steps)


def _end_findings(usage: SchedulerUsage, end: ScheduleEnd, total_steps: int) -> Iterator[Finding]:
    known = usage.calls_per_step
    low, high = known or (1.0, 1.0)
    least, most = total_steps * low, total_steps * high
    once_per_step = low == high == 1
    unit = "steps" if once_per_step else "calls of step()"
    evidence = "" if once_per_step else f" ({usage.evidence})"
    run = f"{round(least)}" if round(least) == round(most) else f"{least:.0f} to {most:.0f}"
    fix = f"set its length to the run's, {run}"
    unclear = low != high and usage.calls < MIN_CALLS_TO_JUDGE
    too_long = end.calls > most + _margin(most)
    too_short = end.spans_run and end.calls < least - (0.0 if end.raises else _margin(least))
    if too_long and high < 1 and _is_close(end.calls, total_steps):
        yield _error(
            f"{usage.name} counts {end.calls} steps, but is stepped {run} times in this "
            f"run{evidence}: it will hardly move",
            'step it after every step: interval="step" in Lightning, or use ScheduleLR, which '
            "counts the optimizer's steps",
        )
    elif too_long and not unclear:
        event = "reaches its end" if end.spans_run else "makes its last change"
        yield Finding(
            "error" if end.spans_run else "warning",
            f"{usage.name} {event} after {end.calls} {unit}, and the run has {run}{evidence}: the "
            "rest of the schedule is never reached",
            fix,
        )
    elif too_short and known is None and end.calls * MIN_STEPS_PER_EPOCH <= total_steps:
        yield Finding(
            "note",
            f"{usage.name} ends after {end.calls} calls of step(), {end.past}; the run has "
            f"{total_steps} steps",
            "correct if it is stepped once an epoch; call doctor() again after a few steps",
        )
    elif too_short and not unclear:
        yield _error(
            f"{usage.name} ends after {end.calls} of the run's {run} {unit}{evidence}, {end.past}",
            fix,
        )


def _joint_length_findings(setup: TrainingSetup) -> Iterator[Finding]:
    """Find schedules of several optimizers that are longer than the steps they have together."""
    lengths = {
        id(usage.optimizer): end.calls
        for usage in setup.schedulers
        if (end := schedule_end(usage.scheduler)) is not None and end.spans_run
    }
    most, needed = setup.joint_max_steps, sum(lengths.values())
    if most is not None and needed > most + _margin(most):
        yield _error(
            f"the schedules of {len(lengths)} optimizers take {needed} steps, but max_steps={most} "
            "counts the steps of all optimizers together: not all schedules reach their end",
            f"write max_steps={needed}, or shorten the schedules",
        )


def _margin(calls: float) -> float:
    return max(RUN_LENGTH_REL_TOL * calls, 1.0)


def _is_close(calls: float, expected: float) -> bool:
    return abs(calls - expected) <= _margin(expected)


def _state_findings(usage: SchedulerUsage) -> Iterator[Finding]:
    """Load a scheduler's state into a copy that has moved on, and compare the next lrs."""
    scheduler, schedule_lr = usage.scheduler, usage.schedule_lr
    file = io.BytesIO()
    saved: Any = {}
    try:
        saved = scheduler.state_dict()
        torch.save(saved, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:  # a user's scheduler class may raise anything
        cause = _not_plain(saved) or f"{type(error).__name__}: {error}"
        yield _warning(
            f"the state of {usage.name} is not plain data, and loads only with "
            f"weights_only=False: {cause}",
            "leave functions and objects out of state_dict(), or save what they are built from",
        )
        return
    if schedule_lr is not None:
        schedule_state = state if schedule_lr is scheduler else state["scheduler"]
        if differences := schedule_lr.differences(schedule_state):
            yield _warning(
                "a run that resumes from the state of this ScheduleLR will report a change of "
                f"{', '.join(differences)}: lambdas cannot be compared",
                "write the function with def, or pass on_change=",
            )
        return
    try:
        expected, restored = _expected_and_restored(scheduler, state)
    except Exception as error:
        yield _warning(
            f"the state of {usage.name} could not be checked: {type(error).__name__}: {error}",
            "check by hand that a resumed run continues at the same lrs",
        )
        return
    quantity = "factor" if hasattr(scheduler, "factors") else "lr"
    for k, (before, after) in enumerate(zip(expected, restored, strict=False)):
        if before != after:
            yield _error(
                f"the state of {usage.name} does not restore it: {k} steps after loading, the "
                f"{quantity} is {after[0]:g} instead of {before[0]:g}",
                "put everything that step() changes into state_dict()",
            )
            return


def _not_plain(value: Any, path: str = "") -> str:
    """Return the path and class of the first object that is not plain data, or ""."""
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    elif type(value) not in PLAIN_TYPES:
        return f"{path} is {type(value)!r}"
    return next((text for name, item in items if (text := _not_plain(item, name))), "")


def _expected_and_restored(
    scheduler: Any, state: dict[str, Any]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the next lrs, and those of a copy that moved on and then loaded a state."""
    with copy_on_dummy_optimizer(scheduler) as copied:
        optimizer_state = copy.deepcopy(copied.optimizer.state_dict())
        expected = _next_values(copied)
        copied.load_state_dict(state)
        copied.optimizer.load_state_dict(optimizer_state)
        return expected, _next_values(copied)


def _next_values(scheduler: Any) -> list[list[float]]:
    """Step a scheduler; return its factors, or the lrs if it does not report factors."""
    values = []
    for _ in range(STATE_CHECK_STEPS):
        if hasattr(scheduler, "factors"):  # the lr may hold the factors of other schedulers too
            now = scheduler.factors()
        else:
            now = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
        values.append(now if isinstance(now, list) else [now])
        try:
            scheduler.step(1.0) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
        except ValueError:  # OneCycleLR after its last step
            break
    return values


def _schedule_findings(setup: TrainingSetup) -> Iterator[Finding]:
    for usage in setup.schedulers:
        if usage.schedule_lr is not None:
            config = usage.schedule_lr.config
            lr = config.schedules["lr"]
            for schedule in [lr] if isinstance(lr, Schedule) else dict.fromkeys(lr.values()):
                yield from check(schedule, config.total_steps, **config.unit_sizes)

"""doctor: what is wrong with a live set-up, before or while it trains."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from ratecraft.schedule import Finding, Schedule, check
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR

from ._describe import on_stand_in
from ._setup import SchedulerUsage, TrainingSetup

NEAR: Final = 0.01  # a horizon this near to the run's length is the run's length
MULTIPLE: Final = 1.8  # so many steps a step are several; fewer may be steps that AMP skipped,
SKIPPED: Final = 8  # and so may be so few
EPOCH: Final = 5  # a run that is so many times longer than a schedule may be counted in epochs
COUNTED: Final = 3  # calls after which it is clear how often a scheduler is stepped
AHEAD: Final = 10  # steps that a loaded state is followed for
NAMES: Final = 3  # of many parameters, so many are named
PLAIN: Final = ("builtins", "torch", "torch.nn.parameter")


def doctor(*things: Any, total_steps: int | None = None, done: int | None = None) -> list[Finding]:
    """Return what is wrong with a live set-up, worst first; nothing is changed.

    Looked for: a scheduler that drives another optimizer than the one that steps; one stepped
    once an epoch though it counts steps, or several times a step; a horizon that the run
    misses or overshoots; parameters that no optimizer holds, or that are another model's; a
    state that does not bring back what it was saved from; and, of a `ScheduleLR`, what `check`
    says about its schedule.

    Call it when all is built, and again after a few steps, when it can see how often a
    scheduler is stepped: optimizers of Adam's kind count their steps, a trainer does, or you
    say ``done=``.

    Args:
        things: models, optimizers, schedulers, a Lightning ``Trainer`` (while it fits, as in
            ``on_train_start``) or a Hugging Face ``Trainer``, in any order and number, also in
            lists and dicts.
        total_steps: steps the run is going to make, if no trainer says so.
        done: steps made so far.

    Raises:
        TypeError: something that is none of these.
        BindingError: a length below 1, or a Lightning trainer that is not running.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD([model.weight], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 500)
    >>> for finding in doctor(model, optimizer, scheduler, total_steps=1000):
    ...     print(finding.level, finding.message)
    error no optimizer holds 1 of 2 trainable parameters: bias
    error OneCycleLR ends after 500 of the run's 1000 steps, and raises an error there
    """
    setup = TrainingSetup.of(things, total_steps, done)
    found = [
        *_others(setup),
        *_parameters(setup),
        *(
            finding
            for patient in setup.patients
            for finding in (*_steps(patient), *_horizons(patient, setup), *_state(patient))
        ),
        *_schedules(setup),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _others(setup: TrainingSetup) -> Iterator[Finding]:
    """Find schedulers and optimizers that have nothing to do with each other."""
    for patient in setup.patients:
        scheduler = patient.scheduler
        if setup.builds_own:
            yield Finding(
                "error",
                f"the Trainer was given a {patient.name} without its optimizer, and builds an "
                "optimizer of its own: it will train at a constant lr and log the schedule",
                "optimizers=(optimizer, scheduler), or ratecraft.torch.for_trainer(trainer, ...)",
            )
        elif setup.optimizers and not patient.drives(setup.optimizers):
            yield Finding(
                "error",
                f"{patient.name} drives another optimizer than the one that steps: this one "
                f"stays at {_lrs(setup.optimizers[0])}, and the log shows the schedule",
                "build the scheduler with the optimizer that is stepped, after the last time "
                "that one was built anew",
            )
        if isinstance(scheduler, ScheduleLR) and scheduler.is_removed:
            yield Finding(
                "error", "this ScheduleLR was removed and drives nothing", "build another"
            )
    if not setup.patients or setup.builds_own:
        return
    for i, optimizer in enumerate(setup.optimizers):
        if not any(patient.drives([optimizer]) for patient in setup.patients):
            yield Finding(
                "note" if any(p.drives(setup.optimizers) for p in setup.patients)
                else "warning",
                f"no scheduler drives {type(optimizer).__name__}"
                f"{f' (number {i + 1})' if len(setup.optimizers) > 1 else ''}, which stays at "
                f"{_lrs(optimizer)}",
                "give it a scheduler of its own, if that is not meant",
            )  # fmt: skip


def _lrs(optimizer: Optimizer) -> str:
    lrs = dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups)
    return "lr " + ", ".join(lrs)


def _parameters(setup: TrainingSetup) -> Iterator[Finding]:
    """Find parameters that nothing trains, and those trained for nobody."""
    if not setup.models or not setup.optimizers:
        return
    held = [
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in setup.optimizers
    ]
    everywhere = set().union(*held)
    trainable = {
        id(p): name
        for model in setup.models
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    averages = {
        id(p)
        for model in setup.models
        for module in model.modules()
        if isinstance(module, AveragedModel)
        for p in module.parameters()
    }
    known = {id(p) for model in setup.models for p in model.parameters()}
    missing = [
        name for key, name in trainable.items() if key not in everywhere and key not in averages
    ]
    if missing and not everywhere & known:
        yield Finding(
            "error",
            "no optimizer holds any of the model's parameters: it was built for another model",
            "build the optimizer after the model has got its last parameters",
        )
        return
    if missing:
        names = ", ".join(missing[:NAMES]) + (", ..." if len(missing) > NAMES else "")
        yield Finding(
            "error",
            f"no optimizer holds {len(missing)} of {len(trainable)} trainable parameters: {names}",
            "add them to a param group, or set requires_grad=False if they are to stay",
        )
    strangers = len(everywhere - known)
    if strangers:
        yield Finding(
            "warning",
            f"the optimizer holds {strangers} tensors that the model does not have",
            "build the optimizer after the model has got its last parameters; give doctor() "
            "every model that is trained",
        )
    twice = sum(sum(key in one for one in held) > 1 for key in everywhere)
    if twice:
        yield Finding(
            "warning",
            f"{twice} parameters are held by more than one optimizer, and updated by each",
            "leave them in one",
        )


def _steps(patient: SchedulerUsage) -> Iterator[Finding]:
    """Find schedulers that are stepped more often than the optimizer."""
    if patient.counts_itself or isinstance(patient.scheduler, ReduceLROnPlateau):
        return
    calls, done, total_steps = patient.calls, patient.done, patient.total_steps
    fix = (
        "call step() once after each optimizer.step(), not for every batch or process; or "
        "ratecraft.torch.ScheduleLR, which counts the steps themselves"
    )
    end = _end(patient.scheduler)
    if patient.processes > 1:
        times = patient.processes
        if end and total_steps and _near(end.calls, total_steps * times):
            return  # planned so, as Accelerate's own examples do
        yield Finding(
            "error" if end and total_steps else "warning",
            f"{patient.name} is stepped {times} times a step: {patient.why}",
            fix,
        )
    elif done and calls >= MULTIPLE * done and calls - done >= SKIPPED:
        yield Finding(
            "error",
            f"{patient.name} is stepped {calls / done:.3g} times a step: {calls} calls of "
            f"step() in {done} steps",
            f"{fix}. If only one of the two states was loaded: load both",
        )


@dataclass(frozen=True, slots=True)
class _End:
    """Where a scheduler is at its end: after so many calls; what happens past it."""

    calls: int
    past: str = "and stays where it is"
    whole: bool = True  # it is made for a run of just that length
    raises: bool = False


def _end(scheduler: Any) -> _End | None:
    """Return the horizon of a scheduler, if it has one."""
    if isinstance(scheduler, PlateauLR):
        scheduler = scheduler.scheduler
    if isinstance(scheduler, ScheduleLR):
        return _End(scheduler.horizon, _last(scheduler)) if scheduler.horizon else None
    match scheduler:
        case lr_scheduler.OneCycleLR():
            return _End(scheduler.total_steps, "and raises an error there", raises=True)
        case lr_scheduler.CosineAnnealingLR():
            return _End(scheduler.T_max, "and rises again")
        case lr_scheduler.PolynomialLR():
            return _End(scheduler.total_iters, "and stays at lr 0")
        case lr_scheduler.LinearLR() if scheduler.end_factor < scheduler.start_factor:
            return _End(scheduler.total_iters, f"and stays at a factor of {scheduler.end_factor:g}")
        case lr_scheduler.LinearLR() | lr_scheduler.ConstantLR():
            return _End(scheduler.total_iters, whole=False)
        case lr_scheduler.MultiStepLR() if scheduler.milestones:
            return _End(max(scheduler.milestones), whole=False)
        case lr_scheduler.StepLR():
            return _End(scheduler.step_size, whole=False)
        case lr_scheduler.SequentialLR():
            last = _end(scheduler._schedulers[-1])
            began = scheduler._milestones[-1] if scheduler._milestones else 0
            return replace(last, calls=began + last.calls) if last else None
        case lr_scheduler.LambdaLR():
            return _of_function(scheduler.lr_lambdas[0])
    return None


def _last(scheduler: ScheduleLR) -> str:
    """Say where a schedule stays past its end."""
    last = scheduler.factors(scheduler.horizon)
    value = max(last) if isinstance(last, list) else last
    return f"and stays at a {'lr' if scheduler.is_absolute else 'factor'} of {value:g}"


def _of_function(function: Any) -> _End | None:
    """Read the horizon of one of transformers' schedules."""
    said = function.keywords if isinstance(function, partial) else {}
    total_steps = said.get("num_training_steps")
    if total_steps is None and "num_decay_steps" in said:
        phases = [said.get(f"num_{name}_steps", 0) for name in ("warmup", "stable", "decay")]
        total_steps = sum(phases) if all(isinstance(length, int) for length in phases) else None
    return _End(total_steps) if isinstance(total_steps, int) else None


def _horizons(patient: SchedulerUsage, setup: TrainingSetup) -> Iterator[Finding]:
    """Find schedules that end before or after their run."""
    if setup.swaps:
        return
    for part in patient.parts():
        end = _end(part.scheduler)
        if (
            end is not None
            and part.total_steps is not None
            and (found := _missed(part, end, part.total_steps))
        ):
            yield found


def _missed(patient: SchedulerUsage, end: _End, total_steps: int) -> Finding | None:
    """Return by how much a scheduler's end and its run's are apart, if they are."""
    known = patient.counts_itself or patient.per_step is not None
    low, high = (1.0, 1.0) if patient.counts_itself else patient.per_step or (1.0, 1.0)
    least, most = total_steps * low, total_steps * high
    per_step = low == high == 1
    unit = "steps" if per_step else "calls of step()"
    in_run = "" if per_step else f" ({patient.why})"
    run = f"{round(least)}" if round(least) == round(most) else f"{least:.0f} to {most:.0f}"
    fix = f"give it the run's length, {run}"
    if end.calls > most + _margin(most):
        if high < 1 and _near(end.calls, total_steps):
            return Finding(
                "error",
                f"{patient.name} counts {end.calls} steps, but is stepped {run} times in this "
                f"run{in_run}: it will hardly move",
                'step it after every step: interval="step" in Lightning, or ScheduleLR, which '
                "counts steps by itself",
            )
        if low != high and patient.calls < COUNTED:
            return None  # too early to say how often it is stepped
        what = "reaches its end" if end.whole else "does what it is there for"
        return Finding(
            "error" if end.whole else "warning",
            f"{patient.name} {what} after {end.calls} {unit}, and the run has {run}{in_run}: the "
            "rest of it is never reached",
            fix,
        )
    if not end.whole or end.calls >= least - (0.0 if end.raises else _margin(least)):
        return None
    if not known and end.calls * EPOCH <= total_steps:
        return Finding(
            "note",
            f"{patient.name} ends after {end.calls} calls of step(), {end.past}; the run has "
            f"{total_steps} steps",
            "right if it is stepped once an epoch; call doctor() again after some steps",
        )
    if low != high and patient.calls < COUNTED:
        return None
    return Finding(
        "error",
        f"{patient.name} ends after {end.calls} of the run's {run} {unit}{in_run}, {end.past}",
        fix,
    )


def _margin(calls: float) -> float:
    return max(NEAR * calls, 1.0)


def _near(calls: float, others: float) -> bool:
    return abs(calls - others) <= _margin(others)


def _state(patient: SchedulerUsage) -> Iterator[Finding]:
    """Save a scheduler's state, load it into a copy that went on, and see where that is."""
    scheduler = patient.scheduler
    file = io.BytesIO()
    saved: Any = {}
    try:
        saved = scheduler.state_dict()
        torch.save(saved, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:  # whatever a state of somebody else's class raises
        odd = _odd(saved) or f"{type(error).__name__}: {error}"
        yield Finding(
            "warning",
            f"the state of {patient.name} is no plain data, and loads with weights_only=False "
            f"only: {odd}",
            "keep functions and objects out of it, or save what they are made of",
        )
        return
    if patient.ours is not None:
        config = state if patient.ours is scheduler else state["schedule"]
        differences = patient.ours.differences(config)
        if differences:
            yield Finding(
                "warning",
                f"a run that resumes from the state of this ScheduleLR will be asked about "
                f"{', '.join(differences)}: one lambda cannot be told from another",
                "give the function a name (def), or say on_change=",
            )
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the stand-in never steps, which torch warns about
            ahead, again = _tried(scheduler, state)
    except Exception as error:
        yield Finding(
            "warning",
            f"the state of {patient.name} could not be tried: {type(error).__name__}: {error}",
            "try by hand whether a run that resumes goes on at the same lrs",
        )
        return
    what = "factor" if hasattr(scheduler, "factors") else "lr"
    for k, (one, other) in enumerate(zip(ahead, again, strict=True)):
        if one != other:
            yield Finding(
                "error",
                f"the state of {patient.name} does not bring it back: {k} steps after loading "
                f"it the {what} is {other[0]:g} in place of {one[0]:g}",
                "put everything that step() changes into state_dict()",
            )
            return


def _odd(value: Any, place: str = "") -> str:
    """Return where in a state something is that is no plain data, and of which class."""
    if isinstance(value, Mapping):
        inner = [(f"{place}.{key}" if place else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(f"{place}[{i}]", item) for i, item in enumerate(value)]
    else:
        plain = isinstance(value, bool | int | float | str | None | torch.Tensor)
        return "" if plain and type(value).__module__ in PLAIN else f"{place} is {type(value)!r}"
    return next((odd for name, item in inner if (odd := _odd(item, name))), "")


def _tried(scheduler: Any, state: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    """Return the coming lrs, and those after a copy went on and was set back by a state."""
    twin = on_stand_in(scheduler)
    held = [
        copy.deepcopy({name: value for name, value in group.items() if name != "params"})
        for group in twin.optimizer.param_groups
    ]
    ahead = _ahead(twin)
    twin.load_state_dict(state)
    for group, before in zip(twin.optimizer.param_groups, held, strict=True):
        group.update(before)  # which the optimizer's own state brings back
    return ahead, _ahead(twin)


def _ahead(scheduler: Any) -> list[list[float]]:
    """Step a scheduler some steps ahead; return its factors, or the lrs of somebody else's."""
    seen = []
    for _ in range(AHEAD):
        if hasattr(scheduler, "factors"):  # ours may have others beside them
            factors = scheduler.factors()
            seen.append(factors if isinstance(factors, list) else [factors])
        else:
            seen.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        try:
            scheduler.step(1.0) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
        except ValueError:  # OneCycleLR at its end
            break
    return seen


def _schedules(setup: TrainingSetup) -> Iterator[Finding]:
    """Say what `check` says of each schedule over its run."""
    for patient in setup.patients:
        ours = patient.ours
        if ours is not None:
            said = ours.config.schedules["lr"]
            for schedule in [said] if isinstance(said, Schedule) else dict.fromkeys(said.values()):
                yield from check(schedule, ours.config.total_steps, **ours.config.units)

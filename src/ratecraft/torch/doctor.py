"""doctor: what is wrong with a live set-up, before or while it trains."""

from __future__ import annotations

import copy
import io
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ratecraft.errors import BindingError
from ratecraft.schedule import Finding, Schedule, check
from ratecraft.torch.describe import on_stand_in
from ratecraft.torch.ledger import driven
from ratecraft.torch.plateau import PlateauLR
from ratecraft.torch.scheduler import ScheduleLR

__all__ = ["doctor"]

NEAR: Final = 0.01  # a horizon this near to the run's length is the run's length
AHEAD: Final = 10  # updates that a loaded state is followed for
NAMES: Final = 3  # of many parameters, so many are named


@dataclass(slots=True)
class _Patient:
    """A scheduler, and how it is stepped as far as that is known.

    Attributes:
        scheduler: it.
        per_update: calls of ``step()`` for each update; ``None`` if nobody knows.
        why: how that is known.
    """

    scheduler: Any
    per_update: float | None = None
    why: str = ""

    @property
    def name(self) -> str:
        return type(self.scheduler).__name__

    @property
    def counts_itself(self) -> bool:
        """Whether its clock follows the optimizer, however often it is stepped."""
        return isinstance(self.scheduler, ScheduleLR) and not self.scheduler.counts_calls


@dataclass(slots=True)
class _SetUp:
    """What is to be looked at.

    Attributes:
        total: updates the run is going to make.
        done: updates made.
        epochs: how many epochs the run has, if a trainer says so.
        builds_own: the trainer will build an optimizer of its own beside a given scheduler.
    """

    models: list[torch.nn.Module] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    patients: list[_Patient] = field(default_factory=list)
    total: int | None = None
    done: int | None = None
    epochs: int | None = None
    builds_own: bool = False


def doctor(*things: Any, total: int | None = None, done: int | None = None) -> list[Finding]:
    """Return what is wrong with a live set-up, worst first; nothing is changed.

    Looked for: a scheduler that drives another optimizer than the one that steps; one stepped
    once an epoch though it counts updates, or several times an update; a horizon that the run
    misses or overshoots; parameters that no optimizer holds, or that are another model's; a
    state that does not bring back what it was saved from; and, of a `ScheduleLR`, what `check`
    says about its schedule.

    Call it when all is built, and again after a few updates, when it can see how often a
    scheduler is stepped: optimizers of Adam's kind count their updates, a trainer does, or you
    say ``done=``.

    Args:
        things: models, optimizers, schedulers, a Lightning ``Trainer`` (while it fits, as in
            ``on_train_start``) or a Hugging Face ``Trainer``, in any order and number.
        total: updates the run is going to make, if no trainer says so.
        done: updates made so far.

    Raises:
        TypeError: something that is none of these.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD([model.weight], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 500)
    >>> for finding in doctor(model, optimizer, scheduler, total=1000):
    ...     print(finding.level, finding.message)
    error no optimizer holds 1 of 2 trainable parameters: bias
    error OneCycleLR ends after 500 of the run's 1000 updates, and raises an error there
    """
    setup = _SetUp(total=total, done=done)
    for thing in things:
        _take(thing, setup)
    if setup.done is None:
        setup.done = _counted(setup.optimizers)
    found = [
        *_others(setup),
        *_parameters(setup),
        *(
            finding
            for patient in setup.patients
            for finding in (*_steps(patient, setup), *_horizon(patient, setup), *_state(patient))
        ),
        *_schedules(setup),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))


# Reading ------------------------------------------------------------------------------------------


def _take(thing: Any, setup: _SetUp) -> None:
    """Take something into the set-up, by what it is."""
    if isinstance(thing, torch.nn.Module):
        setup.models.append(thing)
    elif isinstance(thing, Optimizer):
        setup.optimizers.append(thing)
    elif isinstance(thing, LRScheduler) or _is_accelerates(thing):
        setup.patients.append(_patient(thing))
    elif hasattr(thing, "lr_scheduler_configs") and hasattr(thing, "strategy"):
        _take_lightning(thing, setup)
    elif hasattr(thing, "create_optimizer_and_scheduler") and hasattr(thing, "args"):
        _take_hugging_face(thing, setup)
    else:
        raise TypeError(
            f"doctor() looks at models, optimizers, schedulers and trainers, not "
            f"{type(thing).__name__}"
        )


def _is_accelerates(thing: Any) -> bool:
    return isinstance(getattr(thing, "scheduler", None), LRScheduler) and hasattr(
        thing, "step_with_optimizer"
    )


def _patient(scheduler: Any) -> _Patient:
    if not _is_accelerates(scheduler):
        return _Patient(scheduler)
    if not scheduler.step_with_optimizer or scheduler.split_batches:
        return _Patient(scheduler.scheduler)
    processes = sys.modules[type(scheduler).__module__].AcceleratorState().num_processes
    return _Patient(
        scheduler.scheduler, float(processes), f"Accelerate steps it once for each of {processes} "
        "processes",
    )  # fmt: skip


def _take_lightning(trainer: Any, setup: _SetUp) -> None:
    if not trainer.optimizers:
        raise BindingError(
            "this Trainer has no optimizers yet; call doctor(trainer) while it fits, as in "
            "on_train_start(self, trainer, module) of a callback"
        )
    setup.models.append(trainer.lightning_module)
    setup.optimizers += trainer.optimizers
    setup.done = trainer.global_step // len(trainer.optimizers)
    if 0 < trainer.estimated_stepping_batches < math.inf:
        setup.total = int(trainer.estimated_stepping_batches)
    if trainer.max_epochs and trainer.max_epochs > 0:
        setup.epochs = trainer.max_epochs
    for config in trainer.lr_scheduler_configs:
        patient = _Patient(config.scheduler)
        if config.interval == "step":
            patient.per_update = 1 / config.frequency
            patient.why = 'its interval is "step"'
        elif setup.epochs and setup.total:
            patient.per_update = setup.epochs / setup.total / config.frequency
            patient.why = 'its interval is "epoch"'
        setup.patients.append(patient)


def _take_hugging_face(trainer: Any, setup: _SetUp) -> None:
    setup.models.append(trainer.model)
    if trainer.optimizer is not None:
        setup.optimizers.append(trainer.optimizer)
    setup.done = trainer.state.global_step
    arguments = trainer.args
    if trainer.state.max_steps > 0:
        setup.total = trainer.state.max_steps
    elif arguments.max_steps > 0:
        setup.total = arguments.max_steps
    elif hasattr(trainer.train_dataset, "__len__"):
        batches = len(trainer.get_train_dataloader())
        updates = max(math.ceil(batches / arguments.gradient_accumulation_steps), 1)
        setup.total = math.ceil(arguments.num_train_epochs * updates)
    if trainer.lr_scheduler is not None:
        setup.builds_own = trainer.optimizer is None
        patient = _patient(trainer.lr_scheduler)
        patient.per_update = patient.per_update or 1.0
        patient.why = patient.why or "the Trainer steps it once an update"
        setup.patients.append(patient)


def _counted(optimizers: list[Optimizer]) -> int | None:
    """Return the updates made, where an optimizer's state counts them."""
    counts = [
        int(state["step"])
        for optimizer in optimizers
        for state in optimizer.state.values()
        if isinstance(state, dict) and isinstance(state.get("step"), int | float | torch.Tensor)
    ]
    return max(counts, default=None)


# Looking ------------------------------------------------------------------------------------------


def _others(setup: _SetUp) -> Iterator[Finding]:
    """Find schedulers and optimizers that have nothing to do with each other."""
    for patient in setup.patients:
        scheduler = patient.scheduler
        if setup.builds_own:
            yield Finding(
                "error",
                f"the Trainer was given a {patient.name} without its optimizer, and builds an "
                "optimizer of its own: it will train at a constant rate and log the schedule",
                "optimizers=(optimizer, scheduler), or ratecraft.torch.for_trainer(trainer, ...)",
            )
        elif setup.optimizers and not _drives(scheduler, setup.optimizers):
            yield Finding(
                "error",
                f"{patient.name} drives another optimizer than the one that steps: this one "
                f"stays at {_rates(setup.optimizers[0])}, and the log shows the schedule",
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
        if not any(_drives(patient.scheduler, [optimizer]) for patient in setup.patients):
            yield Finding(
                "note" if any(_drives(p.scheduler, setup.optimizers) for p in setup.patients)
                else "warning",
                f"no scheduler drives {type(optimizer).__name__}"
                f"{f' (number {i + 1})' if len(setup.optimizers) > 1 else ''}, which stays at "
                f"{_rates(optimizer)}",
                "give it a scheduler of its own, if that is not meant",
            )  # fmt: skip


def _drives(scheduler: Any, optimizers: list[Optimizer]) -> bool:
    return any(driven(scheduler.optimizer) is driven(optimizer) for optimizer in optimizers)


def _rates(optimizer: Optimizer) -> str:
    rates = dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups)
    return "lr " + ", ".join(rates)


def _parameters(setup: _SetUp) -> Iterator[Finding]:
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
    known = {id(p) for model in setup.models for p in model.parameters()}
    missing = [name for key, name in trainable.items() if key not in everywhere]
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


def _steps(patient: _Patient, setup: _SetUp) -> Iterator[Finding]:
    """Find schedulers that are stepped more often than the optimizer."""
    scheduler, per_update = patient.scheduler, patient.per_update
    if patient.counts_itself or isinstance(scheduler, ReduceLROnPlateau):
        return
    why = patient.why
    calls, done = _calls(scheduler), setup.done
    if (per_update is None or per_update <= 1) and done and calls > done + 1:
        per_update, why = calls / done, f"{calls} calls of step() in {done} updates"
    if per_update is not None and per_update > 1:
        yield Finding(
            "error",
            f"{patient.name} is stepped {per_update:.3g} times an update: {why}",
            "call step() once after each optimizer.step(), not for every batch or process; or "
            "ratecraft.torch.ScheduleLR, which counts the updates themselves",
        )
    end = _end(scheduler)
    if done is not None and per_update is None and calls * 2 + 2 <= done and end:
        # Once an epoch, or forgotten. Of the whole run so much will have been seen:
        patient.per_update = calls / done
        patient.why = f"{calls} calls of step() in {done} updates"


def _calls(scheduler: Any) -> int:
    """Return how often a scheduler was stepped; torch's chain does not count."""
    while isinstance(scheduler, lr_scheduler.ChainedScheduler):
        scheduler = scheduler._schedulers[0]
    return int(scheduler.last_epoch)


@dataclass(frozen=True, slots=True)
class _End:
    """Where a scheduler is at its end: after so many calls; what happens past it."""

    calls: int
    past: str = ""
    whole: bool = True  # it is made for a run of just that length


def _end(scheduler: Any) -> _End | None:
    """Return the horizon of a scheduler, if it has one."""
    if isinstance(scheduler, PlateauLR):
        scheduler = scheduler.scheduler
    if isinstance(scheduler, ScheduleLR):
        return _End(scheduler.horizon, _last(scheduler)) if scheduler.horizon else None
    match scheduler:
        case lr_scheduler.OneCycleLR():
            return _End(scheduler.total_steps, "and raises an error there")
        case lr_scheduler.CosineAnnealingLR():
            return _End(scheduler.T_max, "and rises again")
        case lr_scheduler.PolynomialLR():
            return _End(scheduler.total_iters, "and stays at rate 0")
        case lr_scheduler.LinearLR() | lr_scheduler.ConstantLR():
            return _End(scheduler.total_iters, whole=False)
        case lr_scheduler.MultiStepLR() if scheduler.milestones:
            return _End(max(scheduler.milestones), whole=False)
        case lr_scheduler.StepLR():
            return _End(scheduler.step_size, whole=False)
        case lr_scheduler.SequentialLR():
            last = _end(scheduler._schedulers[-1])
            began = scheduler._milestones[-1] if scheduler._milestones else 0
            return _End(began + last.calls, last.past, last.whole) if last else None
        case lr_scheduler.LambdaLR():
            return _of_function(scheduler.lr_lambdas[0])
    return None


def _last(scheduler: ScheduleLR) -> str:
    """Say where a schedule stays past its end."""
    last = scheduler.factors(scheduler.horizon)
    value = max(last) if isinstance(last, list) else last
    return f"and stays at a {'rate' if scheduler.is_absolute else 'factor'} of {value:g}"


def _of_function(function: Any) -> _End | None:
    """Read the horizon of one of transformers' schedules."""
    total = function.keywords.get("num_training_steps") if isinstance(function, partial) else None
    return _End(total) if isinstance(total, int) else None


def _horizon(patient: _Patient, setup: _SetUp) -> Iterator[Finding]:
    """Find schedules that end before or after their run."""
    parts = getattr(patient.scheduler, "_schedulers", None)
    if isinstance(patient.scheduler, lr_scheduler.ChainedScheduler) and parts is not None:
        for part in parts:
            yield from _horizon(_Patient(part, patient.per_update, patient.why), setup)
        return
    end = _end(patient.scheduler)
    if end is None or setup.total is None:
        return
    per_update = patient.per_update
    if patient.counts_itself or isinstance(patient.scheduler, PlateauLR) or per_update is None:
        per_update = 1.0
    calls = setup.total * per_update
    margin = max(NEAR * calls, 1.0)
    in_run = "" if per_update == 1 else f" ({patient.why})"
    unit = "updates" if per_update == 1 else "calls of step()"
    if (
        end.calls > calls + margin
        and per_update < 1
        and abs(end.calls - setup.total) <= max(NEAR * setup.total, 1.0)
    ):
        yield Finding(
            "error",
            f"{patient.name} counts {end.calls} updates, but is stepped {round(calls)} times in "
            f"this run{in_run}: it will hardly move",
            'step it after every update: interval="step" in Lightning, or ScheduleLR, which '
            "counts updates by itself",
        )
    elif end.calls > calls + margin:
        what = "reaches its end" if end.whole else "does what it is there for"
        yield Finding(
            "error" if end.whole else "warning",
            f"{patient.name} {what} after {end.calls} {unit}, and the run has "
            f"{round(calls)}{in_run}: the rest of it is never reached",
            f"give it the run's length, {round(calls)}",
        )
    elif end.whole and end.calls < calls - margin:
        past = end.past or "and stays where it is"
        yield Finding(
            "error",
            f"{patient.name} ends after {end.calls} of the run's {round(calls)} {unit}{in_run}, "
            f"{past}",
            f"give it the run's length, {round(calls)}",
        )


def _state(patient: _Patient) -> Iterator[Finding]:
    """Save a scheduler's state, load it into a copy that went on, and see where that is."""
    scheduler = patient.scheduler
    file = io.BytesIO()
    try:
        torch.save(scheduler.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:
        first = str(error).partition("\n")[0]
        yield Finding(
            "warning",
            f"the state of {patient.name} is no plain data and loads with weights_only=False "
            f"only: {first}",
            "keep functions and objects out of it, or save what they are made of",
        )
        return
    ours = scheduler.scheduler if isinstance(scheduler, PlateauLR) else scheduler
    if isinstance(ours, ScheduleLR):
        saved = state["schedule"] if isinstance(scheduler, PlateauLR) else state
        differences = ours.differences(saved)
        if differences:
            yield Finding(
                "warning",
                f"a run that resumes from the state of this ScheduleLR will be asked about "
                f"{', '.join(differences)}: one lambda cannot be told from another",
                "give the function a name (def), or say on_plan_change=",
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
            "try by hand whether a run that resumes goes on at the same rates",
        )
        return
    for k, (one, other) in enumerate(zip(ahead, again, strict=True)):
        if one != other:
            yield Finding(
                "error",
                f"the state of {patient.name} does not bring it back: {k} updates after loading "
                f"it the rate is {other[0]:g} in place of {one[0]:g}",
                "put everything that step() changes into state_dict()",
            )
            return


def _tried(scheduler: Any, state: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    """Return the coming rates, and those after a copy went on and was set back by a state."""
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
    """Step a scheduler some updates ahead; return the rates."""
    rates = []
    for _ in range(AHEAD):
        rates.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        try:
            scheduler.step(1.0) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
        except ValueError:  # OneCycleLR at its end
            break
    return rates


def _schedules(setup: _SetUp) -> Iterator[Finding]:
    """Say what `check` says of each schedule over its run."""
    for patient in setup.patients:
        scheduler = patient.scheduler
        ours = scheduler.scheduler if isinstance(scheduler, PlateauLR) else scheduler
        if isinstance(ours, ScheduleLR):
            said = ours.plan.schedules["lr"]
            for schedule in [said] if isinstance(said, Schedule) else dict.fromkeys(said.values()):
                yield from check(schedule, ours.plan.total, **ours.plan.units)

"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._training._short_runner import check_loss, needs_closure, set_optimizer_mode
from ratecraft._training._snapshot import (
    capture_loader_state,
    capture_random_state,
    preserve_rng,
    seed_everything,
)
from ratecraft.errors import ScheduleError, TaskError
from ratecraft.results import Evaluation, Run
from ratecraft.results._lr_search import group_lr_ratios
from ratecraft.schedule import Curve, Duration, Schedule, epochs
from ratecraft.schedule._duration import CLOCK_NAMES
from ratecraft.torch import PlateauLR, ScheduleLR

from ._plateau import Candidate, Plateau
from ._task import Loss, Task

RECENT: Final = 16  # training batches on which the metrics are measured, too


@explain_arguments(
    "train() takes a task and one schedule; write the rest by name: train(task, cosine(1, 0), "
    "lr=1e-3); to train several schedules write compare(task, [...], lrs=...)"
)
def train(
    task: Task,
    schedule: Candidate,
    *,
    lr: float = 1.0,
    seed: int = 0,
    total_steps: int | Duration | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Evaluation], None] | None = None,
) -> Run:
    """Train a task once from a fresh start and return what happened.

    The random numbers of torch, numpy and `random` follow ``seed`` (a loader that has a generator
    of its own keeps that one); the caller's are left as they were. After each epoch and at the
    end the metrics are measured in evaluation mode, on the validation data and on the last 16
    training batches; that changes nothing of the training.

    Args:
        task: what to train. Groups of different lrs keep their ratios.
        schedule: the schedule, or a `Plateau`; ``lr`` times it is the learning rate, of the
            group with the highest one.
        lr: what the schedule multiplies.
        seed: seed of initial weights and data order.
        total_steps: length of the run, in steps or ``epochs(n)``; default ``epochs(10)``.
        progress: called with (steps done, steps planned) after each step.
        watch: called with each evaluation.

    Raises:
        TaskError: the task's functions return something unexpected.
        ScheduleError: the schedule does not resolve over the run.

    >>> from torch.nn import functional as F
    >>> from ratecraft import cosine
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> line = Task(
    ...     model=lambda: nn.Linear(1, 1),
    ...     loss=lambda model, batch: F.mse_loss(model(batch), 2 * batch),
    ...     train=x.split(8),
    ...     val=[x],
    ... )
    >>> run = train(line, cosine(1, 0), lr=0.1, total_steps=200)
    >>> run.final() < 0.001
    True
    """
    training = Training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
    training.advance(progress=progress, watch=watch)
    return training.result()


@dataclass(slots=True)
class TrainingSnapshot:
    """A training as it was after a step, from which another one goes on, once.

    Attributes:
        training: its model, optimizer and what it had seen, copied.
        seconds: how long it had taken.
    """

    training: dict[str, Any]
    seconds: float


class Training:
    """One run that can be held, and gone on with along another schedule.

    Args: those of `train`; and

        marks: whether `mark` is going to be called.
    """

    def __init__(
        self,
        task: Task,
        schedule: Candidate,
        *,
        lr: float = 1.0,
        seed: int = 0,
        total_steps: int | Duration | None = None,
        marks: bool = False,
    ) -> None:
        self.task, self.lr, self.seed = task, lr, seed
        self._plan(schedule, total_steps)
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.diverged: int | None = None
        self.seconds = 0.0
        self._marks = marks
        self._batches: Iterator[Any] | None = None
        self._drawn = 0
        self._recent: deque[Any] = deque(maxlen=RECENT)
        with preserve_rng():
            seed_everything(seed)
            self.model, self.optimizer = start(task)
            self._ratios = [ratio for _, ratio in group_lr_ratios([self.optimizer])]
            self._drive(0)
            self.model.train()
            set_optimizer_mode(self.optimizer, "train")
            self._random = capture_random_state()
            self._epoch = (self._random, capture_loader_state(task.train) if marks else _nothing)

    def _plan(self, schedule: Candidate, total_steps: int | Duration | None) -> None:
        self.schedule = schedule
        self.curve = curve_of(schedule, self.lr, total_steps, self.task.steps_per_epoch)
        self.planned = len(self.curve)
        if isinstance(schedule, Plateau) and schedule.metric not in ("loss", *self.task.metrics):
            raise ScheduleError(
                f"{schedule!r}: the task has no metric {schedule.metric!r}; it has "
                f"{', '.join(('loss', *self.task.metrics))}"
            )

    def _drive(self, done: int) -> None:
        """Bind the schedule to the optimizer, with ``done`` steps behind it."""
        plain = self.schedule.schedule if isinstance(self.schedule, Plateau) else self.schedule
        lr: Schedule | dict[str, Schedule] = self.lr * plain
        if any(ratio != 1 for ratio in self._ratios):
            lr = {}
            for i, group in enumerate(self.optimizer.param_groups):
                group.setdefault("name", _free(str(i), self.optimizer))
                lr[str(group["name"])] = (self.lr * self._ratios[i]) * plain
        scheduler = ScheduleLR(
            self.optimizer,
            lr=lr,
            total_steps=self.planned,
            steps_per_epoch=self.task.steps_per_epoch,
            initial_step=done,
        )
        self._plateau = None
        if isinstance(self.schedule, Plateau):
            said = self.schedule
            self._plateau = PlateauLR(
                scheduler,
                mode="min" if said.falls else "max",
                factor=said.factor,
                patience=said.patience,
                threshold=said.threshold,
                cooldown=said.cooldown,
            )

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: all steps are made, or the loss is not finite."""
        return self.diverged is not None or len(self.losses) == self.planned

    def advance(
        self,
        until: int | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[Evaluation], None] | None = None,
    ) -> None:
        """Go on to a step, or to the end; the caller's random numbers are left alone."""
        end = self.planned if until is None else min(until, self.planned)
        started = time.perf_counter()
        with preserve_rng():
            self._random()
            closes = needs_closure(self.optimizer)
            while len(self.losses) < end and self.diverged is None:
                self._step(self._next_batch(), closes)
                if self.diverged is not None:
                    break
                if progress:
                    progress(len(self.losses), self.planned)
                if self.evaluations and watch and self.evaluations[-1].step == len(self.losses):
                    watch(self.evaluations[-1])
            self._random = capture_random_state()
        self.seconds += time.perf_counter() - started

    def _step(self, batch: Any, closes: bool) -> None:
        task, model, optimizer = self.task, self.model, self.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, batch)
        _check_number(loss)
        check_loss(loss)
        value = float(loss.detach())
        self.losses.append(value)
        if not math.isfinite(value):
            self.diverged = len(self.losses) - 1
            return
        done = len(self.losses)
        looks = done % task.steps_per_epoch == 0 or done == self.planned
        # The scheduler writes the next lr as soon as the step is done.
        lrs = _lrs(optimizer) if looks else {}
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if closes:
            optimizer.step(_closure(task, model, optimizer, batch))
        else:
            optimizer.step()
        if looks:
            self._look(lrs)

    def _look(self, lrs: dict[str, float]) -> None:
        """Measure on validation and recent training batches; a plateau hears of an epoch's."""
        done = len(self.losses)
        with preserve_rng():
            set_optimizer_mode(self.optimizer, "eval")
            found = _evaluate(self.task, self.model, self.task.val)
            seen = _evaluate(self.task, self.model, self._recent)
            set_optimizer_mode(self.optimizer, "train")
        self.evaluations.append(Evaluation(done, found, seen, lrs))
        if done == self.planned and not math.isfinite(found["loss"]):
            self.diverged = done
        elif self._plateau is not None and isinstance(self.schedule, Plateau):
            self._plateau.step(found[self.schedule.metric])

    def _next_batch(self) -> Any:
        if self._batches is None:
            self._open_epoch()
        for _ in range(2):
            for batch in self._batches or ():
                self._drawn += 1
                self._recent.append(batch)
                return batch
            if not self._drawn:
                break
            self._open_epoch()
        raise TaskError(
            "the training data gave no batch when it was iterated again; give a DataLoader or a "
            "list"
        )

    def _open_epoch(self) -> None:
        if self._marks:
            self._epoch = capture_random_state(), capture_loader_state(self.task.train)
        self._batches, self._drawn = iter(self.task.train), 0

    def mark(self) -> TrainingSnapshot:
        """Return what another training can go on from; this one goes on as if nobody had asked.

        Raises:
            TaskError: the model or the optimizer cannot be copied.
        """
        try:
            model, optimizer = copy.deepcopy((self.model, self.optimizer))
        except Exception as error:  # a user's model can raise anything
            raise TaskError(
                f"{type(self.model).__name__} cannot be copied ({type(error).__name__}: {error}), "
                "so that runs cannot branch from one; train them without branches"
            ) from None
        kept = {
            "model": model,
            "optimizer": optimizer,
            "losses": list(self.losses),
            "evaluations": list(self.evaluations),
            "_drawn": self._drawn,
            "_recent": deque(self._recent, RECENT),
            "_random": self._random,
            "_epoch": self._epoch,
            "_validation": capture_loader_state(self.task.val),
            "_ratios": self._ratios,
            "_begun": self._batches is not None,
            "task": self.task,
            "lr": self.lr,
            "seed": self.seed,
        }
        return TrainingSnapshot(kept, self.seconds)

    @classmethod
    def resumed(
        cls, mark: TrainingSnapshot, schedule: Candidate, total_steps: int | Duration | None
    ) -> Training:
        """Return a training that goes on from a mark along another schedule.

        It is bit for bit the one that was trained with that schedule from the beginning, if both
        schedules agree so far. The training that was marked must have ended: both read the same
        loader.
        """
        self = cls.__new__(cls)
        begun, validation = mark.training.pop("_begun"), mark.training.pop("_validation")
        for name, value in mark.training.items():
            setattr(self, name, value)
        self._marks, self.diverged, self.seconds, self._batches = True, None, mark.seconds, None
        self._plan(schedule, total_steps)
        with preserve_rng():
            for group in self.optimizer.param_groups:
                group.pop("initial_lr", None)  # the other scheduler's
            self._drive(len(self.losses))
            random, loader = self._epoch
            loader()
            validation()
            if begun:
                random()
                self._batches = iter(self.task.train)
                for _ in range(self._drawn):  # the place in the epoch; what they hold was seen
                    next(self._batches)
        return self

    def result(self, stopped: int | None = None) -> Run:
        """Return what happened; ``stopped`` says where early stopping ended it."""
        realized_schedule = ""
        if isinstance(self.schedule, Plateau) and self._plateau is not None:
            factor = self._plateau.as_schedule()
            if isinstance(factor, dict):
                factor = next(iter(factor.values()))
            realized_schedule = repr(self.schedule.schedule * factor)
        return Run(
            schedule=repr(self.schedule),
            lr=self.lr,
            seed=self.seed,
            total_steps=self.planned,
            steps_per_epoch=self.task.steps_per_epoch,
            losses=tuple(self.losses),
            evaluations=tuple(self.evaluations),
            diverged=self.diverged,
            seconds=self.seconds,
            stopped=stopped,
            realized_schedule=realized_schedule,
        )


def _nothing() -> None:
    """Restore nothing: no epoch has begun."""


def curve_of(
    schedule: Candidate, lr: float, total_steps: int | Duration | None, steps_per_epoch: int
) -> Curve:
    """Return the lrs of a run, of a plateau without its falls.

    Raises:
        ScheduleError: the schedule does not resolve over the run.
    """
    plain = schedule.schedule if isinstance(schedule, Plateau) else schedule
    curve = (lr * plain).resolve(
        total_steps=epochs(10) if total_steps is None else total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    if (unit := CLOCK_NAMES[curve.horizon.clock]) != "step":
        raise ScheduleError(
            f"total_steps={total_steps}: a Task's run is counted in steps, not in {unit}s; say a number of "
            "them, or epochs(n)"
        )
    return curve


def start(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a task's fresh model and its optimizer, or say what it returned instead."""
    model = task.model()
    if not isinstance(model, nn.Module):
        raise TaskError(f"Task.model() returned {type(model).__name__}; expected a torch Module")
    optimizer = task.optimizer(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TaskError(
            f"Task.optimizer(model) returned {type(optimizer).__name__}; expected a torch "
            "optimizer, for example torch.optim.AdamW(model.parameters())"
        )
    return model, optimizer


def _free(name: str, optimizer: torch.optim.Optimizer) -> str:
    """Return a name for a group that no other group has."""
    taken = [group.get("name") for group in optimizer.param_groups]
    while name in taken:
        name += "'"
    return name


def _lrs(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {
        str(group.get("name", i)): float(group["lr"])
        for i, group in enumerate(optimizer.param_groups)
    }


def _closure(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
) -> Callable[[], float]:
    """Return what computes the loss of a batch and its gradients anew."""

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(loss.detach())

    return closure


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return each metric's mean over some data, batches weighted by their rows."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    totals = dict.fromkeys(("loss", *task.metrics), 0.0)
    rows = 0
    measures: tuple[tuple[str, Loss], ...] = (("loss", task.loss), *task.metrics.items())
    for batch in batches:
        size = _rows(batch)
        rows += size
        for name, metric in measures:
            value = metric(model, batch)
            _check_number(value, "loss" if name == "loss" else f"the metric {name}")
            totals[name] += size * float(value)
    for module, mode in modes.items():
        module.training = mode
    if not rows:
        raise TaskError("the batches of val= have no rows; give some to measure on")
    return {name: total_steps / rows for name, total_steps in totals.items()}


def _rows(batch: Any) -> int:
    """Return the number of samples in a batch: the length of the first tensor in it."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 0
    inner: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        inner = batch.values()
    elif isinstance(batch, list | tuple):
        inner = batch
    sizes = (
        _rows(item) for item in inner if isinstance(item, torch.Tensor | Mapping | list | tuple)
    )
    return next((size for size in sizes if size), 1)


def _check_number(value: object, name: str = "loss") -> None:
    """Raise TaskError unless a loss or a metric returned a tensor of one element."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    what = type(value).__name__
    if isinstance(value, torch.Tensor):
        what = f"a tensor of shape {tuple(value.shape)}"
    raise TaskError(f"{name}(model, batch) returned {what}; expected a tensor of one element")

"""train and Training: the training loop."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
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

from ._metrics import check_scalar, mean_metrics
from ._plateau import Candidate, Plateau
from ._task import Task

EVALUATED_TRAIN_BATCHES: Final = 16
"""The metrics are also measured on this many of the last training batches."""


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
    """Train a new model of a task once and return the run.

    ``seed`` seeds the random numbers of torch, numpy and `random`, but not a loader with a
    generator of its own; the caller's random numbers are restored at the end. After each epoch
    and at the end the metrics are measured in evaluation mode, on the validation data and on the
    last 16 training batches; this does not affect the training.

    Args:
        task: what to train. Param groups with different learning rates keep their ratios.
        schedule: the schedule, or a `Plateau`. The learning rate of the group with the highest
            one is ``lr`` times the schedule.
        lr: learning rate that the schedule multiplies.
        seed: seed of the initial weights and the data order.
        total_steps: length of the run, in steps or ``epochs(n)``; default ``epochs(10)``.
        progress: called with (steps done, total steps) after each step.
        watch: called with each evaluation.

    Raises:
        TaskError: a function of the task returns a value of the wrong type or shape.
        ScheduleError: the schedule does not fit into the run.

    >>> import torch
    >>> from torch import nn
    >>> from torch.nn import functional as F
    >>> from ratecraft import cosine
    >>> from ratecraft.experiments import Task, train
    >>> x = torch.linspace(-1, 1, 64)[:, None]
    >>> task = Task(
    ...     model=lambda: nn.Linear(1, 1),
    ...     loss=lambda model, batch: F.mse_loss(model(batch), 2 * batch),
    ...     train=x.split(8),
    ...     val=[x],
    ... )
    >>> run = train(task, cosine(1, 0), lr=0.1, total_steps=200)
    >>> run.final() < 0.001
    True
    """
    training = Training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
    training.advance(progress=progress, watch=watch)
    return training.result()


@dataclass(slots=True)
class TrainingSnapshot:
    """The state of a `Training` after a step, from which one other training can continue.

    Attributes:
        state: copies of the model, the optimizer and the results so far.
        seconds: wall time of the training so far.
    """

    state: dict[str, Any]
    seconds: float


class Training:
    """A run that can be trained in parts, and branched to another schedule.

    Args:
        task: as for `train`.
        schedule: as for `train`.
        lr: as for `train`.
        seed: as for `train`.
        total_steps: as for `train`.
        snapshots: whether `snapshot` is going to be called.

    Attributes:
        losses: training loss of each step so far.
        evaluations: measurements so far.
        diverged: step at which the loss stopped being finite, or None.
        seconds: wall time so far.
    """

    def __init__(
        self,
        task: Task,
        schedule: Candidate,
        *,
        lr: float = 1.0,
        seed: int = 0,
        total_steps: int | Duration | None = None,
        snapshots: bool = False,
    ) -> None:
        self.task, self.lr, self.seed = task, lr, seed
        self._set_schedule(schedule, total_steps)
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.diverged: int | None = None
        self.seconds = 0.0
        self._snapshots = snapshots
        self._batches: Iterator[Any] | None = None
        self._epoch_batches = 0  # read in this epoch
        self._recent_batches: deque[Any] = deque(maxlen=EVALUATED_TRAIN_BATCHES)
        with preserve_rng():
            seed_everything(seed)
            self.model, self.optimizer = create_model_and_optimizer(task)
            self._lr_ratios = [ratio for _, ratio in group_lr_ratios([self.optimizer])]
            self._bind_schedule(0)
            self.model.train()
            set_optimizer_mode(self.optimizer, "train")
            self._restore_rng = capture_random_state()
            restore_loader = capture_loader_state(task.train) if snapshots else _restore_nothing
            self._restore_epoch = (self._restore_rng, restore_loader)

    def _set_schedule(self, schedule: Candidate, total_steps: int | Duration | None) -> None:
        self.schedule = schedule
        self.curve = curve_of(schedule, self.lr, total_steps, self.task.steps_per_epoch)
        self.total_steps = len(self.curve)
        if isinstance(schedule, Plateau) and schedule.metric not in ("loss", *self.task.metrics):
            raise ScheduleError(
                f"{schedule!r}: the task has no metric {schedule.metric!r}; it has "
                f"{', '.join(('loss', *self.task.metrics))}"
            )

    def _bind_schedule(self, initial_step: int) -> None:
        """Create the scheduler of the optimizer, which has already made ``initial_step`` steps."""
        plain = self.schedule.schedule if isinstance(self.schedule, Plateau) else self.schedule
        lr: Schedule | dict[str, Schedule] = self.lr * plain
        if any(ratio != 1 for ratio in self._lr_ratios):
            lr = {}
            for i, group in enumerate(self.optimizer.param_groups):
                group.setdefault("name", _unused_group_name(str(i), self.optimizer))
                lr[str(group["name"])] = (self.lr * self._lr_ratios[i]) * plain
        scheduler = ScheduleLR(
            self.optimizer,
            lr=lr,
            total_steps=self.total_steps,
            steps_per_epoch=self.task.steps_per_epoch,
            initial_step=initial_step,
        )
        self._plateau = None
        if isinstance(self.schedule, Plateau):
            plateau = self.schedule
            self._plateau = PlateauLR(
                scheduler,
                mode="min" if plateau.lower_is_better else "max",
                factor=plateau.factor,
                patience=plateau.patience,
                threshold=plateau.threshold,
                cooldown=plateau.cooldown,
            )

    @property
    def ended(self) -> bool:
        """Whether all steps are done or the loss stopped being finite."""
        return self.diverged is not None or len(self.losses) == self.total_steps

    def advance(
        self,
        until: int | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[Evaluation], None] | None = None,
    ) -> None:
        """Train up to a step, or to the end; the caller's random numbers are restored.

        Args:
            until: number of steps after which to pause; default: all.
            progress: as for `train`.
            watch: as for `train`.
        """
        end = self.total_steps if until is None else min(until, self.total_steps)
        start = time.perf_counter()
        with preserve_rng():
            self._restore_rng()
            with_closure = needs_closure(self.optimizer)
            while len(self.losses) < end and self.diverged is None:
                self._step(self._next_batch(), with_closure)
                if self.diverged is not None:
                    break
                if progress:
                    progress(len(self.losses), self.total_steps)
                if self.evaluations and watch and self.evaluations[-1].step == len(self.losses):
                    watch(self.evaluations[-1])
            self._restore_rng = capture_random_state()
        self.seconds += time.perf_counter() - start

    def _step(self, batch: Any, with_closure: bool) -> None:
        task, model, optimizer = self.task, self.model, self.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, batch)
        check_scalar(loss)
        check_loss(loss)
        value = float(loss.detach())
        self.losses.append(value)
        if not math.isfinite(value):
            self.diverged = len(self.losses) - 1
            return
        steps = len(self.losses)
        is_evaluated = steps % task.steps_per_epoch == 0 or steps == self.total_steps
        # Read now: the scheduler writes the next learning rate in optimizer.step().
        lrs = _group_lrs(optimizer) if is_evaluated else {}
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if with_closure:
            optimizer.step(_closure(task, model, optimizer, batch))
        else:
            optimizer.step()
        if is_evaluated:
            self._evaluate(lrs)

    def _evaluate(self, lrs: dict[str, float]) -> None:
        """Measure on validation and recent training batches, and step the plateau."""
        steps = len(self.losses)
        with preserve_rng():
            set_optimizer_mode(self.optimizer, "eval")
            validation = mean_metrics(self.task, self.model, self.task.val)
            train = mean_metrics(self.task, self.model, self._recent_batches)
            set_optimizer_mode(self.optimizer, "train")
        self.evaluations.append(Evaluation(steps, validation, train, lrs))
        if steps == self.total_steps and not math.isfinite(validation["loss"]):
            self.diverged = steps
        elif self._plateau is not None and isinstance(self.schedule, Plateau):
            self._plateau.step(validation[self.schedule.metric])

    def _next_batch(self) -> Any:
        if self._batches is None:
            self._start_epoch()
        for _ in range(2):
            for batch in self._batches or ():
                self._epoch_batches += 1
                self._recent_batches.append(batch)
                return batch
            if not self._epoch_batches:
                break
            self._start_epoch()
        raise TaskError(
            "the training data gave no batch when it was iterated again; pass a DataLoader or a "
            "list"
        )

    def _start_epoch(self) -> None:
        if self._snapshots:
            self._restore_epoch = capture_random_state(), capture_loader_state(self.task.train)
        self._batches, self._epoch_batches = iter(self.task.train), 0

    def snapshot(self) -> TrainingSnapshot:
        """Return a copy of the state, from which another training can continue.

        Raises:
            TaskError: the model or the optimizer cannot be copied.
        """
        try:
            model, optimizer = copy.deepcopy((self.model, self.optimizer))
        except Exception as error:  # a user's model can raise anything
            raise TaskError(
                f"{type(self.model).__name__} cannot be copied ({type(error).__name__}: {error}), "
                "so runs cannot branch from it; train without branches"
            ) from None
        state = {
            "model": model,
            "optimizer": optimizer,
            "losses": list(self.losses),
            "evaluations": list(self.evaluations),
            "_epoch_batches": self._epoch_batches,
            "_recent_batches": deque(self._recent_batches, EVALUATED_TRAIN_BATCHES),
            "_restore_rng": self._restore_rng,
            "_restore_epoch": self._restore_epoch,
            "_restore_validation": capture_loader_state(self.task.val),
            "_lr_ratios": self._lr_ratios,
            "_in_epoch": self._batches is not None,
            "task": self.task,
            "lr": self.lr,
            "seed": self.seed,
        }
        return TrainingSnapshot(state, self.seconds)

    @classmethod
    def from_snapshot(
        cls, snapshot: TrainingSnapshot, schedule: Candidate, total_steps: int | Duration | None
    ) -> Training:
        """Return a training that continues from a snapshot with another schedule.

        Its run is bit for bit that of training with this schedule from the start, if both
        schedules agree on the steps before. The original training must have ended, since both
        read the same loader.
        """
        self = cls.__new__(cls)
        in_epoch = snapshot.state.pop("_in_epoch")
        restore_validation = snapshot.state.pop("_restore_validation")
        for name, value in snapshot.state.items():
            setattr(self, name, value)
        self._snapshots, self.diverged, self._batches = True, None, None
        self.seconds = snapshot.seconds
        self._set_schedule(schedule, total_steps)
        with preserve_rng():
            for group in self.optimizer.param_groups:
                group.pop("initial_lr", None)  # the other scheduler set it
            self._bind_schedule(len(self.losses))
            restore_rng, restore_loader = self._restore_epoch
            restore_loader()
            restore_validation()
            if in_epoch:
                restore_rng()
                self._batches = iter(self.task.train)
                for _ in range(self._epoch_batches):  # skip the batches that were trained on
                    next(self._batches)
        return self

    def result(self, stopped: int | None = None) -> Run:
        """Return the run so far.

        Args:
            stopped: step after which early stopping ended it, or None.
        """
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
            total_steps=self.total_steps,
            steps_per_epoch=self.task.steps_per_epoch,
            losses=tuple(self.losses),
            evaluations=tuple(self.evaluations),
            diverged=self.diverged,
            seconds=self.seconds,
            stopped=stopped,
            realized_schedule=realized_schedule,
        )


def _restore_nothing() -> None:
    """Do nothing: no epoch has started."""


def curve_of(
    schedule: Candidate, lr: float, total_steps: int | Duration | None, steps_per_epoch: int
) -> Curve:
    """Return the learning rates of a run, for a `Plateau` without reductions.

    Args:
        schedule: the schedule.
        lr: learning rate that it multiplies.
        total_steps: length of the run, in steps or ``epochs(n)``; default ``epochs(10)``.
        steps_per_epoch: number of steps in an epoch.

    Raises:
        ScheduleError: the schedule does not fit into the run.
    """
    plain = schedule.schedule if isinstance(schedule, Plateau) else schedule
    curve = (lr * plain).resolve(
        total_steps=epochs(10) if total_steps is None else total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    if (unit := CLOCK_NAMES[curve.horizon.clock]) != "step":
        raise ScheduleError(
            f"total_steps={total_steps}: a Task's run is counted in steps, not in {unit}s; write a "
            "number of steps, or epochs(n)"
        )
    return curve


def create_model_and_optimizer(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a new model of a task and its optimizer.

    Raises:
        TaskError: a function of the task returned something else.
    """
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


def _unused_group_name(name: str, optimizer: torch.optim.Optimizer) -> str:
    """Return a name that no param group has."""
    taken = [group.get("name") for group in optimizer.param_groups]
    while name in taken:
        name += "'"
    return name


def _group_lrs(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {
        str(group.get("name", i)): float(group["lr"])
        for i, group in enumerate(optimizer.param_groups)
    }


def _closure(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any
) -> Callable[[], float]:
    """Return a function that computes the loss of a batch and its gradients."""

    def closure() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(loss.detach())

    return closure

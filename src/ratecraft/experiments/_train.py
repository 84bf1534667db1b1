"""train and Training: the training loop."""

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._progress import show_steps
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
from ratecraft.schedule import Duration
from ratecraft.torch import PlateauLR, ScheduleLR
from ratecraft.torch._hyperparam import by_group, group_names

from ._plateau import Candidate, Plateau, curve_of, plain_schedule
from ._task import Task, check_scalar, mean_metrics

EVALUATED_TRAIN_BATCHES: Final = 16  # the last training batches, which are also evaluated


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
    progress: Callable[[int, int], object] | bool | None = None,
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
        progress: called with (steps done, total steps) after each step. None: a bar, if standard
            error is a terminal or in a notebook; True: a bar, or lines elsewhere; False: none. If
            it raises, a warning says so, and the training goes on without it.
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
    with show_steps(progress, "training") as advance:
        if advance is not None:
            training.on_step = lambda _: advance(len(training.losses), training.total_steps)
        training.advance(watch=watch)
    return training.result()


class Training:
    """A run that can be trained in parts, and branched to another schedule.

    Attributes:
        losses: training loss of each step so far.
        evaluations: measurements so far.
        diverged: step at which the loss stopped being finite, or None.
        seconds: wall time so far.
        on_step: called with the training after each step, if it is not None.
    """

    _restore_validation: Callable[[], None]  # of a snapshot

    def __init__(
        self,
        task: Task,
        schedule: Candidate,
        *,
        lr: float = 1.0,
        seed: int = 0,
        total_steps: int | Duration | None = None,
    ) -> None:
        self.task, self.lr, self.seed = task, lr, seed
        curve_of(schedule, lr, total_steps, task.steps_per_epoch)  # raises before work is done
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.diverged: int | None = None
        self.seconds = 0.0
        self.on_step: Callable[[Training], object] | None = None
        with preserve_rng():
            seed_everything(seed)
            self.model, self.optimizer = create_model_and_optimizer(task)
            self._uses_closure = needs_closure(self.optimizer)
            self._lr_ratios = [ratio for _, ratio in group_lr_ratios([self.optimizer])]
            self._set_schedule(schedule, total_steps)
            self.model.train()
            set_optimizer_mode([self.optimizer], "train")
            self._batches = TrainingBatches(task.train)
            self._restore_rng = capture_random_state()

    def _set_schedule(self, schedule: Candidate, total_steps: int | Duration | None) -> None:
        """Create the scheduler of the optimizer, at the step that the training has reached."""
        task, plain = self.task, plain_schedule(schedule)
        self.schedule = schedule
        self.total_steps = len(curve_of(schedule, self.lr, total_steps, task.steps_per_epoch))
        scheduler = ScheduleLR(
            self.optimizer,
            lr=by_group(
                self.optimizer.param_groups,
                [(self.lr * ratio) * plain for ratio in self._lr_ratios],
            ),
            total_steps=self.total_steps,
            steps_per_epoch=task.steps_per_epoch,
            initial_step=len(self.losses),
        )
        self._plateau = None
        if isinstance(schedule, Plateau):
            metrics = "loss", *task.metrics
            if schedule.metric not in metrics:
                raise ScheduleError(
                    f"{schedule!r}: the task has no metric {schedule.metric!r}; it has "
                    f"{', '.join(metrics)}"
                )
            self._plateau = PlateauLR(
                scheduler,
                mode="min" if schedule.lower_is_better else "max",
                factor=schedule.factor,
                patience=schedule.patience,
                threshold=schedule.threshold,
                cooldown=schedule.cooldown,
            )

    def advance(
        self,
        until: int | None = None,
        *,
        watch: Callable[[Evaluation], None] | None = None,
    ) -> None:
        """Train up to a step, or to the end; the caller's random numbers are restored."""
        end = self.total_steps if until is None else min(until, self.total_steps)
        start = time.perf_counter()
        with preserve_rng():
            self._restore_rng()
            while len(self.losses) < end and self.diverged is None:
                self._step(next(self._batches))
                if self.diverged is not None:
                    break
                if self.on_step is not None:
                    self.on_step(self)
                if self.evaluations and watch and self.evaluations[-1].step == len(self.losses):
                    watch(self.evaluations[-1])
            self._restore_rng = capture_random_state()
        self.seconds += time.perf_counter() - start

    def _step(self, batch: Any) -> None:
        task, model, optimizer = self.task, self.model, self.optimizer

        def backward() -> float:
            """Compute the gradients again and return the loss, as LBFGS needs it."""
            optimizer.zero_grad(set_to_none=True)
            loss = task.loss(model, batch)
            check_scalar(loss)
            check_loss(loss)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return float(loss.detach())

        value = backward()
        self.losses.append(value)
        if not math.isfinite(value):
            self.diverged = len(self.losses) - 1
            return
        steps = len(self.losses)
        is_evaluated = steps % task.steps_per_epoch == 0 or steps == self.total_steps
        # Read now: the scheduler writes the next learning rate in optimizer.step().
        groups = optimizer.param_groups if is_evaluated else []
        lrs = dict(zip(group_names(groups), [float(g["lr"]) for g in groups], strict=True))
        if self._uses_closure:
            optimizer.step(backward)
        else:
            optimizer.step()
        if is_evaluated:
            self._evaluate(lrs)

    def _evaluate(self, lrs: dict[str, float]) -> None:
        """Measure on validation and recent training batches, and step the plateau."""
        steps = len(self.losses)
        with preserve_rng():
            set_optimizer_mode([self.optimizer], "eval")
            validation = mean_metrics(self.task, self.model, self.task.val)
            train = mean_metrics(self.task, self.model, self._batches.recent)
            set_optimizer_mode([self.optimizer], "train")
        self.evaluations.append(Evaluation(steps, validation, train, lrs))
        if steps == self.total_steps and not math.isfinite(validation["loss"]):
            self.diverged = steps
        elif self._plateau is not None and isinstance(self.schedule, Plateau):
            self._plateau.step(validation[self.schedule.metric])

    def snapshot(self) -> Self:
        """Return a copy of the training, which `continue_with` trains on."""
        twin = copy.copy(self)
        try:
            twin.model, twin.optimizer = copy.deepcopy((self.model, self.optimizer))
        except Exception as error:  # a user's model can raise anything
            raise TaskError(
                f"{type(self.model).__name__} cannot be copied ({type(error).__name__}: {error}), "
                "so runs cannot branch from it; train without branches"
            ) from None
        twin.losses, twin.evaluations = list(self.losses), list(self.evaluations)
        twin._batches = self._batches.copy()
        twin._restore_validation = capture_loader_state(self.task.val)
        return twin

    def continue_with(self, schedule: Candidate, total_steps: int | Duration | None) -> None:
        """Give this snapshot another schedule, which must agree on the steps before.

        The original training must have ended, since both read the same loader.
        """
        with preserve_rng():
            for group in self.optimizer.param_groups:
                group.pop("initial_lr", None)  # the other scheduler set it
            self._set_schedule(schedule, total_steps)
            self._restore_validation()
            self._batches.rewind()

    def result(self, stopped: int | None = None) -> Run:
        """Return the run so far; ``stopped`` is the step after which early stopping ended it."""
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


class TrainingBatches:
    """Batches of a loader, which is iterated again after each epoch; ``recent``: the last ones."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self.recent: deque[Any] = deque(maxlen=EVALUATED_TRAIN_BATCHES)
        self._mark_epoch()
        self._batches = self._cycle()

    def _mark_epoch(self) -> None:
        """Start to count the batches of an epoch, and remember how it starts."""
        self._position = 0
        self._epoch_start = capture_loader_state(self._loader), capture_random_state()

    def _cycle(self) -> Iterator[Any]:
        while True:
            self._mark_epoch()
            for batch in self._loader:
                self._position += 1
                yield batch
            if not self._position:
                raise TaskError(
                    "the training data gave no batch when it was iterated again; pass a "
                    "DataLoader or a list"
                )

    def __next__(self) -> Any:
        batch = next(self._batches)
        self.recent.append(batch)
        return batch

    def copy(self) -> Self:
        """Return a copy that remembers the position; `rewind` continues from there."""
        twin = copy.copy(self)
        twin.recent, twin._batches = self.recent.copy(), iter(())
        return twin

    def rewind(self) -> None:
        """Continue from the position in the loader that this copy remembers."""
        for restore in self._epoch_start:
            restore()
        position, self._batches = self._position, self._cycle()
        for _ in range(position):  # skip the batches that were trained on
            next(self._batches)


def create_model_and_optimizer(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a new model of a task and its optimizer."""
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

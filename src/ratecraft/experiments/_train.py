"""train and Training: the training loop."""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._progress import show_steps
from ratecraft._training._short_runner import set_optimizer_mode
from ratecraft._training._snapshot import (
    Batches,
    capture_loader_state,
    capture_random_state,
    preserve_rng,
    seed_everything,
)
from ratecraft._training._steps import (
    compute_gradients,
    move_batch,
    needs_closure,
    open_batches,
    read_endlessly,
    step_optimizers,
    trained_parameters,
)
from ratecraft.errors import TaskError
from ratecraft.results import Evaluation, Run
from ratecraft.results._lr_search import group_lr_ratios
from ratecraft.schedule import Duration

from ._plateau import Candidate
from ._task import AnyTask, Task, check_scalar, mean_metrics
from ._trainer_task import TrainerRun, TrainerTask
from ._training_run import TrainingRun, lrs_by_group

EVALUATED_TRAIN_BATCHES: Final = 16  # the last training batches, which are also evaluated


@explain_arguments(
    "train() takes a task and one schedule; write the rest by name: train(task, cosine(1, 0), "
    "lr=1e-3); to train several schedules write compare(task, [...], lrs=...)"
)
def train(
    task: AnyTask,
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
    training = new_training(task, schedule, lr=lr, seed=seed, total_steps=total_steps)
    with show_steps(progress, "training") as advance:
        if advance is not None:
            training.on_step = lambda _: advance(len(training.losses), training.total_steps)
        training.advance(watch=watch)
    return training.result()


def new_training(task: AnyTask, schedule: Candidate, **options: Any) -> TrainingRun:
    """Return a run that has not started; ``options`` are lr, seed and total_steps of `train`."""
    if isinstance(task, TrainerTask):
        return TrainerRun(task, schedule, **options)
    return Training(task, schedule, **options)


class Training(TrainingRun):
    """A run of a `Task`, which can be trained in parts, and branched to another schedule."""

    _restore_validation: Callable[[], None]  # of a snapshot
    _schedule_step: int  # of a snapshot; steps that a GradScaler skipped do not count

    def __init__(
        self,
        task: Task,
        schedule: Candidate,
        *,
        lr: float = 1.0,
        seed: int = 0,
        total_steps: int | Duration | None = None,
    ) -> None:
        super().__init__(schedule, lr=lr, seed=seed)
        self.task = task
        self.set_length(total_steps, task.steps_per_epoch)  # raises before work is done
        with preserve_rng():
            seed_everything(seed)
            self.model, self.optimizer = create_model_and_optimizer(task)
            self.scaler = None if task.scaler is None else task.scaler()
            self._uses_closure = needs_closure([self.optimizer], self.scaler)
            self._lr_ratios = [ratio for _, ratio in group_lr_ratios([self.optimizer])]
            self._set_schedule()
            self.model.train()
            set_optimizer_mode([self.optimizer], "train")
            self._batches = TrainingBatches(task.train)
            self._restore_rng = capture_random_state()

    def _set_schedule(self, initial_step: int = 0) -> None:
        self.check_metric(["loss", *self.task.metrics])
        self._scheduler = self.attach_schedule(
            self.optimizer, self._lr_ratios, initial_step=initial_step
        )

    def advance(
        self, until: int | None = None, *, watch: Callable[[Evaluation], None] | None = None
    ) -> None:
        """Train up to a step, or to the end; the caller's random numbers are restored."""
        end = self.total_steps if until is None else min(until, self.total_steps)
        start = time.perf_counter()
        with preserve_rng():
            self._restore_rng()
            while len(self.losses) < end and self.diverged is None:
                self._step([next(self._batches) for _ in range(self.task.accumulate)])
                if self.diverged is not None:
                    break
                if self.on_step is not None:
                    self.on_step(self)
                if self.evaluations and watch and self.evaluations[-1].step == len(self.losses):
                    watch(self.evaluations[-1])
            self._restore_rng = capture_random_state()
        self.seconds += time.perf_counter() - start

    def _step(self, batches: list[Any]) -> None:
        optimizers = [self.optimizer]
        parameters = trained_parameters(optimizers)

        def backward() -> float:
            """Compute the gradients again and return the loss, as LBFGS needs it."""
            clip, scaler = self.task.clip, self.scaler
            return float(
                compute_gradients(
                    self._loss, batches, optimizers, parameters, clip=clip, scaler=scaler
                )
            )

        self.add_loss(backward())
        if self.diverged is not None:
            return
        steps = len(self.losses)
        is_evaluated = steps % self.steps_per_epoch == 0 or steps == self.total_steps
        # Read now: the scheduler writes the next learning rate in optimizer.step().
        lrs = lrs_by_group(self.optimizer) if is_evaluated else {}
        if self._uses_closure:
            self.optimizer.step(backward)
        else:
            step_optimizers(optimizers, self.scaler)
        if is_evaluated:
            self._evaluate(lrs)

    def _loss(self, batch: Any) -> torch.Tensor:
        loss = self.task.loss(self.model, move_batch(batch, self.task.device))
        check_scalar(loss)
        return loss

    def _evaluate(self, lrs: dict[str, float]) -> None:
        """Measure on validation and recent training batches, and step the plateau."""
        with preserve_rng():
            set_optimizer_mode([self.optimizer], "eval")
            validation = mean_metrics(self.task, self.model, open_batches(self.task.val))
            train = mean_metrics(self.task, self.model, self._batches.recent)
            set_optimizer_mode([self.optimizer], "train")
        self.add_evaluation(validation, lrs, train)

    def snapshot(self) -> Self:
        """Return a copy of the training, which `continue_with` trains on."""
        twin = copy.copy(self)
        try:
            parts = self.model, self.optimizer, self.scaler
            twin.model, twin.optimizer, twin.scaler = copy.deepcopy(parts)
        except Exception as error:  # a user's model can raise anything
            raise TaskError(
                f"{type(self.model).__name__} cannot be copied ({type(error).__name__}: {error}), "
                "so runs cannot branch from it; train without branches"
            ) from None
        twin.losses, twin.evaluations = list(self.losses), list(self.evaluations)
        twin._batches = self._batches.copy()
        twin._schedule_step = self._scheduler.last_epoch
        twin._restore_validation = capture_loader_state(self.task.val)
        return twin

    def continue_with(self, schedule: Candidate, total_steps: int | Duration | None) -> None:
        """Give this snapshot another schedule, which must agree on the steps before.

        The original training must have ended, since both read the same loader.
        """
        with preserve_rng():
            for group in self.optimizer.param_groups:
                group.pop("initial_lr", None)  # the other scheduler set it
            self.schedule = schedule
            self.set_length(total_steps, self.steps_per_epoch)
            self._set_schedule(initial_step=self._schedule_step)
            self._restore_validation()
            self._batches.rewind()


class TrainingBatches:
    """Batches of a loader, which is iterated again after each epoch; ``recent``: the last ones."""

    def __init__(self, loader: Batches) -> None:
        self._loader = loader
        self.recent: deque[Any] = deque(maxlen=EVALUATED_TRAIN_BATCHES)
        self._mark_epoch()
        self._batches = self._cycle()

    def _mark_epoch(self) -> None:
        """Start to count the batches of an epoch, and remember how it starts."""
        self._position = 0
        self._epoch_start = capture_loader_state(self._loader), capture_random_state()

    def _cycle(self) -> Iterator[Any]:
        for batch in read_endlessly(self._loader, self._mark_epoch):
            self._position += 1
            yield batch

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
    if task.device is not None:
        model.to(task.device)
    optimizer = task.optimizer(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TaskError(
            f"Task.optimizer(model) returned {type(optimizer).__name__}; expected a torch "
            "optimizer, for example torch.optim.AdamW(model.parameters())"
        )
    return model, optimizer

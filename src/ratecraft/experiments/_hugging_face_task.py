"""A task that a Hugging Face Trainer trains."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from ratecraft._trainers._accelerate import unwrap_optimizer
from ratecraft._trainers._hugging_face import is_hugging_face, read_hugging_face
from ratecraft._training._snapshot import seed_everything
from ratecraft.errors import TaskError
from ratecraft.torch import ScheduleLR

from ._trainer_task import TrainerRun, TrainerTask

SPEED: Final = re.compile(r".*(_|^)(runtime|per_second|preparation_time)")  # not a metric
EVAL_LOSS_HINT: Final = (
    "the Trainer evaluates a loss if eval_dataset= is one dataset with labels, and the model "
    "returns the loss"
)


@dataclass(frozen=True)
class HuggingFaceTask(TrainerTask):
    """A task that a Hugging Face Trainer trains; `Task.from_trainer` describes the fields."""

    trainer_name: ClassVar[str] = "the Hugging Face Trainer"

    make_trainer: Callable[[], Any]

    def _visit(self, function: Callable[[Any], Any]) -> Any:
        """Return ``function(trainer)`` of a new trainer before its training."""
        return function(self._make())

    def _read_steps_per_epoch(self, trainer: Any) -> int | None:
        return read_hugging_face(trainer, with_loader=True).steps_per_epoch

    def _train(self, run: TrainerRun) -> None:
        trainer = self._make()
        run.start(self._read_steps_per_epoch(trainer))
        trainer.args.seed, trainer.args.max_steps = run.seed, run.total_steps
        training_step = trainer.training_step

        def step(*arguments: Any, **keywords: Any) -> torch.Tensor:
            loss: torch.Tensor = training_step(*arguments, **keywords)
            run.add_batch_loss(loss)
            return loss

        def create_scheduler(
            num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
        ) -> ScheduleLR:
            if trainer.lr_scheduler is None:
                target = unwrap_optimizer(trainer.optimizer if optimizer is None else optimizer)
                trainer.lr_scheduler = run.attach(target, counts_calls=True)
                trainer._created_lr_scheduler = True
            return trainer.lr_scheduler  # type: ignore[no-any-return]

        def on_step_end(_: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            run.end_step()
            control.should_training_stop |= run.diverged is not None

        def on_evaluate(_: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            run.add_metrics(_validation_metrics(more["metrics"]), EVAL_LOSS_HINT)

        trainer.training_step, trainer.create_scheduler = step, create_scheduler
        trainer.add_callback(_callback(on_step_end, on_evaluate))
        seed_everything(run.seed)  # Trainer() has seeded with the seed of its arguments
        trainer.train()
        if run.needs_evaluation and len(run.losses) == run.total_steps:
            trainer.evaluate()

    def _make(self) -> Any:
        trainer = self.make_trainer()
        if not is_hugging_face(trainer):
            raise TaskError(
                f"make_trainer() returned {type(trainer).__name__}; expected a new Trainer of "
                "transformers"
            )
        if trainer.lr_scheduler is not None or "create_scheduler" in vars(trainer):
            raise TaskError(
                "make_trainer() returned a Trainer with a scheduler, or one that it returned "
                "before; expected a new Trainer without one, since each run has its own schedule"
            )
        if trainer.eval_dataset is None:
            raise TaskError(
                "make_trainer() returned a Trainer without validation data; write "
                "Trainer(eval_dataset=..., ...)"
            )
        if trainer.args.world_size > 1:
            raise TaskError(
                f"make_trainer() returned a Trainer of {trainer.args.world_size} processes; "
                "expected one, since runs are trained side by side: start without torchrun"
            )
        return trainer


def _callback(*hooks: Callable[..., None]) -> Any:
    base = sys.modules["transformers"].TrainerCallback
    return type("RunCallback", (base,), {hook.__name__: hook for hook in hooks})()


def _validation_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of an evaluation without their prefix ``eval_``."""
    names = [name for name in metrics if name.startswith("eval_") and not SPEED.fullmatch(name)]
    return {name.removeprefix("eval_"): float(metrics[name]) for name in names}

"""A task that a Lightning Trainer trains."""

import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from ratecraft._trainers._lightning import is_lightning, read_lightning
from ratecraft.errors import TaskError

from ._trainer_task import TrainerRun, TrainerTask

VALIDATION_NAME: Final = re.compile(r"(?:val|valid|validation)[_/.](.+)")
VAL_LOSS_HINT: Final = 'write self.log("val_loss", loss) in validation_step'


class _Ready(Exception):
    """The trainer is ready to train, and ends here."""


@dataclass(frozen=True)
class LightningTask(TrainerTask):
    """A task that a Lightning Trainer trains; `Task.from_lightning` describes the fields."""

    trainer_name: ClassVar[str] = "the Lightning Trainer"

    make_module: Callable[[], Any]
    make_data: Callable[[], Any]
    make_trainer: Callable[[], Any] | None

    def _visit(self, function: Callable[[Any], Any]) -> Any:
        """Return ``function(trainer)`` of a new trainer at the start of its training."""
        module, data, trainer, callback_class = self._make()
        configure_optimizers, results = module.configure_optimizers, []

        def on_train_start(_: Any, trainer: Any, module: Any) -> None:
            results.append(function(trainer))
            raise _Ready

        module.configure_optimizers = lambda: _only_optimizer(configure_optimizers())
        # The trainer's own loggers and callbacks may write files.
        trainer.loggers = []
        trainer.callbacks = [c for c in trainer.callbacks if _changes_accumulation(c)]
        trainer.callbacks.append(_callback(callback_class, on_train_start))
        trainer.num_sanity_val_steps = 0
        with suppress(_Ready):
            _call(trainer.fit, module, **_data_arguments(data))
        return results[0]

    def _read_steps_per_epoch(self, trainer: Any) -> int | None:
        return read_lightning(trainer).steps_per_epoch

    def _train(self, run: TrainerRun) -> None:
        module, data, trainer, callback_class = self._make()
        configure_optimizers = module.configure_optimizers

        def configure() -> dict[str, Any]:
            optimizer = _only_optimizer(configure_optimizers())
            if trainer.train_dataloader is None:
                trainer.fit_loop.setup_data()
            run.start(read_lightning(trainer).steps_per_epoch)
            trainer.fit_loop.epoch_loop.max_steps = run.total_steps
            scheduler = {"scheduler": run.attach(optimizer), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

        def on_train_batch_end(
            _: Any, trainer: Any, module: Any, outputs: Any, *batch: object
        ) -> None:
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if isinstance(loss, torch.Tensor):
                run.add_batch_loss(loss)
            if trainer.global_step > len(run.losses):
                run.end_step(trainer.accumulate_grad_batches)
            trainer.should_stop |= run.diverged is not None

        def on_validation_end(_: Any, trainer: Any, module: Any) -> None:
            if not trainer.sanity_checking:
                run.add_metrics(_validation_metrics(trainer.callback_metrics), VAL_LOSS_HINT)

        module.configure_optimizers = configure
        trainer.callbacks.insert(
            0, _callback(callback_class, on_train_batch_end, on_validation_end)
        )
        _call(trainer.fit, module, **_data_arguments(data))
        if run.needs_evaluation and len(run.losses) == run.total_steps:
            _call(trainer.validate, module, verbose=False, **_data_arguments(data, training=False))
            run.add_metrics({}, VAL_LOSS_HINT)  # raises if there was no validation

    def _make(self) -> tuple[Any, Any, Any, Any]:
        """Return a new module, data, trainer, and the Callback class of their package."""
        module = self.make_module()
        package = _package_of(module)
        if "configure_optimizers" in vars(module):  # replaced in an earlier run
            raise TaskError(
                "make_module() returned the same module twice; each run needs a new one: write "
                "make_module=lambda: MyModule(...)"
            )
        if not module.automatic_optimization:
            raise TaskError(
                f"{type(module).__name__} uses manual optimization, whose steps the trainer cannot "
                "count; write a Task(model=..., loss=..., ...)"
            )
        data = self.make_data()
        if not isinstance(data, package.LightningDataModule | tuple):
            raise TaskError(
                f"make_data() returned {type(data).__name__}; expected a LightningDataModule, or "
                "two loaders: (train, val)"
            )
        if self.make_trainer is not None:
            trainer = self.make_trainer()
        else:
            trainer = package.Trainer(
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        if not is_lightning(trainer):
            raise TaskError(
                f"make_trainer() returned {type(trainer).__name__}; expected a Lightning Trainer"
            )
        if trainer.world_size > 1:
            raise TaskError(
                f"make_trainer() returned a Trainer of {trainer.world_size} processes; expected "
                "one, since runs are trained side by side: write Trainer(devices=1, ...)"
            )
        trainer.fit_loop.max_epochs = -1  # max_steps ends the run
        return module, data, trainer, package.Callback


def _package_of(module: Any) -> Any:
    """Return lightning.pytorch or pytorch_lightning, whichever defines the class of a module."""
    for cls in type(module).__mro__:
        if cls.__name__ == "LightningModule":
            return sys.modules[cls.__module__.partition(".core.")[0]]
    raise TaskError(
        f"make_module() returned {type(module).__name__}; expected a new LightningModule"
    )


def _callback(callback_class: Any, *hooks: Callable[..., None]) -> Any:
    return type("RunCallback", (callback_class,), {hook.__name__: hook for hook in hooks})()


def _changes_accumulation(callback: Any) -> bool:
    return hasattr(callback, "get_accumulate_grad_batches")


def _data_arguments(data: Any, *, training: bool = True) -> dict[str, Any]:
    if not isinstance(data, tuple):
        return {"datamodule": data}
    train, val = data
    loaders = {"train_dataloaders": train, "val_dataloaders": val}
    return loaders if training else {"dataloaders": val}


def _only_optimizer(configured: Any) -> torch.optim.Optimizer:
    """Return the optimizer that a module's ``configure_optimizers`` returned."""
    if isinstance(configured, list | tuple) and len(configured) == 1:
        (configured,) = configured
    if isinstance(configured, torch.optim.Optimizer):
        return configured
    if isinstance(configured, Mapping) and set(configured) == {"optimizer"}:
        return _only_optimizer(configured["optimizer"])
    raise TaskError(
        "configure_optimizers() must return one optimizer and no scheduler, since each run has a "
        "schedule of its own: write return optimizer"
    )


def _validation_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics whose names have a prefix such as ``val_``, without it."""
    matches = {VALIDATION_NAME.fullmatch(name): value for name, value in metrics.items()}
    return {match[1]: float(value) for match, value in matches.items() if match is not None}


def _call(function: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
    """Call a method of a trainer, which after Ctrl-C ignores another one, and exits the process."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        function(*arguments, **keywords)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise

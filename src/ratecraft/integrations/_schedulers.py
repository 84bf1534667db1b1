"""Trainers that know how long the run is: the user never counts steps.

Neither library is imported here: what is asked of a trainer is read from the one that was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from ratecraft.errors import BindingError
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR


def for_lightning(
    module: Any,
    optimizer: Optimizer,
    *,
    plateau: Mapping[str, Any] | None = None,
    monitor: str | None = None,
    frequency: int | None = None,
    **said: Any,
) -> dict[str, Any]:
    """Return what a LightningModule's ``configure_optimizers`` returns, its horizon filled in.

    ``total_steps`` is the trainer's ``estimated_stepping_batches`` and ``steps_per_epoch`` the steps in one of
    its epochs, accumulation and devices taken into account.

    Args:
        module: the LightningModule, while its trainer is running.
        optimizer: the optimizer to drive.
        plateau: what `PlateauLR` takes, ``{"patience": 3}``; the schedule is multiplied by a
            factor that falls whenever ``monitor`` has stopped to improve.
        monitor: name of the metric that the plateau follows, as it is logged. One that is to
            rise, such as an accuracy, needs ``plateau={"mode": "max", ...}``.
        frequency: every how many epochs that metric is there; default the trainer's
            ``check_val_every_n_epoch``.
        said: what `ScheduleLR` takes: ``lr=``, ``factor=`` and so on; ``total_steps=`` and ``steps_per_epoch=``
            go before the trainer's.

    Raises:
        BindingError: one of ``plateau`` and ``monitor`` without the other.

    Example::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4)
            return for_lightning(self, optimizer, factor=wsd(percent(5)))
    """
    if (plateau is None) != (monitor is None):
        raise BindingError(
            'a plateau follows a metric: say both, plateau={"patience": 3}, monitor="val_loss"'
        )
    trainer = module.trainer
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # which is what estimated_stepping_batches does, mostly
    total_steps = trainer.estimated_stepping_batches
    if 0 < total_steps < math.inf:  # -1: an endless loader
        said.setdefault("total", int(total_steps))
    batches = trainer.num_training_batches
    if math.isfinite(batches):
        said.setdefault("steps_per_epoch", math.ceil(batches / trainer.accumulate_grad_batches))
    scheduler = ScheduleLR(optimizer, **said)
    config = {"scheduler": scheduler, "interval": "step", "frequency": 1}
    if plateau is not None:
        # The schedule counts the steps by itself; the trainer hands on the metric.
        level = PlateauLR(scheduler, **plateau)
        every = frequency or trainer.check_val_every_n_epoch or 1
        config = {"scheduler": level, "interval": "epoch", "frequency": every, "monitor": monitor}
    return {"optimizer": optimizer, "lr_scheduler": config}


def for_trainer(trainer: Any, *, plateau: Mapping[str, Any] | None = None, **said: Any) -> None:
    """Give a Hugging Face ``Trainer`` a schedule in place of its own; its horizon is filled in.

    ``total_steps`` is the number of steps the trainer is going to make and ``steps_per_epoch`` those in one of
    its epochs (where the run is one epoch or more, and not said by ``max_steps``). The clock is
    "step": the trainer reads the lr that it logs between the step and ``step()``, which it
    calls for every step that was not skipped. With ``plateau=`` it calls ``step`` with the
    metric only, so there the schedule counts the optimizer's steps, and the log holds the
    lr of the next one.

    Args:
        trainer: the ``transformers.Trainer``, before ``train()``.
        plateau: what `PlateauLR` takes, ``{"patience": 3}``; the schedule is multiplied by a
            factor that falls whenever the trainer's ``metric_for_best_model`` has stopped to
            improve; whether that is to fall or to rise is the trainer's ``greater_is_better``.
        said: what `ScheduleLR` takes: ``lr=``, ``factor=`` and so on; ``total_steps=`` and ``steps_per_epoch=``
            go before the trainer's.

    Raises:
        BindingError: the trainer has a scheduler already, or evaluates nothing that ``plateau``
            could follow.

    Example::

        trainer = Trainer(model, arguments, train_dataset=data)
        for_trainer(trainer, factor=wsd(percent(5)))
        trainer.train()
    """
    if trainer.lr_scheduler is not None:
        raise BindingError(
            "this Trainer was given a scheduler of its own (optimizers=...); leave that one out"
        )

    if plateau is not None:
        arguments = trainer.args
        evaluates = str(getattr(arguments.eval_strategy, "value", arguments.eval_strategy)) != "no"
        if not evaluates or arguments.metric_for_best_model is None:
            raise BindingError(
                "plateau= follows what the Trainer evaluates: TrainingArguments(eval_strategy="
                '"epoch", metric_for_best_model="loss", ...)'
            )
        mode = "max" if arguments.greater_is_better else "min"
        if plateau.get("mode", mode) != mode:
            raise BindingError(
                f"plateau= says mode={plateau['mode']!r}, and the Trainer greater_is_better="
                f"{arguments.greater_is_better} of {arguments.metric_for_best_model!r}"
            )
        plateau = {**plateau, "mode": mode}
    made: list[ScheduleLR | PlateauLR] = []

    def create_scheduler(
        num_training_steps: int, optimizer: Optimizer | None = None
    ) -> ScheduleLR | PlateauLR:
        if trainer.lr_scheduler is None:
            clock = "step" if plateau is None else "optimizer"
            horizon: dict[str, Any] = {"total": num_training_steps, "clock": clock}
            epochs = trainer.args.num_train_epochs
            if trainer.args.max_steps <= 0 and epochs >= 1:
                # The trainer rounds epochs x steps up, by less than one step.
                horizon["steps_per_epoch"] = math.floor(num_training_steps / epochs)
            target = trainer.optimizer if optimizer is None else optimizer
            if made:  # train() was called before: its schedule has ended
                made.pop().remove()
            scheduler = ScheduleLR(target, **(horizon | said))
            made.append(scheduler if plateau is None else PlateauLR(scheduler, **plateau))
            trainer.lr_scheduler = made[0]
            trainer._created_lr_scheduler = True
        return trainer.lr_scheduler  # type: ignore[no-any-return]

    trainer.create_scheduler = create_scheduler

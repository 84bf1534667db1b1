"""Trainers that know how long the run is: the user never counts updates.

Neither library is imported here: what is asked of a trainer is read from the one that was given.
"""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from ratecraft.errors import BindingError
from ratecraft.torch.scheduler import ScheduleLR

__all__ = ["for_lightning", "for_trainer"]


def for_lightning(module: Any, optimizer: Optimizer, **said: Any) -> dict[str, Any]:
    """Return what a LightningModule's ``configure_optimizers`` returns, its horizon filled in.

    ``total`` is the trainer's ``estimated_stepping_batches`` and ``epoch`` the updates in one of
    its epochs, accumulation and devices taken into account.

    Args:
        module: the LightningModule, while its trainer is running.
        optimizer: the optimizer to drive.
        said: what `ScheduleLR` takes: ``rate=``, ``factor=`` and so on; ``total=`` and ``epoch=``
            go before the trainer's.

    Example::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4)
            return for_lightning(self, optimizer, factor=wsd(percent(5)))
    """
    trainer = module.trainer
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # which is what estimated_stepping_batches does, mostly
    total = trainer.estimated_stepping_batches
    if 0 < total < math.inf:  # -1: an endless loader
        said.setdefault("total", int(total))
    batches = trainer.num_training_batches
    if math.isfinite(batches):
        said.setdefault("epoch", math.ceil(batches / trainer.accumulate_grad_batches))
    scheduler = ScheduleLR(optimizer, **said)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
    }


def for_trainer(trainer: Any, **said: Any) -> None:
    """Give a Hugging Face ``Trainer`` a schedule in place of its own; its horizon is filled in.

    ``total`` is the number of updates the trainer is going to make and ``epoch`` those in one of
    its epochs (where the run is one epoch or more, and not said by ``max_steps``). The clock is
    "step": the trainer reads the rate that it logs between the update and ``step()``, which it
    calls for every update that was not skipped.

    Args:
        trainer: the ``transformers.Trainer``, before ``train()``.
        said: what `ScheduleLR` takes: ``rate=``, ``factor=`` and so on; ``total=`` and ``epoch=``
            go before the trainer's.

    Raises:
        BindingError: the trainer has a scheduler already.

    Example::

        trainer = Trainer(model, arguments, train_dataset=data)
        for_trainer(trainer, factor=wsd(percent(5)))
        trainer.train()
    """
    if trainer.lr_scheduler is not None:
        raise BindingError(
            "this Trainer was given a scheduler of its own (optimizers=...); leave that one out"
        )

    made: list[ScheduleLR] = []

    def create_scheduler(num_training_steps: int, optimizer: Optimizer | None = None) -> ScheduleLR:
        if trainer.lr_scheduler is None:
            horizon: dict[str, Any] = {"total": num_training_steps, "clock": "step"}
            epochs = trainer.args.num_train_epochs
            if trainer.args.max_steps <= 0 and epochs >= 1:
                # The trainer rounds epochs x updates up, by less than one update.
                horizon["epoch"] = math.floor(num_training_steps / epochs)
            target = trainer.optimizer if optimizer is None else optimizer
            if made:  # train() was called before: its schedule has ended
                made.pop().remove()
            made.append(ScheduleLR(target, **(horizon | said)))
            trainer.lr_scheduler = made[0]
            trainer._created_lr_scheduler = True
        return trainer.lr_scheduler  # type: ignore[no-any-return]

    trainer.create_scheduler = create_scheduler

"""ScheduleLR in Lightning and the Hugging Face Trainer, with the run's length filled in."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.optim import Optimizer

from ratecraft._trainers._hugging_face import epoch_of_run
from ratecraft._trainers._lightning import outstanding_metric, read_lightning
from ratecraft.errors import BindingError, ScheduleError
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR


class LightningPlateauLR(PlateauLR):
    """A PlateauLR that saves the metric of an epoch, which Lightning does not pass on resuming."""

    __slots__ = ("outstanding_metric",)
    outstanding_metric: Callable[[], float | None]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"outstanding_metric": self.outstanding_metric()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        metric = state.pop("outstanding_metric", None)
        super().load_state_dict(state)
        if metric is not None:
            self.step(metric)


def for_lightning(
    module: Any,
    optimizer: Optimizer,
    *,
    plateau: Mapping[str, Any] | None = None,
    monitor: str | None = None,
    frequency: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the value of a LightningModule's ``configure_optimizers``, with a `ScheduleLR`.

    ``total_steps`` and ``steps_per_epoch`` come from the trainer, and include gradient accumulation
    and devices. The trainer does not know them in manual optimization, where its ``max_steps``
    counts the steps of all optimizers, nor ``steps_per_epoch`` if the epochs differ in it.

    Args:
        module: the LightningModule, with its trainer attached.
        optimizer: its optimizer.
        plateau: keyword arguments of `ratecraft.torch.PlateauLR`, such as ``{"patience": 3}``: the
            schedule is multiplied by a factor that is reduced when ``monitor`` stops improving.
        monitor: the logged metric that the plateau follows. One to maximize, such as an accuracy,
            needs ``plateau={"mode": "max", ...}``.
        frequency: how often the metric is available, in epochs; default: the trainer's
            ``check_val_every_n_epoch``.
        options: those of `ratecraft.torch.ScheduleLR`; ``total_steps=`` and ``steps_per_epoch=``
            override the trainer's.

    Raises:
        BindingError: only one of ``plateau`` and ``monitor`` is given; or manual optimization
            without the ``total_steps=`` or ``steps_per_epoch=`` that the schedule needs.

    Example::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4)
            return for_lightning(self, optimizer, factor=wsd(percent(5)))
    """
    if (plateau is None) != (monitor is None):
        raise BindingError(
            'a plateau follows a metric: pass both, plateau={"patience": 3}, monitor="val_loss"'
        )
    trainer = module.trainer
    if trainer.train_dataloader is None:
        # estimated_stepping_batches does this too, except with max_epochs=-1.
        trainer.fit_loop.setup_data()
    facts = read_lightning(trainer)
    lengths = {"total_steps": facts.total_steps, "steps_per_epoch": facts.steps_per_epoch}
    try:
        scheduler = ScheduleLR(optimizer, **(lengths | options))
    except ScheduleError as error:
        if module.automatic_optimization or "needs " not in str(error):
            raise
        raise BindingError(
            f"{error}. With manual optimization pass total_steps=, the steps of this optimizer "
            "(max_steps counts those of all optimizers), and steps_per_epoch= for lengths in epochs"
        ) from None
    config: dict[str, Any] = {"scheduler": scheduler, "interval": "step", "frequency": 1}
    if plateau is not None and monitor is not None:
        frequency = frequency or trainer.check_val_every_n_epoch or 1
        plateau_lr = LightningPlateauLR(scheduler, **plateau)
        plateau_lr.outstanding_metric = partial(outstanding_metric, trainer, monitor, frequency)
        # ScheduleLR counts the optimizer's steps; the trainer only passes the metric.
        config = {"scheduler": plateau_lr, "interval": "epoch", "frequency": frequency}
        config["monitor"] = monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def for_trainer(trainer: Any, *, plateau: Mapping[str, Any] | None = None, **options: Any) -> None:
    """Make a Hugging Face ``Trainer`` use a `ScheduleLR`.

    ``total_steps`` and ``steps_per_epoch`` come from the trainer. The clock is "step": the trainer
    calls ``step()`` for every step that was not skipped, and logs the lr before that call. With
    ``plateau=`` it only calls ``step`` with the metric, so the schedule counts the optimizer's
    steps, and the log holds the lr of the next step.

    Args:
        trainer: the ``transformers.Trainer``, before ``train()``.
        plateau: as in `for_lightning`. The metric is the trainer's ``metric_for_best_model``, and
            improves up or down, as its ``greater_is_better`` says.
        options: as in `for_lightning`.

    Raises:
        BindingError: the trainer already has a scheduler, evaluates no metric that ``plateau``
            could follow, or contradicts ``plateau={"mode": ...}``.

    Example::

        trainer = Trainer(model, arguments, train_dataset=data)
        for_trainer(trainer, factor=wsd(percent(5)))
        trainer.train()
    """
    if trainer.lr_scheduler is not None:
        raise BindingError(
            "this Trainer already has a scheduler; leave it out of Trainer(optimizers=...)"
        )
    if plateau is not None:
        plateau = {**plateau, "mode": _plateau_mode(trainer.args, plateau)}
    current: list[ScheduleLR | PlateauLR] = []

    def create_scheduler(
        num_training_steps: int, optimizer: Optimizer | None = None
    ) -> ScheduleLR | PlateauLR:
        if trainer.lr_scheduler is None:
            defaults = {
                "total_steps": num_training_steps,
                "steps_per_epoch": epoch_of_run(trainer, num_training_steps),
                "clock": "step" if plateau is None else "optimizer",
            }
            target = trainer.optimizer if optimizer is None else optimizer
            if current:  # of an earlier call of train()
                current.pop().remove()
            scheduler = ScheduleLR(target, **(defaults | options))
            current.append(scheduler if plateau is None else PlateauLR(scheduler, **plateau))
            trainer.lr_scheduler = current[0]
            trainer._created_lr_scheduler = True
        return trainer.lr_scheduler  # type: ignore[no-any-return]

    trainer.create_scheduler = create_scheduler


def _plateau_mode(arguments: Any, plateau: Mapping[str, Any]) -> str:
    """Return the direction in which the metric of a Hugging Face Trainer improves."""
    evaluates = str(getattr(arguments.eval_strategy, "value", arguments.eval_strategy)) != "no"
    if not evaluates or arguments.metric_for_best_model is None:
        raise BindingError(
            "plateau= follows a metric that the Trainer evaluates: write "
            'TrainingArguments(eval_strategy="epoch", metric_for_best_model="loss", ...)'
        )
    mode = "max" if arguments.greater_is_better else "min"
    if plateau.get("mode", mode) != mode:
        raise BindingError(
            f"plateau= has mode={plateau['mode']!r}, but the Trainer has greater_is_better="
            f"{arguments.greater_is_better} for {arguments.metric_for_best_model!r}"
        )
    return mode

"""The facts of a Lightning Trainer."""

import math
from typing import Any

from ._facts import SteppedScheduler, TrainerFacts


def is_lightning(trainer: Any) -> bool:
    return hasattr(trainer, "lr_scheduler_configs") and hasattr(trainer, "strategy")


def read_lightning(trainer: Any) -> TrainerFacts:
    """Return the facts of a Lightning Trainer; lengths are known once it has optimizers or data."""
    module, optimizers = trainer.lightning_module, tuple(trainer.optimizers)
    total_steps = steps_per_epoch = None
    if optimizers or trainer.train_dataloader is not None:
        # The estimate comes first: it sets up the data, which num_training_batches needs.
        estimate = trainer.estimated_stepping_batches  # -1: a loader without a length
        total_steps = int(estimate) if 0 < estimate < math.inf else None
        batches = trainer.num_training_batches
        if 0 < batches < math.inf:
            steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
    algorithm = trainer.gradient_clip_algorithm
    return TrainerFacts(
        models=(module,),
        optimizers=optimizers,
        schedulers=tuple(
            _stepped(config, module.automatic_optimization, steps_per_epoch)
            for config in trainer.lr_scheduler_configs
        ),
        loader=trainer.train_dataloader,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        # With several optimizers Lightning counts their steps together.
        done=trainer.global_step if len(optimizers) == 1 else None,
        accumulate=trainer.accumulate_grad_batches,
        clip=trainer.gradient_clip_val or None,
        clips_values=str(getattr(algorithm, "value", algorithm)) == "value",
        scaler=getattr(trainer.precision_plugin, "scaler", None),
        reduce=trainer.world_size > 1,
    )


def _stepped(config: Any, automatic: bool, steps_per_epoch: int | None) -> SteppedScheduler:
    interval = 1 if config.interval == "step" else steps_per_epoch
    if interval is None or not automatic:  # in manual optimization the module steps it
        return SteppedScheduler(config.scheduler)
    calls_per_step = 1 / interval / config.frequency
    return SteppedScheduler(
        config.scheduler, calls_per_step, f'its interval is "{config.interval}"'
    )

"""The facts of a Lightning Trainer."""

import math
from typing import Any

from ._facts import SteppedScheduler, TrainerFacts


def is_lightning(trainer: Any) -> bool:
    return hasattr(trainer, "lr_scheduler_configs") and hasattr(trainer, "strategy")


def read_lightning(trainer: Any) -> TrainerFacts:
    """Return the facts of a Lightning Trainer; lengths are known once it has optimizers or data."""
    module, optimizers = trainer.lightning_module, tuple(trainer.optimizers)
    accumulation = _accumulation(trainer)
    automatic = module is None or module.automatic_optimization
    total_steps = steps_per_epoch = None
    max_steps = None if trainer.max_steps == -1 else trainer.max_steps
    if not automatic:  # the module may step an optimizer at some batches only
        if trainer.max_epochs == -1 and len(optimizers) == 1:
            total_steps = max_steps
    elif optimizers or trainer.train_dataloader is not None:
        total_steps, steps_per_epoch = _run_lengths(trainer)
    algorithm = trainer.gradient_clip_algorithm
    return TrainerFacts(
        models=(module,),
        optimizers=optimizers,
        schedulers=tuple(
            _stepped(config, automatic, steps_per_epoch) for config in trainer.lr_scheduler_configs
        ),
        loader=trainer.train_dataloader,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        # With several optimizers Lightning counts their steps together.
        done=trainer.global_step if len(optimizers) == 1 else None,
        joint_max_steps=max_steps if len(optimizers) > 1 else None,
        accumulate=accumulation[max(e for e in accumulation if e <= trainer.current_epoch)],
        clip=trainer.gradient_clip_val or None,
        clips_values=str(getattr(algorithm, "value", algorithm)) == "value",
        scaler=getattr(trainer.precision_plugin, "scaler", None),
        reduce=trainer.world_size > 1,
    )


def _run_lengths(trainer: Any) -> tuple[int | None, int | None]:
    """Return total_steps, and steps_per_epoch if all epochs of the run have as many."""
    # The estimate sets up the data. It does not know that a callback changes the accumulation.
    estimate, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    if not 0 < batches < math.inf:
        return (int(estimate) if 0 < estimate < math.inf else None), None  # -1: no length
    max_epochs = math.inf if trainer.max_epochs == -1 else max(trainer.max_epochs, 1)
    total_steps, epoch_lengths, accumulation = 0.0, set(), _accumulation(trainer)
    ends = [*accumulation, math.inf][1:]
    for (first, accumulate), end in zip(accumulation.items(), ends, strict=True):
        if first < max_epochs:
            epoch_lengths.add(math.ceil(batches / accumulate))
            total_steps += math.ceil(batches / accumulate) * (min(end, max_epochs) - first)
    if trainer.max_steps != -1:
        total_steps = min(total_steps, trainer.max_steps)
    steps_per_epoch = epoch_lengths.pop() if len(epoch_lengths) == 1 else None
    return (int(total_steps) if 0 < total_steps < math.inf else None), steps_per_epoch


def _accumulation(trainer: Any) -> dict[int, int]:
    """Return the batches per step, by the epoch from which on they hold."""
    for callback in trainer.callbacks:
        if hasattr(callback, "get_accumulate_grad_batches"):  # GradientAccumulationScheduler
            return dict(sorted(callback.scheduling.items()))
    return {0: trainer.accumulate_grad_batches}


def checkpoint_lrs(trainer: Any) -> list[float] | None:
    """Return the base lr of each param group in the checkpoint that the run resumes from.

    It is ``None`` for a new run. The list is empty if the checkpoint has weights only.
    """
    if trainer.ckpt_path is None:
        return None
    states = trainer._checkpoint_connector._loaded_checkpoint.get("optimizer_states") or []
    groups = states[0]["param_groups"] if states else []
    return [float(group.get("initial_lr", group["lr"])) for group in groups]


def outstanding_metric(trainer: Any, name: str, frequency: int) -> float | None:
    """Return the metric of an epoch that is over, if the trainer has yet to pass it on."""
    epoch = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress
    is_over = batches.is_last_batch and batches.current.completed == batches.current.ready
    is_due = (trainer.current_epoch + 1) % frequency == 0
    by_hand = not trainer.lightning_module.automatic_optimization
    if by_hand or not (is_over and is_due and epoch.started > epoch.completed):
        return None
    # During validation, callback_metrics has the training metrics of the epoch before.
    metrics = trainer.callback_metrics
    if trainer.validating:
        metrics = trainer._results.metrics(on_step=False)["callback"]
    return float(metrics[name]) if name in metrics else None


def _stepped(config: Any, automatic: bool, steps_per_epoch: int | None) -> SteppedScheduler:
    interval = 1 if config.interval == "step" else steps_per_epoch
    if interval is None or not automatic:  # in manual optimization the module steps it
        return SteppedScheduler(config.scheduler)
    calls_per_step = 1 / interval / config.frequency
    return SteppedScheduler(
        config.scheduler, calls_per_step, f'its interval is "{config.interval}"'
    )

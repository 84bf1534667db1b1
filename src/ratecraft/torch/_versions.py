"""What older versions of torch lack; other modules do not look at torch's version.

torch older than `OLDEST_TORCH`, or none, is refused. Everything else asks for the feature itself.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ratecraft.errors import UnsupportedTorch

OLDEST_TORCH: Final = (2, 6)
NEEDED: Final = (
    "this needs torch {0}.{1} or newer, and {2} is installed: pip install 'torch>={0}.{1}'"
)

try:
    import torch
    from torch.optim import Optimizer, lr_scheduler
    from torch.optim.lr_scheduler import LRScheduler
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise UnsupportedTorch(NEEDED.format(*OLDEST_TORCH, "none")) from None
if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < OLDEST_TORCH:
    raise UnsupportedTorch(NEEDED.format(*OLDEST_TORCH, torch.__version__))

# Since torch 2.9, LRScheduler.step() only checks the order of calls, then calls _update_lr().
HAS_UPDATE_LR: Final = hasattr(LRScheduler, "_update_lr")
# Until torch 2.8, ReduceLROnPlateau._is_better() was is_better().
HAS_IS_BETTER: Final = hasattr(lr_scheduler.ReduceLROnPlateau, "_is_better")


class _StepChecks:
    """Has what ``step()`` needs to check the order of calls; it has no lr to write."""

    last_epoch = 0

    def __init__(self, scheduler: LRScheduler) -> None:
        self.optimizer, self._step_count = scheduler.optimizer, scheduler._step_count

    def get_lr(self) -> list[float]:
        return []


def step(scheduler: Any, epoch: int | None = None) -> None:
    """Do what ``step()`` does since torch 2.9: check the order of calls, then ``_update_lr()``."""
    checks: Any = _StepChecks(scheduler)
    LRScheduler.step(checks)
    scheduler._step_count = checks._step_count
    if epoch is not None:
        warnings.warn(lr_scheduler.EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
    scheduler._update_lr(epoch)


def is_better(plateau: Any, metric: float, best: float) -> bool:
    """Call the method that torch renamed."""
    return bool(plateau.is_better(metric, best))


def restart(scheduler: Any) -> None:
    """Move a scheduler to its step 0, as a sequence does at a milestone."""
    if hasattr(scheduler, "_update_lr"):
        scheduler._update_lr(0)
        return
    with warnings.catch_warnings():
        message = re.escape(lr_scheduler.EPOCH_DEPRECATION_WARNING)
        warnings.filterwarnings("ignore", message, UserWarning)
        scheduler.step(0)


@contextmanager
def keep_lr_tensors(optimizer: Optimizer) -> Iterator[None]:
    """Keep each group's tensor lr, which older SequentialLRs replace by its initial_lr."""
    groups = [group for group in optimizer.param_groups if isinstance(group["lr"], torch.Tensor)]
    initial_lrs = [group["initial_lr"] for group in groups]
    for group in groups:
        group["lr"].fill_(float(group["initial_lr"]))
        group["initial_lr"] = group["lr"]
    try:
        yield
    finally:
        for group, initial_lr in zip(groups, initial_lrs, strict=True):
            group["initial_lr"] = initial_lr


def clone_tensors(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return copies, with torch 2.12 or newer in one call."""
    clone_all: Any = getattr(torch, "_foreach_clone", None)
    return tuple(clone_all(tensors) if clone_all else [tensor.clone() for tensor in tensors])

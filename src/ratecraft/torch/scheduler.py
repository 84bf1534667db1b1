"""ScheduleLR: a schedule bound to an optimizer."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Duration, Schedule

__all__ = ["ScheduleLR"]

SMALL_FACTOR: Final = 0.01
PROBES: Final = 512


class ScheduleLR(LRScheduler):
    """Set an optimizer's rate from a schedule; a torch ``LRScheduler`` for any trainer.

    The rate before update k is ``curve(k)`` under ``rate=`` and ``base * curve(k)`` under
    ``factor=``, where base is each param group's own ``lr``. The clock follows the optimizer: a
    hook counts the updates that really happened, so ``scheduler.step()`` may be called as often
    as a trainer likes, or never, and an update that AMP skipped does not count.

    Args:
        optimizer: the optimizer to drive.
        rate: a schedule that is the rate itself; all param groups must share one base rate.
        factor: a schedule that multiplies each group's base rate. Exactly one of the two.
        total: length of the run: updates, or ``epochs(n)``.
        epoch: updates per epoch, if the schedule or ``total`` says epochs.

    Raises:
        TypeError: both or neither of ``rate=`` and ``factor=``, or no `Schedule`.
        BindingError: groups with different base rates under ``rate=``, or a ``factor=`` so
            small that it must have been meant as a rate.
        ScheduleError: the schedule does not resolve over ``total``.

    >>> import torch
    >>> from ratecraft import cosine, warmup
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> scheduler = ScheduleLR(optimizer, rate=0.1 * warmup(2).then(cosine(1, 0)), total=6)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     optimizer.step()
    >>> rates
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        rate: Schedule | None = None,
        factor: Schedule | None = None,
        total: int | Duration | None = None,
        epoch: float | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"ScheduleLR drives a torch optimizer, not {type(optimizer).__name__}")
        schedule = rate if factor is None else factor
        if schedule is None or (rate is not None and factor is not None):
            raise TypeError(
                "ScheduleLR takes exactly one of rate= (the schedule is the rate) and "
                "factor= (the schedule multiplies each group's lr)"
            )
        if not isinstance(schedule, Schedule):
            raise TypeError(
                f"a Schedule was expected, not {schedule!r}; a fixed rate is constant(value), and "
                "a text is read by ratecraft.parse"
            )
        curve = schedule.resolve(total, epoch=epoch)
        groups = optimizer.param_groups
        bases = [float(group.get("initial_lr", group["lr"])) for group in groups]
        if rate is not None and len(set(bases)) > 1:
            raise BindingError(
                f"rate= sets one rate for all param groups, but theirs differ: {bases}; "
                "write factor= to keep their ratios"
            )
        if factor is not None and (peak := _peak(curve)) <= SMALL_FACTOR:
            raise BindingError(
                f"factor={factor!r} multiplies lr={bases[0]:g} by at most {peak:g}, which trains "
                f"at {bases[0] * peak:.3g} or less; did you mean rate={factor!r}?"
            )
        # torch's own constructor is not called: it would replace optimizer.step by a counting
        # wrapper, which a compiled or patched step does not survive. What trainers read of an
        # LRScheduler is set here instead.
        self.optimizer = optimizer
        self.curve = curve
        self._absolute = rate is not None
        self.base_lrs = list(bases)
        for group, base in zip(groups, bases, strict=True):
            group.setdefault("initial_lr", base)
        self.last_epoch = 0
        self._step_count = 1
        self._is_initial = False
        self._get_lr_called_within_step = False
        # The optimizer keeps the scheduler alive: a schedule that stopped because nobody held on
        # to its scheduler would train at a frozen rate without a word.
        self._handle = optimizer.register_step_post_hook(self._advance)
        self._write()

    def step(self, epoch: int | None = None) -> None:
        """Do nothing but what trainers expect to see: the optimizer's own updates are counted."""
        if epoch is not None:
            raise TypeError("ScheduleLR.step() takes no epoch: it counts the optimizer's updates")

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of each group for the update that comes next."""
        value = self.curve(self.last_epoch)
        return [value if self._absolute else base * value for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data: the update count, the plan as text, the base rates."""
        return {
            "updates": self.last_epoch,
            "plan": repr(self.curve.schedule),
            "base_rates": [float(base) for base in self.base_lrs],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the update of a saved state and write the rate that belongs there.

        Raises:
            BindingError: the state was saved under another schedule.
        """
        plan = repr(self.curve.schedule)
        if state_dict["plan"] != plan:
            raise BindingError(
                f"the saved plan is {state_dict['plan']}, and this scheduler's is {plan}; "
                "build it with the saved plan to go on"
            )
        self.last_epoch = int(state_dict["updates"])
        self.base_lrs = list(state_dict["base_rates"])
        self._write()

    def remove(self) -> None:
        """Stop driving the optimizer; its rates stay as they are now."""
        self._handle.remove()

    def _advance(self, *_: Any) -> None:
        self.last_epoch += 1
        self._step_count += 1
        self._write()

    def _write(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # in place: a compiled step holds on to this tensor
            else:
                group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def _peak(curve: Curve) -> float:
    """Return the largest of some hundred values spread over the run (its first part if endless)."""
    span = min(curve.total, 100 * PROBES)
    return max(abs(curve(span * i / PROBES)) for i in range(PROBES + 1))

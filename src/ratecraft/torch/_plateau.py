"""PlateauLR: a schedule times a factor that follows a metric, as one scheduler."""

import copy
from collections.abc import Sequence
from typing import Any, Final, Literal

from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.schedule import Duration

from ._checkpoint import STATE_FORMAT, check_format, is_torch_state
from ._resume import resume
from ._scheduler import ScheduleLR, refuse_copy
from .drop_in import ReduceLROnPlateau

# What a state and a scheduler may differ in, and on_change= decides.
SETTINGS: Final = (
    "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lrs", "eps",
)  # fmt: skip


class PlateauLR(ReduceLROnPlateau):
    """A schedule times a factor that is reduced whenever a metric stops improving.

    The schedule advances by its own clock; call ``step(metric)`` once per epoch or validation. As
    a subclass of torch's ``ReduceLROnPlateau`` it gets the metric from Lightning and the Hugging
    Face Trainer. One state dict holds both parts. In distributed training every process must pass
    the same metric: reduce it first.

    Args:
        scheduler: the `ScheduleLR` of the schedule.
        mode: "min" if a lower metric is better, "max" if a higher one is.
        factor: multiplier applied at each reduction, as in torch.
        patience: how many metrics in a row may fail to improve.
        threshold: minimum improvement that counts.
        threshold_mode: "rel": ``threshold`` is relative to the best metric; "abs": absolute.
        cooldown: number of metrics after a reduction that do not count as bad.
        min_lr: lower bound of the schedule's highest lr; a number, or one for each group.
        eps: a reduction of the highest lr by at most this is skipped.
        verbose: log every change.

    Attributes:
        scheduler: the `ScheduleLR`.
        current_factors: the current factor of each param group.
        reductions: as in `drop_in.ReduceLROnPlateau`; "at" is in steps, or what the clock counts.

    Raises:
        TypeError: ``scheduler`` is not a `ScheduleLR`.

    >>> import torch
    >>> from ratecraft import cosine, warmup
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = ScheduleLR(optimizer, factor=warmup(4), total_steps=100)
    >>> scheduler = PlateauLR(schedule, factor=0.5, patience=0)
    >>> for loss in [2.0, 1.0, 1.0]:
    ...     for _ in range(3):
    ...         optimizer.step()
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"], scheduler.as_schedule()
    (0.05, staircase([1, 0.5], at=[9]))
    """

    __slots__ = ("scheduler",)  # not in __dict__, which torch saves as the state

    def __init__(
        self,
        scheduler: ScheduleLR,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
        verbose: bool = False,
    ) -> None:
        if not isinstance(scheduler, ScheduleLR):
            raise TypeError(
                f"PlateauLR takes a ScheduleLR, not {type(scheduler).__name__}; without a "
                "schedule use ratecraft.torch.drop_in.ReduceLROnPlateau(optimizer)"
            )
        self.scheduler = scheduler
        bound = list(min_lr) if isinstance(min_lr, Sequence) else min_lr
        super().__init__(
            scheduler.optimizer, mode, factor, patience, threshold, threshold_mode, cooldown,
            bound, eps, verbose,
        )  # fmt: skip

    def _position(self) -> float:
        return self.scheduler.position

    def _as_duration(self, position: float) -> Duration:
        return Duration(**{self.scheduler.config.clock_unit: float(position)})

    def _peak_lrs(self) -> list[float]:
        return self.scheduler.peak_lrs()

    def __repr__(self) -> str:
        count = len(self.reductions)
        reductions = f"{count} reduction{'' if count == 1 else 's'}"
        return self.scheduler._summary(type(self).__name__, reductions)

    def remove(self) -> None:
        """Detach from the optimizer; its lrs keep their current values."""
        self.scheduler.remove()
        if self._is_attached():
            self._writer.remove(self._source)

    __getstate__ = refuse_copy

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both parts as plain data, which loads with ``weights_only=True``."""
        return super().state_dict() | {
            "format": STATE_FORMAT,
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a saved state and write its learning rates; an invalid one changes nothing.

        Raises:
            ScheduleChanged: the saved schedule differs; see `ScheduleLR.load_state_dict`.
            BindingError: not the state of a PlateauLR, another format, or too many param groups.
        """
        if is_torch_state(state_dict) and "scheduler" not in state_dict:
            self.scheduler.load_state_dict(state_dict)  # and the factor starts at 1
            return
        state = dict(state_dict)
        if "scheduler" in state or "decisions" in state:  # a key of format 1
            check_format(state.pop("format", 1), "PlateauLR")
        scheduler_state = state.pop("scheduler", None)
        factors: Any = state.get("current_factors")
        has_list = isinstance(factors, list) and all(isinstance(f, int | float) for f in factors)
        if scheduler_state is None or not has_list:
            hint = ""
            if "config" in state:
                hint = "; for the state of a ScheduleLR call .scheduler.load_state_dict(state)"
            raise BindingError(f"this is not the state of a PlateauLR{hint}")
        if len(factors) > (count := len(self.optimizer.param_groups)):
            raise BindingError(
                f"the saved state has {len(factors)} param groups, and this optimizer has {count}"
            )
        state = self._with_settings(state)
        before, factors = copy.copy(self.__dict__), self._source.factors
        scheduler_before = self.scheduler.state_dict()
        self.scheduler.load_state_dict(scheduler_state)
        # The scheduler decides which base lrs to use: the saved ones, or with "replan" the present.
        values = self._writer.state() | {"_last_lr": scheduler_state["hyperparams"]["lr"]["value"]}
        del values["value"]
        try:
            super().load_state_dict(state | values)
        except Exception:
            self.__dict__.clear()
            self.__dict__.update(before)
            self._source.factors = factors
            resume(self.scheduler._driver, scheduler_before, "keep")
            raise

    def _with_settings(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state with the settings that on_change= keeps: saved ones or those given."""
        changed = [
            name
            for name in SETTINGS
            if name in state and not _are_equal(state[name], getattr(self, name))
        ]
        on_change = self.scheduler._on_change
        if not changed or on_change == "keep":
            return state
        if on_change != "replan":
            rows = [f"  {name}: saved {state[name]}, now {getattr(self, name)}" for name in changed]
            raise ScheduleChanged(
                "the state was saved with other settings of PlateauLR\n" + "\n".join(rows) + "\n"
                'pass on_change="keep" to the ScheduleLR to keep the saved settings, or "replan" '
                "to use these from here on"
            )
        left_out = (*SETTINGS, "best", "num_bad_epochs") if "mode" in changed else SETTINGS
        return {name: value for name, value in state.items() if name not in left_out}


def _are_equal(saved: Any, now: Any) -> bool:
    """Return whether two settings are equal, for the groups that both have."""
    if isinstance(saved, list) and isinstance(now, list):
        return all(a == b for a, b in zip(saved, now, strict=False))
    return bool(saved == now)

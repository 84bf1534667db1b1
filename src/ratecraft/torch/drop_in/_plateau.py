"""ReduceLROnPlateau: a factor that is reduced whenever a metric stops improving.

It records its reductions: the position, the metric and the new factors. `as_schedule` returns them
as a schedule, to repeat, compare or plot the run without the metric.
"""

import copy
import math
import warnings
from typing import Any, Final, SupportsFloat, cast

from torch.optim import lr_scheduler

from ratecraft.errors import BindingError
from ratecraft.schedule import Duration, Schedule, constant, staircase
from ratecraft.torch import _versions
from ratecraft.torch._checkpoint import is_finite_number
from ratecraft.torch._hyperparam import by_group, copied

from ._base import DropInScheduler

REDUCTION_KEYS: Final = ("at", "metric", "best", "factors")  # of the reductions in a state dict


class ReduceLROnPlateau(DropInScheduler, lr_scheduler.ReduceLROnPlateau):
    """A factor that is reduced whenever a metric stops improving.

    It multiplies all other factors of the lr. ``min_lr`` and ``eps`` apply to base x external
    factor x this factor, so a warmup by another scheduler of ratecraft does not change the
    reductions. NaN is not an improvement.

    Attributes:
        current_factors: the current factor of each param group.
        reductions: the reductions so far, as plain data: "at" (steps; for ReduceLROnPlateau: calls
            of ``step``, this one included), the "metric" that led to it, the "best" one before,
            and the "factors" of the groups from then on.
    """

    _saves_base = True

    current_factors: list[float]
    reductions: list[dict[str, Any]]

    def _reset(self) -> None:
        super()._reset()
        if not hasattr(self, "current_factors"):  # torch's constructor calls _reset() last
            self.current_factors = [1.0] * len(self.optimizer.param_groups)
            self.reductions = []
            self._write_current()

    def _factors(self, k: int) -> list[float]:
        return list(self.current_factors)

    def factors(self, k: float | None = None) -> list[float]:
        """Return each param group's factor at k (default: now), by the reductions so far."""
        if k is None:
            return list(self.current_factors)
        past = [reduction["factors"] for reduction in self.reductions if reduction["at"] <= k]
        return list(past[-1]) if past else [1.0] * len(self.current_factors)

    def as_schedule(self) -> Schedule | dict[str, Schedule]:
        """Return the factor as a schedule over steps (for ReduceLROnPlateau: calls of ``step``).

        If the factors of the param groups differ, it is a dict with one for each by name or index.

        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> for loss in [3.0, 2.0, 2.0, 2.0, 1.0]:
        ...     plateau.step(loss)
        >>> plateau.as_schedule()
        staircase([1, 0.5], at=[4])
        """
        groups = self.optimizer.param_groups
        return by_group(groups, [self._schedule_of(i) for i in range(len(groups))])

    def _schedule_of(self, i: int) -> Schedule:
        levels: dict[float, float] = {}
        for reduction in self.reductions:  # of several at the same position the last one counts
            factors = reduction["factors"]
            levels[reduction["at"]] = factors[i] if i < len(factors) else 1.0
        at = [self._as_duration(position) for position in levels]
        return staircase([1.0, *levels.values()], at=at) if at else constant(1)

    @property
    def _last_lr(self) -> list[Any]:
        return copied(group["lr"] for group in self.optimizer.param_groups)

    @_last_lr.setter
    def _last_lr(self, values: object) -> None:
        pass  # torch's constructor sets it

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # as torch's
        """Record a metric, and reduce the factor if it has not improved for too long."""
        if not self._is_attached():
            self._write_current()
        metric, best = float(metrics), self.best
        if epoch is None:
            self.last_epoch += 1
        else:
            warnings.warn(lr_scheduler.EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
            self.last_epoch = epoch
        if self._is_better(metric, best):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce(metric, best)
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _reduce(self, metric: float, best: float) -> None:
        """Reduce the lr, and record the reduction unless it was skipped."""
        before = list(self.current_factors)
        self._reduce_lr(self.last_epoch)
        if self.current_factors != before:
            factors = list(self.current_factors)
            reduction = {"at": self._position(), "metric": metric, "best": best, "factors": factors}
            # A new list each time, so that a state dict returned earlier does not change.
            self.reductions = [*self.reductions, reduction]

    if not _versions.HAS_IS_BETTER:
        _is_better = _versions.is_better

    def _position(self) -> float:
        return self.last_epoch

    def _as_duration(self, position: float) -> Duration:
        return Duration(steps=float(position))

    def _peak_lrs(self) -> list[float]:
        """Return each group's peak lr without this factor and external factors."""
        return list(self._writer.base)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with each group's base lr, as a deep copy of plain data."""
        # By column, since torch.distributed.checkpoint splits a list of dicts into its entries.
        columns = {key: [reduction[key] for reduction in self.reductions] for key in REDUCTION_KEYS}
        state = super().state_dict() | {"_last_lr": self._last_lr, "reductions": columns}
        return copy.deepcopy(state)

    def _load(self, state: dict[str, Any]) -> None:
        columns = state.get("reductions")
        if isinstance(columns, dict):
            rows = zip(*(columns[name] for name in REDUCTION_KEYS), strict=True)
            state["reductions"] = [dict(zip(REDUCTION_KEYS, row, strict=True)) for row in rows]
        # In a state of torch's class, the factors follow from its lrs.
        if "current_factors" not in state and self._is_attached():
            self._writer.sync()
            others = self._writer.values(self._source, 1.0)
            lrs = zip(state["_last_lr"], others, strict=True)
            state["current_factors"] = [float(lr) / value if value else 1.0 for lr, value in lrs]
            state["reductions"] = []
        self._add_factors(state.get("current_factors", []))
        _check_state(state)
        super()._load(state)
        self.__dict__.pop("_last_lr", None)

    def _add_factors(self, factors: list[float]) -> None:
        """Add a factor of 1 for each group that was added since the last reduction."""
        factors += [1.0] * (len(self.optimizer.param_groups) - len(factors))

    def _reduce_lr(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        self._writer.sync()
        self._add_factors(self.current_factors)
        if len(self.min_lrs) != len(groups):
            if self.default_min_lr is None:
                super()._reduce_lr(epoch)  # raises torch's error
            self.min_lrs = [cast(float, self.default_min_lr)] * len(groups)
        for i, (peak_lr, external_factor) in enumerate(
            zip(self._peak_lrs(), self._writer.external_factor, strict=True)
        ):
            old = peak_lr * external_factor * self.current_factors[i]
            new, lowest = old * self.factor, self.min_lrs[i]
            if old - max(new, lowest) > self.eps:
                self.current_factors[i] *= self.factor if new >= lowest else lowest / old
        self._write_current()


def _check_state(state: dict[str, Any]) -> None:
    """Refuse a state with entries that the next step could not use."""
    for name in ("patience", "cooldown", "cooldown_counter", "num_bad_epochs"):
        if name in state and not (is_finite_number(state[name]) and state[name] >= 0):
            raise BindingError(f"the saved {name} is {state[name]!r}")
    for name in ("factor", "threshold", "eps"):
        if name in state and not is_finite_number(state[name]):
            raise BindingError(f"the saved {name} is {state[name]!r}")
    best, bounds = state.get("best", 0.0), state.get("min_lrs", [])
    if isinstance(best, bool) or not isinstance(best, int | float) or math.isnan(best):
        raise BindingError(f"the saved best is {best!r}")
    if not isinstance(bounds, list) or not all(map(is_finite_number, bounds)):
        raise BindingError(f"the saved min_lrs are {bounds!r}")
    for reduction in state.get("reductions", []):
        if not (is_finite_number(reduction["at"]) and reduction["at"] >= 0):
            raise BindingError(f"a saved reduction is at {reduction['at']!r}")
        if not all(map(is_finite_number, reduction["factors"])):
            raise BindingError(f"a saved reduction has the factors {reduction['factors']!r}")

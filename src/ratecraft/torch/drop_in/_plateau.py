"""ReduceLROnPlateau: a factor that is reduced whenever a metric stops improving.

It records its reductions: the position, the metric and the new factors. `as_schedule` returns them
as a schedule, to repeat, compare or plot the run without the metric.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, SupportsFloat, cast

from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from ratecraft.schedule import Duration, Schedule, constant, staircase
from ratecraft.torch._writer import Factors, product_of_factors

from ._base import DropInScheduler


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

    def _factors(self, k: int) -> Factors:
        return list(self.current_factors)

    def factors(self, k: float | None = None) -> Factors:
        """Return each param group's factor at k (default: now), by the reductions so far."""
        if k is None:
            return list(self.current_factors)
        past = [reduction["factors"] for reduction in self.reductions if reduction["at"] <= k]
        return list(past[-1]) if past else [1.0] * len(self.current_factors)

    def as_schedule(self) -> Schedule | dict[str, Schedule]:
        """Return the factor as a schedule over steps (for ReduceLROnPlateau: calls of ``step``).

        Returns:
            One schedule; or, if they differ, a dict with one for each param group by name or
            index.

        >>> import torch
        >>> from ratecraft.torch.drop_in import ReduceLROnPlateau
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> for loss in [3.0, 2.0, 2.0, 2.0, 1.0]:
        ...     plateau.step(loss)
        >>> plateau.as_schedule()
        staircase([1, 0.5], at=[4])
        """
        schedules: list[Schedule] = []
        groups = self.optimizer.param_groups
        for i in range(len(groups)):
            # If several reductions have the same position, the last one counts.
            levels: dict[float, float] = {}
            for reduction in self.reductions:
                factors = reduction["factors"]
                levels[reduction["at"]] = factors[i] if i < len(factors) else 1.0
            at = [self._as_duration(position) for position in levels]
            schedules.append(staircase([1.0, *levels.values()], at=at) if at else constant(1))
        if all(schedule == schedules[0] for schedule in schedules):
            return schedules[0]
        return {str(group.get("name", i)): schedules[i] for i, group in enumerate(groups)}

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # as torch's
        """Record a metric, and reduce the factor if it has not improved for too long."""
        metric = float(metrics)
        if epoch is None:
            epoch = self.last_epoch + 1
        else:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        self.last_epoch = epoch
        if not self._is_attached():  # this is a copy: its optimizer has another writer
            self._write_current()
        best = self.best
        if self._is_better(metric, best):  # type: ignore[no-untyped-call]  # torch's
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._record_reduction(metric, best)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        if self._writer.has_tensors():  # checking every lr would be the slowest part of this method
            lrs = [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]
        self._last_lr = lrs

    def _record_reduction(self, metric: float, best: float) -> None:
        before = list(self.current_factors)
        self._reduce_lr(self.last_epoch)
        if self.current_factors != before:
            factors = list(self.current_factors)
            reduction = {
                "at": self._position(), "metric": metric, "best": best, "factors": factors,
            }  # fmt: skip
            # A new list each time, so that a state dict returned earlier does not change.
            self.reductions = [*self.reductions, reduction]

    def _position(self) -> float:
        """Return the position of a reduction made now."""
        return self.last_epoch

    def _as_duration(self, position: float) -> int | Duration:
        return int(position)

    def _peak_lrs(self) -> list[float]:
        """Return each group's peak lr without this factor and external factors."""
        return list(self._writer.base)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with each group's base lr, as a deep copy of plain data."""
        return copy.deepcopy(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state and write its lrs.

        If it is a state of torch's class, the factors are computed from its lrs.
        """
        state = copy.deepcopy(dict(state_dict))
        if "current_factors" not in state and self._is_attached():
            state["current_factors"] = self._factors_of_lrs(state["_last_lr"])
            state["reductions"] = []
        super().load_state_dict(state)

    def _factors_of_lrs(self, lrs: list[Any]) -> list[float]:
        """Return the factors of this scheduler that give these lrs."""
        writer = self._writer
        writer.sync()
        product = product_of_factors(
            [source.factors for source in writer.sources if source is not self._source]
        )
        factors = product if isinstance(product, list) else [product] * len(writer.base)
        products = [
            base * external_factor * factor
            for base, external_factor, factor in zip(
                writer.effective_base, writer.external_factor, factors, strict=True
            )
        ]
        return [
            float(lr) / product if product else 1.0
            for lr, product in zip(lrs, products, strict=True)
        ]

    def _reduce_lr(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        self._writer.sync()
        new_groups = len(groups) - len(self.current_factors)
        self.current_factors = [*self.current_factors, *[1.0] * new_groups]
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

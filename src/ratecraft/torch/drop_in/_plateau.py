"""ReduceLROnPlateau: a factor that is reduced whenever a metric stops improving.

It records its decisions: when which metric led to which factor. `as_schedule` returns them as a
schedule, to repeat, compare or plot the run without the metric.
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

    It multiplies all other factors of the lr. ``min_lr`` and ``eps`` compare with base x factor,
    so a warmup by another scheduler does not change the decisions. NaN is not an improvement.

    Attributes:
        reduced: the current factor of each param group.
        decisions: the reductions so far, as plain data: "at" (number of calls of ``step``, this
            one included), the "metric" that led to it, the "best" one before, and the
            "factors" of the groups from then on.
    """

    _saves_base = True

    reduced: list[float]
    decisions: list[dict[str, Any]]

    def _reset(self) -> None:
        super()._reset()
        if not hasattr(self, "reduced"):  # the last call in torch's constructor
            self.reduced = [1.0] * len(self.optimizer.param_groups)
            self.decisions = []
            self._reattach()

    def _factors(self, k: int) -> Factors:
        return list(self.reduced)

    def factors(self, k: float | None = None) -> Factors:
        """Return each param group's factor at k (default: now), by the decisions so far."""
        if k is None:
            return list(self.reduced)
        past = [decision["factors"] for decision in self.decisions if decision["at"] <= k]
        return list(past[-1]) if past else [1.0] * len(self.reduced)

    def as_schedule(self) -> Schedule | dict[str, Schedule]:
        """Return the decisions as a schedule: the factor over the calls of ``step``.

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
            # If several decisions have the same time, the last one counts.
            levels: dict[float, float] = {}
            for decision in self.decisions:
                factors = decision["factors"]
                levels[decision["at"]] = factors[i] if i < len(factors) else 1.0
            at = [self._length(time) for time in levels]
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
        if not self._is_attached():  # a copy, whose optimizer has another writer
            self._reattach()
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
            self._decide(metric, best)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        if self._writer.has_tensors():  # checking each value is the slowest part of torch's step
            lrs = [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]
        self._last_lr = lrs

    def _decide(self, metric: float, best: float) -> None:
        before = list(self.reduced)
        self._reduce_lr(self.last_epoch)
        if self.reduced != before:
            decision = {"at": self._at(), "metric": metric, "best": best}
            # A new list each time, so that a state dict returned earlier does not change.
            self.decisions = [*self.decisions, {**decision, "factors": list(self.reduced)}]

    def _at(self) -> float:
        """Return the time of a decision made now."""
        return self.last_epoch

    def _length(self, at: float) -> int | Duration:
        return int(at)

    def _peak_lrs(self) -> list[float]:
        """Return each group's lr before this factor, which ``min_lr`` is compared with."""
        return list(self._writer.base)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with each group's base lr, as a deep copy of plain data."""
        return copy.deepcopy(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state and write its lrs.

        A state of torch's class has no factors; they are computed from its lrs.
        """
        state = copy.deepcopy(dict(state_dict))
        if "reduced" not in state and self._is_attached():
            state["reduced"] = self._factors_of_lrs(state["_last_lr"])
            state["decisions"] = []
        super().load_state_dict(state)

    def _factors_of_lrs(self, lrs: list[Any]) -> list[float]:
        """Return the factors with which this scheduler would give these lrs."""
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
        self.reduced = [*self.reduced, *[1.0] * (len(groups) - len(self.reduced))]
        if len(self.min_lrs) != len(groups):
            if self.default_min_lr is None:
                super()._reduce_lr(epoch)  # raises torch's error
            self.min_lrs = [cast(float, self.default_min_lr)] * len(groups)
        for i, (peak_lr, external_factor) in enumerate(
            zip(self._peak_lrs(), self._writer.external_factor, strict=True)
        ):
            old = peak_lr * external_factor * self.reduced[i]
            new, lowest = old * self.factor, self.min_lrs[i]
            if old - max(new, lowest) > self.eps:
                self.reduced[i] *= self.factor if new >= lowest else lowest / old
        self._reattach()

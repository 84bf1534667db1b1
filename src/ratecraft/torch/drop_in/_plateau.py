"""ReduceLROnPlateau: a factor that is reduced whenever a metric stops improving.

The decisions are kept: which metric led to which factor, and when. `as_schedule` returns them as a
schedule, so that the run can be repeated, compared and drawn without the metric.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, SupportsFloat, cast

from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from ratecraft.schedule import Duration, Schedule, constant, staircase
from ratecraft.torch._writer import Factors, multiplied

from ._base import DropInScheduler


class ReduceLROnPlateau(DropInScheduler, lr_scheduler.ReduceLROnPlateau):
    """A factor that falls whenever a metric has stopped to improve.

    It multiplies whatever else drives the lr; ``min_lr`` and ``eps`` are of its own share, base
    x factor, so that a warm-up beside it changes no decision. A metric that is NaN is no
    improvement.

    Attributes:
        reduced: the present factor of each param group.
        decisions: what was decided so far, as plain data: for each fall "at" (calls of ``step``
            before it, this one included), the "metric" that led to it, the "best" seen before,
            and the "factors" of the groups from then on.
    """

    _tells_base = True

    reduced: list[float]
    decisions: list[dict[str, Any]]

    def _reset(self) -> None:
        super()._reset()
        if not hasattr(self, "reduced"):  # called by torch's constructor, last of all
            self.reduced = [1.0] * len(self.optimizer.param_groups)
            self.decisions = []
            self._resume()

    def _factors(self, k: int) -> Factors:
        return list(self.reduced)

    def factors(self, k: float | None = None) -> Factors:
        """Return the factor of each param group at k, as decided so far (default: now)."""
        if k is None:
            return list(self.reduced)
        past = [said["factors"] for said in self.decisions if said["at"] <= k]
        return list(past[-1]) if past else [1.0] * len(self.reduced)

    def as_schedule(self) -> Schedule | dict[str, Schedule]:
        """Return the decisions as a schedule: the factor over the calls of ``step``.

        Returns:
            One schedule, or one for each param group, by name or number, where they differ.

        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> for loss in [3.0, 2.0, 2.0, 2.0, 1.0]:
        ...     plateau.step(loss)
        >>> plateau.as_schedule()
        staircase([1, 0.5], at=[4])
        """
        said: list[Schedule] = []
        groups = self.optimizer.param_groups
        for i in range(len(groups)):
            # Of several decisions at one time the last one counts.
            levels: dict[float, float] = {}
            for decision in self.decisions:
                factors = decision["factors"]
                levels[decision["at"]] = factors[i] if i < len(factors) else 1.0
            at = [self._length(place) for place in levels]
            said.append(staircase([1.0, *levels.values()], at=at) if at else constant(1))
        if all(schedule == said[0] for schedule in said):
            return said[0]
        return {str(group.get("name", i)): said[i] for i, group in enumerate(groups)}

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # torch's own, too
        """Look at a metric, and let the factor fall if it has not improved for too long."""
        metric = float(metrics)
        if epoch is None:
            epoch = self.last_epoch + 1
        else:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        self.last_epoch = epoch
        if not self._is_heard():  # a copy, which joins the writer of its own optimizer
            self._resume()
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
        if self._writer.has_tensors():  # asking each value is what costs torch's own most
            lrs = [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]
        self._last_lr = lrs

    def _decide(self, metric: float, best: float) -> None:
        before = list(self.reduced)
        self._reduce_lr(self.last_epoch)
        if self.reduced != before:
            decision = {"at": self._at(), "metric": metric, "best": best}
            # Anew each time: a state that was handed out must not change with us.
            self.decisions = [*self.decisions, {**decision, "factors": list(self.reduced)}]

    def _at(self) -> float:
        """Return how far the run is."""
        return self.last_epoch

    def _length(self, at: float) -> int | Duration:
        return int(at)

    def _highest(self) -> list[float]:
        """Return each group's own lr before this factor, which ``min_lr`` is compared with."""
        return list(self._writer.own)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, plain data of its own; the groups' base lrs are in it, too."""
        return copy.deepcopy(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state and write the lrs that belong there.

        One of torch's own says no factors: they are what its lrs are of the bases.
        """
        state = copy.deepcopy(dict(state_dict))
        if "reduced" not in state and self._is_heard():
            state["reduced"] = self._of_lrs(state["_last_lr"])
            state["decisions"] = []
        super().load_state_dict(state)

    def _of_lrs(self, lrs: list[Any]) -> list[float]:
        """Return this scheduler's factors, if those were the lrs."""
        writer = self._writer
        writer.sync()
        others = multiplied([said.factors for said in writer.sources if said is not self._source])
        beside = others if isinstance(others, list) else [others] * len(writer.own)
        products = [
            base * external_factor * share
            for base, external_factor, share in zip(
                writer.base, writer.external_factor, beside, strict=True
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
                super()._reduce_lr(epoch)  # which says what to do
            self.min_lrs = [cast(float, self.default_min_lr)] * len(groups)
        for i, (own, external_factor) in enumerate(
            zip(self._highest(), self._writer.external_factor, strict=True)
        ):
            old = own * external_factor * self.reduced[i]
            new, lowest = old * self.factor, self.min_lrs[i]
            if old - max(new, lowest) > self.eps:
                self.reduced[i] *= self.factor if new >= lowest else lowest / old
        self._resume()

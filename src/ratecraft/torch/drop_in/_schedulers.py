"""Subclasses of torch's schedulers that follow a schedule, and WarmupMultiFactorScheduler.

Each subclass has the name, signature, checks, warnings and state of torch's class. The lr is
written through the writer of `ScheduleLR`, as base x factor(k) x external factor. factor(k) has a
closed form, except in MultiplicativeLR and ReduceLROnPlateau; CyclicLR and OneCycleLR give lrs.
So a chain is exactly the product of its parts, and a state resumes without the optimizer's.

As in torch, they count calls of ``step()``, and stop when their last reference is dropped.
"""

from __future__ import annotations  # signatures equal torch's, whose annotations are strings

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, cast

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.errors import BindingError
from ratecraft.torch._checkpoint import is_finite_number
from ratecraft.torch._factors import Factors

from ._base import DropInScheduler, above_eta_min, one_or_all

HALF_PI: Final = math.pi / 2


def _distinct(functions: list[Any]) -> list[Any]:
    return functions[:1] if functions.count(functions[0]) == len(functions) else functions


class LambdaLR(DropInScheduler, lr_scheduler.LambdaLR):
    """Base lr times a function of the step: one for all groups, or one for each."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        return one_or_all([function(k) for function in _distinct(self.lr_lambdas)])


class MultiplicativeLR(DropInScheduler, lr_scheduler.MultiplicativeLR):
    """Product of a function's values at steps 1 to k."""

    __slots__ = ("_latest",)  # cache: consecutive steps cost one call of the function each
    _latest: tuple[int, list[float]] | None

    def _factors(self, k: int) -> Factors:
        latest = getattr(self, "_latest", None)
        known = latest if latest and latest[0] <= k else getattr(self, "_product", None)
        self._latest = k, self._up_to(k, known)
        return one_or_all(self._latest[1])

    def _apply(self, k: int) -> Factors:
        self._product = k, self._up_to(k, getattr(self, "_product", None))
        return one_or_all(self._product[1])

    def _up_to(self, k: int, known: tuple[int, list[float]] | None) -> list[float]:
        """Return the products up to step k, extending the known ones."""
        functions = _distinct(self.lr_lambdas)
        before, product = known or (0, [])
        if k < before or len(product) != len(functions):
            before, product = 0, [1.0] * len(functions)
        for i in range(before + 1, k + 1):
            product = [p * f(i) for p, f in zip(product, functions)]  # noqa: B905  # strict= costs time
        return product

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest = None  # functions that are objects have a state, too
        super().load_state_dict(state_dict)


class StepLR(DropInScheduler, lr_scheduler.StepLR):
    """Factor gamma^(k // step_size)."""

    def _factors(self, k: int) -> Factors:
        return self.gamma ** (k // self.step_size)


class MultiStepLR(DropInScheduler, lr_scheduler.MultiStepLR):
    """Factor gamma^n after n milestones."""

    def _factors(self, k: int) -> Factors:
        return self.gamma ** sum(n for at, n in self.milestones.items() if at <= k)


class ConstantLR(DropInScheduler, lr_scheduler.ConstantLR):
    """Factor ``factor``, and 1 from step ``total_iters`` on."""

    def _factors(self, k: int) -> Factors:
        return self.factor if k < self.total_iters else 1.0


class LinearLR(DropInScheduler, lr_scheduler.LinearLR):
    """Linear factor from ``start_factor`` to ``end_factor`` over ``total_iters`` steps."""

    def _factors(self, k: int) -> Factors:
        if k >= self.total_iters:
            return self.end_factor
        return self.start_factor + (self.end_factor - self.start_factor) * k / self.total_iters


class ExponentialLR(DropInScheduler, lr_scheduler.ExponentialLR):
    """Factor gamma^k."""

    def _factors(self, k: int) -> Factors:
        return self.gamma**k


class PolynomialLR(DropInScheduler, lr_scheduler.PolynomialLR):
    """Factor (1 - k / total_iters)^power."""

    def _factors(self, k: int) -> Factors:
        if self.total_iters <= 0:
            return 1.0
        return float((1.0 - min(self.total_iters, k) / self.total_iters) ** self.power)


class CosineAnnealingLR(DropInScheduler, lr_scheduler.CosineAnnealingLR):
    """eta_min + (base - eta_min) (1 + cos(pi k / T_max)) / 2; rises again after ``T_max``."""

    def _factors(self, k: int) -> Factors:
        # (1 + cos(2 x)) / 2 = cos(x)^2; the square is accurate near 0, where 1 + cos cancels.
        return above_eta_min(self, self.eta_min, math.cos(HALF_PI * (k / self.T_max)) ** 2)


class CosineAnnealingWarmRestarts(DropInScheduler, lr_scheduler.CosineAnnealingWarmRestarts):
    """Cosine annealing that restarts after ``T_0`` steps; each cycle is ``T_mult`` x longer."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        at, length = (self.T_cur, self.T_i) if k == self.last_epoch else self._cycle_position(k)
        # Torch's expression, to the last bit: Ignite compares its own with it.
        return above_eta_min(self, self.eta_min, (1 + math.cos(math.pi * at / length)) / 2)

    def _cycle_position(self, epoch: float) -> tuple[float, float]:
        at, length = epoch, self.T_0
        if self.T_mult == 1:
            return at % length, length
        while at >= length:
            at, length = at - length, length * self.T_mult
        return at, length

    def step(self, epoch: float | None = None) -> None:
        """Advance by one epoch, or to the given epoch, which may be fractional."""
        if epoch is not None and epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        if epoch is None and self.last_epoch >= 0:
            epoch, self.T_cur = self.last_epoch + 1, self.T_cur + 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        else:
            epoch = epoch or 0
            self.T_cur, self.T_i = cast(Any, self._cycle_position(epoch))
        self.last_epoch = math.floor(epoch)
        self._write_current()


class _Cycled(DropInScheduler):
    """Base class of the schedulers that write lrs and cycle the momentum inversely."""

    sets_lr = True
    cycle_momentum: bool
    use_beta1: bool

    def _lrs_and_momentums(self, k: int) -> tuple[list[float], list[float]]:
        """Return each group's lr at a step, and its momentum if that is cycled."""
        raise NotImplementedError

    def _factors(self, k: int) -> Factors:
        return one_or_all(self._lrs_and_momentums(k)[0])

    def _loaded_factors(self) -> Factors:
        lrs, momentums = self._lrs_and_momentums(self.last_epoch)
        if not all(map(is_finite_number, momentums)):
            raise BindingError(f"the saved state gives the momentums {momentums}")
        return lrs

    def _apply(self, k: int) -> Factors:
        groups = self.optimizer.param_groups
        if len(groups) > len(self.base_lrs):
            raise BindingError(
                f"{type(self).__name__} cannot schedule a param group that is added later, as "
                "torch's cannot: build it after the last group was added, or use "
                "ScheduleLR(optimizer, lr=one_cycle(...)), which can"
            )
        lrs, momentums = self._lrs_and_momentums(k)
        for group, momentum in zip(groups, momentums):  # noqa: B905
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return lrs[0] if len(lrs) == 1 else lrs


class CyclicLR(_Cycled, lr_scheduler.CyclicLR):
    """Cycles from ``base_lr`` to ``max_lr``, written as lrs; momentum cycles inversely."""

    def _lrs_and_momentums(self, k: int) -> tuple[list[float], list[float]]:
        cycle, progress = divmod(k / self.total_size, 1)
        up = self.step_ratio
        height = progress / up if progress <= up else (progress - 1) / (up - 1)
        height *= self.scale_fn(cycle + 1 if self.scale_mode == "cycle" else k)
        pairs: Any = zip(self.base_lrs, self.max_lrs)  # noqa: B905  # strict= costs time
        lrs = [float(low + (high - low) * height) for low, high in pairs]
        if not self.cycle_momentum:
            return lrs, []
        pairs = zip(self.max_momentums, self.base_momentums)  # noqa: B905
        return lrs, [float(high + (low - high) * height) for high, low in pairs]


class OneCycleLR(_Cycled, lr_scheduler.OneCycleLR):
    """One cycle up to ``max_lr`` and down, written as lrs; momentum cycles inversely.

    After the last phase the lr stays at its end value. In torch's class it goes past it, with the
    linear strategy below 0.
    """

    def _lrs_and_momentums(self, k: int) -> tuple[list[float], list[float]]:
        if k > self.total_steps:
            raise ValueError(
                f"Tried to step {k} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        phases: Any = self._schedule_phases
        start = end = 0.0
        for phase in phases:
            start, end = end, phase["end_step"]
            if k <= end:
                break
        progress = (k - start) / (end - start) if start < end and k < end else 1.0
        remaining: float = self._anneal_func(1.0, 0.0, progress)  # type: ignore[no-untyped-call]
        first, last = phase["start_lr"], phase["end_lr"]
        lrs, momentums = [], []
        for group in self.optimizer.param_groups:
            low = group[last]
            lrs.append(float(low + (group[first] - low) * remaining))
            if self.cycle_momentum:
                low, high = group[phase["end_momentum"]], group[phase["start_momentum"]]
                momentums.append(low + (high - low) * remaining)
        return lrs, momentums


class WarmupMultiFactorScheduler(DropInScheduler, LRScheduler):
    """Linear warmup, then a factor of ``gamma`` at each milestone.

    A class of this name appears in tutorials but not in torch or torchvision. The lr rises
    linearly from base x ``warmup_factor`` to base over the first ``warmup_epochs``. At each of the
    ``milestones``, epochs from the start, it is multiplied by ``gamma``. As in torch,
    ``last_epoch`` -1 starts a new run.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    >>> s = WarmupMultiFactorScheduler(optimizer, [50, 75], 0.1, 0.001, 10)
    >>> [f"{0.01 * s.factors(k):g}" for k in (0, 5, 10, 50, 75)]
    ['1e-05', '0.005005', '0.01', '0.001', '0.0001']
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_factor: float = 1 / 3,
        warmup_epochs: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma, self.verbose = sorted(milestones), gamma, False
        self.warmup_factor, self.warmup_epochs = warmup_factor, warmup_epochs
        LRScheduler.__init__(self, optimizer, last_epoch)

    def _factors(self, k: int) -> Factors:
        factor: float = self.gamma ** bisect_right(self.milestones, k)
        if k >= self.warmup_epochs:
            return factor
        return factor * (self.warmup_factor + (1 - self.warmup_factor) * k / self.warmup_epochs)

"""Subclasses of every class in ``torch.optim.lr_scheduler``, and WarmupMultiFactorScheduler.

Each subclass has the name, signature, checks, warnings and state of torch's class. It differs in
how the lr is written: through the writer of `ScheduleLR`, as base x factor(k) x external factor.
factor(k) has a closed form, except in MultiplicativeLR and ReduceLROnPlateau; CyclicLR and
OneCycleLR give lrs instead of factors. So a chain is exactly the product of its parts, every part
has ``factors(k)``, and a state resumes without the optimizer's state.

As in torch, they count calls of ``step()``, and stop when their last reference is dropped.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, cast

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch._writer import Factors, product_of_factors

from ._base import DropInScheduler, refuse_format_1
from ._plateau import ReduceLROnPlateau

HALF_PI: Final = math.pi / 2


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


class LambdaLR(DropInScheduler, lr_scheduler.LambdaLR):
    """Base lr times a function of the step: one for all groups, or one for each."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        functions = self.lr_lambdas
        if functions.count(functions[0]) == len(functions):
            return functions[0](k)
        return [function(k) for function in functions]


class MultiplicativeLR(DropInScheduler, lr_scheduler.MultiplicativeLR):
    """Product of a function's values at steps 1 to k."""

    __slots__ = ("_latest",)  # cache: consecutive steps cost one call of the function each
    _latest: tuple[int, list[float]] | None

    def _factors(self, k: int) -> Factors:
        latest = getattr(self, "_latest", None)
        known = latest if latest and latest[0] <= k else getattr(self, "_product", None)
        product = self._up_to(k, known)
        self._latest = k, product
        return product[0] if len(product) == 1 else product

    def _apply(self, k: int) -> Factors:
        product = self._up_to(k, getattr(self, "_product", None))
        self._product = k, product
        return product[0] if len(product) == 1 else product

    def _up_to(self, k: int, known: tuple[int, list[float]] | None) -> list[float]:
        """Return the products up to step k, extending the known ones."""
        functions = self.lr_lambdas
        if functions.count(functions[0]) == len(functions):
            functions = functions[:1]
        before, product = known or (0, [1.0] * len(functions))
        if k < before or len(product) != len(functions):
            before, product = 0, [1.0] * len(functions)
        for i in range(before + 1, k + 1):
            product = [p * function(i) for p, function in zip(product, functions, strict=True)]
        return product

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, including that of functions that are objects."""
        self._latest = None
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
        factor: float = (1.0 - min(self.total_iters, k) / self.total_iters) ** self.power
        return factor


class CosineAnnealingLR(DropInScheduler, lr_scheduler.CosineAnnealingLR):
    """eta_min + (base - eta_min) (1 + cos(pi k / T_max)) / 2; rises again after ``T_max``."""

    def _factors(self, k: int) -> Factors:
        # (1 + cos(2 x)) / 2 = cos(x)^2; the square is accurate near 0, where 1 + cos cancels.
        return self._above_eta_min(self.eta_min, math.cos(HALF_PI * (k / self.T_max)) ** 2)


class CosineAnnealingWarmRestarts(DropInScheduler, lr_scheduler.CosineAnnealingWarmRestarts):
    """Cosine annealing that restarts after ``T_0`` steps; each cycle is ``T_mult`` x longer."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        at, length = (self.T_cur, self.T_i) if k == self.last_epoch else self._cycle_position(k)
        return self._above_eta_min(self.eta_min, math.cos(HALF_PI * (at / length)) ** 2)

    def _cycle_position(self, epoch: float) -> tuple[float, float]:
        """Return an epoch's position in its cycle, and the length of that cycle."""
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
        at: float
        length: float
        if epoch is None and self.last_epoch >= 0:
            at, length = self.T_cur + 1, self.T_i
            if at >= length:
                at, length = at % length, length * self.T_mult
            epoch = self.last_epoch + 1
        else:
            epoch = epoch or 0
            at, length = self._cycle_position(epoch)
        self.T_cur, self.T_i = cast(Any, (at, length))
        self.last_epoch = math.floor(epoch)
        self._write_current()


class _Cycled(DropInScheduler):
    """Base class of the schedulers that write lrs and cycle the momentum inversely."""

    _sets_lr = True

    def _factors(self, k: int) -> Factors:
        return self._lrs_at(k, sets_momentum=False)

    def _apply(self, k: int) -> Factors:
        return self._lrs_at(k, sets_momentum=True)

    def _lrs_at(self, k: int, *, sets_momentum: bool) -> Factors:
        """Return the lrs at step k; with ``sets_momentum`` also set the momentum."""
        raise NotImplementedError


class CyclicLR(_Cycled, lr_scheduler.CyclicLR):
    """Cycles from ``base_lr`` to ``max_lr``, written as lrs; momentum cycles inversely."""

    def _lrs_at(self, k: int, *, sets_momentum: bool) -> Factors:
        cycle, progress = divmod(k / self.total_size, 1)
        up = self.step_ratio
        height = progress / up if progress <= up else (progress - 1) / (up - 1)
        height *= self.scale_fn(cycle + 1 if self.scale_mode == "cycle" else k)
        if sets_momentum and self.cycle_momentum:
            ends = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, ends, strict=True):
                momentum = high - (high - low) * height
                if self.use_beta1:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        ends = zip(self.base_lrs, self.max_lrs, strict=True)
        return [float(low + (high - low) * height) for low, high in ends]


class OneCycleLR(_Cycled, lr_scheduler.OneCycleLR):
    """One cycle up to ``max_lr`` and down, written as lrs; momentum cycles inversely.

    After the last phase the lr stays at its end value. In torch's class it goes past it, with the
    linear strategy below 0.
    """

    def _lrs_at(self, k: int, *, sets_momentum: bool) -> Factors:
        if k > self.total_steps:
            raise ValueError(
                f"Tried to step {k} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        start = 0.0
        phases: Any = self._schedule_phases
        for phase in phases[:-1]:
            if k <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = phases[-1]
        length = phase["end_step"] - start
        progress = min((k - start) / length, 1.0) if length > 0 else 1.0
        anneal: Any = self._anneal_func
        remaining = anneal(1.0, 0.0, progress)
        first, last = phase["start_lr"], phase["end_lr"]
        groups, lrs = self.optimizer.param_groups, []
        for group in groups:
            end = group[last]
            lrs.append(float(end + (group[first] - end) * remaining))
        if sets_momentum and self.cycle_momentum:
            first, last = phase["start_momentum"], phase["end_momentum"]
            for group in groups:
                momentum = group[last] + (group[first] - group[last]) * remaining
                if self.use_beta1:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return lrs


def _attach_if_detached(scheduler: Any) -> None:
    if isinstance(scheduler, DropInScheduler):
        if not scheduler._is_attached():
            scheduler._write_current()
    elif isinstance(scheduler, SequentialLR | ChainedScheduler):
        scheduler._attach_active()


def _detach(scheduler: Any) -> None:
    """Detach a scheduler, or all parts of a composite; torch's classes have no writer."""
    if isinstance(scheduler, DropInScheduler):
        scheduler._detach()
    elif isinstance(scheduler, SequentialLR | ChainedScheduler):
        for part in scheduler._schedulers:
            _detach(part)


class SequentialLR(lr_scheduler.SequentialLR):
    """One scheduler after the other, each from its step 0; parts may be composites."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        for scheduler in schedulers:  # each has written its lr when it was built
            _detach(scheduler)
        super().__init__(optimizer, schedulers, milestones, last_epoch)

    def factors(self, k: int | None = None) -> Factors:
        """Return the factor at step k (default: now) of the scheduler that is active then."""
        k = self.last_epoch if k is None else k
        i = bisect_right(self._milestones, k)
        first_step = self._milestones[i - 1] if i else 0
        return cast(Factors, as_drop_in(self._schedulers[i]).factors(k - first_step))

    def step(self) -> None:  # type: ignore[override]  # torch's has no epoch here, either
        """Advance by one step; at a milestone the next scheduler starts."""
        self.last_epoch = k = self.last_epoch + 1
        i = bisect_right(self._milestones, k)
        part = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == k:
            for earlier in self._schedulers[:i]:
                _detach(earlier)
            part._update_lr(0)
        else:
            part.step()
        self._last_lr = part.get_last_lr()

    def _initial_step(self) -> None:
        self._update_lr(0)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Restart: this sequence is part of another one and becomes active."""
        for part in self._schedulers:
            _detach(part)
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._update_lr(0)
        self._last_lr = first.get_last_lr()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's, and write the active scheduler's lrs."""
        refuse_format_1(state_dict, type(self).__name__)
        super().load_state_dict(dict(state_dict))
        self._attach_active()

    def _attach_active(self) -> None:
        active = bisect_right(self._milestones, self.last_epoch)
        for i, part in enumerate(self._schedulers):
            if i != active:
                _detach(part)
        _attach_if_detached(self._schedulers[active])


class ChainedScheduler(lr_scheduler.ChainedScheduler):
    """Several schedulers at once: the product of their factors; parts may be composites."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        super().__init__(schedulers, optimizer)
        self._attach_active()
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def factors(self, k: int | None = None) -> Factors:
        """Return the product of the parts' factors at step k (default: now)."""
        return product_of_factors([as_drop_in(part).factors(k) for part in self._schedulers])

    def _initial_step(self) -> None:
        self._update_lr(0)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Restart: this chain is part of a sequence and becomes active."""
        for part in self._schedulers:
            part._update_lr(0)
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's."""
        refuse_format_1(state_dict, type(self).__name__)
        super().load_state_dict(state_dict)

    def _attach_active(self) -> None:
        for part in self._schedulers:
            _attach_if_detached(part)


def as_drop_in(scheduler: Any) -> Any:
    """Return an object with the scheduler's ``factors(k)``: itself, or a drop-in copy of torch's.

    For schedulers that write lrs (CyclicLR, OneCycleLR, ``lr=``) the factors are lrs.

    Raises:
        TypeError: a class that is neither ratecraft's nor torch's, or torch's ReduceLROnPlateau.
    """
    if hasattr(scheduler, "factors"):
        return scheduler
    drop_in = globals().get(type(scheduler).__name__)
    known = isinstance(drop_in, type) and type(scheduler) in drop_in.__mro__
    if not known or drop_in is ReduceLROnPlateau:
        raise TypeError(
            f"the factor of this {type(scheduler).__name__} is unknown: expected a scheduler of "
            "ratecraft, or one of torch's classes that do not follow a metric"
        )
    copied: Any = object.__new__(cast(type, drop_in))  # not attached, so it never writes
    copied.__dict__.update(scheduler.__dict__)
    return copied


class WarmupMultiFactorScheduler(DropInScheduler, LRScheduler):
    """Linear warmup, then a factor of ``gamma`` at each milestone.

    A class of this name appears in tutorials but not in torch or torchvision. The lr rises
    linearly from base x ``warmup_factor`` to base over the first ``warmup_epochs``; milestones
    count from the start.

    Args:
        optimizer: the optimizer.
        milestones: the epochs at which the lr is multiplied by ``gamma``.
        gamma: factor at each milestone.
        warmup_factor: the first lr as a fraction of the base lr.
        warmup_epochs: length of the warmup in epochs.
        last_epoch: index of the last epoch; -1 starts a new run.

    >>> import torch
    >>> from ratecraft.torch.drop_in import WarmupMultiFactorScheduler
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
        self.milestones, self.gamma = sorted(milestones), gamma
        self.warmup_factor, self.warmup_epochs = warmup_factor, warmup_epochs
        self.verbose = False
        LRScheduler.__init__(self, optimizer, last_epoch)

    def _factors(self, k: int) -> Factors:
        factor: float = self.gamma ** bisect_right(self.milestones, k)
        if k >= self.warmup_epochs:
            return factor
        return factor * (self.warmup_factor + (1 - self.warmup_factor) * k / self.warmup_epochs)

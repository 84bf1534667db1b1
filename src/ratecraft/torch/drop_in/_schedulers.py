"""Every class of ``torch.optim.lr_scheduler`` by its own name: change one import, lose nothing.

Each class is torch's own, with its signature, checks, warnings and state, and stands for it in
``isinstance``. What differs is how the lr is written: through the writer of `ScheduleLR`, as
base x factor(k) x what others did, in closed form. So a chain is the product of its parts,
exactly, whatever kinds they are; a part can be asked for its own factor; and a state resumes
without the optimizer's.

Like torch's they count calls of ``step()``, and end with whoever holds on to them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, cast

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch._writer import Factors, multiplied

from ._base import DropInScheduler
from ._plateau import ReduceLROnPlateau

HALF_PI: Final = math.pi / 2


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


class LambdaLR(DropInScheduler, lr_scheduler.LambdaLR):
    """Base lr times a function of the step, one for all groups or one for each."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        functions = self.lr_lambdas
        if functions.count(functions[0]) == len(functions):
            return functions[0](k)
        return [function(k) for function in functions]


class MultiplicativeLR(DropInScheduler, lr_scheduler.MultiplicativeLR):
    """Running products of a function of the step."""

    __slots__ = ("_latest",)  # asked for one step after the other, each costs one call
    _latest: tuple[int, list[float]] | None

    def _factors(self, k: int) -> Factors:
        latest = getattr(self, "_latest", None)
        known = latest if latest and latest[0] <= k else getattr(self, "_product", None)
        product = self._up_to(k, known)
        self._latest = k, product
        return product[0] if len(product) == 1 else product

    def _said(self, k: int) -> Factors:
        product = self._up_to(k, getattr(self, "_product", None))
        self._product = k, product
        return product[0] if len(product) == 1 else product

    def _up_to(self, k: int, known: tuple[int, list[float]] | None) -> list[float]:
        """Return the products up to k, from those that are known on."""
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
        """Load a state, also that of functions which are objects."""
        self._latest = None
        super().load_state_dict(state_dict)


class StepLR(DropInScheduler, lr_scheduler.StepLR):
    """gamma^(k // step_size)."""

    def _factors(self, k: int) -> Factors:
        return self.gamma ** (k // self.step_size)


class MultiStepLR(DropInScheduler, lr_scheduler.MultiStepLR):
    """Gamma to the number of milestones reached."""

    def _factors(self, k: int) -> Factors:
        return self.gamma ** sum(n for at, n in self.milestones.items() if at <= k)


class ConstantLR(DropInScheduler, lr_scheduler.ConstantLR):
    """``factor``, and 1 from ``total_iters`` on."""

    def _factors(self, k: int) -> Factors:
        return self.factor if k < self.total_iters else 1.0


class LinearLR(DropInScheduler, lr_scheduler.LinearLR):
    """A line from ``start_factor`` to ``end_factor``."""

    def _factors(self, k: int) -> Factors:
        if k >= self.total_iters:
            return self.end_factor
        return self.start_factor + (self.end_factor - self.start_factor) * k / self.total_iters


class ExponentialLR(DropInScheduler, lr_scheduler.ExponentialLR):
    """gamma^k."""

    def _factors(self, k: int) -> Factors:
        return self.gamma**k


class PolynomialLR(DropInScheduler, lr_scheduler.PolynomialLR):
    """(1 - k / total_iters)^power."""

    def _factors(self, k: int) -> Factors:
        if self.total_iters <= 0:
            return 1.0
        share: float = (1.0 - min(self.total_iters, k) / self.total_iters) ** self.power
        return share


class CosineAnnealingLR(DropInScheduler, lr_scheduler.CosineAnnealingLR):
    """eta_min + (base - eta_min) (1 + cos(pi k / T_max)) / 2; rises again after ``T_max``."""

    def _factors(self, k: int) -> Factors:
        # A squared cosine keeps its digits near 0, where 1 + cos loses them.
        return self._above(self.eta_min, math.cos(HALF_PI * (k / self.T_max)) ** 2)


class CosineAnnealingWarmRestarts(DropInScheduler, lr_scheduler.CosineAnnealingWarmRestarts):
    """Cosine annealing that starts again after ``T_0``, then after cycles ``T_mult`` longer."""

    _overwrites = True

    def _factors(self, k: int) -> Factors:
        at, length = (self.T_cur, self.T_i) if k == self.last_epoch else self._place(k)
        return self._above(self.eta_min, math.cos(HALF_PI * (at / length)) ** 2)

    def _place(self, epoch: float) -> tuple[float, float]:
        """Return how far into which length of cycle an epoch is."""
        at, length = epoch, self.T_0
        if self.T_mult == 1:
            return at % length, length
        while at >= length:
            at, length = at - length, length * self.T_mult
        return at, length

    def step(self, epoch: float | None = None) -> None:
        """Go on by one epoch, or to an epoch that may have a fraction."""
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
            at, length = self._place(epoch)
        self.T_cur, self.T_i = cast(Any, (at, length))
        self.last_epoch = math.floor(epoch)
        self._resume()


class _Cycled(DropInScheduler):
    """Writes lrs, and the momentum the other way round (each in a loop of its own: hot)."""

    _absolute = True

    def _factors(self, k: int) -> Factors:
        return self._at(k, drives=False)

    def _said(self, k: int) -> Factors:
        return self._at(k, drives=True)

    def _at(self, k: int, *, drives: bool) -> Factors:
        """Return the lrs at k, and set the momentum there if this ``drives``."""
        raise NotImplementedError


class CyclicLR(_Cycled, lr_scheduler.CyclicLR):
    """Cycles from ``base_lr`` to ``max_lr``, written as lrs; momentum the other way round."""

    def _at(self, k: int, *, drives: bool) -> Factors:
        cycle, into = divmod(k / self.total_size, 1)
        up = self.step_ratio
        height = into / up if into <= up else (into - 1) / (up - 1)
        height *= self.scale_fn(cycle + 1 if self.scale_mode == "cycle" else k)
        if drives and self.cycle_momentum:
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
    """One cycle up to ``max_lr`` and down, written as lrs; momentum the other way round.

    Past its last phase it stays where that ends, which torch's own shoots past, with the linear
    strategy to below 0.
    """

    def _at(self, k: int, *, drives: bool) -> Factors:
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
        share = min((k - start) / length, 1.0) if length > 0 else 1.0
        anneal: Any = self._anneal_func
        left = anneal(1.0, 0.0, share)
        first, last = phase["start_lr"], phase["end_lr"]
        groups, lrs = self.optimizer.param_groups, []
        for group in groups:
            end = group[last]
            lrs.append(float(end + (group[first] - end) * left))
        if drives and self.cycle_momentum:
            first, last = phase["start_momentum"], phase["end_momentum"]
            for group in groups:
                momentum = group[last] + (group[first] - group[last]) * left
                if self.use_beta1:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return lrs


def _resume(scheduler: Any) -> None:
    heard = isinstance(scheduler, DropInScheduler) and scheduler._is_heard()
    if hasattr(scheduler, "_resume") and not heard:
        scheduler._resume()


def _silence(scheduler: Any) -> None:
    """Silence a scheduler, or all parts of a composite; torch's own write for themselves."""
    if isinstance(scheduler, DropInScheduler):
        scheduler._silence()
    elif isinstance(scheduler, SequentialLR | ChainedScheduler):
        for part in scheduler._schedulers:
            _silence(part)


class SequentialLR(lr_scheduler.SequentialLR):
    """One scheduler after the other, each from its own beginning; parts may be composites."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        for scheduler in schedulers:  # each spoke when it was built
            _silence(scheduler)
        super().__init__(optimizer, schedulers, milestones, last_epoch)

    def factors(self, k: int | None = None) -> Factors:
        """Return the factor at step k (default: now) of the scheduler whose turn that is."""
        k = self.last_epoch if k is None else k
        i = bisect_right(self._milestones, k)
        began = self._milestones[i - 1] if i else 0
        return cast(Factors, asked(self._schedulers[i]).factors(k - began))

    def step(self) -> None:  # type: ignore[override]  # torch's own has no epoch here, either
        """Go on by one step; at a milestone the next scheduler begins."""
        self.last_epoch = k = self.last_epoch + 1
        i = bisect_right(self._milestones, k)
        part = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == k:
            for other in self._schedulers[:i]:
                _silence(other)
            part._update_lr(0)
        else:
            part.step()
        self._last_lr = part.get_last_lr()

    def _initial_step(self) -> None:
        self._update_lr(0)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Begin anew, as a part of another sequence whose turn it is."""
        for part in self._schedulers:
            _silence(part)
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._update_lr(0)
        self._last_lr = first.get_last_lr()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, torch's own too, and let the scheduler speak whose turn it is."""
        super().load_state_dict(dict(state_dict))
        self._resume()

    def _resume(self) -> None:
        active = bisect_right(self._milestones, self.last_epoch)
        for i, part in enumerate(self._schedulers):
            if i != active:
                _silence(part)
        _resume(self._schedulers[active])


class ChainedScheduler(lr_scheduler.ChainedScheduler):
    """Several schedulers at once: the product of what they say; parts may be composites."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        super().__init__(schedulers, optimizer)
        self._resume()
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def factors(self, k: int | None = None) -> Factors:
        """Return the product of the parts' factors at step k (default: now)."""
        return multiplied([asked(part).factors(k) for part in self._schedulers])

    def _initial_step(self) -> None:
        self._update_lr(0)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Begin anew, as a part of a sequence whose turn it is."""
        for part in self._schedulers:
            part._update_lr(0)
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def _resume(self) -> None:
        for part in self._schedulers:
            _resume(part)


def asked(scheduler: Any) -> Any:
    """Return what says a scheduler's ``factors(k)``: it, or for torch's own a drop-in twin.

    Of schedulers that write lrs (CyclicLR, OneCycleLR, ``lr=``) these are lrs.

    Raises:
        TypeError: a scheduler that is neither ours nor one of torch's classes, or follows a
            metric and is torch's.
    """
    if hasattr(scheduler, "factors"):
        return scheduler
    ours = globals().get(type(scheduler).__name__)
    known = isinstance(ours, type) and type(scheduler) in ours.__mro__
    if not known or ours is ReduceLROnPlateau:
        raise TypeError(
            f"this {type(scheduler).__name__} cannot be asked for its factor: it is neither "
            "ratecraft's nor one of torch's classes that follow no metric"
        )
    twin: Any = object.__new__(cast(type, ours))  # which knows the closed form, and drives nothing
    twin.__dict__.update(scheduler.__dict__)
    return twin


class WarmupMultiFactorScheduler(DropInScheduler, LRScheduler):
    """Warm-up and milestones, as tutorials import it from torchvision, where it does not exist.

    A line from base x ``warmup_factor`` up to base over the first ``warmup_epochs``, and then a
    factor of ``gamma`` at each milestone, counted from the start.

    Args:
        optimizer: the optimizer.
        milestones: the epochs at which the lr is multiplied by ``gamma``.
        gamma: factor at each milestone.
        warmup_factor: share of the base lr to begin with.
        warmup_epochs: length of the warm-up.
        last_epoch: index of the last epoch; -1 begins.

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
        self.milestones, self.gamma = sorted(milestones), gamma
        self.warmup_factor, self.warmup_epochs = warmup_factor, warmup_epochs
        self.verbose = False
        LRScheduler.__init__(self, optimizer, last_epoch)

    def _factors(self, k: int) -> Factors:
        fallen: float = self.gamma ** bisect_right(self.milestones, k)
        if k >= self.warmup_epochs:
            return fallen
        return fallen * (self.warmup_factor + (1 - self.warmup_factor) * k / self.warmup_epochs)

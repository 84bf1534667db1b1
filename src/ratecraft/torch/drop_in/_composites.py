"""Drop-in schedulers that are made of others: SequentialLR and ChainedScheduler."""

from __future__ import annotations  # signatures equal torch's, whose annotations are strings

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.errors import BindingError
from ratecraft.torch._checkpoint import is_finite_number
from ratecraft.torch._factors import Factors, product_of_factors
from ratecraft.torch._hyperparam import copied
from ratecraft.torch._versions import keep_lr_tensors, restart

from . import _schedulers
from ._base import is_verbose, refuse_format_1


class _Composite(LRScheduler):
    """Base class of the schedulers that are made of others."""

    _schedulers: Any

    def _own_parts(self) -> list[Any]:
        """Return the parts that write through a `HyperparamWriter`, as torch's do not."""
        return [part for part in self._schedulers if hasattr(part, "_reattach")]

    def _initial_step(self) -> None:
        self._update_lr(0)

    def _detach(self) -> None:
        for part in self._own_parts():
            part._detach()

    def _reattach(self) -> None:
        for part in self._own_parts():
            part._reattach()

    def _set_verbose(self) -> None:
        for part in self._own_parts():
            part._set_verbose()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's; an invalid one is refused.

        Raises:
            BindingError: a damaged state, another format, or another number of parts. Nothing is
                changed.
        """
        name = type(self).__name__
        refuse_format_1(state_dict, name)
        undo = self._prepare_undo()
        try:
            state = copy.deepcopy(dict(state_dict))
            check_composite_state(state, len(self._schedulers))
            super().load_state_dict(state)
            self._loaded()
        except Exception as error:
            undo()
            if isinstance(error, BindingError):
                raise
            raise BindingError(
                f"cannot load the state of this {name}: {type(error).__name__}: {error}"
            ) from None

    def _loaded(self) -> None:
        """Do what is left after the states of the parts were loaded."""

    def _all_parts(self) -> Iterator[Any]:
        for part in self._schedulers:
            yield part
            if isinstance(part, _Composite):
                yield from part._all_parts()

    def _prepare_undo(self) -> Callable[[], None]:
        """Return a function that brings back the present state of all parts and param groups."""
        attributes = [(part, dict(vars(part))) for part in (self, *self._all_parts())]
        sources = [part._source for part in self._all_parts() if hasattr(part, "_source")]
        factors = [(source, source.factors) for source in sources]
        writers = {id(p._writer): p._writer for p in self._all_parts() if hasattr(p, "_writer")}
        values = [(writer, writer.state()) for writer in writers.values()]
        groups = [(group, dict(group)) for group in self.optimizer.param_groups]

        def undo() -> None:
            for part, before in attributes:
                vars(part).clear()
                vars(part).update(before)
            for source, factor in factors:
                source.factors = factor
            for writer, state in values:
                writer.restore(state)
            for group, before in groups:
                group.clear()
                group.update(before)

        return undo


def check_composite_state(state: Mapping[str, Any], count: int) -> None:
    """Raise a BindingError unless a state of several schedulers is complete and finite."""
    parts, milestones = state.get("_schedulers"), state.get("_milestones", [])
    if not isinstance(parts, list) or len(parts) != count:
        raise BindingError(f"the saved state has no list of the states of {count} schedulers")
    if not all(isinstance(part, dict) for part in parts):
        raise BindingError("the saved state of a scheduler is no dict")
    is_list = isinstance(milestones, list) and len(milestones) in (0, count - 1)
    if not is_list or any(type(step) is not int for step in milestones):
        raise BindingError(f"the saved milestones are {milestones!r}")
    values = [state.get("last_epoch", 0), *state.get("_last_lr", [])]
    numbers = [value.item() if isinstance(value, torch.Tensor) else value for value in values]
    if not all(map(is_finite_number, numbers)):
        raise BindingError(f"the saved last_epoch and lrs are {numbers}")


class SequentialLR(_Composite, lr_scheduler.SequentialLR):
    """One scheduler after the other, each from its step 0; parts may be composites."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
        verbose: bool | str = "deprecated",
    ) -> None:
        self._schedulers = schedulers
        self._detach()  # each has written its lr when it was built
        if is_verbose(verbose):
            self._set_verbose()
        with keep_lr_tensors(optimizer):
            super().__init__(optimizer, schedulers, milestones, last_epoch)

    def factors(self, k: int | None = None) -> Factors:
        """Return the factor at step k (default: now) of the scheduler that is active then."""
        k = self.last_epoch if k is None else k
        i = bisect_right(self._milestones, k)
        first_step = self._milestones[i - 1] if i else 0
        return cast(Factors, as_drop_in(self._schedulers[i]).factors(k - first_step))

    def step(self) -> None:  # type: ignore[override]  # torch's has no epoch here, either
        """Advance by one step; at a milestone the next scheduler starts."""
        self.last_epoch += 1
        active = self._schedulers[bisect_right(self._milestones, self.last_epoch)]
        if self.last_epoch in self._milestones:
            self._detach()
            restart(active)
        else:
            active.step()
        self._last_lr = active.get_last_lr()

    def _update_lr(self, epoch: int | None = None) -> None:
        """Restart: this sequence is part of another one and becomes active."""
        self._detach()
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        restart(first)
        self._last_lr = first.get_last_lr()

    def _loaded(self) -> None:
        self._reattach()

    def _reattach(self) -> None:
        active = self._schedulers[bisect_right(self._milestones, self.last_epoch)]
        parts = self._own_parts()
        for part in parts:
            if part is not active:
                part._detach()
        if active in parts:
            active._reattach()


class ChainedScheduler(_Composite, lr_scheduler.ChainedScheduler):
    """Several schedulers at once: the product of their factors; parts may be composites."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        super().__init__(schedulers, optimizer)
        self._reattach()
        self._record_lrs()

    def step(self) -> None:  # type: ignore[override]  # torch's has no epoch here, either
        """Advance every part by one step."""
        for part in self._schedulers:
            part.step()
        self._last_lr = self._schedulers[-1].get_last_lr()

    def _record_lrs(self) -> None:
        self._last_lr = copied(group["lr"] for group in self.optimizer.param_groups)

    def factors(self, k: int | None = None) -> Factors:
        """Return the product of the parts' factors at step k (default: now)."""
        return product_of_factors([as_drop_in(part).factors(k) for part in self._schedulers])

    def _update_lr(self, epoch: int | None = None) -> None:
        """Restart: this chain is part of a sequence and becomes active."""
        for part in self._schedulers:
            restart(part)
        self._record_lrs()


def as_drop_in(scheduler: Any) -> Any:
    """Return an object with a scheduler's ``factors(k)``: itself, or a drop-in copy of torch's."""
    if hasattr(scheduler, "factors"):
        return scheduler
    drop_in = DROP_INS.get(type(scheduler).__name__)
    if drop_in is None or type(scheduler) not in drop_in.__mro__:
        raise TypeError(
            f"the factor of this {type(scheduler).__name__} is unknown: expected a scheduler of "
            "ratecraft, or one of torch's classes that do not follow a metric"
        )
    copied: Any = object.__new__(drop_in)  # not attached, so it never writes
    copied.__dict__.update(scheduler.__dict__)
    return copied


DROP_INS: Final[dict[str, type]] = {
    name: cls
    for name, cls in {**vars(_schedulers), **globals()}.items()
    if isinstance(cls, type) and issubclass(cls, LRScheduler) and hasattr(cls, "factors")
}
"""Each class whose factors depend on nothing but the step, by torch's name."""

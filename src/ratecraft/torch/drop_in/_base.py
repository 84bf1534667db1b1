"""DropInScheduler: makes a torch scheduler class write through the HyperparamWriter."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, cast

from torch.optim.lr_scheduler import LRScheduler

from ratecraft.errors import BindingError
from ratecraft.torch import _versions
from ratecraft.torch._checkpoint import check_format, check_values, is_finite_number
from ratecraft.torch._factors import Factors, FactorSource
from ratecraft.torch._hyperparam import innermost_optimizer
from ratecraft.torch._writer import HyperparamWriter
from ratecraft.torch._writers import add_source, writer_of

log = logging.getLogger("ratecraft.torch")

GET_LR_WARNING: Final = (
    "To get the last learning rate computed by the scheduler, please use `get_last_lr()`."
)
VERBOSE: Final = inspect.Parameter(
    "verbose", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False
)


def is_verbose(verbose: bool | str) -> bool:
    return bool(verbose) and verbose != "deprecated"  # the default of torch 2.6


def refuse_format_1(state: Mapping[str, Any], name: str) -> None:
    """Refuse a state of format 1, which has old keys, in any part of a composite."""
    if "carried" in state or "decisions" in state:
        check_format(1, name, f"start from the model weights with a new {name}")
    parts = state.get("_schedulers")
    for part in parts if isinstance(parts, list | tuple) else ():
        if isinstance(part, Mapping):
            refuse_format_1(part, name)


class _DropInSource(FactorSource):
    """The factor source of a drop-in scheduler, which it does not refer to or keep alive."""

    def __init__(self, scheduler_class: type[DropInScheduler]) -> None:
        super().__init__(sets_lr=scheduler_class.sets_lr)
        self.scheduler_class, self.eta_min = scheduler_class, 0.0

    def base_of_new_group(self, value: float, first_base: float) -> float:
        # torch's classes go on from the lr that a new group has, whatever their factor is.
        factor = self.factors[0] if isinstance(self.factors, list) else self.factors
        low = self.eta_min / first_base if first_base else 0.0
        if low == 1 or (isinstance(self.factors, list) and not low):
            return value  # a list is of factors by group, and a new group has the factor 1
        factor = (factor - low) / (1 - low)
        return self.eta_min + (value - self.eta_min) / factor if factor else value

    def describe(self, group: str) -> str:
        return self.scheduler_class.__name__


def one_or_all(values: list[float]) -> Factors:
    """Return the value of the only group, which is written faster, or those of all groups."""
    return values[0] if len(values) == 1 else values


class DropInScheduler(LRScheduler):
    """Base class that makes a torch scheduler write through a `HyperparamWriter`.

    It is listed before torch's class. Writer and source are in ``__slots__``, not in ``__dict__``,
    which torch saves as the state.

    Attributes:
        sets_lr: whether it gives learning rates, not factors; base counts as 1.
    """

    __slots__ = ("_source", "_writer")
    sets_lr: ClassVar[bool] = False
    _overwrites: ClassVar[bool] = False  # torch's class writes base x factor over the current lr
    _saves_base: ClassVar[bool] = False  # torch's state has no base_lrs
    _init_signature: ClassVar[inspect.Signature]  # torch's, with the verbose= that it had until 2.6

    verbose: bool = False
    _copied_state: dict[str, list[float]]
    _writer: HyperparamWriter
    _source: _DropInSource

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        torch_class = cls.__mro__[cls.__mro__.index(DropInScheduler) + 1]
        signature = inspect.signature(torch_class)
        if "verbose" not in signature.parameters:
            parameters = [*signature.parameters.values(), VERBOSE]
            signature = signature.replace(parameters=parameters)
        cls._init_signature = signature
        public = cls._init_signature
        if "__init__" in vars(cls):
            public = inspect.signature(partial(cls.__init__, None))  # type: ignore[arg-type]
        cls.__signature__ = public  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            bound = self._init_signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}(): {error}") from None
        verbose = bound.arguments.pop("verbose", False)
        super().__init__(*bound.args, **bound.kwargs)
        self.verbose = is_verbose(verbose)  # afterwards, since torch 2.6 sets it to False
        if self.verbose:
            self._log_lrs()

    def factors(self, k: int | None = None) -> Factors:
        """Return the factor at step k (default: now), for all param groups or as a list of theirs.

        CyclicLR and OneCycleLR, which write lrs, return lrs.
        """
        return self._factors(self.last_epoch if k is None else k)

    def _factors(self, k: int) -> Factors:
        raise NotImplementedError

    def _apply(self, k: int) -> Factors:
        """Return the factors at step k; CyclicLR and OneCycleLR also set the momentum."""
        return self._factors(k)

    def _loaded_factors(self) -> Factors:
        """Return the factors of a loaded state, or raise; nothing is written yet."""
        return self._factors(self.last_epoch)

    def _set_verbose(self) -> None:
        self.verbose = True

    def _is_attached(self) -> bool:
        return hasattr(self, "_writer") and self._source in self._writer.sources

    def _attach(self, factors: Factors) -> None:
        # The optimizer may be wrapped, as by Accelerate; the inner one has the writers.
        writer = writer_of(innermost_optimizer(self.optimizer), "lr")
        fresh = self.last_epoch <= 0 and not self.sets_lr
        base, external_factor = writer.initial_values(fresh=fresh)
        # Access to __dict__ slows the object down permanently; hasattr and del do not.
        if hasattr(self, "_copied_state"):  # this is a copy: its optimizer has another writer
            if not writer.base:
                values = self._copied_state
                base, external_factor = values["base"], values["external_factor"]
            del self._copied_state
        if not hasattr(self, "_source"):
            self._source = _DropInSource(type(self))
            self._detach_replaced(writer)
        self._source.uniform = not isinstance(factors, list)
        self._source.eta_min = float(getattr(self, "eta_min", 0.0))
        add_source(writer, self._source, base, external_factor)
        self._writer = writer

    def _detach_replaced(self, writer: HyperparamWriter) -> None:
        """Detach the schedulers that this one replaces, until they step again."""
        # In torch a scheduler that writes lrs overwrites those of an earlier one, and a resumed
        # scheduler replaces the earlier one of its class.
        replaces_class = self._overwrites or self.last_epoch > 0
        for other in list(writer.sources):
            same_class = isinstance(other, _DropInSource) and other.scheduler_class is type(self)
            if (other.sets_lr and self.sets_lr) or (same_class and replaces_class):
                writer.remove(other)

    def _detach(self) -> None:
        """Remove the factor until the next step; another part of a sequence is active."""
        if self._is_attached():
            self._writer.remove(self._source)
            self._writer.write()

    def _reattach(self) -> None:
        """Write the factors of the current step, if the scheduler is detached or a copy."""
        if not self._is_attached():
            self._write_current()

    def _write_current(self) -> None:
        factors = self._apply(self.last_epoch)
        if not self._is_attached():
            self._attach(factors)
        source, writer = self._source, self._writer
        if isinstance(factors, list) is source.uniform:  # a group was added
            source.uniform = not source.uniform
            writer.compare_groups()
        writer.set_factor(source, factors, self.optimizer.param_groups)
        self._last_lr = writer.copy_written()
        if self.verbose:
            self._log_lrs()

    def _log_lrs(self) -> None:
        log.info("%s: step %d: lr %s", type(self).__name__, self.last_epoch, self._last_lr)

    if not _versions.HAS_UPDATE_LR:
        step = _versions.step

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._write_current()

    def get_lr(self) -> list[Any]:
        """Return the lrs of this step; as in torch, to be called within ``step`` only."""
        if not self._get_lr_called_within_step:
            warnings.warn(GET_LR_WARNING, UserWarning, stacklevel=2)
        factors = self._apply(self.last_epoch)
        if not self._is_attached():
            self._attach(factors)
        values = self._writer.values(self._source, factors)
        self._writer.expected_write = self._source, factors, list(values)
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs to attach to its own optimizer when it steps."""
        state = dict(self.__dict__)
        if hasattr(self, "_writer"):  # even if it is detached now
            state["_copied_state"] = self._writer.state()
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, and the external factor of each group."""
        state: dict[str, Any] = dict(super().state_dict())
        values = state.pop("_copied_state", None)
        if hasattr(self, "_writer"):  # even if it is detached now, as a part of a sequence
            values = self._writer.state()
        # Always there: torch.distributed.checkpoint loads only entries that this state has.
        state["external_factor"] = [1.0] * len(self.optimizer.param_groups)
        if values is not None:
            state["external_factor"] = values["external_factor"]
            if self._saves_base or len(values["base"]) > len(self.base_lrs):
                state["base"] = values["base"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's, and write its lrs; an invalid one is refused.

        Raises:
            BindingError: a damaged state, another format or another number of param groups. Nothing
                is changed.
        """
        refuse_format_1(state_dict, type(self).__name__)
        before = copy.copy(self.__dict__)
        try:
            self._load(copy.deepcopy(dict(state_dict)))
        except Exception as error:
            self.__dict__.clear()
            self.__dict__.update(before)
            if isinstance(error, BindingError):
                raise
            name = type(self).__name__
            raise BindingError(
                f"cannot load the state of this {name}: {type(error).__name__}: {error}"
            ) from None

    def _load(self, state: dict[str, Any]) -> None:
        external_factor, base = state.pop("external_factor", None), state.pop("base", None)
        is_attached = self._is_attached()
        if is_attached:
            self._writer.sync()
            base = list(map(float, base or state.get("base_lrs", self._writer.base)))
            saved = {
                "base": base,
                "external_factor": external_factor or [1.0] * len(base),
                "value": list(map(float, state.get("_last_lr", self._last_lr))),
            }
            check_values(saved, "lr", len(self._writer.base))
        if not is_finite_number(state.get("last_epoch", 0)):
            raise BindingError(f"the saved last_epoch is {state['last_epoch']!r}")
        super().load_state_dict(state)
        if is_attached:
            factors = check_factors(self._loaded_factors(), len(base))
            bases = [1.0] * len(base) if self.sets_lr else base
            check_lrs(factors, bases, saved["external_factor"])
            self._source.factors = self._apply(self.last_epoch)
            self._writer.restore(saved)
        elif hasattr(self, "_copied_state"):
            values = self._copied_state
            self._copied_state = values | {
                "base": base or values["base"],
                "external_factor": external_factor or values["external_factor"],
            }


def check_lrs(factors: Factors, base: Sequence[float], external: Sequence[float]) -> None:
    """Refuse a loaded state whose lrs are not finite, although each of its numbers is."""
    values = factors if isinstance(factors, list) else [factors] * len(base)
    lrs = [b * x * factor for b, x, factor in zip(base, external, values, strict=True)]
    if not all(map(is_finite_number, lrs)):
        raise BindingError(f"the saved state gives the lrs {lrs}")


def check_factors(factors: Any, count: int) -> Factors:
    """Return the factors of a loaded state, unless they are not finite numbers for each group."""
    values = factors if isinstance(factors, list) else [factors]
    is_complete = len(values) == count or not isinstance(factors, list)
    if not is_complete or not all(map(is_finite_number, values)):
        raise BindingError(f"the saved state gives the factors {factors!r} for {count} groups")
    return cast(Factors, factors)


def above_eta_min(scheduler: DropInScheduler, eta_min: float, factor: float) -> Factors:
    """Return eta_min + (base - eta_min) factor, as a factor of each group's base."""
    if eta_min == 0:
        return factor
    bases = [float(base) for base in scheduler.base_lrs]
    if hasattr(scheduler, "_writer"):
        bases += scheduler._writer.base[len(bases) :]  # of groups that were added later
    return one_or_all(
        [eta_min / base + (1 - eta_min / base) * factor if base else factor for base in bases]
    )

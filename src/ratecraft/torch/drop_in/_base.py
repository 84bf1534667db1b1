"""DropInScheduler: makes a torch scheduler class write through the HyperparamWriter."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch._checkpoint import refuse_format
from ratecraft.torch._writer import Factors, FactorSource, HyperparamWriter, innermost_optimizer

log = logging.getLogger("ratecraft.torch")

GET_LR_WARNING: Final = (
    "To get the last learning rate computed by the scheduler, please use `get_last_lr()`."
)


def refuse_format_1(state: Mapping[str, Any], name: str) -> None:
    """Refuse a state of format 1, which has old keys, in any part of a composite."""
    if "carried" in state or "decisions" in state:
        refuse_format(1, name, f"start from the model weights with a new {name}")
    parts = state.get("_schedulers")
    for part in parts if isinstance(parts, list | tuple) else ():
        if isinstance(part, Mapping):
            refuse_format_1(part, name)


class _DropInSource(FactorSource):
    """The factor source of a drop-in scheduler, which it does not refer to or keep alive."""

    def __init__(self, scheduler_class: type[DropInScheduler]) -> None:
        super().__init__(sets_lr=scheduler_class._sets_lr)
        self.scheduler_class = scheduler_class

    def describe(self, group: str) -> str:
        return self.scheduler_class.__name__


class DropInScheduler(LRScheduler):
    """Base class that makes a torch scheduler write through a `HyperparamWriter`.

    It is listed before torch's class. Writer and source are in ``__slots__``, not in ``__dict__``,
    which torch saves as the state.
    """

    __slots__ = ("_source", "_writer")
    _sets_lr: ClassVar[bool] = False  # gives learning rates, not factors; base counts as 1
    _overwrites: ClassVar[bool] = False  # torch's class writes base x factor over the current lr
    _saves_base: ClassVar[bool] = False  # torch's state has no base_lrs
    _init_signature: ClassVar[inspect.Signature]  # of the constructor

    verbose: bool
    _copied_state: dict[str, list[float]]
    _writer: HyperparamWriter
    _source: _DropInSource

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # torch's signature, plus the verbose= that it had until 2.6.
        torch_class = cls.__mro__[cls.__mro__.index(DropInScheduler) + 1]
        signature = inspect.signature(torch_class)
        verbose = inspect.Parameter(
            "verbose", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False
        )
        cls._init_signature = signature.replace(
            parameters=[*signature.parameters.values(), verbose]
        )
        public = cls._init_signature
        if "__init__" in vars(cls):
            defined = inspect.signature(cls.__init__)
            public = defined.replace(parameters=list(defined.parameters.values())[1:])
        cls.__signature__ = public  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            bound = self._init_signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}(): {error}") from None
        verbose = bound.arguments.pop("verbose", False)
        self.verbose = bool(verbose) and verbose != "deprecated"
        super().__init__(*bound.args, **bound.kwargs)

    @property
    def sets_lr(self) -> bool:
        """Whether it gives learning rates, not factors; base counts as 1."""
        return self._sets_lr

    def factors(self, k: int | None = None) -> Factors:
        """Return this scheduler's factor at step k (default: now).

        One number for all param groups, or a list with one for each. For schedulers that write
        lrs (CyclicLR, OneCycleLR) these are lrs.
        """
        return self._factors(self.last_epoch if k is None else k)

    def _factors(self, k: int) -> Factors:
        raise NotImplementedError

    def _apply(self, k: int) -> Factors:
        """Return the factors at step k; CyclicLR and OneCycleLR also set the momentum."""
        return self._factors(k)

    def _above_eta_min(self, eta_min: float, factor: float) -> Factors:
        """Return eta_min + (base - eta_min) factor, as a factor of each group's base."""
        if eta_min == 0:
            return factor
        bases = [float(base) for base in self.base_lrs]
        return [
            eta_min / base + (1 - eta_min / base) * factor if base else factor for base in bases
        ]

    def _write(self, factors: Factors) -> None:
        groups = self.optimizer.param_groups
        writer, source = self._attach(factors)
        writer.set_factor(source, factors, groups)
        self._last_lr = writer.copy_written()
        if self.verbose:
            log.info("%s: step %d: lr %s", type(self).__name__, self.last_epoch, self._last_lr)

    def _is_attached(self) -> bool:
        try:
            return self._source in self._writer.sources
        except AttributeError:  # before the first write
            return False

    def _attach(self, factors: Factors) -> tuple[HyperparamWriter, FactorSource]:
        """Return the writer and this scheduler's source; add the source if it is not there."""
        if self._is_attached():
            return self._writer, self._source
        # The optimizer may be wrapped, as by Accelerate; the inner one has the writers.
        writer = HyperparamWriter.of(innermost_optimizer(self.optimizer), "lr")
        # Access to __dict__ slows the object down permanently; getattr and del do not.
        copied: dict[str, list[float]] | None = getattr(self, "_copied_state", None)
        if copied is not None:
            del self._copied_state  # this is a copy: its optimizer has another writer
        base, external_factor = writer.base, writer.external_factor
        if not base:
            groups = self.optimizer.param_groups
            current = writer.current_values()
            base = [float(group.get("initial_lr", group["lr"])) for group in groups]
            fresh = self.last_epoch <= 0 and not self._sets_lr
            external_factor = [
                lr / value if fresh and value and lr else 1.0
                for lr, value in zip(current, base, strict=True)
            ]
            if copied is not None:
                base, external_factor = copied["base"], copied["external_factor"]
        if not hasattr(self, "_source"):
            self._source = _DropInSource(type(self))
            # In torch a scheduler that writes lrs overwrites those of an earlier one, and a resumed
            # scheduler replaces the earlier one of its class. Here the earlier scheduler is
            # detached until it steps again.
            for other in list(writer.sources):
                same_class = isinstance(other, _DropInSource) and other.scheduler_class is type(
                    self
                )
                replaces = self._overwrites or self.last_epoch > 0
                if (other.sets_lr and self._sets_lr) or (same_class and replaces):
                    writer.remove(other)
        self._source.uniform = not isinstance(factors, list)
        writer.add(self._source, base, external_factor)
        self._writer = writer
        return writer, self._source

    def _detach(self) -> None:
        """Remove the factor until the next step; another part of a sequence is active."""
        if self._is_attached():
            self._writer.remove(self._source)
            self._writer.write()

    def _write_current(self) -> None:
        """Write the factors of the current step again."""
        self._write(self._apply(self.last_epoch))

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._write(self._apply(self.last_epoch))

    def get_lr(self) -> list[Any]:
        """Return the lrs of this step; as in torch, to be called within ``step`` only.

        CyclicLR and OneCycleLR also set the momentum.
        """
        if not self._get_lr_called_within_step:
            warnings.warn(GET_LR_WARNING, UserWarning, stacklevel=2)
        factors = self._apply(self.last_epoch)
        writer, source = self._attach(factors)
        values = writer.values_with(source, factors)
        writer.expect_write(source, factors, list(values))
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs to attach to its own optimizer when it steps."""
        state = dict(self.__dict__)
        if hasattr(self, "_writer"):  # even if it is detached now
            state["_copied_state"] = self._writer.state()
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, and the external factor of each group if it is not 1."""
        state: dict[str, Any] = dict(super().state_dict())
        values = state.pop("_copied_state", None)
        if self._is_attached():
            values = self._writer.state()
        if values is not None:
            if any(ratio != 1 for ratio in values["external_factor"]):
                state["external_factor"] = values["external_factor"]
            if self._saves_base:
                state["base"] = values["base"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's, and write its lrs."""
        refuse_format_1(state_dict, type(self).__name__)
        state = dict(state_dict)
        external_factor, base = state.pop("external_factor", None), state.pop("base", None)
        super().load_state_dict(state)
        if not self._is_attached():
            if hasattr(self, "_copied_state"):
                copied = self._copied_state
                self._copied_state = copied | {
                    "base": base or copied["base"],
                    "external_factor": external_factor or copied["external_factor"],
                }
            return
        values = list(map(float, self._last_lr))
        self._source.factors = self._apply(self.last_epoch)
        writer = self._writer
        base = list(map(float, base or state.get("base_lrs", writer.base)))
        saved = {
            "base": base,
            "external_factor": external_factor or [1.0] * len(base),
            "value": values,
        }
        writer.sync()
        writer.check_state(saved)
        writer.restore(saved)

"""DropInScheduler: what makes a scheduler class of torch's write through the writer."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any, ClassVar, Final

from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch._writer import Factors, FactorSource, HyperparamWriter, innermost_optimizer

log = logging.getLogger("ratecraft.torch")

ASKED_OUTSIDE: Final = (
    "To get the last learning rate computed by the scheduler, please use `get_last_lr()`."
)


class _DropInSource(FactorSource):
    """The source of a drop-in scheduler, which does not know it: they end each on their own."""

    def __init__(self, kind: type[DropInScheduler]) -> None:
        super().__init__(absolute=kind._absolute)
        self.kind = kind

    def text(self, group: str) -> str:
        return self.kind.__name__


class DropInScheduler(LRScheduler):
    """What makes a torch scheduler write through the writer; stands before torch's class.

    Slots keep the source out of ``__dict__``, which torch takes for the state.
    """

    __slots__ = ("_writer", "_source")
    _absolute: ClassVar[bool] = False  # the factor is the lr itself
    _overwrites: ClassVar[bool] = False  # torch's own writes base x factor over what is there

    _tells_base: ClassVar[bool] = False  # torch's state says no base lrs

    _taken: ClassVar[inspect.Signature]  # what the constructor takes
    verbose: bool
    _copied: dict[str, list[float]]
    _writer: HyperparamWriter
    _source: _DropInSource

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        # torch's signature, and the verbose= that it had until 2.6.
        torchs = cls.__mro__[cls.__mro__.index(DropInScheduler) + 1]
        theirs = inspect.signature(torchs)
        told = inspect.Parameter("verbose", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False)
        cls._taken = theirs.replace(parameters=[*theirs.parameters.values(), told])
        shown = cls._taken
        if "__init__" in vars(cls):
            own = inspect.signature(cls.__init__)
            shown = own.replace(parameters=list(own.parameters.values())[1:])
        cls.__signature__ = shown  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **named: Any) -> None:
        try:
            bound = self._taken.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}(): {error}") from None
        verbose = bound.arguments.pop("verbose", False)
        self.verbose = bool(verbose) and verbose != "deprecated"
        super().__init__(*bound.args, **bound.kwargs)

    @property
    def is_absolute(self) -> bool:
        """Whether its factors are the lrs themselves."""
        return self._absolute

    def factors(self, k: int | None = None) -> Factors:
        """Return this scheduler's own factor at step k (default: now).

        One number for all param groups, or a list with one for each; for schedulers that write
        lrs (CyclicLR, OneCycleLR) these are lrs.
        """
        return self._factors(self.last_epoch if k is None else k)

    def _factors(self, k: int) -> Factors:
        raise NotImplementedError

    def _said(self, k: int) -> Factors:
        """Return the factors, and set whatever else this class drives."""
        return self._factors(k)

    def _above(self, floor: float, share: float) -> Factors:
        """Return floor + (base - floor) share, as a factor of each group's base."""
        if floor == 0:
            return share
        bases = [float(base) for base in self.base_lrs]
        return [floor / own + (1 - floor / own) * share if own else share for own in bases]

    def _speak(self, factors: Factors) -> None:
        groups = self.optimizer.param_groups
        writer, source = self._heard(factors)
        writer.say(source, factors, groups)
        self._last_lr = writer.copies()
        if self.verbose:
            log.info("%s: step %d: lr %s", type(self).__name__, self.last_epoch, self._last_lr)

    def _is_heard(self) -> bool:
        try:
            return self._source in self._writer.sources
        except AttributeError:  # before the first word
            return False

    def _heard(self, factors: Factors) -> tuple[HyperparamWriter, FactorSource]:
        """Return the writer and the source in it, which joins if it is not there."""
        if self._is_heard():
            return self._writer, self._source
        # Accelerate's optimizer stands around the one whose writer this is.
        writer = HyperparamWriter.of(innermost_optimizer(self.optimizer), "lr")
        # Not by way of __dict__, which Python slows an object down for ever after.
        copied: dict[str, list[float]] | None = getattr(self, "_copied", None)
        if copied is not None:
            del self._copied  # its writer is a new one
        base, external_factor = writer.own, writer.carried
        if not base:
            groups = self.optimizer.param_groups
            found = writer.found()
            base = [float(group.get("initial_lr", group["lr"])) for group in groups]
            fresh = self.last_epoch <= 0 and not self._absolute
            external_factor = [
                lr / own if fresh and own and lr else 1.0
                for lr, own in zip(found, base, strict=True)
            ]
            if copied is not None:
                base, external_factor = copied["base"], copied["external_factor"]
        if not hasattr(self, "_source"):
            self._source = _DropInSource(type(self))
            # In torch a scheduler that writes lrs wipes out an earlier one, and one that resumes
            # goes on with it. Here the earlier one of its kind is silent until it steps again.
            for other in list(writer.sources):
                of_its_kind = isinstance(other, _DropInSource) and other.kind is type(self)
                replaces = self._overwrites or self.last_epoch > 0
                if (other.absolute and self._absolute) or (of_its_kind and replaces):
                    writer.remove(other)
        self._source.uniform = not isinstance(factors, list)
        writer.add(self._source, base, external_factor)
        self._writer = writer
        return writer, self._source

    def _silence(self) -> None:
        """Say nothing until the next step: another part of a sequence has its turn."""
        if self._is_heard():
            self._writer.remove(self._source)
            self._writer.write()

    def _resume(self) -> None:
        """Speak again as of the present step."""
        self._speak(self._said(self.last_epoch))

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._speak(self._said(self.last_epoch))

    def get_lr(self) -> list[Any]:
        """Return the lrs of this step; as torch's, to be called within ``step`` only."""
        if not self._get_lr_called_within_step:
            warnings.warn(ASKED_OUTSIDE, UserWarning, stacklevel=2)
        factors = self._said(self.last_epoch)
        writer, source = self._heard(factors)
        values = writer.asked(source, factors)
        writer.expect(source, factors, list(values))
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs to join the writer of its own optimizer when it steps."""
        state = dict(self.__dict__)
        if hasattr(self, "_writer"):  # also of a part that is silent at present
            state["_copied"] = self._writer.state()
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, and by how much others multiply each group, if they do."""
        state: dict[str, Any] = dict(super().state_dict())
        held = state.pop("_copied", None)
        if self._is_heard():
            held = self._writer.state()
        if held is not None:
            if any(ratio != 1 for ratio in held["external_factor"]):
                state["external_factor"] = held["external_factor"]
            if self._tells_base:
                state["base"] = held["base"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, torch's own too, and write the lrs that belong there."""
        state = dict(state_dict)
        external_factor, base = state.pop("external_factor", None), state.pop("base", None)
        super().load_state_dict(state)
        if not self._is_heard():
            if hasattr(self, "_copied"):
                held = self._copied
                self._copied = held | {
                    "base": base or held["base"], "external_factor": carried or held["external_factor"]
                }  # fmt: skip
            return
        said = list(map(float, self._last_lr))
        self._source.factors = self._said(self.last_epoch)
        writer = self._writer
        base = list(map(float, base or state.get("base_lrs", writer.own)))
        saved = {"base": base, "external_factor": carried or [1.0] * len(base), "now": said}
        writer.sync()
        writer.check_state(saved)
        writer.restore(saved)

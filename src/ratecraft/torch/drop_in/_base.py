"""Written: what makes a scheduler class of torch's write through the ledger."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any, ClassVar, Final

from torch.optim.lr_scheduler import LRScheduler

from ratecraft.torch._writer import Factors, Ledger, Voice, driven

log = logging.getLogger("ratecraft.torch")

ASKED_OUTSIDE: Final = (
    "To get the last learning rate computed by the scheduler, please use `get_last_lr()`."
)


class _DropInVoice(Voice):
    """The voice of a drop-in scheduler, which does not know it: they end each on their own."""

    def __init__(self, kind: type[Written]) -> None:
        super().__init__(absolute=kind._absolute)
        self.kind = kind

    def text(self, group: str) -> str:
        return self.kind.__name__


class Written(LRScheduler):
    """What makes a torch scheduler write through the ledger; stands before torch's class.

    Slots keep the voice out of ``__dict__``, which torch takes for the state.
    """

    __slots__ = ("_ledger", "_voice")
    _absolute: ClassVar[bool] = False  # the factor is the rate itself
    _overwrites: ClassVar[bool] = False  # torch's own writes base x factor over what is there

    _tells_base: ClassVar[bool] = False  # torch's state says no base rates

    _taken: ClassVar[inspect.Signature]  # what the constructor takes
    verbose: bool
    _copied: dict[str, list[float]]
    _ledger: Ledger
    _voice: _DropInVoice

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        # torch's signature, and the verbose= that it had until 2.6.
        torchs = cls.__mro__[cls.__mro__.index(Written) + 1]
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
        """Whether its factors are the rates themselves."""
        return self._absolute

    def factors(self, k: int | None = None) -> Factors:
        """Return this scheduler's own factor at update k (default: now).

        One number for all param groups, or a list with one for each; for schedulers that write
        rates (CyclicLR, OneCycleLR) these are rates.
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
        ledger, voice = self._heard(factors)
        ledger.say(voice, factors, groups)
        self._last_lr = ledger.copies()
        if self.verbose:
            log.info("%s: update %d: lr %s", type(self).__name__, self.last_epoch, self._last_lr)

    def _is_heard(self) -> bool:
        try:
            return self._voice in self._ledger.voices
        except AttributeError:  # before the first word
            return False

    def _heard(self, factors: Factors) -> tuple[Ledger, Voice]:
        """Return the ledger and the voice in it, which joins if it is not there."""
        if self._is_heard():
            return self._ledger, self._voice
        # Accelerate's optimizer stands around the one whose ledger this is.
        ledger = Ledger.of(driven(self.optimizer), "lr")
        # Not by way of __dict__, which Python slows an object down for ever after.
        copied: dict[str, list[float]] | None = getattr(self, "_copied", None)
        if copied is not None:
            del self._copied  # its ledger is a new one
        base, carried = ledger.own, ledger.carried
        if not base:
            groups = self.optimizer.param_groups
            found = ledger.found()
            base = [float(group.get("initial_lr", group["lr"])) for group in groups]
            fresh = self.last_epoch <= 0 and not self._absolute
            carried = [
                lr / own if fresh and own and lr else 1.0
                for lr, own in zip(found, base, strict=True)
            ]
            if copied is not None:
                base, carried = copied["base"], copied["carried"]
        if not hasattr(self, "_voice"):
            self._voice = _DropInVoice(type(self))
            # In torch a scheduler that writes rates wipes out an earlier one, and one that resumes
            # goes on with it. Here the earlier one of its kind is silent until it steps again.
            for other in list(ledger.voices):
                of_its_kind = isinstance(other, _DropInVoice) and other.kind is type(self)
                replaces = self._overwrites or self.last_epoch > 0
                if (other.absolute and self._absolute) or (of_its_kind and replaces):
                    ledger.remove(other)
        self._voice.uniform = not isinstance(factors, list)
        ledger.add(self._voice, base, carried)
        self._ledger = ledger
        return ledger, self._voice

    def _silence(self) -> None:
        """Say nothing until the next step: another part of a sequence has its turn."""
        if self._is_heard():
            self._ledger.remove(self._voice)
            self._ledger.write()

    def _resume(self) -> None:
        """Speak again as of the present update."""
        self._speak(self._said(self.last_epoch))

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._speak(self._said(self.last_epoch))

    def get_lr(self) -> list[Any]:
        """Return the rates of this update; as torch's, to be called within ``step`` only."""
        if not self._get_lr_called_within_step:
            warnings.warn(ASKED_OUTSIDE, UserWarning, stacklevel=2)
        factors = self._said(self.last_epoch)
        ledger, voice = self._heard(factors)
        values = ledger.asked(voice, factors)
        ledger.expect(voice, factors, list(values))
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs to join the ledger of its own optimizer when it steps."""
        state = dict(self.__dict__)
        if hasattr(self, "_ledger"):  # also of a part that is silent at present
            state["_copied"] = self._ledger.state()
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state, and by how much others multiply each group, if they do."""
        state: dict[str, Any] = dict(super().state_dict())
        held = state.pop("_copied", None)
        if self._is_heard():
            held = self._ledger.state()
        if held is not None:
            if any(ratio != 1 for ratio in held["carried"]):
                state["carried"] = held["carried"]
            if self._tells_base:
                state["base"] = held["base"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, torch's own too, and write the rates that belong there."""
        state = dict(state_dict)
        carried, base = state.pop("carried", None), state.pop("base", None)
        super().load_state_dict(state)
        if not self._is_heard():
            if hasattr(self, "_copied"):
                held = self._copied
                self._copied = held | {
                    "base": base or held["base"], "carried": carried or held["carried"]
                }  # fmt: skip
            return
        said = list(map(float, self._last_lr))
        self._voice.factors = self._said(self.last_epoch)
        ledger = self._ledger
        base = list(map(float, base or state.get("base_lrs", ledger.own)))
        saved = {"base": base, "carried": carried or [1.0] * len(base), "now": said}
        ledger.sync()
        ledger.check_state(saved)
        ledger.restore(saved)

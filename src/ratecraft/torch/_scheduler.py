"""ScheduleLR: a schedule bound to an optimizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, NoReturn

import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft.errors import BindingError, PlanChanged, ScheduleError
from ratecraft.schedule import Curve, Duration, Schedule
from ratecraft.schedule._duration import CLOCK_NAMES, as_number

from ._checkpoint import Saved, read_at
from ._config import HORIZON, Bend, Drive, Plan, Schedules, plan_of
from ._writer import Factors, Ledger, Voice, driven, group_name

log = logging.getLogger("ratecraft.torch")

SMALL_FACTOR: Final = 0.01
FLOAT32: Final = 1e-6  # relative: what a rate may lose in a float32 tensor
PROBES: Final = 512
ANSWERS: Final = ("raise", "keep", "replan", "continue")


class _ScheduleVoice(Voice):
    """The voice of field number ``i`` of a ScheduleLR."""

    def __init__(self, scheduler: ScheduleLR, i: int, *, absolute: bool, shared: bool) -> None:
        super().__init__(absolute=absolute, shared=shared)
        self.scheduler, self.i = scheduler, i

    def join(self, own: float) -> float | list[float]:
        return self.scheduler._join(self.i, own)

    def text(self, group: str) -> str:
        return self.scheduler._text(self.i, group)


class _Part(NamedTuple):
    """What this scheduler does to one field: ``read`` gives the factors at a time."""

    ledger: Ledger
    voice: Voice
    drive: Drive
    read: Callable[[float], float | list[float]]

    @classmethod
    def of(cls, ledger: Ledger, voice: Voice, drive: Drive) -> _Part:
        voice.uniform = drive.is_uniform()
        read = drive.curves[0].cursor() if voice.uniform else drive.factors
        return cls(ledger, voice, drive, read)


class ScheduleLR(LRScheduler):
    """Set an optimizer's rate from a schedule; a torch ``LRScheduler`` for any trainer.

    Under ``rate=`` the rate before update k is ``curve(k)``; under ``factor=`` it is
    ``base * curve(k)``, where base is each param group's own ``lr``. Several of these on one
    optimizer multiply, and so does whoever else multiplies ``lr``: a torch scheduler such as
    ExponentialLR, or a person. The value is written afresh each time, so nothing drifts.

    The clock follows the optimizer: a hook counts the updates that really happened, so
    ``scheduler.step()`` may be called as often as a trainer likes, or never, and an update that
    AMP skipped does not count.

    Args:
        optimizer: the optimizer to drive.
        rate: a schedule that is the rate itself, or one for each named param group.
        factor: a schedule that multiplies each group's base rate, or one for each named group.
            Exactly one of the two.
        fields: schedules for other fields, as factors of their own values:
            ``{"weight_decay": cosine(1, 0.1), "betas[0]": ...}``; each may be said by group too.
        total: length of the run: updates, or ``epochs(n)``. ``tokens(n)`` or ``samples(n)`` put
            the clock into your hands: call ``step(tokens=n)`` after each update.
        epoch: updates per epoch, if something is said in epochs.
        samples: samples per update, if something is said in samples.
        tokens: tokens per update, if something is said in tokens.
        floor: with ``factor=``: the rate is floor + (base - floor) f, as torch's ``eta_min``; a
            number, or one for each named group.
        sample: "start" reads update k at t = k, "mid" at t = k + 1/2, which no update at rate 0
            follows from a ramp that begins or ends there.
        clock: "optimizer" counts its updates; "step" counts calls of ``step()``, as torch does.
        start: how many updates are done already.
        on_plan_change: what `load_state_dict` does with a state of another plan: "raise",
            "keep" that plan, "replan" (this plan, from the saved update on) or "continue" (that
            plan, its clock bent so that what is left of it fills this one's ``total``).

    Attributes:
        curve: the curve of ``lr`` (the first one, where groups have their own).
        last_epoch: updates done; torch's name for it.

    Raises:
        TypeError: both or neither of ``rate=`` and ``factor=``, or no `Schedule`.
        BindingError: groups with different base rates under one ``rate=``, a ``factor=`` so
            small that it must have been meant as a rate, a field or group that is not there.
        ScheduleError: the schedule does not resolve over ``total``.

    >>> import torch
    >>> from ratecraft import cosine, warmup
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> scheduler = ScheduleLR(optimizer, rate=0.1 * warmup(2).then(cosine(1, 0)), total=6)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     optimizer.step()
    >>> rates
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        rate: Schedules | None = None,
        factor: Schedules | None = None,
        fields: Mapping[str, Schedules] | None = None,
        total: int | Duration | None = None,
        epoch: float | None = None,
        samples: float | None = None,
        tokens: float | None = None,
        floor: float | Mapping[str, float] | None = None,
        sample: Literal["start", "mid"] = "start",
        clock: Literal["optimizer", "step"] = "optimizer",
        start: int = 0,
        on_plan_change: Literal["raise", "keep", "replan", "continue"] = "raise",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"ScheduleLR drives a torch optimizer, not {type(optimizer).__name__}")
        units = {"epoch": epoch, "samples": samples, "tokens": tokens}
        self._plan = plan_of(rate, factor, fields, total, units, floor, sample, clock)
        if on_plan_change not in ANSWERS:
            known = ", ".join(map(repr, ANSWERS))
            raise BindingError(f"on_plan_change={on_plan_change!r} is none of {known}")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise BindingError(f"start={start!r} must be an int >= 0: the updates that are done")
        if start and self._plan.counts != "updates":
            raise BindingError(
                f"start= counts updates, and this run is in {self._plan.counts}; load a state"
            )
        self._on_plan_change = on_plan_change
        # torch's own constructor is not called: it would replace optimizer.step by a counting
        # wrapper, which a compiled or patched step does not survive. What trainers read of an
        # LRScheduler is set here instead.
        self.optimizer = optimizer
        self._driven = driven(optimizer, counted=self._plan.clock == "optimizer")
        self._calls, self._position = start, float(start)
        self._removed = False
        self._counts_calls = self._plan.clock == "step"
        self._reads_at_position = sample == "start"
        self._bend: Bend | None = None
        self._step_count, self._is_initial = 1, False
        self._get_lr_called_within_step = False
        self._open()
        self._handle = None
        if self._plan.clock == "optimizer":
            # The optimizer keeps the scheduler alive: a schedule that stopped because nobody held
            # on to its scheduler would train at a frozen rate without a word. Dynamo would trace
            # into the hook and recompile at every count.
            hook = torch.compiler.disable(self._count)  # type: ignore[no-untyped-call]
            self._handle = self._driven.register_step_post_hook(hook)

    # Building ---------------------------------------------------------------------------------

    def _open(self) -> None:
        """Take a voice in the ledger of every field; all is checked before anything is written."""
        groups, plan = self._driven.param_groups, self._plan
        names = _names(groups)
        parts, openings = [], []
        for i, (name, said) in enumerate(plan.schedules.items()):
            ledger = Ledger.of(self._driven, name)
            base, carried = ledger.own, ledger.carried
            if not base:
                base, carried = _opening(ledger, groups, fresh=self._position == 0)
            drive = plan.drive(name, names, base)
            absolute = name == "lr" and plan.mode == "rate"
            if name == "lr":
                _refuse_slips(plan, drive, base)
            shared = isinstance(said, Schedule)
            voice = _ScheduleVoice(self, i, absolute=absolute, shared=shared)
            parts.append(_Part.of(ledger, voice, drive))
            openings.append((base, carried))
        self._parts, self._first_groups = parts, len(groups)
        lr, text = parts[0].ledger, parts[0].voice.text
        if any(other.text(names[0]) == text(names[0]) for other in lr.voices):
            log.warning(
                "%s drives this optimizer already, and the two multiply; remove() the first to "
                "replace it", text(names[0]),
            )  # fmt: skip
        time = self._time()
        for part in parts:
            part.voice.factors = part.read(time)
            part.ledger.check_voice(part.voice)
        for part, (base, carried) in zip(parts, openings, strict=True):
            if part.ledger.field == "lr":
                for group, own in zip(groups, base, strict=True):
                    group.setdefault("initial_lr", own)
            part.ledger.add(part.voice, base, carried)
            part.ledger.say(part.voice, part.voice.factors, groups)

    @property
    def curve(self) -> Curve:
        """The curve of ``lr``; the first one, where groups have their own."""
        return self._parts[0].drive.curves[0]

    @property
    def position(self) -> float:
        """How far the run is, in what its clock counts."""
        return self._position

    @property
    def counts_calls(self) -> bool:
        """Whether calls of ``step()`` are counted, and not the optimizer's updates."""
        return self._counts_calls

    @property
    def is_removed(self) -> bool:
        """Whether `remove` was called."""
        return self._removed

    @property
    def horizon(self) -> int | None:
        """The update at which the schedule ends, if it ends and counts updates."""
        if self._plan.counts != "updates" or not math.isfinite(self.curve.total):
            return None
        return math.ceil(self.curve.total if self._bend is None else self._bend.knots[-1][0])

    @property
    def plan(self) -> Plan:
        """What this scheduler was told."""
        return self._plan

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return what a saved state's plan says differently, or may say: lambdas are alike.

        Args:
            state: what `state_dict` returned.

        Raises:
            BindingError: no state of a ScheduleLR.
        """
        return Saved.read(state, self._plan).plan.differences(self._plan)

    def highest(self) -> list[float]:
        """Return each group's highest rate over the run, by this schedule alone."""
        base, drive = self._parts[0].ledger.own, self._parts[0].drive
        peaks = [_peak(curve) for curve in drive.curves]
        if self._plan.mode == "rate":
            return [peaks[i] for i in drive.owners]
        floors = drive.floors or [0.0] * len(base)
        return [
            own * (floor + (1 - floor) * peaks[i])
            for own, floor, i in zip(base, floors, drive.owners, strict=True)
        ]

    @property
    def base_lrs(self) -> list[Any]:
        """Each group's own rate."""
        return list(self._parts[0].ledger.own)

    @base_lrs.setter
    def base_lrs(self, values: object) -> NoReturn:
        raise BindingError("base_lrs cannot be set; remove() this scheduler and build another")

    @property
    def last_epoch(self) -> int:
        """Updates done."""
        return int(self._position) if self._plan.counts == "updates" else self._calls

    @last_epoch.setter
    def last_epoch(self, updates: int) -> None:
        if self._plan.clock != "step":
            raise BindingError(
                "last_epoch follows the optimizer here and cannot be set; a trainer that counts "
                'for itself (Ignite) needs clock="step"'
            )
        if updates < 0:
            self._refuse_sequence()
        self._position = float(updates)

    def _initial_step(self) -> None:
        self._refuse_sequence()

    def _update_lr(self, epoch: int | None = None) -> None:
        self._refuse_sequence()

    def _refuse_sequence(self) -> NoReturn:
        raise BindingError(
            "torch's SequentialLR drives the clocks of its parts, which these schedules do not "
            "need: write a.then(b)"
        )

    @property
    def _last_lr(self) -> list[Any]:  # type: ignore[override]  # what the groups hold is the truth
        held = [group["lr"] for group in self._driven.param_groups]
        return [rate.clone() if isinstance(rate, torch.Tensor) else rate for rate in held]

    # Counting ---------------------------------------------------------------------------------

    def _count(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """After an update: a fused optimizer under AMP is called for the skipped ones, too."""
        skipped = vars(optimizer).get("found_inf")
        if skipped is None or not skipped.item():
            self._advance()

    def step(
        self, epoch: int | None = None, *, samples: float | None = None, tokens: float | None = None
    ) -> None:
        """Go on by one update, where that is the caller's to say; else do nothing.

        With the default clock the optimizer's own updates are counted, and this is harmless. With
        ``clock="step"`` each call is an update. On the token (sample) clock each call says how
        many tokens the update took; those of a skipped update count.

        Args:
            epoch: nothing; torch's own argument, which would mean a jump.
            samples: samples in this update, if the run's ``total`` is in samples.
            tokens: tokens in this update, if the run's ``total`` is in tokens.

        Raises:
            TypeError: ``epoch``, or a size that this clock does not count, or none where it does.
        """
        if epoch is None and samples is None and tokens is None:
            if self._counts_calls:
                self._advance()
            elif self._plan.clock != "optimizer":
                unit = self._plan.clock
                raise TypeError(f"total is in {unit}: write step({unit}=n) after each update")
            return
        if epoch is not None:
            raise TypeError("ScheduleLR.step() takes no epoch: it counts updates")
        self._advance(self._size(samples, tokens))
        self._calls += 1

    def _size(self, samples: float | None, tokens: float | None) -> float:
        unit = self._plan.clock
        size = tokens if unit == "tokens" else samples if unit == "samples" else None
        if size is None or (samples is not None and tokens is not None):
            told = "tokens" if tokens is not None else "samples"
            raise TypeError(
                f"step({told}=...) needs a run whose total is in {told}; this one's is in "
                f"{CLOCK_NAMES.get(unit, 'update')}s"
            )
        size = as_number(size, f"step({unit}=)")
        if size < 0:
            raise BindingError(f"step({unit}={size:g}): expected 0 or more")
        return size

    def _time(self) -> float:
        """Return where the curves are read now."""
        return read_at(self._position, self._plan, self._bend)

    def _advance(self, size: float = 1.0) -> None:
        if self._removed:
            return
        self._position = position = self._position + size
        try:
            time = position if self._reads_at_position else self._time()
            groups = self._driven.param_groups
            for ledger, voice, _, read in self._parts:
                ledger.say(voice, read(time), groups)
        except BaseException:
            self._position -= size  # a Python function failed: the update is not counted
            raise

    def _join(self, i: int, own: float) -> float | list[float]:
        """Let a group that was added late into field number i; return the factors with it."""
        ledger, voice, drive, _ = self._parts[i]
        self._plan.add_late_group(drive, ledger.field, own)
        self._parts[i] = part = _Part.of(ledger, voice, drive)
        return part.read(self._time())

    def get_lr(self) -> list[Any]:
        """Return the rate of each group for the update that comes next; nothing is written."""
        ledger, voice, *_ = self._parts[0]
        ledger.sync()
        factors = self._parts[0].read(self._time())
        held = [group["lr"] for group in self._driven.param_groups]
        rates = [
            torch.full_like(lr, rate) if isinstance(lr, torch.Tensor) else rate
            for lr, rate in zip(held, ledger.asked(voice, factors), strict=True)
        ]
        ledger.expect(voice, factors, list(rates))
        return rates

    def preview(self, updates: int) -> dict[str, list[float]]:
        """Return the rates of the next updates for each group, as `ratecraft.torch.preview`.

        Args:
            updates: how many updates; the first rate is the present one.

        Raises:
            BindingError: the clock counts tokens or samples.
        """
        if self._plan.counts != "updates":
            raise BindingError(
                f"how many {self._plan.counts} the coming updates take is not known; read "
                ".curve.values(positions) instead"
            )
        ledger, voice, *_ = self._parts[0]
        ledger.sync()
        read = self._parts[0].read
        rates: dict[str, list[float]] = {name: [] for name in _names(self._driven.param_groups)}
        for k in range(updates):
            time = read_at(self._position + k, self._plan, self._bend)
            for seen, rate in zip(rates.values(), ledger.asked(voice, read(time)), strict=True):
                seen.append(rate)
        return rates

    def factors(self, k: float | None = None) -> Factors:
        """Return this scheduler's own factor at update k (default: now), or rate under ``rate=``.

        One number for all param groups, or a list with one for each.

        Args:
            k: update; on the token (sample) clock, a number of tokens (samples).
        """
        position = self._position if k is None else k
        return self._parts[0].read(read_at(position, self._plan, self._bend))

    @property
    def is_absolute(self) -> bool:
        """Whether the schedule is the rate itself, ``rate=``."""
        return self._plan.mode == "rate"

    def text(self, group: str) -> str:
        """Return what drives the rate of a group, in the notation; empty if nothing here does.

        Args:
            group: the param group's name, or its number as text.
        """
        return self._text(0, group)

    def _text(self, i: int, group: str) -> str:
        field = self._parts[i].ledger.field
        said = self._plan.schedules[field]
        schedule = said if isinstance(said, Schedule) else said.get(group)
        if schedule is None:
            return ""
        return f"{self._plan.mode} {schedule!r}" if field == "lr" else repr(schedule)

    def remove(self) -> None:
        """Stop driving the optimizer; its rates stay as they are now."""
        if self._removed:
            return
        self._removed = True
        if self._handle is not None:
            self._handle.remove()
        for ledger, voice, *_ in self._parts:
            ledger.remove(voice)

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied: a copy would drive nothing."""
        raise TypeError(
            "a ScheduleLR belongs to its optimizer and cannot be copied or pickled; build another "
            "one and load_state_dict() into it"
        )

    # Saving and resuming ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which loads with ``weights_only=True``.

        It holds the updates done, the plan as text, and for each field every group's base, what
        others multiplied it by, and its present value.
        """
        state: dict[str, Any] = {
            "updates": self.last_epoch,
            "position": self._position,
            "plan": self._plan.as_dict(),
            "groups": self._first_groups,
            "fields": {part.ledger.field: part.ledger.state() for part in self._parts},
        }
        if self._bend is not None:
            knots = [list(knot) for knot in self._bend.knots]
            state["bend"] = {"plan": self._bend.plan.as_dict(), "knots": knots}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the update of a saved state and write the rates that belong there.

        Right before or after the optimizer's own state is loaded. A state of another plan is
        treated as ``on_plan_change=`` says; nothing is changed where this raises.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            PlanChanged: the state was saved under another plan, and nobody said what to do.
            BindingError: no state of a ScheduleLR, or of another number of groups.
        """
        if self._removed:
            raise BindingError("this scheduler was removed and drives nothing; build another")
        saved = Saved.read(state_dict, self._plan)
        fields = [part.ledger.field for part in self._parts]
        if set(saved.plan.schedules) != set(fields):
            raise BindingError(
                f"the saved plan drives {', '.join(saved.plan.schedules)}, and this one "
                f"{', '.join(fields)}; build the scheduler with the same fields"
            )
        for part in self._parts:
            part.ledger.sync()
            part.ledger.check_state(saved.fields.get(part.ledger.field))
        plan, bend = self._followed(saved)
        names = _names(self._driven.param_groups)
        said = plan if bend is None else bend.plan
        drives = [
            said.drive(name, names, saved.fields[name]["base"], saved.groups) for name in fields
        ]
        self._plan, self._bend, self._first_groups = plan, bend, saved.groups
        self._calls, self._position = saved.updates, saved.position
        self._reads_at_position = bend is None and plan.sample == "start"
        for i, drive in enumerate(drives):
            ledger, voice, *_ = self._parts[i]
            voice.shared = isinstance(said.schedules[ledger.field], Schedule)
            self._parts[i] = part = _Part.of(ledger, voice, drive)
            voice.factors = part.read(self._time())
            ledger.restore(saved.fields[ledger.field])

    def _followed(self, saved: Saved) -> tuple[Plan, Bend | None]:
        """Return the plan and the clock to go on with, as ``on_plan_change=`` says."""
        plan, answer = self._plan, self._on_plan_change
        differences = saved.plan.differences(plan)
        if not differences:
            return plan, saved.bend
        if saved.plan.counts != plan.counts:
            raise BindingError(
                f"the saved plan counts {saved.plan.counts} and this one {plan.counts}: where "
                "the saved run stands on this clock is not known"
            )
        if answer == "raise":
            raise PlanChanged(self._both_plans(saved, differences))
        if answer == "keep" and saved.plan.mode != plan.mode:
            raise BindingError(
                f"the saved plan is a {saved.plan.mode}= and this one a {plan.mode}=; to keep it, "
                f"build the scheduler with {saved.plan.mode}="
            )
        bend = self._continued(saved, differences) if answer == "continue" else saved.bend
        log.info(
            "resumed at update %d under another plan (%s): on_plan_change=%r",
            saved.updates, ", ".join(differences), answer,
        )  # fmt: skip
        if answer == "keep":
            return replace(saved.plan, clock=plan.clock), bend
        return plan, None if answer == "replan" else bend

    def _continued(self, saved: Saved, differences: list[str]) -> Bend:
        """Return the clock that runs what is left of the saved plan over the new total."""
        others = [name for name in differences if name not in HORIZON]
        if others:
            raise PlanChanged(
                'on_plan_change="continue" stretches the saved plan to a new total; but '
                f"{', '.join(others)} differs, too\n{self._both_plans(saved, differences)}"
            )
        old = saved.bend or Bend(saved.plan, ((0.0, 0.0), (_total(saved.plan),) * 2))
        total = _total(self._plan)
        at = saved.position
        if not at < min(old.knots[-1][0], total):
            raise BindingError(
                f'on_plan_change="continue" at update {at:g}: nothing is left to stretch, since '
                f"the saved plan ends at {old.knots[-1][0]:g} and this one at {total:g}"
            )
        return old.bent_again(at, total)

    def _both_plans(self, saved: Saved, differences: list[str]) -> str:
        was, now = saved.plan.as_dict(), self._plan.as_dict()
        lines = [f"the state was saved at update {saved.updates} under another plan"]
        for name in differences:
            lines += [
                f"  {name}: saved {was.get(name)}",
                f"  {' ' * len(name)}  now   {now.get(name)}",
            ]
        for plan, bend, whose in (
            (saved.plan, saved.bend, "the saved"),
            (self._plan, None, "this"),
        ):
            try:
                rate = f"is {self._next_rate(plan, bend, saved):g}"
            except (BindingError, ScheduleError) as error:
                rate = f"cannot be said: {error}"
            lines.append(f"the next rate under {whose} plan {rate}")
        lines.append(
            'say on_plan_change="keep" to go on as saved, "replan" to follow this plan from here, '
            'or "continue" to stretch what is left of the saved plan to the new end'
        )
        return "\n".join(lines)

    def _next_rate(self, plan: Plan, bend: Bend | None, saved: Saved) -> float:
        said, lr = plan if bend is None else bend.plan, saved.fields["lr"]
        names = _names(self._driven.param_groups)
        drive = said.drive("lr", names, lr["base"], saved.groups)
        factors = drive.factors(read_at(saved.position, plan, bend))
        base: float = 1.0 if said.mode == "rate" else lr["base"][0]
        carried: float = lr["carried"][0]
        return base * carried * (factors[0] if isinstance(factors, list) else factors)


def _names(groups: list[dict[str, Any]]) -> list[str]:
    names = [str(group.get("name", i)) for i, group in enumerate(groups)]
    if len(set(names)) < len(names):
        raise BindingError(f"two param groups have the same name: {', '.join(names)}")
    return names


def _opening(
    ledger: Ledger, groups: list[dict[str, Any]], *, fresh: bool
) -> tuple[list[float], list[float]]:
    """Return each group's base, and the factor at which others hold it already."""
    found = ledger.found()
    if ledger.field != "lr":
        return found, [1.0] * len(found)
    base = [float(group.get("initial_lr", lr)) for group, lr in zip(groups, found, strict=True)]
    carried = []
    for i, (lr, own) in enumerate(zip(found, base, strict=True)):
        ratio = 1.0
        if fresh and not math.isclose(lr, own, rel_tol=FLOAT32):
            name = group_name(groups[i], i)
            if lr == 0 or own == 0:
                ledger.doubts.append(
                    f"{name}: lr is {lr:g} though its initial_lr is {own:g}; no factor leads "
                    "there, and the schedule begins from initial_lr"
                )
            else:
                ratio = lr / own
                ledger.doubts.append(
                    f"{name}: lr is {lr:g}, that is {ratio:g} of its initial_lr {own:g}; this is "
                    "taken for the factor of another scheduler and carried on. To begin from lr "
                    "itself: del group['initial_lr']; to go on with a run: start= or a state"
                )
        carried.append(ratio)
    return base, carried


def _refuse_slips(plan: Plan, drive: Drive, base: list[float]) -> None:
    """Refuse what would train at a rate that nobody meant."""
    said = plan.schedules["lr"]
    alike = all(math.isclose(own, base[0], rel_tol=FLOAT32) for own in base)
    if plan.mode == "rate" and isinstance(said, Schedule) and not alike:
        raise BindingError(
            f"rate= sets one rate for all param groups, but theirs differ: {base}; write factor= "
            "to keep their ratios, or rate={group: schedule}"
        )
    peaks = [_peak(curve) for curve in drive.curves]
    # A factor of 0 freezes, and a small one beside a larger one is a ratio: both are meant.
    if plan.mode == "factor" and 0 < max(peaks) <= SMALL_FACTOR:
        i = peaks.index(max(peaks))
        own, text = base[drive.owners.index(i)], repr(drive.curves[i].schedule)
        raise BindingError(
            f"factor={text} multiplies lr={own:g} by at most {peaks[i]:g}, which trains at "
            f"{own * peaks[i]:.3g} or less; did you mean rate={text}?"
        )


def _peak(curve: Curve) -> float:
    """Return the largest value over the run, searched in ever finer grids; or an endless bound."""
    if math.isinf(curve.total) and (bound := curve.bound):
        return bound
    low, high = 0, math.ceil(curve.total) if math.isfinite(curve.total) else PROBES
    while True:
        apart = -(-(high - low) // PROBES)
        grid = [*range(low, high, max(apart, 1)), high]
        values = [abs(curve(t)) for t in grid]
        if apart <= 1:
            return max(values)
        best = grid[values.index(max(values))]
        low, high = max(low, best - apart), min(high, best + apart)


def _total(plan: Plan) -> float:
    """Return where a plan's run ends on its clock."""
    said = plan.schedules["lr"]
    schedule = said if isinstance(said, Schedule) else next(iter(said.values()))
    total = plan.resolve(schedule).total
    if plan.total is None:
        raise BindingError('on_plan_change="continue" needs total= in both plans')
    return total

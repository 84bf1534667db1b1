"""ScheduleLR: a schedule bound to an optimizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, NoReturn

import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft._keywords import explain_arguments
from ratecraft.errors import BindingError, ScheduleChanged, ScheduleError
from ratecraft.schedule import Curve, Duration, Schedule
from ratecraft.schedule._duration import CLOCK_NAMES, as_number

from ._checkpoint import Saved, read_at
from ._config import HORIZON, GroupCurves, ScheduleConfig, Schedules, TimeMap, make_config
from ._writer import Factors, FactorSource, HyperparamWriter, group_name, innermost_optimizer

log = logging.getLogger("ratecraft.torch")

SMALL_FACTOR: Final = 0.01
FLOAT32: Final = 1e-6  # relative: what an lr may lose in a float32 tensor
PROBES: Final = 512
ANSWERS: Final = ("raise", "keep", "replan", "continue")


class _ScheduleSource(FactorSource):
    """The source of field number ``i`` of a ScheduleLR."""

    def __init__(self, scheduler: ScheduleLR, i: int, *, absolute: bool, shared: bool) -> None:
        super().__init__(absolute=absolute, shared=shared)
        self.scheduler, self.i = scheduler, i

    def join(self, own: float) -> float | list[float]:
        return self.scheduler._join(self.i, own)

    def text(self, group: str) -> str:
        return self.scheduler._text(self.i, group)


class _Part(NamedTuple):
    """What this scheduler does to one field: ``read`` gives the factors at a time."""

    writer: HyperparamWriter
    source: FactorSource
    drive: GroupCurves
    read: Callable[[float], float | list[float]]

    @classmethod
    def of(cls, writer: HyperparamWriter, source: FactorSource, drive: GroupCurves) -> _Part:
        source.uniform = drive.is_uniform()
        read = drive.curves[0].cursor() if source.uniform else drive.factors
        return cls(writer, source, drive, read)


class ScheduleLR(LRScheduler):
    """Set an optimizer's lr from a schedule; a torch ``LRScheduler`` for any trainer.

    Under ``lr=`` the lr before step k is ``curve(k)``; under ``factor=`` it is
    ``base * curve(k)``, where base is each param group's own ``lr``. Several of these on one
    optimizer multiply, and so does whoever else multiplies ``lr``: a torch scheduler such as
    ExponentialLR, or a person. The value is written afresh each time, so nothing drifts.

    The clock follows the optimizer: a hook counts the steps that really happened, so
    ``scheduler.step()`` may be called as often as a trainer likes, or never, and a step that
    AMP skipped does not count.

    Args:
        optimizer: the optimizer to drive.
        lr: a schedule that is the lr itself, or one for each named param group.
        factor: a schedule that multiplies each group's base lr, or one for each named group.
            Exactly one of the two.
        hyperparam_factors: schedules for other hyperparameters, as factors of their own values:
            ``{"weight_decay": cosine(1, 0.1), "betas[0]": ...}``; each may be said by group too.
        total_steps: length of the run: steps, or ``epochs(n)``. ``tokens(n)`` or ``samples(n)`` put
            the clock into your hands: call ``step(tokens=n)`` after each step.
        steps_per_epoch: steps per epoch, if something is said in epochs.
        samples_per_step: samples per step, if something is said in samples.
        tokens_per_step: tokens per step, if something is said in tokens.
        eta_min: with ``factor=``: lr = eta_min + (base - eta_min) * factor, as in torch; a number,
            or one for each named group.
        midpoint: read step k at t = k + 1/2 instead of t = k, so that a ramp from or to 0 has no
            step with lr 0.
        clock: "optimizer" counts its steps; "step" counts calls of ``step()``, as torch does.
        initial_step: how many steps are done already.
        on_change: what `load_state_dict` does with a state of another config: "raise",
            "keep" that config, "replan" (this config, from the saved step on) or "continue" (that
            config, its clock bent so that what is left of it fills this one's ``total_steps``).

    Attributes:
        curve: the curve of ``lr`` (the first one, where groups have their own).
        last_epoch: steps done; torch's name for it.

    Raises:
        TypeError: both or neither of ``lr=`` and ``factor=``, or no `Schedule`.
        BindingError: groups with different base lrs under one ``lr=``, a ``factor=`` so
            small that it must have been meant as an lr, a field or group that is not there.
        ScheduleError: the schedule does not resolve over ``total_steps``.

    >>> import torch
    >>> from ratecraft import cosine, warmup
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> scheduler = ScheduleLR(optimizer, lr=0.1 * warmup(2).then(cosine(1, 0)), total_steps=6)
    >>> lrs = []
    >>> for _ in range(6):
    ...     lrs.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     optimizer.step()
    >>> lrs
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146]
    """

    @explain_arguments(
        "ScheduleLR(optimizer, ...) takes its schedule by name: write lr= (the schedule is the "
        "learning rate) or factor= (the schedule multiplies each group's lr)"
    )
    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        lr: Schedules | str | None = None,
        factor: Schedules | str | None = None,
        hyperparam_factors: Mapping[str, Schedules | str] | None = None,
        total_steps: int | Duration | None = None,
        steps_per_epoch: float | None = None,
        samples_per_step: float | None = None,
        tokens_per_step: float | None = None,
        eta_min: float | Mapping[str, float] | None = None,
        midpoint: bool = False,
        clock: Literal["optimizer", "step"] = "optimizer",
        initial_step: int = 0,
        on_change: Literal["raise", "keep", "replan", "continue"] = "raise",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"ScheduleLR drives a torch optimizer, not {type(optimizer).__name__}")
        units = {
            "steps_per_epoch": steps_per_epoch,
            "samples_per_step": samples_per_step,
            "tokens_per_step": tokens_per_step,
        }
        self._config = make_config(
            lr, factor, hyperparam_factors, total_steps, units, eta_min, midpoint, clock
        )
        if on_change not in ANSWERS:
            known = ", ".join(map(repr, ANSWERS))
            raise BindingError(f"on_change={on_change!r} is none of {known}")
        if isinstance(initial_step, bool) or not isinstance(initial_step, int) or initial_step < 0:
            raise BindingError(f"initial_step={initial_step!r} must be an int >= 0: the steps done")
        if initial_step and self._config.counts != "steps":
            raise BindingError(
                f"initial_step= counts steps, and this run is in {self._config.counts}; load a state"
            )
        self._on_change = on_change
        # torch's own constructor is not called: it would replace optimizer.step by a counting
        # wrapper, which a compiled or patched step does not survive. What trainers read of an
        # LRScheduler is set here instead.
        self.optimizer = optimizer
        self._driven = innermost_optimizer(optimizer, counted=self._config.clock == "optimizer")
        self._calls, self._position = initial_step, float(initial_step)
        self._removed = False
        self._counts_calls = self._config.clock == "step"
        self._reads_at_position = not midpoint
        self._bend: TimeMap | None = None
        self._step_count, self._is_initial = 1, False
        self._get_lr_called_within_step = False
        self._open()
        self._handle = None
        if self._config.clock == "optimizer":
            # The optimizer keeps the scheduler alive: a schedule that stopped because nobody held
            # on to its scheduler would train at a frozen lr without a word. Dynamo would trace
            # into the hook and recompile at every count.
            hook = torch.compiler.disable(self._count)  # type: ignore[no-untyped-call]
            self._handle = self._driven.register_step_post_hook(hook)

    # Building ---------------------------------------------------------------------------------

    def _open(self) -> None:
        """Take a source in the writer of every field; all is checked before anything is written."""
        groups, config = self._driven.param_groups, self._config
        names = _names(groups)
        parts, openings = [], []
        for i, (name, said) in enumerate(config.schedules.items()):
            writer = HyperparamWriter.of(self._driven, name)
            base, external_factor = writer.own, writer.carried
            if not base:
                base, external_factor = _opening(writer, groups, fresh=self._position == 0)
            drive = config.drive(name, names, base)
            absolute = name == "lr" and config.mode == "lr"
            if name == "lr":
                _refuse_slips(config, drive, base)
            shared = isinstance(said, Schedule)
            source = _ScheduleSource(self, i, absolute=absolute, shared=shared)
            parts.append(_Part.of(writer, source, drive))
            openings.append((base, external_factor))
        self._parts, self._first_groups = parts, len(groups)
        lr, text = parts[0].writer, parts[0].source.text
        if any(other.text(names[0]) == text(names[0]) for other in lr.sources):
            log.warning(
                "%s drives this optimizer already, and the two multiply; remove() the first to "
                "replace it", text(names[0]),
            )  # fmt: skip
        time = self._time()
        for part in parts:
            part.source.factors = part.read(time)
            part.writer.check_voice(part.source)
        for part, (base, external_factor) in zip(parts, openings, strict=True):
            if part.writer.field == "lr":
                for group, own in zip(groups, base, strict=True):
                    group.setdefault("initial_lr", own)
            part.writer.add(part.source, base, external_factor)
            part.writer.say(part.source, part.source.factors, groups)

    @property
    def curve(self) -> Curve:
        """The curve of ``lr``; the first one, where groups have their own."""
        return self._parts[0].drive.curves[0]

    @property
    def position(self) -> float:
        """StepOptions far the run is, in what its clock counts."""
        return self._position

    @property
    def counts_calls(self) -> bool:
        """Whether calls of ``step()`` are counted, and not the optimizer's steps."""
        return self._counts_calls

    @property
    def is_removed(self) -> bool:
        """Whether `remove` was called."""
        return self._removed

    @property
    def horizon(self) -> int | None:
        """The step at which the schedule ends, if it ends and counts steps."""
        if self._config.counts != "steps" or not math.isfinite(self.curve.length):
            return None
        return math.ceil(self.curve.length if self._bend is None else self._bend.knots[-1][0])

    @property
    def config(self) -> ScheduleConfig:
        """What this scheduler was told."""
        return self._config

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return what a saved state's plan says differently, or may say: lambdas are alike.

        Args:
            state: what `state_dict` returned.

        Raises:
            BindingError: no state of a ScheduleLR.
        """
        return Saved.read(state, self._config).config.differences(self._config)

    def highest(self) -> list[float]:
        """Return each group's highest lr over the run, by this schedule alone."""
        base, drive = self._parts[0].writer.own, self._parts[0].drive
        peaks = [_peak(curve) for curve in drive.curves]
        if self._config.mode == "lr":
            return [peaks[i] for i in drive.owners]
        floors = drive.floors or [0.0] * len(base)
        return [
            own * (floor + (1 - floor) * peaks[i])
            for own, floor, i in zip(base, floors, drive.owners, strict=True)
        ]

    @property
    def base_lrs(self) -> list[Any]:
        """Each group's own lr."""
        return list(self._parts[0].writer.own)

    @base_lrs.setter
    def base_lrs(self, values: object) -> NoReturn:
        raise BindingError("base_lrs cannot be set; remove() this scheduler and build another")

    @property
    def last_epoch(self) -> int:
        """Steps done."""
        return int(self._position) if self._config.counts == "steps" else self._calls

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        if self._config.clock != "step":
            raise BindingError(
                "last_epoch follows the optimizer here and cannot be set; a trainer that counts "
                'for itself (Ignite) needs clock="step"'
            )
        if steps < 0:
            self._refuse_sequence()
        self._position = float(steps)

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
        return [lr.clone() if isinstance(lr, torch.Tensor) else lr for lr in held]

    # Counting ---------------------------------------------------------------------------------

    def _count(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """After a step: a fused optimizer under AMP is called for the skipped ones, too."""
        skipped = vars(optimizer).get("found_inf")
        if skipped is None or not skipped.item():
            self._advance()

    def step(
        self, epoch: int | None = None, *, samples: float | None = None, tokens: float | None = None
    ) -> None:
        """Go on by one step, where that is the caller's to say; else do nothing.

        With the default clock the optimizer's own steps are counted, and this is harmless. With
        ``clock="step"`` each call is a step. On the token (sample) clock each call says how
        many tokens the step took; those of a skipped step count.

        Args:
            epoch: nothing; torch's own argument, which would mean a jump.
            samples: samples in this step, if the run's ``total_steps`` is in samples.
            tokens: tokens in this step, if the run's ``total_steps`` is in tokens.

        Raises:
            TypeError: ``epoch``, or a size that this clock does not count, or none where it does.
        """
        if epoch is None and samples is None and tokens is None:
            if self._counts_calls:
                self._advance()
            elif self._config.clock != "optimizer":
                unit = self._config.clock
                raise TypeError(f"total is in {unit}: write step({unit}=n) after each step")
            return
        if epoch is not None:
            raise TypeError("ScheduleLR.step() takes no epoch: it counts steps")
        self._advance(self._size(samples, tokens))
        self._calls += 1

    def _size(self, samples: float | None, tokens: float | None) -> float:
        unit = self._config.clock
        size = tokens if unit == "tokens" else samples if unit == "samples" else None
        if size is None or (samples is not None and tokens is not None):
            told = "tokens" if tokens is not None else "samples"
            raise TypeError(
                f"step({told}=...) needs a run whose total is in {told}; this one's is in "
                f"{CLOCK_NAMES.get(unit, 'step')}s"
            )
        size = as_number(size, f"step({unit}=)")
        if size < 0:
            raise BindingError(f"step({unit}={size:g}): expected 0 or more")
        return size

    def _time(self) -> float:
        """Return where the curves are read now."""
        return read_at(self._position, self._config, self._bend)

    def _advance(self, size: float = 1.0) -> None:
        if self._removed:
            return
        self._position = position = self._position + size
        try:
            time = position if self._reads_at_position else self._time()
            groups = self._driven.param_groups
            for writer, source, _, read in self._parts:
                writer.say(source, read(time), groups)
        except BaseException:
            self._position -= size  # a Python function failed: the step is not counted
            raise

    def _join(self, i: int, own: float) -> float | list[float]:
        """Let a group that was added late into field number i; return the factors with it."""
        writer, source, drive, _ = self._parts[i]
        self._config.add_late_group(drive, writer.field, own)
        self._parts[i] = part = _Part.of(writer, source, drive)
        return part.read(self._time())

    def get_lr(self) -> list[Any]:
        """Return the lr of each group for the step that comes next; nothing is written."""
        writer, source, *_ = self._parts[0]
        writer.sync()
        factors = self._parts[0].read(self._time())
        held = [group["lr"] for group in self._driven.param_groups]
        lrs = [
            torch.full_like(old, lr) if isinstance(old, torch.Tensor) else lr
            for old, lr in zip(held, writer.asked(source, factors), strict=True)
        ]
        writer.expect(source, factors, list(lrs))
        return lrs

    def preview(self, steps: int) -> dict[str, list[float]]:
        """Return the lrs of the next steps for each group, as `ratecraft.torch.preview`.

        Args:
            steps: how many steps; the first lr is the present one.

        Raises:
            BindingError: the clock counts tokens or samples.
        """
        if self._config.counts != "steps":
            raise BindingError(
                f"how many {self._config.counts} the coming steps take is not known; read "
                ".curve.values(positions) instead"
            )
        writer, source, *_ = self._parts[0]
        writer.sync()
        read = self._parts[0].read
        lrs: dict[str, list[float]] = {name: [] for name in _names(self._driven.param_groups)}
        for k in range(steps):
            time = read_at(self._position + k, self._config, self._bend)
            for seen, lr in zip(lrs.values(), writer.asked(source, read(time)), strict=True):
                seen.append(lr)
        return lrs

    def factors(self, k: float | None = None) -> Factors:
        """Return this scheduler's own factor at step k (default: now), or lr under ``lr=``.

        One number for all param groups, or a list with one for each.

        Args:
            k: step; on the token (sample) clock, a number of tokens (samples).
        """
        position = self._position if k is None else k
        return self._parts[0].read(read_at(position, self._config, self._bend))

    @property
    def is_absolute(self) -> bool:
        """Whether the schedule is the lr itself, ``lr=``."""
        return self._config.mode == "lr"

    def text(self, group: str) -> str:
        """Return what drives the lr of a group, in the notation; empty if nothing here does.

        Args:
            group: the param group's name, or its number as text.
        """
        return self._text(0, group)

    def _text(self, i: int, group: str) -> str:
        field = self._parts[i].writer.field
        said = self._config.schedules[field]
        schedule = said if isinstance(said, Schedule) else said.get(group)
        if schedule is None:
            return ""
        return f"{self._config.mode} {schedule!r}" if field == "lr" else repr(schedule)

    def remove(self) -> None:
        """Stop driving the optimizer; its lrs stay as they are now."""
        if self._removed:
            return
        self._removed = True
        if self._handle is not None:
            self._handle.remove()
        for writer, source, *_ in self._parts:
            writer.remove(source)

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied: a copy would drive nothing."""
        raise TypeError(
            "a ScheduleLR belongs to its optimizer and cannot be copied or pickled; build another "
            "one and load_state_dict() into it"
        )

    # Saving and resuming ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which loads with ``weights_only=True``.

        It holds the steps done, the plan as text, and for each field every group's base, what
        others multiplied it by, and its present value.
        """
        state: dict[str, Any] = {
            "steps": self.last_epoch,
            "position": self._position,
            "plan": self._config.as_dict(),
            "groups": self._first_groups,
            "fields": {part.writer.field: part.writer.state() for part in self._parts},
        }
        if self._bend is not None:
            knots = [list(knot) for knot in self._bend.knots]
            state["bend"] = {"plan": self._bend.config.as_dict(), "knots": knots}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the step of a saved state and write the lrs that belong there.

        Right before or after the optimizer's own state is loaded. A state of another config is
        treated as ``on_change=`` says; nothing is changed where this raises.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            ScheduleChanged: the state was saved under another config, and nobody said what to do.
            BindingError: no state of a ScheduleLR, or of another number of groups.
        """
        if self._removed:
            raise BindingError("this scheduler was removed and drives nothing; build another")
        saved = Saved.read(state_dict, self._config)
        fields = [part.writer.field for part in self._parts]
        if set(saved.config.schedules) != set(fields):
            raise BindingError(
                f"the saved plan drives {', '.join(saved.config.schedules)}, and this one "
                f"{', '.join(fields)}; build the scheduler with the same fields"
            )
        for part in self._parts:
            part.writer.sync()
            part.writer.check_state(saved.fields.get(part.writer.field))
        config, bend = self._followed(saved)
        names = _names(self._driven.param_groups)
        said = plan if bend is None else bend.config
        drives = [
            said.drive(name, names, saved.fields[name]["base"], saved.groups) for name in fields
        ]
        self._config, self._bend, self._first_groups = config, bend, saved.groups
        self._calls, self._position = saved.steps, saved.position
        self._reads_at_position = bend is None and not config.midpoint
        for i, drive in enumerate(drives):
            writer, source, *_ = self._parts[i]
            source.shared = isinstance(said.schedules[writer.field], Schedule)
            self._parts[i] = part = _Part.of(writer, source, drive)
            source.factors = part.read(self._time())
            writer.restore(saved.fields[writer.field])

    def _followed(self, saved: Saved) -> tuple[ScheduleConfig, TimeMap | None]:
        """Return the plan and the clock to go on with, as ``on_change=`` says."""
        config, answer = self._config, self._on_change
        differences = saved.config.differences(config)
        if not differences:
            return config, saved.bend
        if saved.config.counts != config.counts:
            raise BindingError(
                f"the saved plan counts {saved.config.counts} and this one {config.counts}: where "
                "the saved run stands on this clock is not known"
            )
        if answer == "raise":
            raise ScheduleChanged(self._both_plans(saved, differences))
        if answer == "keep" and saved.config.mode != config.mode:
            raise BindingError(
                f"the saved config is a {saved.config.mode}= and this one a {config.mode}=; to keep it, "
                f"build the scheduler with {saved.config.mode}="
            )
        bend = self._continued(saved, differences) if answer == "continue" else saved.bend
        log.info(
            "resumed at step %d under another plan (%s): on_change=%r",
            saved.steps, ", ".join(differences), answer,
        )  # fmt: skip
        if answer == "keep":
            return replace(saved.config, clock=config.clock), bend
        return config, None if answer == "replan" else bend

    def _continued(self, saved: Saved, differences: list[str]) -> TimeMap:
        """Return the clock that runs what is left of the saved plan over the new total."""
        others = [name for name in differences if name not in HORIZON]
        if others:
            raise ScheduleChanged(
                'on_change="continue" stretches the saved plan to a new total; but '
                f"{', '.join(others)} differs, too\n{self._both_plans(saved, differences)}"
            )
        old = saved.bend or TimeMap(saved.config, ((0.0, 0.0), (_total(saved.config),) * 2))
        total_steps = _total(self._config)
        at = saved.position
        if not at < min(old.knots[-1][0], total_steps):
            raise BindingError(
                f'on_change="continue" at step {at:g}: nothing is left to stretch, since '
                f"the saved plan ends at {old.knots[-1][0]:g} and this one at {total_steps:g}"
            )
        return old.remapped(at, total_steps)

    def _both_plans(self, saved: Saved, differences: list[str]) -> str:
        was, now = saved.config.as_dict(), self._config.as_dict()
        lines = [f"the state was saved at step {saved.steps} under another plan"]
        for name in differences:
            lines += [
                f"  {name}: saved {was.get(name)}",
                f"  {' ' * len(name)}  now   {now.get(name)}",
            ]
        for config, bend, whose in (
            (saved.config, saved.bend, "the saved"),
            (self._config, None, "this"),
        ):
            try:
                lr = f"is {self._next_lr(config, bend, saved):g}"
            except (BindingError, ScheduleError) as error:
                lr = f"cannot be said: {error}"
            lines.append(f"the next lr under {whose} plan {lr}")
        lines.append(
            'say on_change="keep" to go on as saved, "replan" to follow this plan from here, '
            'or "continue" to stretch what is left of the saved plan to the new end'
        )
        return "\n".join(lines)

    def _next_lr(self, config: ScheduleConfig, bend: TimeMap | None, saved: Saved) -> float:
        said, lr = plan if bend is None else bend.config, saved.fields["lr"]
        names = _names(self._driven.param_groups)
        drive = said.drive("lr", names, lr["base"], saved.groups)
        factors = drive.factors(read_at(saved.position, config, bend))
        base: float = 1.0 if said.mode == "lr" else lr["base"][0]
        external_factor: float = lr["external_factor"][0]
        return base * external_factor * (factors[0] if isinstance(factors, list) else factors)


def _names(groups: list[dict[str, Any]]) -> list[str]:
    names = [str(group.get("name", i)) for i, group in enumerate(groups)]
    if len(set(names)) < len(names):
        raise BindingError(f"two param groups have the same name: {', '.join(names)}")
    return names


def _opening(
    writer: HyperparamWriter, groups: list[dict[str, Any]], *, fresh: bool
) -> tuple[list[float], list[float]]:
    """Return each group's base, and the factor at which others hold it already."""
    found = writer.found()
    if writer.field != "lr":
        return found, [1.0] * len(found)
    base = [float(group.get("initial_lr", lr)) for group, lr in zip(groups, found, strict=True)]
    external_factor = []
    for i, (lr, own) in enumerate(zip(found, base, strict=True)):
        ratio = 1.0
        if fresh and not math.isclose(lr, own, rel_tol=FLOAT32):
            name = group_name(groups[i], i)
            if lr == 0 or own == 0:
                writer.doubts.append(
                    f"{name}: lr is {lr:g} though its initial_lr is {own:g}; no factor leads "
                    "there, and the schedule begins from initial_lr"
                )
            else:
                ratio = lr / own
                writer.doubts.append(
                    f"{name}: lr is {lr:g}, that is {ratio:g} of its initial_lr {own:g}; this is "
                    "taken for the factor of another scheduler and carried on. To begin from lr "
                    "itself: del group['initial_lr']; to go on with a run: initial_step= or a state"
                )
        external_factor.append(ratio)
    return base, carried


def _refuse_slips(config: ScheduleConfig, drive: GroupCurves, base: list[float]) -> None:
    """Refuse what would train at an lr that nobody meant."""
    said = config.schedules["lr"]
    alike = all(math.isclose(own, base[0], rel_tol=FLOAT32) for own in base)
    if config.mode == "lr" and isinstance(said, Schedule) and not alike:
        raise BindingError(
            f"lr= sets one lr for all param groups, but theirs differ: {base}; write factor= "
            "to keep their ratios, or lr={group: schedule}"
        )
    peaks = [_peak(curve) for curve in drive.curves]
    # A factor of 0 freezes, and a small one beside a larger one is a ratio: both are meant.
    if config.mode == "factor" and 0 < max(peaks) <= SMALL_FACTOR:
        i = peaks.index(max(peaks))
        own, text = base[drive.owners.index(i)], repr(drive.curves[i].schedule)
        raise BindingError(
            f"factor={text} multiplies lr={own:g} by at most {peaks[i]:g}, which trains at "
            f"{own * peaks[i]:.3g} or less; did you mean lr={text}?"
        )


def _peak(curve: Curve) -> float:
    """Return the largest value over the run, searched in ever finer grids; or an endless bound."""
    if math.isinf(curve.length) and (bound := curve.bound):
        return bound
    low, high = 0, math.ceil(curve.length) if math.isfinite(curve.length) else PROBES
    while True:
        apart = -(-(high - low) // PROBES)
        grid = [*range(low, high, max(apart, 1)), high]
        values = [abs(curve(t)) for t in grid]
        if apart <= 1:
            return max(values)
        best = grid[values.index(max(values))]
        low, high = max(low, best - apart), min(high, best + apart)


def _total(config: ScheduleConfig) -> float:
    """Return where a plan's run ends on its clock."""
    said = config.schedules["lr"]
    schedule = said if isinstance(said, Schedule) else next(iter(said.values()))
    total_steps = config.resolve(schedule).length
    if config.total_steps is None:
        raise BindingError('on_change="continue" needs total_steps= in both plans')
    return total_steps

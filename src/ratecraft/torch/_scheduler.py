"""ScheduleLR: a torch LRScheduler that sets the lr from a schedule."""

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

from ._checkpoint import STATE_FORMAT, Checkpoint, curve_t
from ._config import (
    RUN_LENGTH_ARGUMENTS,
    GroupCurves,
    ScheduleConfig,
    Schedules,
    TimeMap,
    make_config,
)
from ._writer import Factors, FactorSource, HyperparamWriter, group_name, innermost_optimizer

log = logging.getLogger("ratecraft.torch")

MAX_SUSPECT_FACTOR: Final = 0.01  # a factor= that never exceeds this looks like an lr
FLOAT32_REL_TOL: Final = 1e-6  # what an lr may lose in a float32 tensor
PEAK_GRID_POINTS: Final = 512
ON_CHANGE_OPTIONS: Final = ("raise", "keep", "replan", "continue")


class _ScheduleSource(FactorSource):
    """The factor source of hyperparameter number ``i`` of a ScheduleLR."""

    def __init__(
        self, scheduler: ScheduleLR, i: int, *, sets_lr: bool, for_all_groups: bool
    ) -> None:
        super().__init__(sets_lr=sets_lr, for_all_groups=for_all_groups)
        self.scheduler, self.i = scheduler, i

    def factors_with_new_group(self, base: float) -> float | list[float]:
        return self.scheduler._add_group(self.i, base)

    def describe(self, group: str) -> str:
        return self.scheduler._describe(self.i, group)


class _ScheduledHyperparam(NamedTuple):
    """One hyperparameter that a ScheduleLR schedules; ``evaluate`` returns the factors at t."""

    writer: HyperparamWriter
    source: FactorSource
    curves: GroupCurves
    evaluate: Callable[[float], float | list[float]]

    @classmethod
    def build(
        cls, writer: HyperparamWriter, source: FactorSource, curves: GroupCurves
    ) -> _ScheduledHyperparam:
        source.uniform = curves.is_uniform()
        evaluate = curves.curves[0].cursor() if source.uniform else curves.factors
        return cls(writer, source, curves, evaluate)


class ScheduleLR(LRScheduler):
    """Set an optimizer's learning rate from a schedule; a torch ``LRScheduler`` for any trainer.

    With ``lr=`` the learning rate of step k is ``curve(k)``; with ``factor=`` it is
    ``base * curve(k)``, where base is each param group's ``lr`` at the start. Several schedulers
    on one optimizer multiply, and changes by other code (a torch scheduler, an assignment to
    ``group["lr"]``) become an external factor. Every value is computed from the base, so rounding
    errors do not accumulate.

    By default a hook counts the optimizer's steps. ``scheduler.step()`` may then be called any
    number of times, or never, and steps that AMP skips do not count.

    Args:
        optimizer: the optimizer to schedule.
        lr: the schedule of the learning rate: a `Schedule`, a string such as "cosine(1, 0)", or a
            dict with one for each param group by name.
        factor: the schedule that multiplies each group's base lr, in the same forms. Pass
            exactly one of ``lr`` and ``factor``.
        hyperparam_factors: schedules for other hyperparameters, as factors of their own values:
            ``{"weight_decay": cosine(1, 0.1), "betas[0]": ...}``; each may be a dict by group.
        total_steps: length of the run: steps, or ``epochs(n)``. If it is ``tokens(N)`` or
            ``samples(N)``, call ``step(tokens=n)`` or ``step(samples=n)`` after each step with
            that step's size.
        steps_per_epoch: steps per epoch, if a length is in epochs.
        samples_per_step: samples per step, if a length is in samples.
        tokens_per_step: tokens per step, if a length is in tokens.
        eta_min: with ``factor=``: lr = eta_min + (base - eta_min) * factor, as in torch; a number,
            or a dict with one for each param group.
        midpoint: evaluate the curve of step k at t = k + 1/2 instead of t = k, so that a ramp from
            or to 0 never gives a step with lr 0.
        clock: "optimizer" counts the optimizer's steps; "step" counts calls of ``step()``, as
            torch does.
        initial_step: number of steps already taken.
        on_change: what `load_state_dict` does if the saved config differs: "raise"; "keep" the
            saved config except ``clock``; "replan": use this config from the saved step on; or
            "continue": use the saved config with the rest of its time axis stretched to this
            ``total_steps``.

    Attributes:
        curve: the curve of ``lr`` (the first one, if groups have different curves).
        last_epoch: number of steps taken; torch's name.

    Raises:
        TypeError: both or neither of ``lr=`` and ``factor=``, or not a `Schedule`.
        BindingError: groups with different base lrs under one ``lr=``; a ``factor=`` so small
            that it is probably an lr; a hyperparameter or group that does not exist.
        ScheduleError: a string cannot be parsed, or the schedule does not resolve over
            ``total_steps``.

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
        "ScheduleLR(optimizer, ...) takes its schedule by keyword: pass lr= (the schedule is the "
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
            raise TypeError(
                f"ScheduleLR schedules a torch optimizer, not {type(optimizer).__name__}"
            )
        unit_sizes = {
            "steps_per_epoch": steps_per_epoch,
            "samples_per_step": samples_per_step,
            "tokens_per_step": tokens_per_step,
        }
        self._config = make_config(
            lr, factor, hyperparam_factors, total_steps, unit_sizes, eta_min, midpoint, clock
        )
        if on_change not in ON_CHANGE_OPTIONS:
            known = ", ".join(map(repr, ON_CHANGE_OPTIONS))
            raise BindingError(f"on_change={on_change!r}: expected one of {known}")
        if isinstance(initial_step, bool) or not isinstance(initial_step, int) or initial_step < 0:
            raise BindingError(
                f"initial_step={initial_step!r}: expected an int >= 0, the number of steps taken"
            )
        if initial_step and self._config.clock_unit != "steps":
            raise BindingError(
                "initial_step= is a number of steps, and this run is measured in "
                f"{self._config.clock_unit}; load a state dict instead"
            )
        self._on_change = on_change
        # LRScheduler.__init__ is not called: it replaces optimizer.step by a counting wrapper,
        # which breaks a compiled or patched step. The attributes of an LRScheduler that trainers
        # read are set here instead.
        self.optimizer = optimizer
        self._inner_optimizer = innermost_optimizer(
            optimizer, counted=self._config.clock == "optimizer"
        )
        self._calls, self._position = initial_step, float(initial_step)
        self._removed = False
        self._counts_calls = self._config.clock == "step"
        self._position_is_t = not midpoint
        self._time_map: TimeMap | None = None
        self._step_count, self._is_initial = 1, False
        self._get_lr_called_within_step = False
        self._attach()
        self._handle = None
        if self._config.clock == "optimizer":
            # The hook keeps the scheduler alive as long as the optimizer; otherwise the lr would
            # silently freeze when the last reference to the scheduler is dropped. Without disable()
            # Dynamo would trace into the hook and recompile at every step.
            count = self._after_optimizer_step
            hook = torch.compiler.disable(count)  # type: ignore[no-untyped-call]
            self._handle = self._inner_optimizer.register_step_post_hook(hook)

    # Building ---------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Add a source to each hyperparameter's writer; all checks come before the first write."""
        groups, config = self._inner_optimizer.param_groups, self._config
        group_names = _group_names(groups)
        hyperparams, initial_values = [], []
        for i, (name, schedules) in enumerate(config.schedules.items()):
            writer = HyperparamWriter.of(self._inner_optimizer, name)
            base, external_factor = writer.base, writer.external_factor
            if not base:
                base, external_factor = _base_and_factor(writer, groups, fresh=self._position == 0)
            curves = config.group_curves(name, group_names, base)
            sets_lr = name == "lr" and config.sets_lr
            if name == "lr":
                _check_lr_or_factor(config, curves, base)
            for_all_groups = isinstance(schedules, Schedule)
            source = _ScheduleSource(self, i, sets_lr=sets_lr, for_all_groups=for_all_groups)
            hyperparams.append(_ScheduledHyperparam.build(writer, source, curves))
            initial_values.append((base, external_factor))
        self._hyperparams, self._initial_group_count = hyperparams, len(groups)
        lr_writer, description = hyperparams[0].writer, self.describe(group_names[0])
        if any(other.describe(group_names[0]) == description for other in lr_writer.sources):
            log.warning(
                "%s already schedules this optimizer, and the two schedules multiply; to replace "
                "the first, remove() it", description,
            )  # fmt: skip
        t = self._curve_t()
        for scheduled in hyperparams:
            scheduled.source.factors = scheduled.evaluate(t)
            scheduled.writer.check_source(scheduled.source)
        for scheduled, (base, external_factor) in zip(hyperparams, initial_values, strict=True):
            writer = scheduled.writer
            if writer.hyperparam == "lr":
                for group, value in zip(groups, base, strict=True):
                    group.setdefault("initial_lr", value)
            writer.add(scheduled.source, base, external_factor)
            writer.set_factor(scheduled.source, scheduled.source.factors, groups)

    @property
    def curve(self) -> Curve:
        """The curve of ``lr``; the first one, if groups have different curves."""
        return self._hyperparams[0].curves.curves[0]

    @property
    def position(self) -> float:
        """Steps, samples or tokens so far, whichever the clock counts."""
        return self._position

    @property
    def counts_calls(self) -> bool:
        """Whether the clock counts calls of ``step()`` instead of the optimizer's steps."""
        return self._counts_calls

    @property
    def is_removed(self) -> bool:
        """Whether `remove` was called."""
        return self._removed

    @property
    def end_step(self) -> int | None:
        """The step at which the schedule ends; None if it does not end or does not count steps."""
        if self._config.clock_unit != "steps" or not math.isfinite(self.curve.length):
            return None
        return math.ceil(
            self.curve.length if self._time_map is None else self._time_map.knots[-1][0]
        )

    @property
    def config(self) -> ScheduleConfig:
        """The arguments of this scheduler, as a value."""
        return self._config

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return the config entries in which a saved state differs from this scheduler.

        Lambdas all have the same name, so a schedule with a lambda is always in the list.

        Args:
            state: a dict that `state_dict` returned.

        Raises:
            BindingError: not the state of a ScheduleLR.
        """
        return Checkpoint.from_state(state, self._config).config.differences(self._config)

    def peak_lrs(self) -> list[float]:
        """Return each group's peak lr over the run, by this schedule alone.

        The peak is the largest absolute value found by a grid search, refined around the maximum.
        """
        base, curves = self._hyperparams[0].writer.base, self._hyperparams[0].curves
        peaks = [_peak(curve) for curve in curves.curves]
        if self._config.sets_lr:
            return [peaks[i] for i in curves.curve_index]
        min_factors = curves.min_factors or [0.0] * len(base)
        return [
            value * (low + (1 - low) * peaks[i])
            for value, low, i in zip(base, min_factors, curves.curve_index, strict=True)
        ]

    @property
    def base_lrs(self) -> list[Any]:
        """Each group's base lr."""
        return list(self._hyperparams[0].writer.base)

    @base_lrs.setter
    def base_lrs(self, values: object) -> NoReturn:
        raise BindingError("base_lrs cannot be set; remove() this scheduler and build a new one")

    @property
    def last_epoch(self) -> int:
        """Number of steps taken."""
        return int(self._position) if self._config.clock_unit == "steps" else self._calls

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        if self._config.clock != "step":
            raise BindingError(
                "last_epoch follows the optimizer's steps and cannot be set; for a trainer that "
                'sets it (Ignite) pass clock="step"'
            )
        if steps < 0:  # SequentialLR moves last_epoch back while it is built
            self._refuse_sequence()
        self._position = float(steps)

    def _initial_step(self) -> None:
        self._refuse_sequence()

    def _update_lr(self, epoch: int | None = None) -> None:
        self._refuse_sequence()

    def _refuse_sequence(self) -> NoReturn:
        raise BindingError(
            "a ScheduleLR cannot be part of torch's SequentialLR, which sets the step of its "
            "parts; write a.then(b) as one schedule"
        )

    @property
    def _last_lr(self) -> list[Any]:  # type: ignore[override]  # always read from the groups
        lrs = [group["lr"] for group in self._inner_optimizer.param_groups]
        return [lr.clone() if isinstance(lr, torch.Tensor) else lr for lr in lrs]

    # Counting ---------------------------------------------------------------------------------

    def _after_optimizer_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # Under AMP the step of a fused optimizer is called for skipped steps, too.
        skipped = vars(optimizer).get("found_inf")
        if skipped is None or not skipped.item():
            self._advance()

    def step(
        self, epoch: int | None = None, *, samples: float | None = None, tokens: float | None = None
    ) -> None:
        """Advance the clock; a no-op for the default clock.

        The default clock counts the optimizer's steps.
        With ``clock="step"`` each call is one step. If the run is measured in tokens (samples),
        pass the number of tokens (samples) of each step; those of a skipped step count.

        Args:
            epoch: not supported; torch's argument, which jumps to an epoch.
            samples: samples in this step, if the run's ``total_steps`` is in samples.
            tokens: tokens in this step, if the run's ``total_steps`` is in tokens.

        Raises:
            TypeError: ``epoch``, a size that this clock does not count, or a missing size.
            BindingError: a negative size, or a param group was removed.
            ScheduleError: a size that is not finite.
        """
        if epoch is None and samples is None and tokens is None:
            if self._counts_calls:
                self._advance()
            elif self._config.clock != "optimizer":
                unit = self._config.clock
                raise TypeError(f"total_steps is in {unit}: write step({unit}=n) after each step")
            return
        if epoch is not None:
            raise TypeError("ScheduleLR.step() takes no epoch: it counts steps")
        self._advance(self._size(samples, tokens))
        self._calls += 1

    def _size(self, samples: float | None, tokens: float | None) -> float:
        unit = self._config.clock
        size = tokens if unit == "tokens" else samples if unit == "samples" else None
        if size is None or (samples is not None and tokens is not None):
            given = "tokens" if tokens is not None else "samples"
            raise TypeError(
                f"step({given}=...) needs a run whose total_steps is in {given}; here it is in "
                f"{CLOCK_NAMES.get(unit, 'step')}s"
            )
        size = as_number(size, f"step({unit}=)")
        if size < 0:
            raise BindingError(f"step({unit}={size:g}): expected 0 or more")
        return size

    def _curve_t(self) -> float:
        """Return t, the argument of the curves, at the current position."""
        return curve_t(self._position, self._config, self._time_map)

    def _advance(self, size: float = 1.0) -> None:
        if self._removed:
            return
        self._position = position = self._position + size
        try:
            t = position if self._position_is_t else self._curve_t()
            groups = self._inner_optimizer.param_groups
            for writer, source, _, evaluate in self._hyperparams:
                writer.set_factor(source, evaluate(t), groups)
        except BaseException:
            self._position -= size  # an evaluation failed: do not count this step
            raise

    def _add_group(self, i: int, base: float) -> float | list[float]:
        """Add a group to hyperparameter number i; return the factors, its own included."""
        writer, source, curves, _ = self._hyperparams[i]
        self._config.add_group(curves, writer.hyperparam, base)
        self._hyperparams[i] = scheduled = _ScheduledHyperparam.build(writer, source, curves)
        return scheduled.evaluate(self._curve_t())

    def get_lr(self) -> list[Any]:
        """Return each group's lr for the next step, without writing it."""
        writer, source, *_ = self._hyperparams[0]
        writer.sync()
        factors = self._hyperparams[0].evaluate(self._curve_t())
        current = [group["lr"] for group in self._inner_optimizer.param_groups]
        lrs = [
            torch.full_like(old, lr) if isinstance(old, torch.Tensor) else lr
            for old, lr in zip(current, writer.values_with(source, factors), strict=True)
        ]
        writer.expect_write(source, factors, list(lrs))
        return lrs

    def preview(self, steps: int) -> dict[str, list[float]]:
        """Return each group's lrs over the next steps, as `ratecraft.diagnostics.preview`.

        Args:
            steps: number of steps; the first lr is the current one.

        Raises:
            BindingError: the clock counts tokens or samples.
        """
        if self._config.clock_unit != "steps":
            raise BindingError(
                f"preview() needs a clock that counts steps, and this one counts "
                f"{self._config.clock_unit}; write .curve.values(positions) instead"
            )
        writer, source, *_ = self._hyperparams[0]
        writer.sync()
        evaluate = self._hyperparams[0].evaluate
        lrs: dict[str, list[float]] = {
            name: [] for name in _group_names(self._inner_optimizer.param_groups)
        }
        for k in range(steps):
            t = curve_t(self._position + k, self._config, self._time_map)
            values = writer.values_with(source, evaluate(t))
            for series, lr in zip(lrs.values(), values, strict=True):
                series.append(lr)
        return lrs

    def factors(self, k: float | None = None) -> Factors:
        """Return this scheduler's factor at step k (default: now), or the lr with ``lr=``.

        One number for all param groups, or a list with one for each.

        Args:
            k: step; if the run is measured in tokens (samples), a number of tokens (samples).
        """
        position = self._position if k is None else k
        return self._hyperparams[0].evaluate(curve_t(position, self._config, self._time_map))

    @property
    def sets_lr(self) -> bool:
        """Whether the schedule gives learning rates, not factors (``lr=``); base counts as 1."""
        return self._config.sets_lr

    def describe(self, group: str) -> str:
        """Return the schedule of a group's lr in the schedule notation; empty if it has none.

        Args:
            group: the param group's name, or its index as a string.
        """
        return self._describe(0, group)

    def _describe(self, i: int, group: str) -> str:
        hyperparam = self._hyperparams[i].writer.hyperparam
        schedules = self._config.schedules[hyperparam]
        schedule = schedules if isinstance(schedules, Schedule) else schedules.get(group)
        if schedule is None:
            return ""
        return f"{self._config.argument} {schedule!r}" if hyperparam == "lr" else repr(schedule)

    def remove(self) -> None:
        """Detach from the optimizer; its lrs keep their current values."""
        if self._removed:
            return
        self._removed = True
        if self._handle is not None:
            self._handle.remove()
        for writer, source, *_ in self._hyperparams:
            writer.remove(source)

    def __getstate__(self) -> NoReturn:
        """Raise: a copy would not be attached to an optimizer."""
        raise TypeError(
            "a ScheduleLR belongs to its optimizer and cannot be copied or pickled; build a new "
            "one and call its load_state_dict()"
        )

    # Saving and resuming ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which loads with ``weights_only=True``.

        It holds the number of steps taken, the config with schedules as strings, and each group's
        base, external factor and value of every hyperparameter.
        """
        state: dict[str, Any] = {
            "format": STATE_FORMAT,
            "steps": self.last_epoch,
            "position": self._position,
            "config": self._config.as_dict(),
            "initial_group_count": self._initial_group_count,
            "hyperparams": {writer.hyperparam: writer.state() for writer, *_ in self._hyperparams},
        }
        if self._time_map is not None:
            knots = [list(knot) for knot in self._time_map.knots]
            state["time_map"] = {"config": self._time_map.config.as_dict(), "knots": knots}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a saved state and write its learning rates.

        Call it directly before or after the optimizer's ``load_state_dict``. If the saved config
        differs, ``on_change=`` decides. Nothing is written to the optimizer unless the state is
        valid.

        Args:
            state_dict: a dict that `state_dict` returned.

        Raises:
            ScheduleChanged: the saved config differs and ``on_change`` is "raise"; or it is
                "continue", and more than the run length differs.
            BindingError: not the state of a ScheduleLR, another format, or damaged; another
                number of groups, other hyperparameters or another unit of the clock; "keep", where
                one config has ``lr=`` and the other ``factor=``; "continue" without
                ``total_steps=`` in both configs, or with nothing left to stretch; or this
                scheduler was removed.
            ScheduleError: a schedule does not resolve over the run.
        """
        if self._removed:
            raise BindingError("this scheduler was removed from its optimizer; build a new one")
        saved = Checkpoint.from_state(state_dict, self._config)
        names = [writer.hyperparam for writer, *_ in self._hyperparams]
        if set(saved.config.schedules) != set(names):
            raise BindingError(
                f"the saved config schedules {', '.join(saved.config.schedules)}, and this one "
                f"{', '.join(names)}; build the scheduler with the same hyperparam_factors="
            )
        for writer, *_ in self._hyperparams:
            writer.sync()
            writer.check_state(saved.hyperparams.get(writer.hyperparam))
        config, time_map = self._resumed_config(saved)
        group_names = _group_names(self._inner_optimizer.param_groups)
        curve_config = config if time_map is None else time_map.config
        group_count = saved.initial_group_count
        group_curves = [
            curve_config.group_curves(
                name, group_names, saved.hyperparams[name]["base"], group_count
            )
            for name in names
        ]
        self._config, self._time_map, self._initial_group_count = config, time_map, group_count
        self._calls, self._position = saved.steps, saved.position
        self._position_is_t = time_map is None and not config.midpoint
        for i, curves in enumerate(group_curves):
            writer, source, *_ = self._hyperparams[i]
            schedules = curve_config.schedules[writer.hyperparam]
            source.for_all_groups = isinstance(schedules, Schedule)
            self._hyperparams[i] = scheduled = _ScheduledHyperparam.build(writer, source, curves)
            source.factors = scheduled.evaluate(self._curve_t())
            writer.restore(saved.hyperparams[writer.hyperparam])

    def _resumed_config(self, saved: Checkpoint) -> tuple[ScheduleConfig, TimeMap | None]:
        """Return the config and the time map to resume with, according to ``on_change=``."""
        config, on_change = self._config, self._on_change
        differences = saved.config.differences(config)
        if not differences:
            return config, saved.time_map
        if saved.config.clock_unit != config.clock_unit:
            raise BindingError(
                f"the saved config counts {saved.config.clock_unit} and this one "
                f"{config.clock_unit}, so the position of the saved run on this clock is unknown"
            )
        if on_change == "raise":
            raise ScheduleChanged(self._compare_configs(saved, differences))
        if on_change == "keep" and saved.config.sets_lr != config.sets_lr:
            raise BindingError(
                f"the saved config uses {saved.config.argument}= and this scheduler "
                f"{config.argument}=; to keep the saved config, build the scheduler with "
                f"{saved.config.argument}="
            )
        time_map = (
            self._stretched(saved, differences) if on_change == "continue" else saved.time_map
        )
        log.info(
            "resumed at step %d with a different config (%s): on_change=%r",
            saved.steps, ", ".join(differences), on_change,
        )  # fmt: skip
        if on_change == "keep":
            return replace(saved.config, clock=config.clock), time_map
        return config, None if on_change == "replan" else time_map

    def _stretched(self, saved: Checkpoint, differences: list[str]) -> TimeMap:
        """Return the time map that stretches the rest of the saved schedule to the new total."""
        others = [name for name in differences if name not in RUN_LENGTH_ARGUMENTS]
        if others:
            raise ScheduleChanged(
                'on_change="continue" allows only the length of the run to change; '
                f"changed as well: {', '.join(others)}\n{self._compare_configs(saved, differences)}"
            )
        old = saved.time_map or TimeMap(
            saved.config, ((0.0, 0.0), (_run_length(saved.config),) * 2)
        )
        total_steps = _run_length(self._config)
        at = saved.position
        if not at < min(old.knots[-1][0], total_steps):
            raise BindingError(
                f'on_change="continue" at {at:g} {self._config.clock_unit}: nothing is left to '
                f"stretch, because the saved schedule ends at {old.knots[-1][0]:g} and this one at "
                f"{total_steps:g}"
            )
        return old.remapped(at, total_steps)

    def _compare_configs(self, saved: Checkpoint, differences: list[str]) -> str:
        before, now = saved.config.as_dict(), self._config.as_dict()
        lines = [f"the state was saved at step {saved.steps} with a different config"]
        for name in differences:
            lines += [
                f"  {name}: saved {before.get(name)}",
                f"  {' ' * len(name)}  now   {now.get(name)}",
            ]
        for config, time_map, title in (
            (saved.config, saved.time_map, "the saved"),
            (self._config, None, "this"),
        ):
            try:
                outcome = f"is {self._next_lr(config, time_map, saved):g}"
            except (BindingError, ScheduleError) as error:
                outcome = f"is unknown: {error}"
            lines.append(
                f"the next lr of group 0, by this schedule alone, with {title} config {outcome}"
            )
        lines.append(
            'pass on_change="keep" to keep the saved config, "replan" to use this config from '
            'here on, or "continue" to stretch the rest of the saved schedule to the new '
            "total_steps"
        )
        return "\n".join(lines)

    def _next_lr(
        self, config: ScheduleConfig, time_map: TimeMap | None, saved: Checkpoint
    ) -> float:
        curve_config = config if time_map is None else time_map.config
        lr_state = saved.hyperparams["lr"]
        group_names = _group_names(self._inner_optimizer.param_groups)
        curves = curve_config.group_curves(
            "lr", group_names, lr_state["base"], saved.initial_group_count
        )
        factors = curves.factors(curve_t(saved.position, config, time_map))
        base: float = 1.0 if curve_config.sets_lr else lr_state["base"][0]
        external_factor: float = lr_state["external_factor"][0]
        return base * external_factor * (factors[0] if isinstance(factors, list) else factors)


def _group_names(groups: list[dict[str, Any]]) -> list[str]:
    names = [str(group.get("name", i)) for i, group in enumerate(groups)]
    if len(set(names)) < len(names):
        raise BindingError(f"two param groups have the same name: {', '.join(names)}")
    return names


def _base_and_factor(
    writer: HyperparamWriter, groups: list[dict[str, Any]], *, fresh: bool
) -> tuple[list[float], list[float]]:
    """Return each group's base and external factor, which is lr / initial_lr for a new run."""
    current = writer.current_values()
    if writer.hyperparam != "lr":
        return current, [1.0] * len(current)
    base = [float(group.get("initial_lr", lr)) for group, lr in zip(groups, current, strict=True)]
    external_factor = []
    for i, (lr, initial_lr) in enumerate(zip(current, base, strict=True)):
        ratio = 1.0
        if fresh and not math.isclose(lr, initial_lr, rel_tol=FLOAT32_REL_TOL):
            name = group_name(groups[i], i)
            if lr == 0 or initial_lr == 0:
                writer.pending_warnings.append(
                    f"{name}: lr is {lr:g} and its initial_lr is {initial_lr:g}; their ratio is "
                    "0 or undefined, so the schedule starts from initial_lr"
                )
            else:
                ratio = lr / initial_lr
                writer.pending_warnings.append(
                    f"{name}: lr is {lr:g}, which is {ratio:g} of its initial_lr {initial_lr:g}; "
                    "the ratio is kept as an external factor. To start from lr, write "
                    "del group['initial_lr']; to resume a run, pass initial_step= or load a state "
                    "dict"
                )
        external_factor.append(ratio)
    return base, external_factor


def _check_lr_or_factor(config: ScheduleConfig, curves: GroupCurves, base: list[float]) -> None:
    """Refuse an lr= that would overwrite different base lrs, and a factor= that is likely an lr."""
    schedules = config.schedules["lr"]
    equal = all(math.isclose(value, base[0], rel_tol=FLOAT32_REL_TOL) for value in base)
    if config.sets_lr and isinstance(schedules, Schedule) and not equal:
        raise BindingError(
            f"lr= sets one lr for all param groups, but they have different ones: {base}; pass "
            "factor= to keep their ratios, or lr={group: schedule}"
        )
    peaks = [_peak(curve) for curve in curves.curves]
    # A factor of 0 freezes a group, and a small factor next to a larger one is a ratio: both pass.
    if not config.sets_lr and 0 < max(peaks) <= MAX_SUSPECT_FACTOR:
        i = peaks.index(max(peaks))
        value, schedule = base[curves.curve_index.index(i)], curves.curves[i].schedule
        raise BindingError(
            f"factor={schedule!r} multiplies lr={value:g} by at most {peaks[i]:g}, so the lr never "
            f"exceeds {value * peaks[i]:.3g}; did you mean lr={schedule!r}?"
        )


def _peak(curve: Curve) -> float:
    """Return the curve's bound if it is endless and has one; otherwise search for its peak.

    The peak is the largest absolute value found by a grid search, refined around the maximum.
    """
    if math.isinf(curve.length) and (bound := curve.bound):
        return bound
    low = 0
    high = math.ceil(curve.length) if math.isfinite(curve.length) else PEAK_GRID_POINTS
    while True:
        stride = -(-(high - low) // PEAK_GRID_POINTS)
        grid = [*range(low, high, max(stride, 1)), high]
        values = [abs(curve(t)) for t in grid]
        if stride <= 1:
            return max(values)
        best = grid[values.index(max(values))]
        low, high = max(low, best - stride), min(high, best + stride)


def _run_length(config: ScheduleConfig) -> float:
    """Return the position at which the run of a config ends on its clock."""
    schedules = config.schedules["lr"]
    schedule = schedules if isinstance(schedules, Schedule) else next(iter(schedules.values()))
    total_steps = config.resolve(schedule).length
    if config.total_steps is None:
        raise BindingError('on_change="continue" needs total_steps= in both configs')
    return total_steps

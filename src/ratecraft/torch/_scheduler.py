"""ScheduleLR: a torch LRScheduler that sets the lr from a schedule."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft._keywords import explain_arguments
from ratecraft._render._axis import number
from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Duration
from ratecraft.schedule._duration import as_number

from ._checkpoint import STATE_FORMAT, Checkpoint
from ._config import ScheduleConfig, Schedules, make_config
from ._driver import ScheduleDriver
from ._factors import Factors
from ._hyperparam import copied, innermost_optimizer
from ._resume import resume

log = logging.getLogger("ratecraft.torch")

IDLE_CALLS: Final = 20  # of step(), without a counted step, until there is a warning
ON_CHANGE_OPTIONS: Final = ("raise", "keep", "replan", "continue")
REPR_LENGTH: Final = 120  # characters; a longer schedule is shortened
REPR_LRS: Final = 4  # of more groups, the first ones and the last are shown


def refuse_copy(scheduler: LRScheduler) -> NoReturn:
    """Raise: a copy would not be attached to an optimizer."""
    raise TypeError(
        f"a {type(scheduler).__name__} belongs to its optimizer and cannot be copied or pickled; "
        "build a new one and call its load_state_dict()"
    )


class ScheduleLR(LRScheduler):
    """Set an optimizer's learning rate from a schedule; a torch ``LRScheduler`` for any trainer.

    With ``lr=`` the learning rate of step k is ``curve(k)``; with ``factor=`` it is
    ``base * curve(k)``, where base is each param group's ``lr`` at the start. Several schedulers
    on one optimizer multiply, and changes by other code (a torch scheduler, an assignment to
    ``group["lr"]``) become an external factor. Rounding errors do not accumulate.

    By default a hook counts the optimizer's steps. ``scheduler.step()`` may then be called any
    number of times, or never, and steps that AMP skips do not count.

    Args:
        optimizer: the optimizer to schedule.
        lr: the schedule of the learning rate: a `Schedule`, a string such as "cosine(1, 0)", or a
            dict with one for each param group by name.
        factor: the schedule that multiplies each group's base lr, instead of ``lr``.
        hyperparam_factors: schedules for other hyperparameters, as factors of their own values:
            ``{"weight_decay": cosine(1, 0.1), "betas[0]": ...}``; each may be a dict by group.
        total_steps: length of the run: steps, ``epochs(n)`` or its text. If it is ``tokens(N)``
            (``samples(N)``), call ``step(tokens=n)`` (``step(samples=n)``) after each step.
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
            ``total_steps``. A changed base lr counts as a changed config.
        multiply: whether another ScheduleLR on the same optimizer is intended. The schedules
            multiply in any case; without ``multiply=True`` there is a warning.

    Attributes:
        curve: the curve of ``lr`` (the first one, if groups have different curves).
        last_epoch: number of steps taken; torch's name.
        position: steps, samples or tokens so far, whichever the clock counts.
        config: the arguments, as a value.
        sets_lr: whether the schedule gives learning rates (``lr=``), not factors.
        counts_calls: whether the clock counts calls of ``step()``.
        is_removed: whether `remove` was called.

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
        total_steps: int | Duration | str | None = None,
        steps_per_epoch: float | None = None,
        samples_per_step: float | None = None,
        tokens_per_step: float | None = None,
        eta_min: float | Mapping[str, float] | None = None,
        midpoint: bool = False,
        clock: Literal["optimizer", "step"] = "optimizer",
        initial_step: int = 0,
        on_change: Literal["raise", "keep", "replan", "continue"] = "raise",
        multiply: bool = False,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(_not_an_optimizer(optimizer))
        sizes = steps_per_epoch, samples_per_step, tokens_per_step
        config = make_config(
            lr, factor, hyperparam_factors, total_steps, sizes, eta_min, midpoint, clock
        )
        _check_options(config, on_change, initial_step)
        self._on_change = on_change
        # LRScheduler.__init__ is not called: its wrapper of optimizer.step breaks a compiled or
        # patched step. The attributes of an LRScheduler that trainers read are set here instead.
        self.optimizer = optimizer
        self._step_count, self._is_initial = 1, False
        self._get_lr_called_within_step = False
        self._counts_calls, counted = config.clock == "step", config.clock == "optimizer"
        self._inner_optimizer = innermost_optimizer(optimizer, counted=counted)
        self._idle_calls = 0
        self._driver = ScheduleDriver(self._inner_optimizer, config, initial_step)
        self._driver.attach(multiply=multiply)

    # What it is -------------------------------------------------------------------------------

    @property
    def config(self) -> ScheduleConfig:
        """The arguments, as a value."""
        return self._driver.config

    @property
    def position(self) -> float:
        """Steps, samples or tokens so far, whichever the clock counts."""
        return self._driver.position

    @property
    def is_removed(self) -> bool:
        """Whether `remove` was called."""
        return self._driver.is_removed

    @property
    def sets_lr(self) -> bool:
        """Whether the schedule gives learning rates (``lr=``), not factors."""
        return self.config.sets_lr

    @property
    def counts_calls(self) -> bool:
        """Whether the clock counts calls of ``step()``."""
        return self._counts_calls

    @property
    def curve(self) -> Curve:
        """The curve of ``lr``; the first one, if groups have different curves."""
        return self._driver.bindings[0][1].curves[0]

    @property
    def end_step(self) -> int | None:
        """The step at which the schedule ends; None if it does not end or does not count steps."""
        end = self.config.run_length()
        counts_steps = self.config.clock_unit == "steps"
        return math.ceil(end) if counts_steps and math.isfinite(end) else None

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        """Return the config entries in which a saved state differs from this scheduler.

        A schedule with a lambda is always in the list: lambdas all have the same name.

        Raises:
            BindingError: not the state of a ScheduleLR.
        """
        return Checkpoint.from_state(state, self.config).config.differences(self.config)

    def peak_lrs(self) -> list[float]:
        """Return each group's peak lr over the run, by this schedule alone.

        The peak is the largest absolute value found by a grid search, refined around the maximum.
        """
        writer, source = self._driver.bindings[0]
        peaks = source.peaks()
        if self.sets_lr:
            return peaks
        return [base * peak for base, peak in zip(writer.base, peaks, strict=True)]

    def describe(self, group: str) -> str:
        """Return the schedule of a group's lr in the schedule notation; empty if it has none.

        Args:
            group: the param group's name, or its index as a string.
        """
        return self._driver.bindings[0][1].describe(group)

    def __repr__(self) -> str:
        return self._summary(type(self).__name__)

    def _summary(self, name: str, *more: str) -> str:
        """Return schedule, step and lr in one line; a long schedule is shortened."""
        schedules, unit = self.config.schedules["lr"], self.config.clock_unit
        schedule = str(schedules)
        if isinstance(schedules, Mapping):
            by_group = [f"{group}: {schedule}" for group, schedule in schedules.items()]
            schedule = f"{{{', '.join(by_group)}}}"
        length = self.config.run_length()
        end = "" if math.isinf(length) else f" of {number(length)}"
        now = f"step {self.last_epoch}{end}"
        if unit != "steps":
            now = f"{number(self.position)}{end} {unit}"
        lrs = [number(float(lr)) for lr in self.get_last_lr()]
        if len(set(lrs)) > 1 and len(lrs) > REPR_LRS:
            lrs[REPR_LRS - 1 : -1] = ["..."]
        lr = f"lr {lrs[0]}" if len(set(lrs)) == 1 else f"lrs {', '.join(lrs)}"
        state = ", ".join([now, lr, *more, *["removed"] * self.is_removed])
        room = REPR_LENGTH - len(f"{name}({self.config.argument}=, {state})")
        if len(schedule) > room:
            schedule = f"{schedule[: room - 3]}..."
        return f"{name}({self.config.argument}={schedule}, {state})"

    @property
    def base_lrs(self) -> list[Any]:
        """Each group's base lr."""
        return list(self._driver.bindings[0][0].base)

    @base_lrs.setter
    def base_lrs(self, values: object) -> NoReturn:
        raise BindingError("base_lrs cannot be set; remove() this scheduler and build a new one")

    @property
    def last_epoch(self) -> int:
        """Number of steps taken."""
        return int(self.position) if self.config.clock_unit == "steps" else self._driver.calls

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        if not self.counts_calls:
            raise BindingError(
                "last_epoch follows the optimizer's steps and cannot be set; for a trainer that "
                'sets it (Ignite) pass clock="step"'
            )
        if steps < 0:  # SequentialLR moves last_epoch back while it is built
            self._refuse_sequence()
        self._driver.position = float(steps)

    @property
    def _last_lr(self) -> list[Any]:  # always read from the groups
        return copied(group["lr"] for group in self._inner_optimizer.param_groups)

    @_last_lr.setter
    def _last_lr(self, lrs: object) -> None:
        self._driver.advance(self._inner_optimizer.param_groups, 0)  # set by torchtitan's resume

    def _refuse_sequence(self, epoch: int | None = None) -> NoReturn:
        raise BindingError(
            "a ScheduleLR cannot be part of torch's SequentialLR, which sets the step of its "
            "parts; write a.then(b) as one schedule"
        )

    _initial_step = _update_lr = _refuse_sequence

    # Counting ---------------------------------------------------------------------------------

    def step(
        self, epoch: int | None = None, *, samples: float | None = None, tokens: float | None = None
    ) -> None:
        """Advance the clock; a no-op for the default clock, which counts the optimizer's steps.

        With ``clock="step"`` each call is one step. If the run is measured in tokens (samples),
        pass those of each step, skipped ones included.

        Args:
            epoch: torch's argument, which is not supported.
            samples: samples in this step, if the run's ``total_steps`` is in samples.
            tokens: tokens in this step, if the run's ``total_steps`` is in tokens.

        Raises:
            TypeError: ``epoch``, a size that this clock does not count, or a missing size.
            BindingError: a negative size, or a param group was removed.
            ScheduleError: a size that is not finite.
        """
        if epoch is None and samples is None and tokens is None:
            if self._counts_calls:
                self._driver.advance(self._inner_optimizer.param_groups)
                return
            clock = self._driver.config.clock
            if clock != "optimizer":
                raise TypeError(f"total_steps is in {clock}: write step({clock}=n) after each step")
            if self._driver.position == 0:
                self._warn_of_uncounted_steps()
            return
        if epoch is not None:
            raise TypeError(
                f"ScheduleLR.step({epoch!r}) takes no epoch, since it counts steps, and no metric: "
                "for a metric use PlateauLR(scheduler) and its step(metric)"
            )
        unit, size = ("samples", samples) if tokens is None else ("tokens", tokens)
        if unit != self.config.clock or (samples is not None and tokens is not None):
            raise TypeError(
                f"step({unit}=...) needs a run whose total_steps is in {unit}; here it is in "
                f"{self.config.clock_unit}"
            )
        size = as_number(size, f"step({unit}=)")
        if size < 0:
            raise BindingError(f"step({unit}={size:g}): expected 0 or more")
        self._driver.advance(self._inner_optimizer.param_groups, size)
        self._driver.calls += 1

    def _warn_of_uncounted_steps(self) -> None:
        self._idle_calls += 1
        if self._idle_calls == IDLE_CALLS:
            name = type(self._inner_optimizer).__name__
            log.warning(
                f"step() was called {IDLE_CALLS} times, and {name} has made no step that could be "
                'counted; if it does train, pass clock="step", which counts the calls of step()'
            )

    def get_lr(self) -> list[Any]:
        """Return each group's lr for the next step, without writing it."""
        (writer, source), groups = self._driver.bindings[0], self._inner_optimizer.param_groups
        writer.sync()
        factors = source.current_factors()
        values = writer.values(source, factors)
        lrs = [
            torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr
            for group, lr in zip(groups, values, strict=True)
        ]
        writer.expected_write = source, factors, list(lrs)
        return lrs

    def preview(self, steps: int) -> dict[str, list[float]]:
        """Return each group's lrs over the next steps, from the current one on.

        Raises:
            BindingError: the clock counts tokens or samples.
        """
        if self.config.clock_unit != "steps":
            raise BindingError(
                f"preview() needs a clock that counts steps, and this one counts "
                f"{self.config.clock_unit}; write .curve.values(positions) instead"
            )
        writer, source = self._driver.bindings[0]
        writer.sync()
        rows = [writer.values(source, self.factors(self.position + k)) for k in range(steps)]
        return {name: [row[i] for row in rows] for i, name in enumerate(self._driver.group_names())}

    def factors(self, k: float | None = None) -> Factors:
        """Return this scheduler's factor at k (default: now), or the lr with ``lr=``.

        One number for all param groups, or a list with one for each. k is a position: a step, or
        a number of tokens (samples) if the run is measured in them.
        """
        position = self.position if k is None else k
        return self._driver.bindings[0][1].evaluate(self._driver.time_map(position))

    def remove(self) -> None:
        """Detach from the optimizer; its lrs keep their current values."""
        self._driver.remove()

    # Saving and resuming ----------------------------------------------------------------------

    __getstate__ = refuse_copy

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which loads with ``weights_only=True``.

        It holds the steps taken, the config with schedules as strings, and each group's base,
        external factor and value of every hyperparameter.
        """
        return {
            "format": STATE_FORMAT,
            "steps": self.last_epoch,
            "position": self.position,
            "config": self.config.as_dict(),
            "initial_group_count": self._driver.initial_group_count,
            "hyperparam_names": list(self.config.schedules),
            "hyperparams": {
                writer.hyperparam.name: writer.state() for writer, _ in self._driver.bindings
            },
            "time_map": self._driver.time_map.as_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a saved state and write its learning rates.

        Call it directly before or after the optimizer's ``load_state_dict``. If the saved config
        differs, ``on_change=`` decides. An invalid state changes nothing. After a torch scheduler's
        state it goes on at ``initial_step=``, or with "replan" at the step of that scheduler.

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
        if self.is_removed:
            raise BindingError("this scheduler was removed from its optimizer; build a new one")
        resume(self._driver, state_dict, self._on_change)


def _not_an_optimizer(value: object) -> str:
    """Return the message for a value that is no optimizer, but may contain one."""
    inner = [
        name
        for name, item in getattr(value, "__dict__", {}).items()
        if isinstance(item, torch.optim.Optimizer)
    ]
    name = type(value).__name__
    advice = (
        f"; pass the optimizer inside it, .{inner[0]}, whose steps are counted" if inner else ""
    )
    return f"ScheduleLR schedules a torch optimizer, not {name}{advice}"


def _check_options(config: ScheduleConfig, on_change: str, initial_step: object) -> None:
    if on_change not in ON_CHANGE_OPTIONS:
        known = ", ".join(map(repr, ON_CHANGE_OPTIONS))
        raise BindingError(f"on_change={on_change!r}: expected one of {known}")
    if isinstance(initial_step, bool) or not isinstance(initial_step, int) or initial_step < 0:
        raise BindingError(
            f"initial_step={initial_step!r}: expected an int >= 0, the number of steps taken"
        )
    if initial_step and config.clock_unit != "steps":
        raise BindingError(
            "initial_step= is a number of steps, and this run is measured in "
            f"{config.clock_unit}; load a state dict instead"
        )

"""ScheduleDriver: the part of a ScheduleLR that its optimizer keeps alive."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Sequence
from typing import Any, cast

from torch.optim import Optimizer

from ratecraft._trial import note_scheduler
from ratecraft.errors import BindingError

from ._checkpoint import TimeMap
from ._config import ScheduleConfig
from ._hyperparam import group_names
from ._source import ScheduleSource, check_lr_or_factor, warn_of_ratios
from ._step_hooks import add_step_hooks, calling_module
from ._writer import HyperparamWriter
from ._writers import add_source, writer_of

log = logging.getLogger("ratecraft.torch")


class ScheduleDriver:
    """Counts the steps of a run, and writes the scheduled values.

    The optimizer's hook refers to it, so a schedule goes on when the last reference to the
    scheduler is dropped. It refers to the optimizer weakly: a cycle would keep the optimizer and
    its state in memory until the next garbage collection.

    Attributes:
        config: the arguments of the scheduler.
        initial_step: the step at which the scheduler was built.
        position: steps, samples or tokens so far.
        calls: number of steps so far; the same as ``position`` if the clock counts steps.
        initial_group_count: param groups that the schedules were given for.
        bindings: the writer and the source of each hyperparameter, ``lr`` first.
        is_removed: whether it was detached from the optimizer.
    """

    def __init__(self, optimizer: Optimizer, config: ScheduleConfig, initial_step: int) -> None:
        self._optimizer = weakref.ref(optimizer)
        self.config, self.initial_step = config, initial_step
        self.calls, self.position = initial_step, float(initial_step)
        self.is_removed = False
        self.set_time_map(TimeMap(config))
        self.initial_group_count = len(optimizer.param_groups)
        self.bindings: list[tuple[HyperparamWriter, ScheduleSource]] = []
        self._handles: list[Any] = []
        note_scheduler(config)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's param groups."""
        return cast(Optimizer, self._optimizer()).param_groups

    def group_names(self) -> list[str]:
        """Return the names of the param groups, by which schedules address them."""
        names = group_names(self.groups)
        if len(set(names)) < len(names):
            raise BindingError(f"two param groups have the same name: {', '.join(names)}")
        return names

    def new_source(
        self, config: ScheduleConfig, hyperparam: str, base: Sequence[float], count: int
    ) -> ScheduleSource:
        """Return the schedules of a hyperparameter, which were given for ``count`` groups."""
        driver = weakref.ref(self)  # which refers to its sources

        def current_t() -> float:
            return cast(ScheduleDriver, driver()).curve_t()

        return ScheduleSource(config, hyperparam, self.group_names(), base, current_t, count)

    def set_time_map(self, time_map: TimeMap) -> None:
        """Read the curves at the times of this map from now on."""
        self.time_map, self._position_is_t = time_map, time_map.is_identity

    def curve_t(self) -> float:
        """Return t, the argument of the curves, now."""
        return self.time_map(self.position)

    def attach(self, *, multiply: bool) -> None:
        """Add a source to each hyperparameter's writer; all checks come before the first write."""
        optimizer, names = cast(Optimizer, self._optimizer()), self.group_names()
        is_fresh, initial_values = self.position == 0, []
        for hyperparam in self.config.schedules:
            writer = writer_of(optimizer, hyperparam)
            sets_lr = self.config.sets_lr and hyperparam == "lr"
            base, external_factor = writer.initial_values(fresh=is_fresh and not sets_lr)
            source = self.new_source(self.config, hyperparam, base, len(names))
            source.factors = source.current_factors()
            if hyperparam == "lr":
                check_lr_or_factor(source, base)
                if is_fresh and not writer.base and not sets_lr:
                    warn_of_ratios(writer, base)
            writer.check_source(source)
            self.bindings.append((writer, source))
            initial_values.append((base, external_factor))
        if not multiply and any(isinstance(s, ScheduleSource) for s in self.bindings[0][0].sources):
            log.warning(
                "another ScheduleLR already schedules this optimizer, and the two multiply; call "
                "its remove() to replace it, or pass multiply=True if you want the product"
            )
        for group, base_lr in zip(self.groups, initial_values[0][0], strict=True):
            group.setdefault("initial_lr", base_lr)
        for (writer, source), values in zip(self.bindings, initial_values, strict=True):
            add_source(writer, source, *values)
            writer.set_factor(source, source.factors, self.groups)
        self.warn_past_end()
        if self.config.clock == "optimizer":
            self._handles = add_step_hooks(optimizer, after=self._after_step)

    def _after_step(self, stepped: Optimizer, *_: Any) -> None:
        if "deepspeed" in sys.modules:
            _refuse_partial_steps(calling_module())
        # Under AMP the step of a fused optimizer is called for skipped steps, too.
        skipped = vars(stepped).get("found_inf")
        if skipped is None or not skipped.item():
            self.advance(self.groups)

    def advance(self, groups: list[dict[str, Any]], size: float = 1.0) -> None:
        """Advance the clock and write the values of the new position."""
        if self.is_removed:
            return
        self.position = position = self.position + size
        try:
            t = position if self._position_is_t else self.time_map(position)
            for writer, source in self.bindings:
                writer.set_factor(source, source.evaluate(t), groups)
        except BaseException:
            self.position -= size  # an evaluation failed: do not count this step
            raise

    def warn_past_end(self) -> None:
        """Warn, at the first step, if the run has ended before it."""
        if self.position and self.position >= (end := self.config.run_length()):
            self.bindings[0][0].pending_warnings.append(
                f"this run ended at {end:g} {self.config.clock_unit}, and {self.position:g} have "
                "been taken: the schedule stays at its last value; to train longer pass the "
                'total_steps= of the whole run, with on_change="continue" or "replan" if a state '
                "is loaded"
            )

    def remove(self) -> None:
        """Detach from the optimizer; its values stay as they are."""
        if self.is_removed:
            return
        self.is_removed = True
        for handle in self._handles:
            handle.remove()
        for writer, source in self.bindings:
            writer.remove(source)

    def replace_sources(self, sources: list[ScheduleSource], states: list[dict[str, Any]]) -> None:
        """Put other sources in the place of those in force, and write the saved values."""
        for i, (source, state) in enumerate(zip(sources, states, strict=True)):
            writer, before = self.bindings[i]
            source.factors = source.current_factors()
            writer.sources = [source if other is before else other for other in writer.sources]
            self.bindings[i] = writer, source
            writer.restore(state)
        self.warn_past_end()


def _refuse_partial_steps(caller: str) -> None:
    """Refuse to count the steps of an optimizer inside one of DeepSpeed's.

    ZeRO calls its step once for each param group or part of one, and once to create its state. The
    engine itself calls it once in each step.
    """
    if caller.startswith("deepspeed.") and caller != "deepspeed.runtime.engine":
        raise BindingError(
            f"DeepSpeed ({caller}) may call the optimizer's step several times in one step, so "
            'they cannot be counted; pass clock="step" and give the scheduler to '
            "deepspeed.initialize, whose engine calls step() once for each step"
        )

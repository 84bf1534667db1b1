"""Resume a ScheduleLR from a checkpoint: what on_change= makes of a changed config."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ratecraft.errors import BindingError, ScheduleChanged, ScheduleError

from ._checkpoint import Checkpoint, TimeMap, check_values, is_torch_state
from ._config import RUN_LENGTH_ARGUMENTS, ScheduleConfig
from ._driver import ScheduleDriver
from ._hyperparam import is_same_lr

log = logging.getLogger("ratecraft.torch")


def resume(driver: ScheduleDriver, state_dict: Mapping[str, Any], on_change: str) -> None:
    """Check everything, then set config and clock of a driver, and write the saved values."""
    if is_torch_state(state_dict):
        _resume_after_torch(driver, state_dict, on_change)
        return
    saved = Checkpoint.from_state(state_dict, driver.config)
    hyperparams = [writer.hyperparam.name for writer, _ in driver.bindings]
    if set(saved.config.schedules) != set(hyperparams):
        raise BindingError(
            f"the saved config schedules {', '.join(saved.config.schedules)}, and this one "
            f"{', '.join(hyperparams)}; build the scheduler with the same hyperparam_factors="
        )
    if not 1 <= saved.initial_group_count <= len(driver.groups):
        raise BindingError(
            f"the saved schedules are for {saved.initial_group_count} param groups, and this "
            f"optimizer has {len(driver.groups)}; add the groups that were added later before you "
            "load the state"
        )
    for writer, _ in driver.bindings:
        writer.sync()
        name = writer.hyperparam.name
        check_values(saved.hyperparams.get(name), name, len(writer.base))
    change = _Change(driver, saved)
    config, time_map = change.resumed(on_change)
    states: list[dict[str, Any]] = [saved.hyperparams[name] for name in hyperparams]
    if on_change == "replan":
        for name, state in zip(hyperparams, states, strict=True):
            changed = change.bases.get(name, {})
            state["base"] = [changed.get(i, base) for i, base in enumerate(state["base"])]
    sources = [
        driver.new_source(time_map.config, name, state["base"], saved.initial_group_count)
        for name, state in zip(hyperparams, states, strict=True)
    ]
    for source in sources:
        source.evaluate(time_map(saved.position))  # raises now, if at all
    driver.config, driver.initial_group_count = config, saved.initial_group_count
    driver.set_time_map(time_map)
    driver.calls, driver.position = saved.steps, saved.position
    driver.replace_sources(sources, states)


def _resume_after_torch(driver: ScheduleDriver, state: Mapping[str, Any], on_change: str) -> None:
    """Go on after a torch scheduler: at initial_step, or with "replan" after as many steps."""
    calls, counts_metrics = state["last_epoch"], "num_bad_epochs" in state
    counts_steps = driver.config.clock_unit == "steps" and not counts_metrics
    if not driver.initial_step and not (on_change == "replan" and counts_steps):
        advice = "initial_step=, the number of optimizer steps taken"
        if counts_steps:
            advice = (
                f'initial_step={calls} or on_change="replan" if each of its calls was a step, and '
                f"otherwise with {advice}"
            )
        raise BindingError(
            "this is the state of a torch scheduler: to go on with this schedule, build it with "
            f"{advice}"
        )
    steps = driver.initial_step or calls
    for _, source in driver.bindings:
        source.evaluate(driver.time_map(float(steps)))  # raises now, if at all
    driver.calls, driver.position = steps, float(steps)
    for writer, _ in driver.bindings:
        writer.sync()
    sources = [source for _, source in driver.bindings]
    # The factors of the torch scheduler are in the lrs, and no longer in force.
    states: list[dict[str, Any]] = [
        {"base": w.base, "external_factor": [1.0] * len(w.base), "value": w.base}
        for w, _ in driver.bindings
    ]
    driver.replace_sources(sources, states)
    log.info("resumed at step %d after a torch scheduler", driver.calls)


class _Change:
    """How a scheduler differs from its checkpoint.

    Attributes:
        names: the entries of the config that differ.
        bases: by hyperparameter and group, the present base values that differ. A base of 0 is
            left out: a group that starts frozen gets its base when it is unfrozen.
    """

    def __init__(self, driver: ScheduleDriver, saved: Checkpoint) -> None:
        self.driver, self.saved, self.config = driver, saved, driver.config
        self.names = saved.config.differences(driver.config)
        self.bases: dict[str, dict[int, float]] = {}
        for writer, source in driver.bindings:
            name = writer.hyperparam.name
            pairs = zip(saved.hyperparams[name]["base"], writer.base, strict=True)
            changed = {
                i: now
                for i, (before, now) in enumerate(pairs)
                if now and not is_same_lr(before, now)
            }
            if changed and not source.sets_lr:
                self.bases[name] = changed
        self.present_time_map = TimeMap(driver.config) if self.names else saved.time_map

    def resumed(self, on_change: str) -> tuple[ScheduleConfig, TimeMap]:
        """Return the config and the time map to resume with, according to ``on_change=``."""
        saved, config = self.saved, self.config
        if not self.names and not self.bases:
            return config, saved.time_map
        if saved.config.clock_unit != config.clock_unit:
            raise BindingError(
                f"the saved config counts {saved.config.clock_unit} and this one "
                f"{config.clock_unit}, so the position of the saved run on this clock is unknown"
            )
        if on_change == "raise":
            raise ScheduleChanged(self.comparison())
        if on_change == "keep" and saved.config.sets_lr != config.sets_lr:
            raise BindingError(
                f"the saved config uses {saved.config.argument}= and this scheduler "
                f"{config.argument}=; to keep the saved config, build the scheduler with "
                f"{saved.config.argument}="
            )
        resumed, time_map = config, self.present_time_map
        bases = [f"base {name}" for name in self.bases]
        if on_change == "keep":
            resumed, time_map = replace(saved.config, clock=config.clock), saved.time_map
        elif on_change == "continue":
            others = [name for name in self.names if name not in RUN_LENGTH_ARGUMENTS] + bases
            if others:
                raise ScheduleChanged(
                    'on_change="continue" allows only the length of the run to change; '
                    f"changed as well: {', '.join(others)}\n{self.comparison()}"
                )
            time_map = self._continued()
        log.info(
            "resumed at step %d with a different config (%s): on_change=%r",
            saved.steps, ", ".join([*self.names, *bases]), on_change,
        )  # fmt: skip
        return resumed, time_map

    def _continued(self) -> TimeMap:
        """Return the time map that stretches the rest of the saved schedule to the new total."""
        saved, config = self.saved, self.config
        before, now = saved.config.run_length(), config.run_length()
        if math.inf in (before, now):
            raise BindingError('on_change="continue" needs total_steps= in both configs')
        if not saved.position < min(before, now):
            raise BindingError(
                f'on_change="continue" at {saved.position:g} {config.clock_unit}: nothing is left '
                f"to stretch, because the saved schedule ends at {before:g} and this one at {now:g}"
            )
        return saved.time_map.stretched(saved.position, now)

    def comparison(self) -> str:
        """Return what differs, the next lr under each config, and the values of on_change=."""
        saved, names = self.saved, self.driver.group_names()
        before, now = saved.config.as_dict(), self.config.as_dict()
        rows = [(name, before.get(name), now.get(name)) for name in self.names]
        for hyperparam, changed in self.bases.items():
            bases = saved.hyperparams[hyperparam]["base"]
            rows += [
                (f"base {hyperparam} of group {names[i]}", bases[i], value)
                for i, value in changed.items()
            ]
        lines = [f"the state was saved at step {saved.steps} with a different config"]
        for name, old, new in rows:
            lines += [f"  {name}: saved {old}", f"  {' ' * len(name)}  now   {new}"]
        base = saved.hyperparams["lr"]["base"][0]
        new_base = self.bases.get("lr", {}).get(0, base)
        for title, time_map, base_lr in (
            ("the saved", saved.time_map, base),
            ("this", self.present_time_map, new_base),
        ):
            try:
                outcome = f"{self._next_lr(time_map, base_lr):g}"
            except (BindingError, ScheduleError) as error:
                outcome = f"unknown: {error}"
            lines.append(f"next lr of group 0 with {title} config: {outcome}")
        lines.append(
            'pass on_change="keep" to keep the saved config, "replan" to use this config from '
            'here on, or "continue" to stretch the rest of the saved schedule to the new '
            "total_steps"
        )
        return "\n".join(lines)

    def _next_lr(self, time_map: TimeMap, base: float) -> float:
        saved, state = self.saved, self.saved.hyperparams["lr"]
        bases = [base, *state["base"][1:]]
        count = saved.initial_group_count
        source = self.driver.new_source(time_map.config, "lr", bases, count)
        factors = source.evaluate(time_map(saved.position))
        factor = factors[0] if isinstance(factors, list) else factors
        external_factor: float = state["external_factor"][0]
        return (1.0 if source.sets_lr else base) * external_factor * factor

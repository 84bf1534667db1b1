"""Checkpoint: the saved state of a ScheduleLR, read, checked, and what on_change= makes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ratecraft.errors import BindingError, ScheduleChanged, ScheduleError

from ._config import RUN_LENGTH_ARGUMENTS, ScheduleConfig
from ._source import ScheduleSource

log = logging.getLogger("ratecraft.torch")

STATE_FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class TimeMap:
    """A map from positions k in a run to t = u(k), at which its curves, of ``config``, are read.

    It is piecewise linear, with ``knots`` (k, u) from (0, 0) to (new length, old length), after
    on_change="continue"; and u(k) = k without knots.
    """

    config: ScheduleConfig
    knots: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], current: ScheduleConfig) -> TimeMap:
        """Return the map that was saved as data; Python functions are taken from ``current``."""
        knots = tuple((float(k), float(u)) for k, u in data["knots"])
        if len(knots) < 2 or any(a[0] >= b[0] for a, b in pairwise(knots)):
            raise ValueError(f"the steps of the knots {knots} do not increase")
        return cls(ScheduleConfig.from_dict(data["config"], current), knots)

    def as_dict(self) -> dict[str, Any]:
        return {"config": self.config.as_dict(), "knots": [list(knot) for knot in self.knots]}

    @property
    def is_identity(self) -> bool:
        return not self.knots and not self.config.midpoint

    def __call__(self, position: float) -> float:
        """Return t at a position; half a step later for midpoint."""
        return self._mapped(position + 0.5 if self.config.midpoint else position)

    def _mapped(self, k: float) -> float:
        if not self.knots:
            return k
        pieces = (piece for piece in pairwise(self.knots) if k < piece[1][0])
        (k0, u0), (k1, u1) = next(pieces, self.knots[-2:])
        return u0 + (k - k0) * ((u1 - u0) / (k1 - k0))

    def stretched(self, at: float, total_steps: float) -> TimeMap:
        """Return a map that is the same up to position ``at`` and ends at ``total_steps``."""
        earlier = [knot for knot in self.knots[:-1] or [(0.0, 0.0)] if knot[0] < at]
        end = total_steps, self.config.run_length()
        return replace(self, knots=(*earlier, (at, self._mapped(at)), end))


class Checkpoint(NamedTuple):
    """A saved state: steps taken, position, config, and the values of each hyperparameter."""

    steps: int
    position: float
    config: ScheduleConfig
    initial_group_count: int
    hyperparams: dict[str, Any]
    time_map: TimeMap

    @classmethod
    def from_state(cls, state: Any, current: ScheduleConfig) -> Checkpoint:
        """Return the checkpoint in a state dict; Python functions are taken from ``current``."""
        if not isinstance(state, Mapping):
            raise BindingError("this is not the state of a ScheduleLR")
        if "format" in state or "plan" in state:  # format 1 has the key "plan" and no "format"
            check_format(state.get("format", 1), "ScheduleLR")
        if not isinstance(state.get("config"), Mapping):
            hint = ""
            if isinstance(state.get("last_epoch"), int):
                hint = (
                    "; it looks like the state of a torch scheduler: build the ScheduleLR with "
                    f"initial_step={state['last_epoch']} instead"
                )
            raise BindingError(f"this is not the state of a ScheduleLR{hint}")
        try:
            steps, position = int(state["steps"]), float(state["position"])
            config = ScheduleConfig.from_dict(state["config"], current)
            time_map = TimeMap(config)
            if "time_map" in state:
                time_map = TimeMap.from_dict(state["time_map"], current)
            count, hyperparams = int(state["initial_group_count"]), dict(state["hyperparams"])
            return cls(steps, position, config, count, hyperparams, time_map)
        except (KeyError, TypeError, ValueError) as error:
            raise BindingError(f"cannot read the state of this ScheduleLR: {error}") from None

    def resumed_config(
        self, config: ScheduleConfig, on_change: str, group_names: Sequence[str]
    ) -> tuple[ScheduleConfig, TimeMap]:
        """Return the config and the time map to resume with, according to ``on_change=``."""
        differences = self.config.differences(config)
        if not differences:
            return config, self.time_map
        if self.config.clock_unit != config.clock_unit:
            raise BindingError(
                f"the saved config counts {self.config.clock_unit} and this one "
                f"{config.clock_unit}, so the position of the saved run on this clock is unknown"
            )
        if on_change == "raise":
            raise ScheduleChanged(self._compare_configs(config, differences, group_names))
        if on_change == "keep" and self.config.sets_lr != config.sets_lr:
            raise BindingError(
                f"the saved config uses {self.config.argument}= and this scheduler "
                f"{config.argument}=; to keep the saved config, build the scheduler with "
                f"{self.config.argument}="
            )
        resumed, time_map = config, TimeMap(config)
        if on_change == "keep":
            resumed, time_map = replace(self.config, clock=config.clock), self.time_map
        elif on_change == "continue":
            others = [name for name in differences if name not in RUN_LENGTH_ARGUMENTS]
            if others:
                raise ScheduleChanged(
                    'on_change="continue" allows only the length of the run to change; '
                    f"changed as well: {', '.join(others)}\n"
                    + self._compare_configs(config, differences, group_names)
                )
            time_map = self._continued(config)
        log.info(
            "resumed at step %d with a different config (%s): on_change=%r",
            self.steps, ", ".join(differences), on_change,
        )  # fmt: skip
        return resumed, time_map

    def _continued(self, config: ScheduleConfig) -> TimeMap:
        before, now = self.config.run_length(), config.run_length()
        if math.inf in (before, now):
            raise BindingError('on_change="continue" needs total_steps= in both configs')
        if not self.position < min(before, now):
            raise BindingError(
                f'on_change="continue" at {self.position:g} {config.clock_unit}: nothing is left '
                f"to stretch, because the saved schedule ends at {before:g} and this one at {now:g}"
            )
        return self.time_map.stretched(self.position, now)

    def _compare_configs(
        self, config: ScheduleConfig, differences: list[str], group_names: Sequence[str]
    ) -> str:
        before, now = self.config.as_dict(), config.as_dict()
        lines = [f"the state was saved at step {self.steps} with a different config"]
        for name in differences:
            lines += [
                f"  {name}: saved {before.get(name)}",
                f"  {' ' * len(name)}  now   {now.get(name)}",
            ]
        for title, time_map in (("the saved", self.time_map), ("this", TimeMap(config))):
            try:
                outcome = f"is {self._next_lr(time_map, group_names):g}"
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

    def _next_lr(self, time_map: TimeMap, group_names: Sequence[str]) -> float:
        config, state = time_map.config, self.hyperparams["lr"]
        source = ScheduleSource(
            config, "lr", group_names, state["base"],
            partial(time_map, self.position), self.initial_group_count,
        )  # fmt: skip
        factors = source.current_factors()
        factor = factors[0] if isinstance(factors, list) else factors
        base: float = 1.0 if config.sets_lr else state["base"][0]
        external_factor: float = state["external_factor"][0]
        return base * external_factor * factor


def check_format(
    saved: object, name: str, advice: str = "start from the model weights with initial_step="
) -> None:
    if saved != STATE_FORMAT:
        raise BindingError(
            f"the state of this {name} has format {saved!r}, and this version of ratecraft reads "
            f"format {STATE_FORMAT} only; it cannot be converted: {advice}"
        )

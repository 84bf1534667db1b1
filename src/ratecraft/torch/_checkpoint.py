"""Checkpoint: the saved state of a ScheduleLR, read and checked; TimeMap."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ratecraft.errors import BindingError

from ._config import ScheduleConfig

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
        if not all(math.isfinite(k) and math.isfinite(u) for k, u in knots):
            raise ValueError(f"the knots {knots} are not finite")
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
            raise BindingError("this is not the state of a ScheduleLR")
        try:
            config = ScheduleConfig.from_dict(state["config"], current)
            for key in ("steps", "position", "initial_group_count"):
                if not is_finite_number(state[key]) or state[key] < 0:
                    raise ValueError(f"{key} is {state[key]!r}")
            steps, position = int(state["steps"]), float(state["position"])
            time_map = TimeMap(config)
            if state.get("time_map", {}).get("knots"):
                time_map = TimeMap.from_dict(state["time_map"], current)
            count = int(state["initial_group_count"])
            hyperparams = copy.deepcopy(dict(state["hyperparams"]))
            if dropped := set(state.get("hyperparam_names", ())) - set(config.schedules):
                # torch.distributed.checkpoint loads only what the state of this scheduler has.
                raise ValueError(
                    f"it schedules {', '.join(sorted(dropped))}, and this one does not; build the "
                    "scheduler with the same hyperparam_factors="
                )
            return cls(steps, position, config, count, hyperparams, time_map)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise BindingError(f"cannot read the state of this ScheduleLR: {error}") from None


def is_torch_state(state: Any) -> bool:
    """Return whether a state is that of a torch scheduler, and not one of ours."""
    is_ours = isinstance(state, Mapping) and not state.keys().isdisjoint(("config", "format"))
    return isinstance(state, Mapping) and isinstance(state.get("last_epoch"), int) and not is_ours


def check_values(state: Any, hyperparam: str, count: int) -> None:
    """Refuse a hyperparameter's saved values that do not fit this number of param groups."""
    for key in ("base", "external_factor", "value"):
        values = state.get(key) if isinstance(state, dict) else None
        if not isinstance(values, list) or not all(map(is_finite_number, values)):
            raise BindingError(f"the saved state has no list {key!r} of numbers for {hyperparam!r}")
        if key != "value" and min(values, default=0) < 0:
            raise BindingError(f"the saved {key!r} of {hyperparam!r} is negative: {values}")
        if len(values) != count:
            raise BindingError(
                f"the saved state has {len(values)} param groups, and this optimizer has {count}; "
                "add the groups that were added later before you load the state"
            )
    products = [a * b for a, b in zip(state["base"], state["external_factor"], strict=True)]
    if not all(map(math.isfinite, products)):
        raise BindingError(
            f"the saved 'base' and 'external_factor' of {hyperparam!r} multiply to {products}"
        )


def is_finite_number(value: Any) -> bool:
    """Return whether a value from a file is a number that a float can hold, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_format(
    saved: object, name: str, advice: str = "start from the model weights with initial_step="
) -> None:
    if saved != STATE_FORMAT:
        raise BindingError(
            f"the state of this {name} has format {saved!r}, and this version of ratecraft reads "
            f"format {STATE_FORMAT} only; it cannot be converted: {advice}"
        )

"""A saved state of a ScheduleLR, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from ratecraft.errors import BindingError

from ._config import ScheduleConfig, TimeMap


class Saved(NamedTuple):
    """A saved state, read and checked."""

    steps: int
    position: float
    config: ScheduleConfig
    groups: int
    fields: dict[str, Any]
    bend: TimeMap | None

    @classmethod
    def read(cls, state: Any, like: ScheduleConfig) -> Saved:
        """Return a saved state; a Python function in its config is taken from ``like``.

        Raises:
            BindingError: this is no state of a ScheduleLR, or a damaged one.
        """
        if not isinstance(state, Mapping) or not isinstance(state.get("plan"), Mapping):
            hint = ""
            if isinstance(state, Mapping) and isinstance(state.get("last_epoch"), int):
                hint = (
                    "; it looks like a torch scheduler's: build this one with "
                    f"initial_step={state['last_epoch']} instead"
                )
            raise BindingError(f"this is no state of a ScheduleLR{hint}")
        try:
            bend = None
            if "bend" in state:
                knots = tuple((float(k), float(u)) for k, u in state["bend"]["knots"])
                if len(knots) < 2 or any(a[0] >= b[0] for a, b in pairwise(knots)):
                    raise ValueError(f"the knots {knots} are no clock")
                bend = TimeMap(ScheduleConfig.from_dict(state["bend"]["plan"], like), knots)
            return cls(
                int(state["steps"]),
                float(state["position"]),
                ScheduleConfig.from_dict(state["plan"], like),
                int(state["groups"]),
                dict(state["fields"]),
                bend,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BindingError(f"the state of this ScheduleLR cannot be read: {error}") from None


def read_at(position: float, config: ScheduleConfig, bend: TimeMap | None) -> float:
    """Return where the curves are read at a position; half a step later for "mid"."""
    if config.midpoint:
        position += 0.5
    return position if bend is None else bend(position)

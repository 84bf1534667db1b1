"""A saved state of a ScheduleLR, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from ratecraft.errors import BindingError

from ._config import Bend, Plan


class Saved(NamedTuple):
    """A saved state, read and checked."""

    updates: int
    position: float
    plan: Plan
    groups: int
    fields: dict[str, Any]
    bend: Bend | None

    @classmethod
    def read(cls, state: Any, like: Plan) -> Saved:
        """Return a saved state; a Python function in its plan is taken from ``like``.

        Raises:
            BindingError: this is no state of a ScheduleLR, or a damaged one.
        """
        if not isinstance(state, Mapping) or not isinstance(state.get("plan"), Mapping):
            hint = ""
            if isinstance(state, Mapping) and isinstance(state.get("last_epoch"), int):
                hint = (
                    "; it looks like a torch scheduler's: build this one with "
                    f"start={state['last_epoch']} instead"
                )
            raise BindingError(f"this is no state of a ScheduleLR{hint}")
        try:
            bend = None
            if "bend" in state:
                knots = tuple((float(k), float(u)) for k, u in state["bend"]["knots"])
                if len(knots) < 2 or any(a[0] >= b[0] for a, b in pairwise(knots)):
                    raise ValueError(f"the knots {knots} are no clock")
                bend = Bend(Plan.from_dict(state["bend"]["plan"], like), knots)
            return cls(
                int(state["updates"]),
                float(state["position"]),
                Plan.from_dict(state["plan"], like),
                int(state["groups"]),
                dict(state["fields"]),
                bend,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BindingError(f"the state of this ScheduleLR cannot be read: {error}") from None


def read_at(position: float, plan: Plan, bend: Bend | None) -> float:
    """Return where the curves are read at a position; half an update later for "mid"."""
    if plan.sample == "mid":
        position += 0.5
    return position if bend is None else bend(position)

"""Checkpoint: the saved state of a ScheduleLR, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ratecraft.errors import BindingError

from ._config import ScheduleConfig, TimeMap

STATE_FORMAT: Final = 2


class Checkpoint(NamedTuple):
    """A saved state: steps taken, position, config, and the values of each hyperparameter."""

    steps: int
    position: float
    config: ScheduleConfig
    initial_group_count: int
    hyperparams: dict[str, Any]
    time_map: TimeMap | None

    @classmethod
    def from_state(cls, state: Any, current: ScheduleConfig) -> Checkpoint:
        """Return the checkpoint in a state dict; Python functions are taken from ``current``.

        Raises:
            BindingError: not the state of a ScheduleLR, of another format, or damaged.
        """
        # format 1 has the key "plan" and no "format"
        if isinstance(state, Mapping) and ("format" in state or "plan" in state):
            check_format(state, "ScheduleLR")
        if not isinstance(state, Mapping) or not isinstance(state.get("config"), Mapping):
            hint = ""
            if isinstance(state, Mapping) and isinstance(state.get("last_epoch"), int):
                hint = (
                    "; it looks current the state of a torch scheduler: build the ScheduleLR with "
                    f"initial_step={state['last_epoch']} instead"
                )
            raise BindingError(f"this is not the state of a ScheduleLR{hint}")
        try:
            time_map = None
            if "time_map" in state:
                saved = state["time_map"]
                knots = tuple((float(k), float(u)) for k, u in saved["knots"])
                if len(knots) < 2 or any(a[0] >= b[0] for a, b in pairwise(knots)):
                    raise ValueError(f"the steps of the knots {knots} do not increase")
                time_map = TimeMap(ScheduleConfig.from_dict(saved["config"], current), knots)
            return cls(
                int(state["steps"]),
                float(state["position"]),
                ScheduleConfig.from_dict(state["config"], current),
                int(state["initial_group_count"]),
                dict(state["hyperparams"]),
                time_map,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BindingError(f"cannot read the state of this ScheduleLR: {error}") from None


def check_format(state: Mapping[str, Any], name: str) -> None:
    """Refuse a state of another format; states without an entry ``format`` have format 1."""
    if (saved := state.get("format", 1)) != STATE_FORMAT:
        refuse_format(saved, name)


def refuse_format(
    saved: object,
    name: str,
    advice: str = "start from the model weights with initial_step=",
) -> None:
    """Raise the error for a state of another format.

    Args:
        saved: the format of the state.
        name: the class of the scheduler.
        advice: what to do instead, for the message.

    Raises:
        BindingError: always.
    """
    raise BindingError(
        f"the state of this {name} has format {saved!r}, and this version of ratecraft reads "
        f"format {STATE_FORMAT} only; it cannot be converted: {advice}"
    )


def curve_t(position: float, config: ScheduleConfig, time_map: TimeMap | None) -> float:
    """Return t, the curve argument, at a position; half a step later for midpoint."""
    if config.midpoint:
        position += 0.5
    return position if time_map is None else time_map(position)

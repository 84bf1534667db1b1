"""The grid of a comparison: the schedule, learning rate, optimizer and length of each candidate."""

from collections.abc import Mapping
from typing import NamedTuple

from ratecraft.results import Comparison


class GridPoint(NamedTuple):
    """What `compare` combined into a candidate.

    Attributes:
        schedule: name of the schedule alone.
        lr: learning rate.
        optimizer: optimizer that replaced the task's own; empty if none did.
        total_steps: number of steps.
    """

    schedule: str
    lr: float
    optimizer: str
    total_steps: int


def grid_points(comparison: Comparison) -> dict[str, GridPoint]:
    """Return the grid position of each candidate that has a configuration or a run."""
    configs: dict[str, tuple[float, str, int]] = {}
    for name in comparison.schedules:
        config = comparison.configs.get(name)
        if config is not None:
            configs[name] = (config.lr, config.optimizer, config.total_steps)
        elif runs := comparison.runs_for(name):
            configs[name] = (runs[0].lr, runs[0].optimizer, runs[0].total_steps)
    names = _schedule_names(comparison, configs)
    return {name: GridPoint(names[name], *config) for name, config in configs.items()}


def _schedule_names(
    comparison: Comparison, configs: Mapping[str, tuple[float, str, int]]
) -> Mapping[str, str]:
    """Return the names of the schedules without the parts that `compare` added to them.

    If this leaves two names for a schedule, or one for two, their texts are the names. In any
    case, no two candidates get the same name and configuration.
    """
    several_lengths = len({config.total_steps for config in comparison.configs.values()}) > 1
    names = {}
    for name in comparison.schedules:
        base = name
        if (config := comparison.configs.get(name)) is not None:
            for lr_text in (f"{config.lr:g}", repr(config.lr)):
                base = base.removesuffix(f", lr {lr_text}")
            if several_lengths:
                base = base.rpartition(", ")[0] or base
            if config.optimizer:
                base = base.removesuffix(f", {config.optimizer}")
        names[name] = base
    pairs = {(names[name], text) for name, text in comparison.schedules.items()}
    texts = comparison.schedules
    one_text_each = len(set(names.values())) == len(pairs)
    one_name_each = len(set(texts.values())) == len(pairs)
    options = [names] * (one_text_each and one_name_each) + [texts] + [names] * one_text_each
    for option in options:
        if len({(option[name], config) for name, config in configs.items()}) == len(configs):
            return option
    return {name: name for name in texts}

"""The heat map of a comparison: the final loss of each schedule, optimizer and learning rate."""

import math
from typing import Final

from ratecraft._render._axis import number
from ratecraft._render._heat_map import UNCOLORED, HeatMap, svg_heat_map
from ratecraft._render._html import static_figure
from ratecraft.results import Comparison

from ._grid import grid_points

MIN_HEAT_MAP_CANDIDATES: Final = 13  # fewer are easy to compare in the table


def heat_map_figure(comparison: Comparison) -> list[str]:
    """Return the heat map of a comparison of many candidates, if it has several columns."""
    heat_map = loss_heat_map(comparison)
    if len(comparison.schedules) < MIN_HEAT_MAP_CANDIDATES or len(_columns(heat_map)) < 2:
        return []
    caption = (
        "Mean over seeds of the final validation loss; the frame marks the lowest. Rows are "
        f"schedules, columns are {' and '.join(_axis_names(heat_map))}."
    )
    if any(not math.isfinite(loss) for loss in heat_map.cells.values()):
        caption += f" {UNCOLORED}: {heat_map.missing} on at least one seed."
    return [static_figure(svg_heat_map(heat_map), svg_heat_map(heat_map, width=360), caption)]


def loss_heat_map(comparison: Comparison) -> HeatMap:
    """Return the final losses by schedule (and length), optimizer and learning rate."""
    points, summaries = grid_points(comparison), comparison.summaries()
    means = {row.name: row.mean["loss"] for row in summaries}
    several_lengths = len({point.total_steps for point in points.values()}) > 1
    several_lrs = len({point.lr for point in points.values()}) > 1
    optimizers = list(dict.fromkeys(point.optimizer for point in points.values()))
    lr_texts = {point.lr: number(point.lr) for point in points.values()}
    if len(set(lr_texts.values())) < len(lr_texts):  # some agree in the first 4 digits
        lr_texts = {lr: repr(lr) for lr in lr_texts}
    positions = {}
    for name, point in points.items():
        row = (
            f"{point.schedule}, {point.total_steps:,} steps" if several_lengths else point.schedule
        )
        group = (point.optimizer or "the task's own") if len(optimizers) > 1 else ""
        positions[name] = row, group, point.lr
    cells = {}
    for name in sorted(positions, key=lambda name: positions[name][2]):  # learning rates ascend
        row, group, lr = positions[name]
        cells[row, group, lr_texts[lr] if several_lrs else ""] = means[name]
    order = list(dict.fromkeys((row, group) for row, group, _ in positions.values()))
    cells = dict(sorted(cells.items(), key=lambda item: order.index(item[0][:2])))
    stopped, missing = any(row.stopped for row in summaries), any(row.missing for row in summaries)
    reasons = ["diverged", *["stopped early"] * stopped, *["missing"] * missing]
    return HeatMap(cells=cells, title="Final validation loss", missing=" or ".join(reasons))


def _columns(heat_map: HeatMap) -> set[tuple[str, str]]:
    return {key[1:] for key in heat_map.cells}


def _axis_names(heat_map: HeatMap) -> list[str]:
    optimizers, lrs = (any(heat_map.labels(position)) for position in (1, 2))
    return [*["optimizers"] * optimizers, *["learning rates"] * lrs]

"""The rows of a Probe, and the breakdown of a learning rate into its factors."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ratecraft._files import shortened
from ratecraft._render._axis import number
from ratecraft._render._chart import Chart, Line
from ratecraft.errors import ResultError

from ._base import MAX_STEPS, NotebookResult, pluralize, short_repr


@dataclass(frozen=True, slots=True)
class Breakdown(NotebookResult):
    """A param group's learning rate as base lr x the product of its schedulers' factors.

    Attributes:
        group: the param group's name or number.
        base: the group's base lr.
        factors: each scheduler's factor at every step, by the scheduler's name.
        lrs: base x the product of the factors, at every step.
    """

    group: str
    base: float
    factors: Mapping[str, tuple[float, ...]]
    lrs: tuple[float, ...]

    def __repr__(self) -> str:
        factors = pluralize(len(self.factors), "factor")
        over = f"{factors} over {pluralize(len(self.lrs), 'step')}"
        return short_repr(self, f"group {self.group}", f"base {number(self.base)}", over)

    def chart(self) -> Chart:
        """Return the chart of each scheduler's factor."""
        steps = range(len(self.lrs))
        lines = [Line(name, steps, values) for name, values in self.factors.items()]
        return Chart(lines=lines, y_label="factor")

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (name, number(min(values)), number(max(values)))
            for name, values in self.factors.items()
            if values
        ]
        return ("scheduler", "lowest factor", "highest factor"), rows


@dataclass(frozen=True, slots=True)
class LayerStats:
    """One row of `ratecraft.diagnostics.Probe`: what one step changed in one layer.

    Attributes:
        step: the step, 0-based.
        group: the param group's name or number.
        layer: the path of the module that owns the parameters.
        lr: the group's lr at this step.
        weight_norm: L2 norm of the layer's weights before the step.
        step_norm: L2 norm of the change made by the step, without decoupled weight decay.
        gradient_norm: L2 norm of the gradient that the step used.
        gradient_l1: L1 norm of the same gradient.
        unclipped_norm: L2 norm of the gradient before clipping; 0 if it was not captured.
        effective_lr: step_norm / gradient_norm, the lr that gradient descent needs for this step.
        relative_step: step_norm / weight_norm.
        decay: the fraction by which decoupled weight decay shrinks the weights: lr x weight decay.
        lr_low: 5 % quantile of the lrs of single coordinates, by the optimizer's own formula.
        lr_median: their median.
        lr_high: their 95 % quantile.
    """

    step: int
    group: str
    layer: str
    lr: float
    weight_norm: float
    step_norm: float
    gradient_norm: float
    gradient_l1: float
    unclipped_norm: float
    effective_lr: float
    relative_step: float
    decay: float
    lr_low: float
    lr_median: float
    lr_high: float


def layer_names(rows: Sequence[LayerStats]) -> dict[tuple[str, str], str]:
    """Return a display name for each (group, layer).

    A layer whose parameters are in several groups gets the group's name in parentheses.

    Args:
        rows: from ``Probe.rows()`` or `load_layer_stats`.

    >>> values = [1.0] * 11
    >>> layer_names([LayerStats(0, group, "conv", 0.1, *values) for group in ("decay", "rest")])
    {('decay', 'conv'): 'conv (decay)', ('rest', 'conv'): 'conv (rest)'}
    """
    groups_of: dict[str, dict[str, None]] = {}  # the groups of each layer, in order
    for row in rows:
        groups_of.setdefault(row.layer, {})[row.group] = None
    return {
        (group, layer): f"{layer} ({group})" if len(groups) > 1 else layer
        for layer, groups in groups_of.items()
        for group in groups
    }


def load_layer_stats(path: str | os.PathLike[str]) -> list[LayerStats]:
    """Read the rows written by ``Probe.save``.

    Args:
        path: the CSV file.

    Raises:
        ResultError: the file cannot be read, or a row lacks a column or holds a wrong value.

    >>> import tempfile, torch
    >>> from ratecraft.diagnostics import Probe
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with Probe(optimizer, net) as probe, tempfile.TemporaryDirectory() as folder:
    ...     net(torch.ones(1, 1)).sum().backward()
    ...     optimizer.step()
    ...     load_layer_stats(probe.save(f"{folder}/probe.csv")) == probe.rows()
    True
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            columns, *records = [record for record in csv.reader(file) if record] or [[]]
    except OSError as error:
        raise ResultError(f"{source}: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise ResultError(f"{source}: {error}") from None
    types: dict[str, Any] = {field.name: field.type for field in fields(LayerStats)}
    if not set(columns) >= set(types) or len(set(columns)) < len(columns):
        raise ResultError(
            f"{source} has the columns {shortened(columns)}; expected each column of a Probe once: "
            f"{', '.join(types)}"
        )
    rows = []
    for i, record in enumerate(records, 1):
        try:
            cells = dict(zip(columns, record, strict=True))
            row = LayerStats(*(read(cells[name]) for name, read in types.items()))
            if not 0 <= row.step <= MAX_STEPS:
                raise ValueError(f"step {row.step}")
        except ValueError as error:
            raise ResultError(
                f"{source}: row {i} is not a row of a Probe ({str(error)[:100]}); expected "
                f"a step from 0 to {MAX_STEPS:,} and a number in every other column of numbers"
            ) from None
        rows.append(row)
    return rows

"""What steps did: a Probe's rows, and who made the lr."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratecraft.errors import ResultError


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What several schedulers make of an lr together: base x the product of their factors.

    Attributes:
        group: the param group's name or number.
        base: its own lr.
        factors: each scheduler's own factor at each step, by the scheduler's name.
        lrs: their product with the base.
    """

    group: str
    base: float
    factors: Mapping[str, tuple[float, ...]]
    lrs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one step did to one layer, as `ratecraft.torch.Probe` saw it.

    Attributes:
        step: which step, from 0 on.
        group: the param group's name or number.
        layer: the path of the module whose parameters these are.
        lr: the group's lr in this step.
        weight: L2 norm of the layer's weights before the step.
        step_norm: L2 norm of what the step added, without decoupled weight decay.
        gradient: L2 norm of the gradient that the step used.
        gradient_l1: its L1 norm.
        unclipped: L2 norm of the gradient as backward left it, before clipping; 0 where it was
            not seen.
        effective: step_norm / gradient: the lr that plain gradient descent would have needed.
        relative: step_norm / weight: by what share of themselves the weights moved.
        decay: the share by which decoupled weight decay shrank them, lr x weight decay.
        low: 5 % of the layer's coordinates had a lower lr, by the method's own formula.
        median: half of them had.
        high: 95 % of them had.
    """

    step: int
    group: str
    layer: str
    lr: float
    weight: float
    step_norm: float
    gradient: float
    gradient_l1: float
    unclipped: float
    effective: float
    relative: float
    decay: float
    low: float
    median: float
    high: float


def layer_names(rows: Sequence[LayerStats]) -> dict[tuple[str, str], str]:
    """Return what to call each layer of each group: with the group where it is in several.

    Args:
        rows: what ``Probe.rows()`` returns, or `load_layer_stats`.

    >>> numbers = [1.0] * 11
    >>> layer_names([LayerStats(0, group, "conv", 0.1, *numbers) for group in ("decay", "rest")])
    {('decay', 'conv'): 'conv (decay)', ('rest', 'conv'): 'conv (rest)'}
    """
    groups: dict[str, list[str]] = {}
    for row in rows:
        known = groups.setdefault(row.layer, [])
        if row.group not in known:
            known.append(row.group)
    return {
        (group, layer): f"{layer} ({group})" if len(some) > 1 else layer
        for layer, some in groups.items()
        for group in some
    }


def load_layer_stats(path: str | os.PathLike[str]) -> list[LayerStats]:
    """Read the rows that ``Probe.save`` wrote, as CSV or as lines of JSON.

    Args:
        path: the file; JSON lines if its name ends in ``.jsonl``, else CSV.

    Raises:
        ResultError: no such file, or a row that is none.

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
            lines = file if source.suffix == ".jsonl" else None
            found = [json.loads(line) for line in lines] if lines else list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise ResultError(f"{source}: {error}") from None
    kinds = {one.name: {"int": int, "str": str}.get(str(one.type), float) for one in _ROW}
    rows = []
    for number, row in enumerate(found, 1):
        try:
            rows.append(LayerStats(**{name: kind(row[name]) for name, kind in kinds.items()}))
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(
                f"{source}: row {number} is no row of a Probe ({error}); expected the columns "
                f"{', '.join(kinds)}"
            ) from None
    return rows


_ROW: Final = dataclasses.fields(LayerStats)

"""What updates did: a Probe's rows, and who made the rate."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratecraft.errors import RecordError


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What several schedulers make of a rate together: base x the product of their factors.

    Attributes:
        group: the param group's name or number.
        base: its own rate.
        factors: each scheduler's own factor at each update, by the scheduler's name.
        rates: their product with the base.
    """

    group: str
    base: float
    factors: Mapping[str, tuple[float, ...]]
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one update did to one layer, as `ratecraft.torch.Probe` saw it.

    Attributes:
        update: which update, from 0 on.
        group: the param group's name or number.
        layer: the path of the module whose parameters these are.
        rate: the group's rate in this update.
        weight: L2 norm of the layer's weights before the update.
        step: L2 norm of what the update added, without decoupled weight decay.
        gradient: L2 norm of the gradient that the update used.
        gradient_l1: its L1 norm.
        unclipped: L2 norm of the gradient as backward left it, before clipping; 0 where it was
            not seen.
        effective: step / gradient: the rate that plain gradient descent would have needed.
        relative: step / weight: by what share of themselves the weights moved.
        decay: the share by which decoupled weight decay shrank them, rate x weight decay.
        low: 5 % of the layer's coordinates had a lower rate, by the method's own formula.
        median: half of them had.
        high: 95 % of them had.
    """

    update: int
    group: str
    layer: str
    rate: float
    weight: float
    step: float
    gradient: float
    gradient_l1: float
    unclipped: float
    effective: float
    relative: float
    decay: float
    low: float
    median: float
    high: float


def layer_names(rows: Sequence[Measured]) -> dict[tuple[str, str], str]:
    """Return what to call each layer of each group: with the group where it is in several.

    Args:
        rows: what ``Probe.rows()`` returns, or `load_measured`.

    >>> numbers = [1.0] * 11
    >>> layer_names([Measured(0, group, "conv", 0.1, *numbers) for group in ("decay", "rest")])
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


def load_measured(path: str | os.PathLike[str]) -> list[Measured]:
    """Read the rows that ``Probe.save`` wrote, as CSV or as lines of JSON.

    Args:
        path: the file; JSON lines if its name ends in ``.jsonl``, else CSV.

    Raises:
        RecordError: no such file, or a row that is none.

    >>> import tempfile, torch
    >>> from ratecraft.diagnostics import Probe
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with Probe(optimizer, net) as probe, tempfile.TemporaryDirectory() as folder:
    ...     net(torch.ones(1, 1)).sum().backward()
    ...     optimizer.step()
    ...     load_measured(probe.save(f"{folder}/probe.csv")) == probe.rows()
    True
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            lines = file if source.suffix == ".jsonl" else None
            found = [json.loads(line) for line in lines] if lines else list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise RecordError(f"{source}: {error}") from None
    kinds = {one.name: {"int": int, "str": str}.get(str(one.type), float) for one in _ROW}
    rows = []
    for number, row in enumerate(found, 1):
        try:
            rows.append(Measured(**{name: kind(row[name]) for name, kind in kinds.items()}))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{source}: row {number} is no row of a Probe ({error}); expected the columns "
                f"{', '.join(kinds)}"
            ) from None
    return rows


_ROW: Final = dataclasses.fields(Measured)

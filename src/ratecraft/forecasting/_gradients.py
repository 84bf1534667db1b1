"""What a Probe measured, in the form in which the rest of this wing wants it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ratecraft.errors import SettingError
from ratecraft.results import LayerStats, layer_names

from ._averaging import Averaging, averaging_of


def gradient_norms(
    rows: Sequence[LayerStats], total_steps: int, *, l1: bool = False
) -> list[float]:
    """Return the norm of the whole gradient at each of ``total_steps`` steps, from a Probe's rows.

    sqrt(sum over layers of gradient^2), or the sum of L1 norms, before clipping where the Probe
    saw that (a layer's L1 norm is scaled as its L2 norm was); where it was measured, geometric
    between, and as at the nearest measurement before the first and after the last.

    Args:
        rows: what ``Probe.rows()`` returns, or ``ratecraft.results.load_layer_stats``.
        total_steps: steps of the run.
        l1: the L1 norm, for Adam's kind of method.

    Raises:
        SettingError: no rows, or no step with a gradient above 0.

    >>> import torch
    >>> from ratecraft.diagnostics import Probe
    >>> net = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with Probe(optimizer, net, every=2) as probe:
    ...     for k in range(4):
    ...         optimizer.zero_grad()
    ...         (4**k * net(torch.zeros(1, 1))).sum().backward()
    ...         optimizer.step()
    >>> [round(norm) for norm in gradient_norms(probe.rows(), 4)]
    [1, 4, 16, 16]
    """
    sums: dict[int, float] = {}
    for row in rows:
        # Norms that were clipped are all alike and say nothing of the run.
        clipped = row.unclipped / row.gradient if row.unclipped and row.gradient else 1.0
        part = clipped * row.gradient_l1 if l1 else (clipped * row.gradient) ** 2
        sums[row.step] = sums.get(row.step, 0.0) + part
    power = 1.0 if l1 else 0.5
    known = {k: power * math.log(x) for k, x in sums.items() if 0 < x < math.inf}
    return [math.exp(x) for x in _between(known, total_steps, "a gradient above 0")]


def layer_averaging(rows: Sequence[LayerStats], total_steps: int) -> dict[str, Averaging]:
    """Return over how many steps each layer's weights average, from a Probe's rows.

    What `averaging` says of a plan, said of what was done: ``decay``, the share by which
    decoupled weight decay shrank the weights, is linear between the steps that were measured.

    Args:
        rows: what ``Probe.rows()`` returns, or ``ratecraft.results.load_layer_stats``.
        total_steps: steps of the run.

    Raises:
        SettingError: no rows.

    >>> import torch
    >>> from ratecraft.diagnostics import Probe
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    >>> optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    >>> with Probe(optimizer, net) as probe:
    ...     net(torch.ones(1, 1)).sum().backward()
    ...     optimizer.step()
    >>> print(layer_averaging(probe.rows(), 500)["0"])
    these weights average the last 196 steps or so; 0.7% of the initial weights is left
    """
    layers: dict[str, dict[int, float]] = {}
    names = layer_names(rows)
    for row in rows:
        layers.setdefault(names[row.group, row.layer], {})[row.step] = row.decay
    if not layers:
        raise SettingError("no rows of a Probe were given")
    return {
        layer: averaging_of(_between(known, total_steps, "a decay"))
        for layer, known in layers.items()
    }


def _between(known: dict[int, float], total_steps: int, what: str) -> list[float]:
    """Return a value for each step, linear between the known ones, constant outside."""
    if not known:
        raise SettingError(f"no row of a Probe has {what}")
    places = sorted(known)
    values = [known[places[0]]] * min(places[0], total_steps)
    for a, b in itertools.pairwise(places):
        values += [known[a] + (known[b] - known[a]) * (k - a) / (b - a) for k in range(a, b)]
    values += [known[places[-1]]] * (total_steps - len(values))
    return values[:total_steps]

"""Gradient norms and averaging per layer, from the rows of a Probe."""

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
    """Return the norm of the whole gradient at each of ``total_steps`` steps.

    The norm is sqrt(sum over layers of gradient_norm^2), or the sum of the L1 norms of the
    layers. Norms are those before clipping if the Probe recorded them; an L1 norm is scaled by
    the ratio of the L2 norms before and after clipping. Between measured steps the norm is
    interpolated geometrically; outside them it equals that of the nearest measured step.

    Args:
        rows: rows of a Probe, from ``Probe.rows()`` or ``ratecraft.results.load_layer_stats``.
        total_steps: number of steps of the run.
        l1: return L1 norms, for optimizers of the Adam family.

    Raises:
        SettingError: there are no rows, or no step has a gradient above 0.

    >>> import torch
    >>> from ratecraft.diagnostics import Probe
    >>> from ratecraft.forecasting import gradient_norms
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
        # Clipped norms are all equal, so the norms before clipping are restored.
        measured = row.unclipped_norm and row.gradient_norm
        scale = row.unclipped_norm / row.gradient_norm if measured else 1.0
        term = scale * row.gradient_l1 if l1 else (scale * row.gradient_norm) ** 2
        sums[row.step] = sums.get(row.step, 0.0) + term
    power = 1.0 if l1 else 0.5
    logarithms = {k: power * math.log(x) for k, x in sums.items() if 0 < x < math.inf}
    return [math.exp(x) for x in _interpolated(logarithms, total_steps, "a gradient above 0")]


def layer_averaging(rows: Sequence[LayerStats], total_steps: int) -> dict[str, Averaging]:
    """Return the averaging of past steps in each layer, as measured by a Probe.

    `averaging` computes it from a schedule, this function from the measured ``decay``: the
    fraction by which decoupled weight decay shrank the weights in a step. Between measured steps
    ``decay`` is interpolated linearly.

    Args:
        rows: rows of a Probe, from ``Probe.rows()`` or ``ratecraft.results.load_layer_stats``.
        total_steps: number of steps of the run.

    Raises:
        SettingError: there are no rows.

    >>> import torch
    >>> from ratecraft.diagnostics import Probe
    >>> from ratecraft.forecasting import layer_averaging
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    >>> optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    >>> with Probe(optimizer, net) as probe:
    ...     net(torch.ones(1, 1)).sum().backward()
    ...     optimizer.step()
    >>> print(layer_averaging(probe.rows(), 500)["0"])
    the final weights average about the last 196 steps; 0.7% of the initial weights remains
    """
    layers: dict[str, dict[int, float]] = {}
    names = layer_names(rows)
    for row in rows:
        layers.setdefault(names[row.group, row.layer], {})[row.step] = row.decay
    if not layers:
        raise SettingError("rows= is empty; pass the rows of a Probe")
    return {
        layer: averaging_of(_interpolated(decays, total_steps, "a decay"))
        for layer, decays in layers.items()
    }


def _interpolated(values: dict[int, float], total_steps: int, quantity: str) -> list[float]:
    """Return a value for each step: linear between the given steps, constant outside them."""
    if not values:
        raise SettingError(f"no row of the Probe has {quantity}")
    steps = sorted(values)
    result = [values[steps[0]]] * min(steps[0], total_steps)
    for a, b in itertools.pairwise(steps):
        result += [values[a] + (values[b] - values[a]) * (k - a) / (b - a) for k in range(a, b)]
    result += [values[steps[-1]]] * (total_steps - len(result))
    return result[:total_steps]

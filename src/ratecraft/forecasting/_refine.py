"""Gradient norms of a finished run, and the schedule that minimizes the bound for them."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise

from ratecraft.errors import SettingError
from ratecraft.results import LayerStats
from ratecraft.schedule import Schedule, linear, percent


def gradient_norms(
    rows: Sequence[LayerStats], total_steps: int, *, l1: bool = False
) -> list[float]:
    """Return the norm of the whole gradient at each of ``total_steps`` steps.

    It is sqrt(sum over layers of gradient_norm^2), or the sum of the L1 norms of the layers, from
    before clipping if the Probe recorded it; then an L1 norm is scaled as its L2 norm is. Between
    measured steps norms are interpolated geometrically, outside them the nearest one counts.

    Args:
        rows: rows of a Probe, from ``Probe.rows()`` or `ratecraft.results.load_layer_stats`.
        total_steps: number of steps of the run.
        l1: return L1 norms, for optimizers of the Adam family.

    Raises:
        SettingError: there are no rows, or no step has a gradient above 0.

    >>> from ratecraft.results import LayerStats
    >>> rows = [LayerStats(k, "0", "layer", 0.1, *[4.0**k] * 11) for k in (0, 2)]
    >>> [round(norm) for norm in gradient_norms(rows, 4)]
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
    logs = {step: power * math.log(x) for step, x in sums.items() if 0 < x < math.inf}
    if not logs:
        raise SettingError("no row of the Probe has a gradient above 0")
    return list(map(math.exp, at_every_step(logs, total_steps)))


def at_every_step(known: Mapping[int, float], total_steps: int) -> list[float]:
    """Return the value at every step, interpolated linearly between the known ones."""
    import numpy as np

    steps, values = zip(*sorted(known.items()), strict=True)
    interpolated: list[float] = np.interp(range(total_steps), steps, values).tolist()
    return interpolated


def refine(norms: Sequence[float], *, adaptive: bool = False, pieces: int = 20) -> Schedule:
    """Return the schedule that minimizes the bound for the gradient norms of a finished run.

    u_t = w_t * sum_{p>t} w_p, scaled to a maximum of 1, where w = norm^-2, or w = norm^-1 if
    ``adaptive``. A running median over a tenth of the run smooths the norms first. Constant norms
    give a linear decay to 0; high norms at the start give a warmup.

    Args:
        norms: norm of the whole gradient at each step, before clipping, as from `gradient_norms`.
        adaptive: ``norms`` are L1 norms of a run with an optimizer of the Adam family.
        pieces: number of linear pieces of the schedule.

    Raises:
        SettingError: there are fewer norms than pieces, or a norm is not above 0.

    >>> refine([2.0] * 1000, pieces=2).resolve(total_steps=1000).values([0, 250, 500]).round(2)
    array([1.  , 0.75, 0.5 ])

    Source: Defazio et al. 2023, arXiv 2310.07831, algorithm 1.
    """
    import numpy as np
    from scipy.ndimage import median_filter

    gradients = np.asarray(norms, float)
    if not 0 < pieces < len(gradients):
        raise SettingError(
            f"{len(gradients)} norms and pieces={pieces}; pass one norm for each step, and fewer "
            "pieces than norms"
        )
    if not np.isfinite(gradients).all() or not (gradients > 0).all():
        raise SettingError("norms must be finite numbers above 0")
    smooth = median_filter(
        gradients / np.median(gradients), size=len(gradients) // 10 | 1, mode="reflect"
    )
    weights = smooth ** (-1.0 if adaptive else -2.0)
    later_weights = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    lrs = np.append(weights * later_weights, 0.0)
    knots = np.linspace(0, len(gradients), pieces + 1).round().astype(int)
    values = (lrs / lrs.max())[knots].round(6).tolist()
    shares = (np.diff(knots) / len(gradients) * 100).tolist()
    pieces_with_shares = zip(pairwise(values), shares, strict=True)
    parts = [linear(*ends, over=percent(share)) for ends, share in pieces_with_shares]
    return reduce(Schedule.then, parts)

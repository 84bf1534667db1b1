"""Schedule that minimizes the convex bound for measured gradient norms."""

from __future__ import annotations

from collections.abc import Sequence

from ratecraft.errors import SettingError
from ratecraft.schedule import Schedule, linear, percent


def refine(norms: Sequence[float], *, adaptive: bool = False, pieces: int = 20) -> Schedule:
    """Return the schedule that minimizes the bound for the gradient norms of a finished run.

    u_t = w_t * sum_{p>t} w_p, scaled to a maximum of 1, where w = norm^-2, or w = norm^-1 with
    L1 norms for optimizers of the Adam family. A running median over a tenth of the run smooths
    the norms first. Constant norms give a linear decay to 0; high norms at the start give a
    warm-up.

    Args:
        norms: norm of the whole gradient at each step, before clipping. `gradient_norms`
            computes them from the rows of a Probe, with ``l1=True`` for the Adam family.
        adaptive: ``norms`` are L1 norms of a run with an optimizer of the Adam family.
        pieces: number of linear pieces of the schedule.

    Raises:
        SettingError: there are fewer norms than pieces, or a norm is not above 0.

    >>> from ratecraft.forecasting import refine
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
    parts = [
        linear(a, b, over=percent(share))
        for a, b, share in zip(values, values[1:], shares, strict=False)
    ]
    shape = parts[0]
    for part in parts[1:]:
        shape = shape.then(part)
    return shape

"""The schedule that a logged sequence of gradient norms asks for."""

from __future__ import annotations

from collections.abc import Sequence

from ratecraft.errors import SettingError
from ratecraft.schedule import Schedule, linear, percent


def refine(norms: Sequence[float], *, adaptive: bool = False, pieces: int = 20) -> Schedule:
    """Return the shape that minimises the bound for the gradients of a run that was made.

    u_t = w_t * sum_{p>t} w_p, highest 1, where w = norm^-2, or norm^-1 of L1 norms for Adam's
    kind; norms are smoothed first by a median over a tenth of the run. Norms that stay give a
    line to 0; high ones at the start a warm-up.

    Args:
        norms: the norm of the whole gradient at each step, before clipping, which
            `gradient_norms` has from a Probe, with ``l1=True`` for Adam's kind.
        adaptive: they are L1 norms of a run with Adam's kind of method.
        pieces: how many straight pieces the schedule is made of.

    Raises:
        SettingError: fewer norms than pieces, or one that is not above 0.

    >>> refine([2.0] * 1000, pieces=2).resolve(total_steps=1000).values([0, 250, 500]).round(2)
    array([1.  , 0.75, 0.5 ])

    Source: Defazio et al. 2023, arXiv 2310.07831, algorithm 1.
    """
    import numpy as np
    from scipy.ndimage import median_filter

    gradients = np.asarray(norms, float)
    if not 0 < pieces < len(gradients):
        raise SettingError(
            f"{len(gradients)} norms and pieces={pieces}; give a norm for each step, and fewer "
            "pieces than these"
        )
    if not np.isfinite(gradients).all() or not (gradients > 0).all():
        raise SettingError("norms must be finite numbers above 0")
    smooth = median_filter(
        gradients / np.median(gradients), size=len(gradients) // 10 | 1, mode="reflect"
    )
    weights = smooth ** (-1.0 if adaptive else -2.0)
    after = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    lrs = np.append(weights * after, 0.0)
    places = np.linspace(0, len(gradients), pieces + 1).round().astype(int)
    heights = (lrs / lrs.max())[places].round(6).tolist()
    shares = (np.diff(places) / len(gradients) * 100).tolist()
    parts = [
        linear(a, b, over=percent(share))
        for a, b, share in zip(heights, heights[1:], shares, strict=False)
    ]
    shape = parts[0]
    for part in parts[1:]:
        shape = shape.then(part)
    return shape

"""Averaging of past steps by decoupled weight decay, under a schedule or measured by a Probe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ratecraft.errors import SettingError
from ratecraft.results import LayerStats, layer_names
from ratecraft.schedule import Curve, Schedule

from ._refine import at_every_step


@dataclass(frozen=True, slots=True)
class Averaging:
    """Contribution of each step to the final weights.

    Attributes:
        timescales: 1 / (lr * weight decay) at each step, in steps; inf where the product is 0.
        effective_steps: effective number of averaged steps, (sum of c)^2 / sum of c^2.
        initial_fraction: fraction of the initial weights that remains.
    """

    timescales: tuple[float, ...]
    effective_steps: float
    initial_fraction: float

    def __str__(self) -> str:
        return (
            f"the final weights average about the last {self.effective_steps:,.0f} steps; "
            f"{self.initial_fraction:.1%} of the initial weights remains"
        )


def averaging(lr: Curve, weight_decay: float | Curve) -> Averaging:
    """Return the average of past steps that AdamW computes under a schedule.

    AdamW's step w <- (1 - a_k) w + a_k (-s_k / weight_decay), where a_k = lr_k * weight_decay_k
    and s_k is Adam's step, is an exponential moving average with a timescale of 1 / a_k steps.
    Step i contributes c_i = a_i * product of (1 - a_j) over all j > i to the final weights, and
    the initial weights contribute the product of all (1 - a_j).

    Args:
        lr: learning rate of every step, as ``schedule.resolve(total_steps=...)`` returns it.
        weight_decay: weight decay, or the curve of a weight decay that changes.

    Raises:
        SettingError: lr * weight_decay is below 0 or above 1.
        ScheduleError: the curve has no end.

    >>> from ratecraft import linear
    >>> print(averaging((0.05 * linear(1, 0)).resolve(total_steps=1000), 0.1))
    the final weights average about the last 867 steps; 8.2% of the initial weights remains

    Source: Wang & Aitchison 2024, arXiv 2405.13698.
    """
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if isinstance(value, Schedule):
            raise TypeError(
                f"{name} is a schedule without a length; "
                f"pass the curve {name}=schedule.resolve(total_steps=...)"
            )
    if isinstance(weight_decay, Curve):
        return _averaging_of([lr(k) * weight_decay(k) for k in range(len(lr))])
    return _averaging_of([lr(k) * weight_decay for k in range(len(lr))])


def layer_averaging(rows: Sequence[LayerStats], total_steps: int) -> dict[str, Averaging]:
    """Return the averaging of past steps in each layer, as measured by a Probe.

    It is computed from ``decay``, the fraction by which decoupled weight decay shrank the weights
    in a step, interpolated linearly between measured steps.

    Args:
        rows: rows of a Probe, from ``Probe.rows()`` or `ratecraft.results.load_layer_stats`.
        total_steps: number of steps of the run.

    Raises:
        SettingError: there are no rows.

    >>> from ratecraft.results import LayerStats
    >>> rows = [LayerStats(0, "0", "layer", 0.1, *[0.01] * 11)]
    >>> print(layer_averaging(rows, 500)["layer"])
    the final weights average about the last 196 steps; 0.7% of the initial weights remains
    """
    if not rows:
        raise SettingError("rows= is empty; pass the rows of a Probe")
    names = layer_names(rows)
    decays: dict[str, dict[int, float]] = {}
    for row in rows:
        decays.setdefault(names[row.group, row.layer], {})[row.step] = row.decay
    return {
        layer: _averaging_of(at_every_step(by_step, total_steps))
        for layer, by_step in decays.items()
    }


def _averaging_of(fractions: Sequence[float]) -> Averaging:
    """Return the averaging for the product lr * weight_decay of each step."""
    for k, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise SettingError(
                f"lr * weight_decay is {fraction:g} at step {k}; expected a number from 0 to 1"
            )
    remaining, contributions = 1.0, []
    for fraction in reversed(fractions):
        contributions.append(fraction * remaining)
        remaining *= 1 - fraction
    squares = math.fsum(contribution * contribution for contribution in contributions)
    effective_steps = math.fsum(contributions) ** 2 / squares if squares else 0.0
    timescales = tuple(1 / fraction if fraction else math.inf for fraction in fractions)
    return Averaging(timescales, effective_steps, remaining)

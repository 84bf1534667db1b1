"""Gradient norms and averaging from the rows of a Probe."""

from dataclasses import fields

import pytest

from ratecraft import cosine
from ratecraft.errors import SettingError
from ratecraft.forecasting import averaging, gradient_norms, layer_averaging
from ratecraft.results import LayerStats


def row(step: int, layer: str, **values: float) -> LayerStats:
    names = [field.name for field in fields(LayerStats)][3:]
    return LayerStats(step, "0", layer, **{**dict.fromkeys(names, 0.0), **values})


def test_gradient_norms_are_interpolated_between_measured_steps() -> None:
    rows = [
        row(2, "a", gradient_norm=3.0),
        row(2, "b", gradient_norm=4.0),
        row(4, "a", gradient_norm=20.0),
    ]
    assert gradient_norms(rows, 6) == pytest.approx([5, 5, 5, 10, 20, 20])
    assert gradient_norms(rows, 3) == pytest.approx([5, 5, 5])
    with pytest.raises(SettingError, match="no row of the Probe has a gradient above 0"):
        gradient_norms([row(0, "a")], 5)


def test_layer_averaging_of_measured_decay_matches_averaging_of_the_schedule() -> None:
    curve = (0.05 * cosine(1, 0)).resolve(total_steps=1000)
    rows = [row(k, layer, decay=0.1 * curve(k)) for k in range(0, 1000, 10) for layer in "ab"]
    layers, planned = layer_averaging(rows, 1000), averaging(curve, 0.1)
    assert list(layers) == ["a", "b"]
    assert layers["a"].effective_steps == pytest.approx(planned.effective_steps, rel=1e-3)
    assert layers["b"].initial_fraction == pytest.approx(planned.initial_fraction, rel=1e-3)
    with pytest.raises(SettingError, match="rows= is empty; pass the rows of a Probe"):
        layer_averaging([], 5)


def test_norms_are_those_before_clipping() -> None:
    # The Probe captured the unclipped norm of one of two layers.
    rows = [
        row(0, "a", gradient_norm=0.3, unclipped_norm=3.0, gradient_l1=0.5),
        row(0, "b", gradient_norm=4.0),
    ]
    assert gradient_norms(rows, 1) == pytest.approx([5])
    assert gradient_norms(rows, 1, l1=True) == pytest.approx([5])


def test_l1_norms_of_layers_are_summed() -> None:
    rows = [row(0, "a", gradient_l1=3.0), row(0, "b", gradient_l1=4.0)]
    assert gradient_norms(rows, 2, l1=True) == pytest.approx([7, 7])

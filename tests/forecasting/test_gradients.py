"""A Probe's rows as foresee wants them."""

import pytest

from ratecraft import cosine
from ratecraft.errors import SettingError
from ratecraft.forecasting import averaging, gradient_norms, layer_averaging
from ratecraft.results import LayerStats


def row(step: int, layer: str, **said: float) -> LayerStats:
    names = ("lr", "weight", "step", "gradient", "gradient_l1", "unclipped", "effective",
             "relative", "decay", "low", "median", "high")  # fmt: skip
    numbers = dict.fromkeys(names, 0.0)
    return LayerStats(step, "0", layer, **{**numbers, **said})


def test_the_norm_of_the_whole_gradient_is_known_between_measurements() -> None:
    rows = [row(2, "a", gradient=3.0), row(2, "b", gradient=4.0), row(4, "a", gradient=20.0)]
    assert gradient_norms(rows, 6) == pytest.approx([5, 5, 5, 10, 20, 20])
    assert gradient_norms(rows, 3) == pytest.approx([5, 5, 5])
    with pytest.raises(SettingError, match="no row of a Probe has a gradient above 0"):
        gradient_norms([row(0, "a")], 5)


def test_what_was_measured_averages_as_what_was_planned() -> None:
    curve = (0.05 * cosine(1, 0)).resolve(total_steps=1000)
    rows = [row(k, layer, decay=0.1 * curve(k)) for k in range(0, 1000, 10) for layer in "ab"]
    found, planned = layer_averaging(rows, 1000), averaging(curve, 0.1)
    assert list(found) == ["a", "b"]
    assert found["a"].effective == pytest.approx(planned.effective, rel=1e-3)
    assert found["b"].initial == pytest.approx(planned.initial, rel=1e-3)
    with pytest.raises(SettingError, match="no rows of a Probe"):
        layer_averaging([], 5)


def test_norms_are_those_before_clipping() -> None:
    # One of two layers was not seen before clipping: what is known is taken.
    rows = [row(0, "a", gradient=0.3, unclipped=3.0, gradient_l1=0.5), row(0, "b", gradient=4.0)]
    assert gradient_norms(rows, 1) == pytest.approx([5])
    assert gradient_norms(rows, 1, l1=True) == pytest.approx([5])


def test_l1_norms_add_up() -> None:
    rows = [row(0, "a", gradient_l1=3.0), row(0, "b", gradient_l1=4.0)]
    assert gradient_norms(rows, 2, l1=True) == pytest.approx([7, 7])

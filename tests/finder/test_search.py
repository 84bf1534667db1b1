"""The positions that the search tries, for any gain curve and any start."""

import math
from itertools import count

from hypothesis import assume, given
from hypothesis import strategies as st

from ratecraft.finder._search import MIN_SPACING, around_best, find_peak, next_position


def searched(gain, initial_loss: float) -> dict[float, float]:
    """Return the gains at all positions that the search tries."""
    gains: dict[float, float] = {}
    for tried in count():
        position = next_position(gains, initial_loss)
        if position is None:
            return gains
        assert position not in gains
        assert tried < 40
        gains[position] = gain(position)
    raise AssertionError


@given(peak=st.floats(-6, 6), cliff=st.floats(0.1, 3), steep=st.floats(0.05, 2))
def test_search_brackets_the_peak_from_any_start(peak: float, cliff: float, steep: float) -> None:
    """Gains grow with the lr up to the peak, then fall; beyond the cliff training diverges."""

    def gain(position: float) -> float:
        if position > peak + cliff:
            return -math.inf
        if position > peak:
            return 1 - steep * (position - peak)
        return 10 ** (position - peak)

    gains = searched(gain, initial_loss=2.0)
    best = max(gains, key=gains.__getitem__)
    assert best - MIN_SPACING <= peak <= best + MIN_SPACING
    assert {best - MIN_SPACING, best + MIN_SPACING} <= set(gains)
    assert len(gains) <= 9 + abs(peak)


def test_gain_of_a_network_with_dead_units_is_not_the_peak() -> None:
    # Short runs of an MLP on raw digits, whose units die at lrs above 0.1 (positions 0 to 1.5):
    # its loss falls to that of a constant prediction, 2.3, and stays there.
    gains = {-1.0: 3.1, -0.5: 3.0, 0.0: 0.89, 0.5: 0.955, 1.0: 0.952, 1.5: 0.73, 2.0: -math.inf}
    whole = gains | {-1.5: 2.9, -2.0: 2.1, -2.5: 1.0}
    tried = {1.0: gains[1.0]}
    while (position := next_position(tried, 3.29)) is not None:
        tried[position] = whole[position]
    assert max(tried, key=tried.__getitem__) == -1.0


def test_search_goes_down_when_every_lr_is_harmful() -> None:
    assert next_position({0.0: -5.0}, 2.0) == -1.0
    assert next_position({0.0: -math.inf, -1.0: -math.inf}, 2.0) == -3.0


def test_search_goes_up_in_longer_steps_when_nothing_is_gained() -> None:
    assert next_position({0.0: 1e-6}, 2.0) == 2.0
    assert next_position({0.0: -1e-6, -1.0: -1e-5}, 2.0) == 2.0
    assert next_position({0.0: 0.0}, 0.0) == 1.0  # relative to a loss of 0 no gain is too small


positions = st.integers(-8, 8).map(lambda k: k * MIN_SPACING)
values = st.one_of(st.just(-math.inf), st.floats(-10, 10))


@given(st.dictionaries(positions, values, min_size=1))
def test_peak_is_near_the_best_position_and_inside_its_band(gains: dict) -> None:
    best = max(gains.values())
    peak = find_peak(gains)
    if not best > 0:
        assert peak is None
        return
    assert peak is not None
    assert peak.low <= peak.position <= peak.high
    best_position = max(gains, key=gains.__getitem__)
    assert min(gains) - MIN_SPACING <= peak.low <= best_position
    assert best_position - MIN_SPACING / 2 <= peak.high <= max(gains)
    assert best_position in around_best(gains)


@given(vertex=st.floats(-0.24, 0.24), curvature=st.floats(0.1, 0.9))
def test_peak_of_a_parabola_is_exact(vertex: float, curvature: float) -> None:
    gains = {k * MIN_SPACING: 1 - curvature * (k * MIN_SPACING - vertex) ** 2 for k in (-1, 0, 1)}
    assume(gains[0.0] == max(gains.values()))
    peak = find_peak(gains)
    assert peak is not None
    # The position is a quarter of the way from the vertex to the low end of the band.
    assert math.isclose((4 * peak.position - min(peak.low, vertex)) / 3, vertex, abs_tol=1e-9)


@given(st.dictionaries(positions, values, min_size=3), st.floats(0.1, 1e3))
def test_peak_does_not_depend_on_the_scale_of_the_loss(gains: dict, unit: float) -> None:
    assume(max(gains.values()) > 1e-3)
    peak, scaled = find_peak(gains), find_peak({k: v * unit for k, v in gains.items()})
    assert peak is not None
    assert scaled is not None
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(peak, scaled, strict=True))

"""Where the search goes, for any valley and any beginning."""

import math
from itertools import count

from hypothesis import assume, given
from hypothesis import strategies as st

from ratecraft.finder._search import STEP, around_best, next_place, top


def searched(gain, before: float) -> dict[float, float]:
    """Return all that the search tries until it is content."""
    gains: dict[float, float] = {}
    for tried in count():
        place = next_place(gains, before)
        if place is None:
            return gains
        assert place not in gains
        assert tried < 40
        gains[place] = gain(place)
    raise AssertionError


@given(peak=st.floats(-6, 6), cliff=st.floats(0.1, 3), steep=st.floats(0.05, 2))
def test_it_finds_the_peak_from_anywhere(peak: float, cliff: float, steep: float) -> None:
    """Gains grow with the lr up to the peak, then fall; beyond the cliff training diverges."""

    def gain(place: float) -> float:
        if place > peak + cliff:
            return -math.inf
        if place > peak:
            return 1 - steep * (place - peak)
        return 10 ** (place - peak)

    gains = searched(gain, before=2.0)
    best = max(gains, key=gains.__getitem__)
    assert best - STEP <= peak <= best + STEP
    assert {best - STEP, best + STEP} <= set(gains)
    assert len(gains) <= 9 + abs(peak)


def test_a_network_that_died_at_a_high_lr_is_not_believed() -> None:
    # The short runs of an MLP of raw digits, whose units die at lrs above 0.1 (places 0 to 1.5):
    # its loss falls to that of a constant, 2.3, and stays there.
    gains = {-1.0: 3.1, -0.5: 3.0, 0.0: 0.89, 0.5: 0.955, 1.0: 0.952, 1.5: 0.73, 2.0: -math.inf}
    whole = gains | {-1.5: 2.9, -2.0: 2.1, -2.5: 1.0}
    tried = {1.0: gains[1.0]}
    while (place := next_place(tried, 3.29)) is not None:
        tried[place] = whole[place]
    assert max(tried, key=tried.__getitem__) == -1.0


def test_where_everything_does_harm_it_goes_down() -> None:
    assert next_place({0.0: -5.0}, 2.0) == -1.0
    assert next_place({0.0: -math.inf, -1.0: -math.inf}, 2.0) == -3.0


def test_where_nothing_happens_it_goes_up_in_longer_steps() -> None:
    assert next_place({0.0: 1e-6}, 2.0) == 2.0
    assert next_place({0.0: -1e-6, -1.0: -1e-5}, 2.0) == 2.0
    assert next_place({0.0: 0.0}, 0.0) == 1.0  # of a loss of 0 nothing is slight


places = st.integers(-8, 8).map(lambda k: k * STEP)
values = st.one_of(st.just(-math.inf), st.floats(-10, 10))


@given(st.dictionaries(places, values, min_size=1))
def test_the_top_lies_beside_the_best_place_and_inside_its_band(gains: dict) -> None:
    best = max(gains.values())
    found = top(gains)
    if not best > 0:
        assert found is None
        return
    assert found is not None
    assert found.low <= found.place <= found.high
    here = max(gains, key=gains.__getitem__)
    assert min(gains) - STEP <= found.low <= here
    assert here - STEP / 2 <= found.high <= max(gains)
    assert here in around_best(gains)


@given(peak=st.floats(-0.24, 0.24), low=st.floats(0.1, 0.9))
def test_the_top_of_a_parabola_is_found_exactly(peak: float, low: float) -> None:
    gains = {k * STEP: 1 - low * (k * STEP - peak) ** 2 for k in (-1, 0, 1)}
    assume(gains[0.0] == max(gains.values()))
    found = top(gains)
    assert found is not None
    # The place is a quarter of the way from the parabola's top to the edge of the band.
    assert math.isclose((4 * found.place - min(found.low, peak)) / 3, peak, abs_tol=1e-9)


@given(st.dictionaries(places, values, min_size=3), st.floats(0.1, 1e3))
def test_the_answer_does_not_depend_on_the_losses_unit(gains: dict, unit: float) -> None:
    assume(max(gains.values()) > 1e-3)
    one, other = top(gains), top({k: v * unit for k, v in gains.items()})
    assert one is not None
    assert other is not None
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one, other, strict=True))

import math

import pytest

from ratecraft._render._axis import Axis, decimate, number
from ratecraft._render._chart import Chart, Line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3e-4, "3e-4"),
        (0.0123456, "0.01235"),
        (0.51239, "0.5124"),
        (-0.5, "-0.5"),
        (100, "100"),
        (123456, "123456"),
        (9.9999, "10"),
        (9999.6, "10000"),
        (1e6, "1e6"),
        (5e-324, "4.941e-324"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_labels_of_an_axis_have_the_same_format() -> None:
    def labels(low: float, high: float) -> list[str]:
        return [label for _, label in Axis(low, high).ticks(4)]

    assert labels(0, 0.02) == ["0", "0.005", "0.010", "0.015", "0.020"]
    assert labels(0, 2e-3) == ["0", "5e-4", "1e-3", "1.5e-3", "2e-3"]
    assert labels(0, 2e9) == ["0", "5e8", "1e9", "1.5e9", "2e9"]
    assert labels(-1, 1) == ["-1.0", "-0.5", "0", "0.5", "1.0"]
    assert labels(0.90, 0.98) == ["0.90", "0.92", "0.94", "0.96", "0.98"]


def test_a_narrow_logarithmic_axis_has_ticks_within_the_decade() -> None:
    assert [t for _, t in Axis(0.15, 0.6, log=True).ticks(5)] == ["0.2", "0.5"]
    assert len(Axis(0.31, 0.39, log=True).ticks(4)) >= 2
    assert [t for _, t in Axis(1e-8, 10, log=True).ticks(5)] == [
        "1e-8",
        "1e-6",
        "1e-4",
        "0.01",
        "1",
    ]


def test_whole_axes_have_no_fractional_ticks() -> None:
    axis = Axis.fit([0, 2], whole=True)
    assert [t for _, t in axis.ticks(20)] == ["0", "1", "2"]


def test_y_axes_start_at_zero_unless_that_flattens_the_line() -> None:
    assert Axis.fit([0.1, 1], upright=True).low == 0
    assert Axis.fit([0.9, 1], upright=True).low == 0.9
    assert Axis.fit([3e-4, 3e-4], upright=True) == Axis(0, 3e-4)


def test_decimation_preserves_extremes_ends_and_gaps() -> None:
    ys = [math.sin(i / 500) for i in range(100_000)]
    ys[12_345], ys[54_321], ys[77_777] = 9.0, -9.0, math.nan
    xs, chosen = decimate(range(len(ys)), ys, 1000)
    assert len(chosen) <= 1000
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert xs == sorted(xs)
    points = dict(zip(xs, chosen, strict=True))
    assert points[12_345] == 9
    assert points[54_321] == -9
    assert math.isnan(points[77_777])


def test_a_short_line_is_not_decimated() -> None:
    assert decimate([1, 2], [3, 4]) == ([1, 2], [3, 4])


@pytest.mark.parametrize("limits", [(0.0, 1e308), (-1e308, 1e308), (1.0, 1.0), (0.0, math.nan)])
def test_limits_that_no_axis_can_have_are_ignored(limits: tuple[float, float]) -> None:
    lines = [Line("a", [0, 1], [1, 2])]
    assert Chart(lines=lines, y_range=limits).axes()[1] == Chart(lines=lines).axes()[1]

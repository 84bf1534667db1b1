import math
import re
import time

import pytest
from quadratic import forecast, lr_finder_result

from ratecraft import constant, cooldown, cosine, percent, staircase, tokens, warmup
from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.report import terminal_curve, terminal_forecast, terminal_lr_finder, terminal_plot

NAN, INF = math.nan, math.inf


def drawing(text: str) -> list[str]:
    """The area within the axes, row by row."""
    return [
        re.split("[┤│]", line, maxsplit=1)[1]
        for line in text.splitlines()
        if re.search("[┤│]", line)
    ]


def dots(text: str) -> int:
    return sum((ord(c) - 0x2800).bit_count() for c in text if 0x2800 <= ord(c) < 0x2900)


def test_the_plot_keeps_to_its_size_and_names_its_axes() -> None:
    curve = (3e-4 * warmup(500).then(cosine(1, 0.1))).resolve(total_steps=10_000)
    text = terminal_curve({"run": curve}, width=60, height=10)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(drawing(text)) == 10
    assert lines[0] == "lr"
    assert lines[-1].strip() == "step"
    assert lines[1].startswith("3e-4 ┤")
    assert lines[-2].split() == ["0", "2000", "4000", "6000", "8000", "10000"]


def test_a_peak_between_two_samples_is_seen() -> None:
    curve = warmup(5003).then(cooldown(5003)).then(constant(0)).resolve(total_steps=500_000)
    text = terminal_curve({"spike": curve}, width=40)
    assert text.splitlines()[1].startswith("1.0 ┤")
    assert dots(drawing(text)[0]) > 0


@pytest.mark.parametrize("total", [1, 2, 7, 300, 10**9])
def test_runs_of_any_length_are_drawn_quickly(total: int) -> None:
    curve = cosine(1, 0).resolve(total_steps=total)
    start = time.perf_counter()
    text = terminal_curve({"run": curve})
    assert time.perf_counter() - start < 0.3
    assert dots(text) > 0


def test_many_cycles_are_drawn_quickly() -> None:
    curve = cosine(1, 0, over=1000).repeat().resolve(total_steps=10_000_000)
    start = time.perf_counter()
    terminal_curve({"restarts": curve})
    assert time.perf_counter() - start < 1


def test_a_jump_is_a_vertical_line() -> None:
    rows = drawing(
        terminal_curve({"s": staircase([1, 0.1], at=[500]).resolve(total_steps=1000)}, height=8)
    )
    middle = len(rows[0]) - 1
    column = [row.ljust(80)[middle - 1 : middle + 2] for row in rows]
    assert all(cell.strip() for cell in column[:7])


def test_a_curve_on_the_tokens_clock_is_drawn_over_tokens() -> None:
    curve = cosine(1, 0).resolve(total_steps=tokens(3e9))
    text = terminal_curve({"run": curve})
    assert text.splitlines()[-1].strip() == "token"
    assert "1e9" in text
    with pytest.raises(RatecraftError, match="different clocks"):
        terminal_curve({"a": curve, "b": cosine(1, 0).resolve(total_steps=10)})


def test_an_endless_curve_is_refused() -> None:
    with pytest.raises(ScheduleError, match="total_steps="):
        terminal_curve({"run": constant(1).resolve()})


def test_several_lines_are_told_apart_without_colour() -> None:
    curves = {
        "cosine": cosine(1, 0).resolve(total_steps=100),
        "wsd": constant(1).then(cooldown(percent(20))).resolve(total_steps=100),
    }
    text = terminal_curve(curves)
    assert "\x1b" not in text
    assert text.splitlines()[0] == "lr   ● cosine   ▲ wsd"
    area = "\n".join(drawing(text))
    assert area.count("●") > 1
    assert area.count("▲") > 1


def test_colour_changes_nothing_but_the_colour() -> None:
    curves = {
        "a": cosine(1, 0).resolve(total_steps=100),
        "b": constant(0.5).resolve(total_steps=100),
    }
    plain, colored = terminal_curve(curves), terminal_curve(curves, color=True)
    assert "\x1b[36m" in colored
    assert "\x1b[33m" in colored
    stripped = re.sub(r"\x1b\[\d+m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_a_single_line_has_no_legend() -> None:
    assert "only" not in terminal_plot({"only": ([0, 1], [0, 1])})


def test_points_that_are_not_finite_are_gaps() -> None:
    whole = terminal_plot({"a": (range(5), [1, 1, 1, 1, 1])}, width=40)
    for bad in (NAN, INF, -INF):
        gap = terminal_plot({"a": (range(5), [1, 1, bad, 1, 1])}, width=40)
        row = drawing(gap)[0]
        assert 0 < dots(gap) < dots(whole)
        assert "   " in row.strip()


def test_zeros_are_gaps_on_a_logarithmic_axis() -> None:
    text = terminal_plot({"a": (range(5), [0, 1e-4, 1e-2, 0, 1])}, log_y=True, height=12)
    assert "1e-4 ┤" in text
    assert "1 ┤" in text
    text = terminal_plot({"a": ([0, 1e-3, 1], [5, 1, 2])}, log_x=True)
    assert "1e-3" in text.splitlines()[-2]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [1],
        [0, 0, 0],
        [3e-4] * 3,
        [NAN] * 3,
        [INF, NAN],
        [-2, -1, -2],
        [1e-320, 0],
        [1, 1 + 1e-15],
    ],
    ids=str,
)
def test_any_range_is_drawn(values: list[float], log: bool) -> None:
    text = terminal_plot({"a": (range(len(values)), values)}, log_y=log, width=30, height=5)
    assert len(drawing(text)) == 5
    visible = any(math.isfinite(v) and (v > 0 or not log) for v in values)
    assert (dots(text) > 0) == visible


def test_a_mark_is_a_vertical_line_with_its_number() -> None:
    text = terminal_plot(
        {"loss": ([1e-4, 1e-2, 1], [2, 1, 2])}, log_x=True, mark=3e-4, x_label="lr"
    )
    assert text.splitlines()[0].endswith("┊ lr 3e-4")
    columns = {row.index("┊") for row in drawing(text) if "┊" in row}
    assert len(columns) == 1


def test_names_cannot_move_the_cursor_or_break_the_layout() -> None:
    names = ["a\x1b[2J\nb", "x" * 300]
    text = terminal_plot({name: ([0, 1], [0, 1]) for name in names}, width=50)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 50


def test_a_found_lr_is_drawn_with_what_is_worse_at_the_upper_edge() -> None:
    text = terminal_lr_finder(lr_finder_result())
    assert "┊ lr 0.1" in text
    rows = drawing(text)
    assert "●" in rows[0]  # the run that gained -50, at the edge
    assert "50" not in text
    assert "┊" not in terminal_lr_finder(lr_finder_result(None))


def test_a_forecast_is_drawn_without_the_fall_at_the_start() -> None:
    text = terminal_forecast(forecast())
    assert "wsd <b>" in text
    assert "cosine" in text
    rows = drawing(text)
    assert any("●" in row for row in rows)
    assert "▲" in text

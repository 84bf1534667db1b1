import math
import re
import time

import pytest
from quadratic import make_forecast, make_lr_finder_result

from ratecraft import constant, cooldown, cosine, percent, staircase, tokens, warmup
from ratecraft._render._text import display_width
from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.report import (
    Chart,
    Line,
    Mark,
    terminal_chart,
    terminal_curve,
)

NAN, INF = math.nan, math.inf


def plot_area(text: str) -> list[str]:
    """Return the rows inside the axes."""
    return [
        re.split("[┤│]", line, maxsplit=1)[1]
        for line in text.splitlines()
        if re.search("[┤│]", line)
    ]


def draw(*lines: Line, width: int = 72, height: int = 16, **settings: object) -> str:
    return terminal_chart(Chart(lines=lines, **settings), width=width, height=height)


def count_dots(text: str) -> int:
    return sum((ord(c) - 0x2800).bit_count() for c in text if 0x2800 <= ord(c) < 0x2900)


def test_terminal_curve_fits_size_and_labels_axes() -> None:
    curve = (3e-4 * warmup(500).then(cosine(1, 0.1))).resolve(total_steps=10_000)
    text = terminal_curve({"run": curve}, width=60, height=10)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(plot_area(text)) == 10
    assert lines[0] == "lr"
    assert lines[-1].strip() == "step"
    assert lines[1].startswith("3e-4 ┤")
    assert lines[-2].split() == ["0", "2000", "4000", "6000", "8000", "10000"]


def test_terminal_curve_shows_narrow_peak() -> None:
    curve = warmup(5003).then(cooldown(5003)).then(constant(0)).resolve(total_steps=500_000)
    text = terminal_curve({"spike": curve}, width=40)
    assert text.splitlines()[1].startswith("1.0 ┤")
    assert count_dots(plot_area(text)[0]) > 0


@pytest.mark.parametrize("total_steps", [1, 2, 7, 300, 10**9])
def test_terminal_curve_is_fast_for_any_length(total_steps: int) -> None:
    curve = cosine(1, 0).resolve(total_steps=total_steps)
    start = time.perf_counter()
    text = terminal_curve({"run": curve})
    assert time.perf_counter() - start < 0.3
    assert count_dots(text) > 0


def test_terminal_curve_is_fast_for_many_cycles() -> None:
    curve = cosine(1, 0, over=1000).repeat().resolve(total_steps=10_000_000)
    start = time.perf_counter()
    terminal_curve({"restarts": curve})
    assert time.perf_counter() - start < 1


def test_terminal_curve_draws_jump_as_vertical_line() -> None:
    rows = plot_area(
        terminal_curve({"s": staircase([1, 0.1], at=[500]).resolve(total_steps=1000)}, height=8)
    )
    middle = len(rows[0]) - 1
    column = [row.ljust(80)[middle - 1 : middle + 2] for row in rows]
    assert all(cell.strip() for cell in column[:7])


def test_terminal_curve_tokens_clock() -> None:
    curve = cosine(1, 0).resolve(total_steps=tokens(3e9))
    text = terminal_curve({"run": curve})
    assert text.splitlines()[-1].strip() == "token"
    assert "1e9" in text
    with pytest.raises(RatecraftError, match="different clocks"):
        terminal_curve({"a": curve, "b": cosine(1, 0).resolve(total_steps=10)})


def test_terminal_curve_endless_raises() -> None:
    with pytest.raises(ScheduleError, match="total_steps="):
        terminal_curve({"run": constant(1).resolve()})


def test_several_lines_have_symbols_and_legend() -> None:
    curves = {
        "cosine": cosine(1, 0).resolve(total_steps=100),
        "wsd": constant(1).then(cooldown(percent(20))).resolve(total_steps=100),
    }
    text = terminal_curve(curves)
    assert "\x1b" not in text
    assert text.splitlines()[0] == "lr   ● cosine   ▲ wsd"
    area = "\n".join(plot_area(text))
    assert area.count("●") > 1
    assert area.count("▲") > 1


def test_color_adds_only_escape_codes() -> None:
    curves = {
        "a": cosine(1, 0).resolve(total_steps=100),
        "b": constant(0.5).resolve(total_steps=100),
    }
    plain, colored = terminal_curve(curves), terminal_curve(curves, color=True)
    assert "\x1b[36m" in colored
    assert "\x1b[33m" in colored
    stripped = re.sub(r"\x1b\[\d+m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_single_line_has_no_legend() -> None:
    assert "only" not in draw(Line("only", [0, 1], [0, 1]))


def test_non_finite_points_become_gaps() -> None:
    whole = draw(Line("a", range(5), [1, 1, 1, 1, 1]), width=40)
    for bad in (NAN, INF, -INF):
        gap = draw(Line("a", range(5), [1, 1, bad, 1, 1]), width=40)
        row = plot_area(gap)[0]
        assert 0 < count_dots(gap) < count_dots(whole)
        assert "   " in row.strip()


def test_log_axis_zeros_become_gaps() -> None:
    text = draw(Line("a", range(5), [0, 1e-4, 1e-2, 0, 1]), log_y=True, height=12)
    assert "1e-4 ┤" in text
    assert "1 ┤" in text
    text = draw(Line("a", [0, 1e-3, 1], [5, 1, 2]), log_x=True)
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
def test_terminal_chart_accepts_any_range(values: list[float], log: bool) -> None:
    text = draw(Line("a", range(len(values)), values), log_y=log, width=30, height=5)
    assert len(plot_area(text)) == 5
    visible = any(math.isfinite(v) and (v > 0 or not log) for v in values)
    assert (count_dots(text) > 0) == visible


def test_mark_is_vertical_line_with_value_in_legend() -> None:
    text = draw(
        Line("loss", [1e-4, 1e-2, 1], [2, 1, 2]),
        log_x=True,
        marks=[Mark(3e-4, "3e-4")],
        x_label="lr",
    )
    assert text.splitlines()[0].endswith("┊ lr 3e-4")
    columns = {row.index("┊") for row in plot_area(text) if "┊" in row}
    assert len(columns) == 1


@pytest.mark.parametrize("width", [20, 50])
def test_names_of_any_length_and_script_stay_in_the_legend(width: int) -> None:
    names = ["a\x1b[2J\nb", "x" * 300, "学習率の予定表" * 9]
    settings = {"x_label": "step " * 40, "y_label": "loss\x9b31m " * 40}
    text = draw(*(Line(name, [0, 1], [0, 1]) for name in names), width=width, **settings)
    assert text.replace("\n", "").isprintable()
    assert max(map(display_width, text.splitlines())) <= width
    assert r"a\x1b[2J b" in text
    assert len(plot_area(text)) == 16


def test_long_names_in_the_legend_keep_their_ends() -> None:
    names = [f"warmup(500).then(constant(1)).then(cosine(1, 0.{i}))" for i in (1, 2)]
    text = draw(*(Line(name, [0, 1], [0, 1]) for name in names), width=40)
    for symbol, end in (("●", "1"), ("▲", "2")):
        assert re.search(rf"{symbol} warmup\(500\).*….*cosine\(1, 0\.{end}\)\)\n", text)


def test_a_shaded_interval_is_a_thick_part_of_the_x_axis() -> None:
    line = Line("loss", [1e-4, 1e-2, 1], [2, 1, 2])
    ruler = draw(line, log_x=True, span=(1e-3, 1e-1), width=42).splitlines()[-3]
    assert 8 < ruler.count("━") < 20
    assert "━" not in draw(line, span=(math.nan, 1))
    whole = draw(line, span=(-5, 5), width=42).splitlines()[-3]
    assert "─" not in whole


def test_terminal_lr_finder_draws_bad_runs_at_upper_edge() -> None:
    text = terminal_chart(make_lr_finder_result().chart())
    assert "┊ learning rate 0.1 (0.05 to 0.2)" in text
    rows = plot_area(text)
    assert any("○" in row for row in rows[:2])  # the run with a gain of -50
    assert sum(row.count("■") for row in rows) == 4  # a dot for each of the other runs
    assert "━┬━" in text  # the range, with the lr in the middle
    assert "50" not in text
    assert "┊" not in terminal_chart(make_lr_finder_result(None).chart())


def test_terminal_forecast_draws_all_entries() -> None:
    text = terminal_chart(make_forecast().chart())
    assert "wsd <b>" in text
    assert "cosine" in text
    rows = plot_area(text)
    assert any("●" in row for row in rows)
    assert "▲" in text


def test_a_dense_faint_line_does_not_hide_the_others() -> None:
    jagged = Line("raw", range(500), [k % 2 for k in range(500)], "faint")
    smooth = Line("smoothed", range(500), [0.5] * 500)
    assert draw(jagged, smooth, y_range=(0, 1)) == draw(smooth, y_range=(0, 1))
    flat = Line("before", [0, 499], [1, 1], "faint")
    assert "before" in draw(flat, smooth)

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal
from quadratic import (
    make_comparison,
    make_forecast,
    make_grid_comparison,
    make_lr_finder_result,
    make_range_test_result,
)

from ratecraft import constant, cosine, epochs, tokens, warmup
from ratecraft._render._chart import PALETTE
from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.report import (
    plot_comparison,
    plot_curves,
    plot_forecast,
    plot_layer_stats,
    plot_lr_finder,
    plot_range_test,
    plot_schedule,
    save_figure,
)
from ratecraft.results import LayerStats

FILE_SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def test_plot_curves_draws_curve_values_and_legend(tmp_path: Path) -> None:
    curves = {
        "_a": cosine(1, 0).resolve(total_steps=50),
        "cost $x$ <b>": warmup(10).resolve(total_steps=20),
    }
    axes = plot_curves(curves)
    for line, curve in zip(axes.get_lines(), curves.values(), strict=True):
        assert_array_equal(line.get_ydata(), [curve(t) for t in line.get_xdata()])
        assert list(line.get_xdata()[[0, -1]]) == [0, len(curve)]
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    save_figure(axes, tmp_path / "curves.png")


def test_plot_curves_log_axis_accepts_zeros(tmp_path: Path) -> None:
    axes = plot_curves({"a": warmup(10).resolve(total_steps=20)}, log=True)
    assert axes.get_yscale() == "log"
    save_figure(axes, tmp_path / "a.svg")


def test_plot_curves_limits_points_of_long_runs() -> None:
    (line,) = plot_curves({"a": cosine(1, 0).resolve(total_steps=10**9)}).get_lines()
    assert 1000 < len(line.get_xdata()) < 5000


def test_plot_schedule_labels_time_units() -> None:
    axes = plot_schedule(cosine(1, 0), epochs(3), steps_per_epoch=10)
    assert axes.get_xlabel() == "step"
    assert [child.get_xlabel() for child in axes.child_axes] == ["epoch"]
    assert plot_schedule(cosine(1, 0), tokens(3e9)).get_xlabel() == "token"


def test_plot_curves_different_clocks_raises() -> None:
    with pytest.raises(RatecraftError, match=r"different clocks \(step, token\)"):
        plot_curves(
            {
                "a": cosine(1, 0).resolve(total_steps=tokens(3e9)),
                "b": cosine(1, 0).resolve(total_steps=10),
            }
        )


def test_plot_schedule_draws_on_given_axes_with_legend() -> None:
    axes = Figure().add_subplot()
    assert plot_schedule([cosine(1, 0), 0.5 * cosine(1, 0)], 100, ax=axes) is axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["cosine(1, 0)", "0.5 * cosine(1, 0)"]
    assert plot_schedule({"half": cosine(1, 0)}, 10).get_title() == "half"


def test_schedule_plot_method() -> None:
    assert cosine(1, 0).plot(100, log=True).get_yscale() == "log"
    assert list(warmup(7).plot().get_lines()[0].get_xdata()[[0, -1]]) == [0, 7]


def test_plot_curves_endless_curve_raises() -> None:
    with pytest.raises(ScheduleError, match="total_steps="):
        plot_curves({"a": constant(1).resolve()})


def test_plot_range_test_marks_suggestion_and_crops_divergence() -> None:
    result = make_range_test_result()
    (axes,) = plot_range_test(result).axes
    raw, smoothed, marker = axes.get_lines()
    assert_array_equal(raw.get_ydata(), result.losses)
    assert_array_equal(smoothed.get_ydata(), result.smoothed)
    assert list(marker.get_xdata()) == [0.1, 0.1]
    assert axes.get_xscale() == "log"
    assert max(result.losses) > 1e5
    assert axes.get_ylim()[1] < 2


def test_plot_lr_finder_shows_runs_lr_and_range() -> None:
    result = make_lr_finder_result()
    (axes,) = plot_lr_finder(result).axes
    means, errors, runs, initial, worse, marker = axes.get_lines()
    assert set(initial.get_ydata()) == {1.0}
    assert_array_equal(means.get_xdata(), [0.01, 0.1, 0.3])
    assert means.get_ydata() == pytest.approx([0.6, 0.2, 0.2])  # two runs at 0.1
    gap = math.nan  # no line joins the runs
    assert_array_equal(runs.get_xdata()[::2], [0.01, 0.1, 0.3, 0.1])
    assert runs.get_ydata() == pytest.approx([0.6, gap, 0.1, gap, 0.2, gap, 0.3, gap], nan_ok=True)
    assert errors.get_ydata()[:3] == pytest.approx([0.59, 0.61, gap], nan_ok=True)
    assert errors.get_ydata()[3] == pytest.approx(0.12 - 0.03)
    assert_array_equal(worse.get_xdata(), [1.0, 10.0])
    assert list(marker.get_xdata()) == [0.1, 0.1]
    (interval,) = axes.patches
    assert (interval.get_x(), interval.get_x() + interval.get_width()) == pytest.approx((0.05, 0.2))
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == pytest.approx((0.01, 1.27))


def test_plot_lr_finder_has_room_for_a_range_below_all_runs() -> None:
    result = replace(make_lr_finder_result(), lr=0.004, lr_low=0.001, lr_high=0.005)
    (axes,) = plot_lr_finder(result).axes
    assert axes.get_xlim()[0] < 0.001


def test_plot_lr_finder_without_lr_has_no_marker() -> None:
    (axes,) = plot_lr_finder(make_lr_finder_result(None)).axes
    assert len(axes.get_lines()) == 5
    assert not axes.patches


def test_plot_range_test_linear_spacing_has_linear_axis() -> None:
    result = replace(make_range_test_result(), spacing="linear")
    assert plot_range_test(result).axes[0].get_xscale() == "linear"


def test_plot_range_test_without_suggestion_has_no_marker() -> None:
    assert len(plot_range_test(make_range_test_result(None)).axes[0].get_lines()) == 2


def test_plot_comparison_uses_one_color_per_schedule(tmp_path: Path) -> None:
    result = make_comparison()
    figure = plot_comparison(result)
    assert [axes.get_title() for axes in figure.axes] == [
        *("Schedules", "Validation loss", "Validation distance", "Training loss, smoothed"),
    ]
    for axes in figure.axes:
        assert [to_hex(line.get_color()) for line in axes.get_lines()] == list(PALETTE[:2])
    lrs, validation, *_ = figure.axes
    assert_array_equal(lrs.get_lines()[0].get_ydata(), result.runs[0].curve().values())
    seeds = [run.final() for run in result.runs_for("constant")]
    assert validation.get_lines()[0].get_ydata()[-1] == pytest.approx(sum(seeds) / 3)
    save_figure(figure, tmp_path / "comparison.pdf")


def test_plot_comparison_several_lrs_adds_panel_with_optimal_range(tmp_path: Path) -> None:
    result = make_grid_comparison(lrs=(0.01, 0.1, 0.4, 0.9))
    figure = plot_comparison(result)
    axes = figure.axes[1]
    assert axes.get_title() == "Validation loss by learning rate"
    assert axes.get_xscale() == "log"
    lines = axes.get_lines()
    assert len(lines) == 4
    ranges = result.optimal_lr_ranges().values()
    for (line, thick_line), optimum in zip(
        zip(lines[:2], lines[2:], strict=True), ranges, strict=True
    ):
        assert list(line.get_xdata()) == [0.01, 0.1, 0.4, 0.9]
        ends = thick_line.get_xdata()[0], thick_line.get_xdata()[-1]
        assert ends == (optimum.low, optimum.high)
        assert thick_line.get_color() == line.get_color()
    # Five panels fill two rows without overlap. Saving computes their positions.
    save_figure(figure, tmp_path / "panels.png")
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == 5
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_plot_comparison_limits_number_of_schedules() -> None:
    figure = plot_comparison(
        make_comparison({f"s{i}": (1 + i / 10) * constant(1) for i in range(11)}, seeds=1)
    )
    assert all(len(axes.get_lines()) == 8 for axes in figure.axes)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "the 8 best of 11"
    assert len(legend.get_texts()) == 8


def test_plot_comparison_accepts_all_diverged(tmp_path: Path) -> None:
    save_figure(plot_comparison(make_comparison(lr=3.0)), tmp_path / "all.png")


@pytest.mark.parametrize("suffix", FILE_SIGNATURES)
def test_save_figure_uses_format_of_suffix(tmp_path: Path, suffix: str) -> None:
    figure = plot_curves({"a": cosine(1, 0).resolve(total_steps=9)})
    path = save_figure(figure, tmp_path / "new" / f"a{suffix}")
    assert path.read_bytes().startswith(FILE_SIGNATURES[suffix])


@pytest.mark.parametrize("name", ["a.jpeg", "a"])
def test_save_figure_unsupported_suffix_raises(tmp_path: Path, name: str) -> None:
    with pytest.raises(RatecraftError, match=r"\.png, \.svg, \.pdf"):
        save_figure(plot_curves({"a": cosine(1, 0).resolve(total_steps=9)}), tmp_path / name)


def test_missing_matplotlib_error_names_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RatecraftError, match=r"pip install matplotlib"):
        plot_range_test(make_range_test_result())


def test_figures_do_not_import_pyplot() -> None:
    code = (
        "import sys; from ratecraft import constant; from ratecraft.report import plot_curves; "
        "plot_curves({'a': constant(1).resolve(total_steps=9)}); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plot_forecast_draws_losses_and_intervals(tmp_path: Path) -> None:
    figure = plot_forecast(make_forecast())
    lrs, losses, finals = figure.axes
    assert [len(line.get_xdata()) > 50 for line in lrs.get_lines()] == [True] * 3
    assert list(losses.get_lines()[0].get_ydata()) == [3 - k / 100 for k in range(10, 101, 10)]
    assert len(losses.get_lines()) == 1 + 3
    pairs = [list(x) for line in finals.get_lines() if len(x := line.get_xdata()) == 2]
    assert pairs == [pytest.approx(x) for x in ([0.9, 1.1], [0.901, 1.101], [1.4, 1.6])]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "wsd <b>",
        "cosine",
        "flat",
        "logged: run.csv",
    ]
    save_figure(figure, tmp_path / "f.svg")


def test_plot_layer_stats_has_one_range_for_all_probes() -> None:
    low, high = (
        [LayerStats(k, "0", "head", 0.1, *[scale] * 11) for k in range(3)] for scale in (0.1, 10.0)
    )
    for probes in ({"a": low, "b": high}, {"b": high, "a": low}):
        first, second, *_ = plot_layer_stats(probes).axes
        assert first.get_ylim() == second.get_ylim()
        low_end, high_end = first.get_ylim()
        assert low_end < 0.1
        assert high_end > 10
        assert [axes.get_yscale() for axes in (first, second)] == ["log", "log"]

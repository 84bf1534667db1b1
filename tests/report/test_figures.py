import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal
from quadratic import comparison, forecast, lr_finder_result, range_test, several

from ratecraft import constant, cosine, epochs, tokens, warmup
from ratecraft._render._svg import PALETTE
from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.report import (
    plot_comparison,
    plot_curves,
    plot_forecast,
    plot_lr_finder,
    plot_range_test,
    plot_schedule,
    save_figure,
)
from ratecraft.results._range_test_rules import RULES

HEADS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def test_curves_are_drawn_as_they_are(tmp_path: Path) -> None:
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


def test_a_logarithmic_axis_takes_a_schedule_that_ends_at_zero(tmp_path: Path) -> None:
    axes = plot_curves({"a": warmup(10).resolve(total_steps=20)}, log=True)
    assert axes.get_yscale() == "log"
    save_figure(axes, tmp_path / "a.svg")


def test_a_run_of_a_billion_steps_is_drawn_from_a_few_thousand() -> None:
    (line,) = plot_curves({"a": cosine(1, 0).resolve(total_steps=10**9)}).get_lines()
    assert 1000 < len(line.get_xdata()) < 5000


def test_axes_say_their_units() -> None:
    axes = plot_schedule(cosine(1, 0), epochs(3), steps_per_epoch=10)
    assert axes.get_xlabel() == "step"
    assert [child.get_xlabel() for child in axes.child_axes] == ["epoch"]
    assert plot_schedule(cosine(1, 0), tokens(3e9)).get_xlabel() == "token"


def test_curves_on_different_clocks_are_not_drawn_together() -> None:
    with pytest.raises(RatecraftError, match=r"different clocks \(token, step\)"):
        plot_curves(
            {
                "a": cosine(1, 0).resolve(total_steps=tokens(3e9)),
                "b": cosine(1, 0).resolve(total_steps=10),
            }
        )


def test_schedules_are_drawn_on_the_axes_given_with_a_legend() -> None:
    axes = Figure().add_subplot()
    assert plot_schedule([cosine(1, 0), 0.5 * cosine(1, 0)], 100, ax=axes) is axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["cosine(1, 0)", "0.5 * cosine(1, 0)"]
    assert plot_schedule({"half": cosine(1, 0)}, 10).get_title() == "half"


def test_a_schedule_draws_itself() -> None:
    assert cosine(1, 0).plot(100, log=True).get_yscale() == "log"
    assert list(warmup(7).plot().get_lines()[0].get_xdata()[[0, -1]]) == [0, 7]


def test_an_endless_curve_is_refused() -> None:
    with pytest.raises(ScheduleError, match="total_steps="):
        plot_curves({"a": constant(1).resolve()})


def test_a_range_test_shows_its_suggestion_and_hides_the_blow_up() -> None:
    result = range_test()
    (axes,) = plot_range_test(result).axes
    raw, smoothed, mark = axes.get_lines()
    assert_array_equal(raw.get_ydata(), result.losses)
    assert_array_equal(smoothed.get_ydata(), result.smoothed)
    assert list(mark.get_xdata()) == [0.1, 0.1]
    assert axes.get_xscale() == "log"
    assert max(result.losses) > 1e5
    assert axes.get_ylim()[1] < 2


def test_a_found_lr_shows_the_runs_the_lr_and_its_band() -> None:
    result = lr_finder_result()
    (axes,) = plot_lr_finder(result).axes
    before, runs, worse, mark = axes.get_lines()
    assert list(before.get_ydata()) == [1.0, 1.0]
    assert_array_equal(runs.get_xdata(), [0.01, 0.1, 0.3])
    assert runs.get_ydata() == pytest.approx([0.6, 0.2, 0.2])  # two runs at 0.1: their mean
    assert_array_equal(worse.get_xdata(), [1.0, 10.0])
    assert list(mark.get_xdata()) == [0.1, 0.1]
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.05, 0.2))
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == pytest.approx((0.12, 1.24))


def test_a_search_without_an_answer_has_no_mark() -> None:
    (axes,) = plot_lr_finder(lr_finder_result(None)).axes
    assert len(axes.get_lines()) == 3
    assert not axes.patches


def test_several_rules_are_marked_on_one_figure() -> None:
    result = range_test()
    lines = plot_range_test(result, tuple(RULES)).axes[0].get_lines()[3:]
    lrs = [result.suggest(rule).lr for rule in RULES]
    expected = [lr for lr in lrs if lr is not None and lr != result.suggestion]
    assert [line.get_xdata()[0] for line in lines] == expected
    assert len(expected) >= 2


def test_a_linear_range_test_has_a_linear_axis() -> None:
    result = replace(range_test(), spacing="linear")
    assert plot_range_test(result).axes[0].get_xscale() == "linear"


def test_a_range_test_without_a_suggestion_has_no_mark() -> None:
    assert len(plot_range_test(range_test(None)).axes[0].get_lines()) == 2


def test_a_comparison_has_one_colour_a_schedule(tmp_path: Path) -> None:
    result = comparison()
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


def test_several_lrs_have_a_panel_with_the_flat_region(tmp_path: Path) -> None:
    result = several(lrs=(0.01, 0.1, 0.4, 0.9))
    figure = plot_comparison(result)
    axes = figure.axes[1]
    assert axes.get_title() == "Validation loss over lrs"
    assert axes.get_xscale() == "log"
    lines = axes.get_lines()
    assert len(lines) == 4
    for (line, region), flat in zip((lines[:2], lines[2:]), result.flat().values(), strict=True):
        assert list(line.get_xdata()) == [0.01, 0.1, 0.4, 0.9]
        assert (region.get_xdata()[0], region.get_xdata()[-1]) == (flat.low, flat.high)
        assert region.get_color() == line.get_color()
    # Five panels stand in two rows, and none on another.
    save_figure(figure, tmp_path / "panels.png")  # only drawn, they have places
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == 5
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_of_many_schedules_the_best_are_drawn() -> None:
    figure = plot_comparison(
        comparison({f"s{i}": (1 + i / 10) * constant(1) for i in range(11)}, seeds=1)
    )
    assert all(len(axes.get_lines()) == 8 for axes in figure.axes)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "the 8 best of 11"
    assert len(legend.get_texts()) == 8


def test_a_comparison_in_which_all_diverged_is_drawn(tmp_path: Path) -> None:
    save_figure(plot_comparison(comparison(lr=3.0)), tmp_path / "all.png")


@pytest.mark.parametrize("suffix", HEADS)
def test_a_figure_is_saved_by_its_suffix(tmp_path: Path, suffix: str) -> None:
    figure = plot_curves({"a": cosine(1, 0).resolve(total_steps=9)})
    path = save_figure(figure, tmp_path / "new" / f"a{suffix}")
    assert path.read_bytes().startswith(HEADS[suffix])


@pytest.mark.parametrize("name", ["a.jpeg", "a"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RatecraftError, match=r"\.png, \.svg, \.pdf"):
        save_figure(plot_curves({"a": cosine(1, 0).resolve(total_steps=9)}), tmp_path / name)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RatecraftError, match=r"pip install 'ratecraft\[plot\]'"):
        plot_range_test(range_test())


def test_no_global_state_of_matplotlib_is_touched() -> None:
    code = (
        "import sys; from ratecraft import constant; from ratecraft.report import plot_curves; "
        "plot_curves({'a': constant(1).resolve(9)}); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_forecast_is_drawn_with_its_bands(tmp_path: Path) -> None:
    figure = plot_forecast(forecast())
    lrs, losses, ends = figure.axes
    assert [len(line.get_xdata()) > 50 for line in lrs.get_lines()] == [True] * 3
    assert list(losses.get_lines()[0].get_ydata()) == [3 - k / 100 for k in range(10, 101, 10)]
    assert len(losses.get_lines()) == 1 + 3
    bands = [list(line.get_xdata()) for line in ends.get_lines() if len(line.get_xdata()) == 2]
    assert bands == [pytest.approx(x) for x in ([0.9, 1.1], [0.901, 1.101], [1.4, 1.6])]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "wsd <b>",
        "cosine",
        "flat",
        "logged",
    ]
    save_figure(figure, tmp_path / "f.svg")

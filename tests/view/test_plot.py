import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_array_equal
from quadratic import comparison, range_test

from ratecraft import constant, cosine, warmup
from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.view import plot_comparison, plot_curves, plot_range_test, save_figure
from ratecraft.view.svg import PALETTE

HEADS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def test_curves_are_drawn_as_they_are(tmp_path: Path) -> None:
    curves = {"_a": cosine(1, 0).resolve(50), "cost $x$ <b>": warmup(10).resolve(20)}
    figure = plot_curves(curves)
    (axes,) = figure.axes
    for line, curve in zip(axes.get_lines(), curves.values(), strict=True):
        assert_array_equal(line.get_ydata(), curve.values())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    save_figure(figure, tmp_path / "curves.png")


def test_a_curve_of_one_update_is_a_dot() -> None:
    (line,) = plot_curves({"a": constant(1).resolve(1)}).axes[0].get_lines()
    assert line.get_marker() == "o"


def test_a_logarithmic_axis_takes_a_schedule_that_ends_at_zero(tmp_path: Path) -> None:
    figure = plot_curves({"a": warmup(10).resolve(20)}, log_y=True)
    assert figure.axes[0].get_yscale() == "log"
    save_figure(figure, tmp_path / "a.svg")


def test_an_endless_curve_is_refused() -> None:
    with pytest.raises(ScheduleError, match="total="):
        plot_curves({"a": constant(1).resolve()})


def test_a_range_test_shows_its_suggestion_and_hides_the_blow_up() -> None:
    record = range_test()
    (axes,) = plot_range_test(record).axes
    raw, smoothed, mark = axes.get_lines()
    assert_array_equal(raw.get_ydata(), record.losses)
    assert_array_equal(smoothed.get_ydata(), record.smoothed)
    assert list(mark.get_xdata()) == [0.1, 0.1]
    assert axes.get_xscale() == "log"
    assert max(record.losses) > 1e5
    assert axes.get_ylim()[1] < 2


def test_a_range_test_without_a_suggestion_has_no_mark() -> None:
    assert len(plot_range_test(range_test(None)).axes[0].get_lines()) == 2


def test_a_comparison_has_one_colour_a_schedule(tmp_path: Path) -> None:
    record = comparison()
    figure = plot_comparison(record)
    assert len(figure.axes) == 3
    for axes in figure.axes:
        assert [to_hex(line.get_color()) for line in axes.get_lines()] == list(PALETTE[:2])
    rates, validation, _ = figure.axes
    assert_array_equal(rates.get_lines()[0].get_ydata(), record.runs[0].curve().values())
    seeds = [run.final() for run in record.of("constant")]
    assert validation.get_lines()[0].get_ydata()[-1] == pytest.approx(sum(seeds) / 3)
    save_figure(figure, tmp_path / "comparison.pdf")


def test_a_comparison_in_which_all_diverged_is_drawn(tmp_path: Path) -> None:
    save_figure(plot_comparison(comparison(rate=3.0)), tmp_path / "all.png")


@pytest.mark.parametrize("suffix", HEADS)
def test_a_figure_is_saved_by_its_suffix(tmp_path: Path, suffix: str) -> None:
    figure = plot_curves({"a": cosine(1, 0).resolve(9)})
    path = save_figure(figure, tmp_path / "new" / f"a{suffix}")
    assert path.read_bytes().startswith(HEADS[suffix])


@pytest.mark.parametrize("name", ["a.jpeg", "a"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RatecraftError, match=r"\.png, \.svg, \.pdf"):
        save_figure(plot_curves({"a": cosine(1, 0).resolve(9)}), tmp_path / name)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RatecraftError, match=r"pip install 'ratecraft\[plot\]'"):
        plot_range_test(range_test())


def test_no_global_state_of_matplotlib_is_touched() -> None:
    code = (
        "import sys; from ratecraft import constant; from ratecraft.view import plot_curves; "
        "plot_curves({'a': constant(1).resolve(9)}); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

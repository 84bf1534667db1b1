import ast
import base64
import hashlib
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from quadratic import (
    EIGHT_SCHEDULES,
    SCHEDULES,
    add_training_metrics,
    make_comparison,
    make_forecast,
    make_grid_comparison,
    make_large_comparison,
    make_lr_finder_result,
    make_range_test_result,
)

import ratecraft
from ratecraft import constant, cosine, parse
from ratecraft._render._axis import number
from ratecraft._render._chart import DARK_PALETTE, PALETTE
from ratecraft._render._svg import FAINT, GRID, SOFT, TEXT
from ratecraft.errors import RatecraftError
from ratecraft.report import _charts as charts
from ratecraft.report import plot_comparison, write_report
from ratecraft.report._charts import LAYER_STAT_COLUMNS
from ratecraft.report._comparison import _lr_sensitivity
from ratecraft.report._reproduce import compare_call, recipe
from ratecraft.results import Comparison, Evaluation, Forecast, LayerStats, load

VOID_TAGS = {"meta", "br"}


class Page(HTMLParser):
    """Check that tags are nested correctly; collect tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)


@pytest.fixture
def report(tmp_path: Path) -> str:
    path = write_report(
        tmp_path / "new" / "report.html",
        comparison=make_comparison(),
        lr_search=make_range_test_result(),
        title="A <script>&",
    )
    return path.read_text(encoding="utf-8")


def tree(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 -- our own text


def rows(text: str) -> list[list[str]]:
    """Return the text of all table cells, by row."""
    return cells(tree(text))


def cells(element: ET.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Return the rows of the first table below each heading, by heading."""
    found_tables, heading = {}, ""
    for element in tree(text).find("body/main"):
        if element.tag == "h2":
            heading = "".join(element.itertext())
        elif element.tag == "div" and heading not in found_tables:
            found_tables[heading] = cells(element)
    return found_tables


def run_tables(text: str) -> dict[str, list[list[list[str]]]]:
    """Return the tables of each candidate's collapsed section, by its summary."""
    root = tree(text).find("body/main/details")
    return {
        "".join(details.find("summary").itertext()): [cells(t) for t in details.iter("table")]
        for details in root.findall("details")
    }


def render(tmp_path: Path, result: Comparison, forecast: Forecast | None = None) -> str:
    path = write_report(tmp_path / "r.html", comparison=result, forecast=forecast, title="t")
    text = path.read_text("utf-8")
    Page(text)
    return text


def test_page_is_well_formed(report: str) -> None:
    page = Page(report)
    assert page.tags.count("h1") == 1
    assert page.tags.count("figure") == 5
    assert "details" in page.tags
    tree(report)


def test_page_has_no_external_resources(report: str) -> None:
    page = Page(report)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "xlink:href", "srcset"} & names
    assert not any(name.startswith("on") for name in names)
    links = [value for name, value in page.attributes if name == "href"]
    anchors = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert links
    assert set(links) <= anchors
    assert set(re.findall(r"https?://[^\s\"']*", report)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in report
    assert "@import" not in report


def test_page_allows_no_request_and_no_script_but_its_own(report: str) -> None:
    policy = re.search('Content-Security-Policy" content="([^"]*)"', report)[1]
    (script,) = re.findall("<script>(.*?)</script>", report, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"script-src 'sha256-{digest}'"]
    assert len(script) + report.count("<style>") < 60_000
    assert not re.search(r"\beval\b|\bFunction\(|fetch\(|XMLHttpRequest|import\(", script)


def test_page_lists_its_headings(report: str) -> None:
    root = tree(report)
    headings = ["".join(h.itertext()) for h in root.find("body/main").iter("h2")]
    for contents in (root.find("body/nav"), root.find("body/details")):
        links = ["".join(link.itertext()) for link in contents.iter("a")]
        assert [link for link in links if link != "Runs"] == headings


def test_all_text_is_escaped(report: str) -> None:
    assert report.count("<script") == 1 + Page(report).tags.count("figure")
    assert "<b>" not in report
    assert "A &lt;script&gt;&amp;" in report
    words = "".join(Page(report).words)
    for text in ("decayed <b>&", "3.11 <x>", "the loss was <4 times its lowest"):
        assert text in words


def test_verdict_and_table_match_result(report: str) -> None:
    result = make_comparison()
    words = "".join(Page(report).words)
    assert result.verdict() in words
    head, first, second = rows(report)[:3]
    assert head == ["schedule", "seeds", "validation loss", "relative to best", "distance", "time"]
    assert first[-1] == "0.25 s"
    best, other = result.summaries()
    for cells, row in ((first, best), (second, other)):
        assert cells[0] == row.name + row.schedule
        assert cells[1] == "3"
        mean, spread = (float(part) for part in cells[2].split(" ± "))
        assert mean == pytest.approx(row.mean["loss"], rel=1e-3)
        assert spread == pytest.approx(row.spread["loss"], rel=0.05)
    assert first[3] == ""
    gap, low, high = map(float, re.findall(r"[-0-9.e]+", second[3]))
    expected = [other.gap, other.gap_low, other.gap_high]
    assert [gap, low, high] == pytest.approx(expected, rel=0.05)


def test_all_runs_are_listed(report: str) -> None:
    listed = cells(tree(report).find("body/main/details/div"))[1:]
    assert len(listed) == 6
    assert [row[1] for row in listed] == ["0", "1", "2"] * 2
    assert listed[0][-2:] == ["100", "0.25 s"]


def test_recipe_builds_same_lrs(report: str) -> None:
    root = tree(report)
    code = "".join(root.findall(".//pre")[1].itertext())
    curves = [
        eval(line, {"parse": parse})  # noqa: S307 - the point is that the text is Python
        for line in code.splitlines()
        if line.startswith("(")
    ]
    result = make_comparison()
    assert [list(c) for c in curves] == [list(result.runs_for(n)[0].curve()) for n in SCHEDULES]


def test_diverged_schedule_has_no_mean_and_is_counted(tmp_path: Path) -> None:
    schedules = {"good": constant(1), "hot": 400 * constant(1)}
    result = make_comparison(schedules)
    text = write_report(tmp_path / "r.html", comparison=result, title="t").read_text("utf-8")
    head, first, second = rows(text)[:3]
    assert head[-2] == "diverged"
    assert (first[0], first[-2]) == ("goodconstant(1)", "0")
    assert (second[0], second[2], second[-2]) == ("hot400 * constant(1)", "-", "3")
    assert "nan" not in text.replace("nance", "")
    assert "A line ends where the first of its seeds diverged." in text


@pytest.mark.parametrize("lr", [0.02, 5.0], ids=["finished", "all diverged"])
def test_page_with_one_seed(tmp_path: Path, lr: float) -> None:
    result = make_comparison(lr=lr, seeds=1)
    text = write_report(tmp_path / "r.html", comparison=result, title="t").read_text("utf-8")
    Page(text)
    assert result.verdict() in "".join(Page(text).words)
    assert "±" not in rows(text)[1][2]


def test_range_test_without_suggestion_shows_reason(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "r.html",
        comparison=make_comparison(),
        lr_search=make_range_test_result(None),
        title="t",
    )
    words = "".join(Page(path.read_text("utf-8")).words)
    assert "No suggestion: the loss never fell & rose" in words


def test_lr_finder_section_shows_lr_range_and_reason(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "r.html",
        comparison=make_comparison(),
        lr_search=make_lr_finder_result(),
        title="t",
    )
    page = path.read_text()
    assert (
        "<strong>0.1 (0.05 to 0.2 are almost as good)</strong>: the best is &lt;near&gt; 0.1"
        in page
    )
    assert "Loss after short runs at different learning rates" in page
    assert "112 of 200 steps in 6 short runs" in page
    path = write_report(
        tmp_path / "n.html",
        comparison=make_comparison(),
        lr_search=make_lr_finder_result(None),
        title="t",
    )
    answer = "<strong>No learning rate found</strong>: none gained &amp; none lost"
    assert answer in path.read_text()


def test_lr_finder_section_without_runs_has_no_figure(tmp_path: Path) -> None:
    empty = replace(make_lr_finder_result(None), runs=())
    page = write_report(
        tmp_path / "r.html", comparison=make_comparison(), lr_search=empty, title="t"
    )
    assert "<strong>No learning rate found</strong>" in page.read_text()


def test_page_without_lr_search_has_no_range_test_section(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", comparison=make_comparison(), title="t")
    assert "range test" not in path.read_text("utf-8")


def test_saved_result_gives_same_page(tmp_path: Path) -> None:
    result = make_comparison(lr=1.5)
    loaded = load(result.save(tmp_path / "c.json"))
    assert isinstance(loaded, Comparison)
    pages = [
        write_report(tmp_path / "r.html", comparison=r, title="t").read_text("utf-8")
        for r in (result, loaded)
    ]
    assert pages[0] == pages[1]


def test_page_of_long_runs_is_small(tmp_path: Path) -> None:
    schedules = {f"s{i}": (0.5 + i / 20) * constant(1) for i in range(4)}
    runs = []
    for schedule in schedules.values():
        run = make_comparison({"s": schedule}, seeds=1).runs[0]
        long = tuple(run.losses[k % 100] for k in range(50_000))
        runs.append(ratecraft.results.Run(run.schedule, 0.02, 0, 50_000, 20, long, run.evaluations))
    texts = {name: repr(s) for name, s in schedules.items()}
    result = Comparison("long", texts, tuple(runs))
    path = write_report(tmp_path / "r.html", comparison=result, title="t")
    assert path.stat().st_size < 200_000


def test_layer_stats_section(tmp_path: Path) -> None:
    numbers = dict.fromkeys(LAYER_STAT_COLUMNS, 0.5)
    rows = [LayerStats(k, "all", layer, 0.1, **numbers) for k in range(3) for layer in ("a<", "b")]
    path = tmp_path / "r.html"
    write_report(path, comparison=make_comparison(), layer_stats=rows, title="x")
    page = Page(path.read_text(encoding="utf-8"))
    assert "Layer statistics" in page.words
    assert "Effective learning rate by layer" in page.words
    assert "a<" in page.words


def test_forecast_alone_and_with_comparison(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "f.html", forecast=make_forecast(), title="Forecast of three schedules"
    )
    page = Page(path.read_text(encoding="utf-8"))
    words = "".join(page.words)
    assert make_forecast().verdict() in words
    for text in ("wsd <b>", "a caveat", "a general caveat", "tied with the best", "0.9 to 1.1"):
        assert text in words, text
    assert words.count("tied with the best") == 1
    assert "Runs" not in page.words
    both = write_report(
        tmp_path / "b.html", comparison=make_comparison(), forecast=make_forecast(), title="Both"
    )
    page = Page(both.read_text(encoding="utf-8"))
    assert "Runs" in page.words
    assert "Forecast" in page.words
    with pytest.raises(RatecraftError, match="neither was given"):
        write_report(tmp_path / "n.html", title="x")


def test_several_lrs_add_sensitivity_section(tmp_path: Path) -> None:
    result = replace(
        make_grid_comparison(lrs=(0.01, 0.02)), failed={"x, seed 3": "Traceback\nError: broken"}
    )
    words = "".join(Page(render(tmp_path, result)).words)
    for text in ("Learning-rate sensitivity", "relative to best", "Failed: x, seed 3", "broken"):
        assert text in words
    assert len(result.best_per_schedule().schedules) == len(SCHEDULES)
    assert "Learning-rate sensitivity" not in render(tmp_path, make_comparison())


@pytest.mark.parametrize("seeds", [1, 3])
def test_optimal_range_table_matches_result(tmp_path: Path, seeds: int) -> None:
    result = make_grid_comparison(lrs=(0.01, 0.1, 0.4, 0.9), seeds=seeds)
    ranges = result.optimal_lr_ranges()
    head, *listed = tables(render(tmp_path, result))["Learning-rate sensitivity"]
    assert head[:3] == ["schedule", "best learning rate", "optimal range"]
    assert [row[0] for row in listed] == list(ranges) == list(SCHEDULES)
    for row, optimum in zip(listed, ranges.values(), strict=True):
        assert float(row[1]) == optimum.best
        assert ("or lower" in row[2]) == optimum.open_low
        assert ("or higher" in row[2]) == optimum.open_high
        ends = {float(end) for end in re.findall(r"[0-9.e]+(?= |$)", row[2])}
        assert ends == {optimum.low, optimum.high}


def test_final_loss_by_lr_keeps_families_with_missing_lr() -> None:
    result = make_grid_comparison(lrs=(0.01, 0.02))
    first, *rest = result.runs
    result = replace(result, runs=(replace(first, stopped=40), *rest))
    chart = charts.loss_by_lr_chart(result, list(result.best_runs(8)))
    lines = [line for line in chart.lines if line.style != "thick"]
    assert [line.name for line in lines] == list(SCHEDULES)
    assert [len(line.xs) for line in lines] == [1, 2]


@pytest.mark.parametrize(
    ("lrs", "seeds", "interpretation"),
    [
        ((0.001, 0.002), 3, "the best learning rate is the highest tried: try higher ones"),
        ((0.5, 0.9), 3, "the best learning rate is the lowest tried: try lower ones"),
        ((0.01, 0.02), 1, "one seed is not enough to compare learning rates"),
        (
            (0.001, 0.012, 0.999),
            3,
            "its neighbors are worse: the result is sensitive to the learning rate",
        ),
    ],
)
def test_optimal_range_interpretation(
    tmp_path: Path, lrs: tuple[float, ...], seeds: int, interpretation: str
) -> None:
    result = make_grid_comparison(lrs=lrs, seeds=seeds)
    _, first, *_ = tables(render(tmp_path, result))["Learning-rate sensitivity"]
    assert first[-1] == interpretation


def test_time_to_target_table_matches_result(tmp_path: Path) -> None:
    result = make_grid_comparison(lrs=(0.01, 0.02))
    text = render(tmp_path, result)
    head, *listed = tables(text)["Time to target"]
    assert head == ["schedule", "steps", "time", "seeds"]
    times = result.best_per_schedule().time_to_target(result.target())
    assert {row[0] for row in listed} == set(times)
    for name, steps, seconds, seeds in listed:
        assert float(steps) == pytest.approx(times[name].steps, abs=0.5)
        assert float(seconds.removesuffix(" s")) == pytest.approx(times[name].seconds, rel=0.01)
        assert seeds == f"{times[name].seeds} of 3"
    assert [float(row[1]) for row in listed] == sorted(float(row[1]) for row in listed)
    assert "the lowest that every finished schedule reached" in "".join(Page(text).words)


def test_time_to_target_lists_fastest_first(tmp_path: Path) -> None:
    result = make_comparison({"a slow": 0.3 * constant(1), "b fast": constant(1)})
    _, first, second = tables(render(tmp_path, result))["Time to target"]
    assert first[0] == "b fast"
    assert float(first[1]) < float(second[1])


def test_time_to_target_lists_missed_target_last(tmp_path: Path) -> None:
    schedules = {"slow": 0.01 * constant(1), **SCHEDULES}
    result = make_comparison(schedules)
    result = replace(
        result,
        runs=tuple(
            replace(r, diverged=99) if r in result.runs_for("slow") else r for r in result.runs
        ),
    )
    assert tables(render(tmp_path, result))["Time to target"][-1] == ["slow", "-", "-", "0 of 3"]


def test_no_target_no_time_to_target_section(tmp_path: Path) -> None:
    result = make_comparison({"alone": constant(1)})
    assert result.target() is None
    assert "Time to target" not in render(tmp_path, result)


def test_several_lengths_add_loss_by_length_section(tmp_path: Path) -> None:
    result = make_grid_comparison(lrs=(0.01, 0.02), lengths=(40, 100))
    lines = {line.name: line for line in charts.loss_by_length_chart(result).lines}
    assert list(lines) == list(SCHEDULES)
    constant_line = lines["constant"]
    assert list(constant_line.xs) == [40, 100]
    best = result.runs_for("constant, 100 steps, lr 0.02")
    assert constant_line.ys[1] == pytest.approx(sum(run.final() for run in best) / 3)
    assert constant_line.band[1][1] == max(run.final() for run in best)
    text = render(tmp_path, result)
    assert "Final loss by training length" in text
    head, *listed = tables(text)["Results"]
    assert head[:2] == ["schedule", "steps"]
    assert [row[1] for row in listed] == ["100"] * 4 + ["40"] * 4
    # The best of each length has no gap.
    assert [row[4] == "" for row in listed] == [True, False, False, False] * 2
    plain = render(tmp_path, make_grid_comparison(lrs=(0.01, 0.02)))
    assert "Final loss by training length" not in plain
    assert "steps" not in tables(plain)["Results"][0]


def test_stopped_early_is_shown_and_has_no_mean(tmp_path: Path) -> None:
    result = make_comparison()
    first, *rest = result.runs
    result = replace(result, runs=(replace(first, stopped=40), *rest))
    text = render(tmp_path, result)
    (row,) = [row for row in tables(text)["Results"] if row[0].startswith("constant")]
    assert row[0].endswith("stopped early: 1 of 3 seeds")
    assert row[2] == "-"
    assert "100, stopped early" in "".join(Page(text).words)
    assert "stopped early" not in render(tmp_path, make_comparison())


def test_each_metric_has_a_figure(tmp_path: Path) -> None:
    text = render(tmp_path, make_comparison())
    assert "<title>Validation distance</title>" in text
    assert "Training distance" not in text


def test_figures_limit_number_of_lines_and_caption_says_so(tmp_path: Path) -> None:
    schedules = {f"s{i}": (1 + i / 10) * constant(1) for i in range(11)}
    result = make_comparison(schedules, seeds=1)
    plotted = result.best_runs(8)
    assert list(plotted) == [f"s{i}" for i in range(3, 11)]
    text = render(tmp_path, result)
    captions = ["".join(c.itertext()) for c in tree(text).iter("figcaption")]
    assert len(captions) == 4
    assert all("The 8 best of 11 schedules are shown." in caption for caption in captions)
    colored = [row for row in tree(text).find(".//tbody") if row.find(".//svg") is not None]
    assert len(colored) == 8
    assert "schedules are shown" not in render(tmp_path, make_comparison())


def test_run_tables_list_all_evaluations(tmp_path: Path) -> None:
    result = add_training_metrics(make_comparison())
    tables_by_name = run_tables(render(tmp_path, result))
    assert list(tables_by_name) == list(SCHEDULES)
    for name, listed in tables_by_name.items():
        for run, (head, *epochs) in zip(result.runs_for(name), listed, strict=True):
            assert head == [
                *("epoch", "step", "training loss", "validation loss"),
                *("training distance", "validation distance"),
                *("learning rate of body", "learning rate of head <i>"),
            ]
            assert len(epochs) == 5
            for row, e in zip(epochs, run.evaluations, strict=True):
                expected = [e.step / 20, e.step, e.train["loss"], e.metrics["loss"]]
                expected += [0.125, e.metrics["distance"], *e.lrs.values()]
                assert list(map(float, row)) == pytest.approx(expected, rel=1e-3)


def test_lrs_come_from_schedule_if_evaluations_have_none(tmp_path: Path) -> None:
    result = make_comparison()
    head, *_, last = run_tables(render(tmp_path, result))["decayed <b>&"][0]
    assert head == ["epoch", "step", "validation loss", "validation distance", "learning rate"]
    lr = result.runs_for("decayed <b>&")[0].curve()(99)
    assert float(last[-1]) == pytest.approx(lr, rel=1e-3)


def test_page_of_hundred_runs_is_small(tmp_path: Path) -> None:
    lrs = tuple(0.001 * k for k in range(1, 11))
    result = add_training_metrics(make_grid_comparison(lrs=lrs, lengths=(200,), seeds=5))
    assert len(result.runs) == 100
    assert len(render(tmp_path, result)) < 600_000


def test_many_evaluations_are_thinned(tmp_path: Path) -> None:
    result = add_training_metrics(make_comparison())
    run = result.runs[0]
    many = tuple(replace(run.evaluations[0], step=k) for k in range(1, 50_001))
    long = replace(run, total_steps=50_000, losses=(1.0,) * 50_000, evaluations=many)
    result = replace(result, runs=(long, *result.runs[1:]))
    text = render(tmp_path, result)
    listed = run_tables(text)["constant"][0]
    assert len(listed) < 2000
    assert (listed[1][1], listed[-1][1]) == ("1", "50000")
    assert "of 50000 evaluations; the result file has all" in text


def test_forecast_vs_measured_table(tmp_path: Path) -> None:
    result, forecast = make_comparison(), make_forecast()
    same, named, other = forecast.entries
    loss = result.summaries()[0].mean["loss"]
    near = {"low": 0.5 * loss, "high": 2 * loss, "loss": loss}
    same = replace(same, schedule="0.02 * constant(1)", **near)
    named = replace(named, name="decayed <b>&", schedule="constant(0.3)")
    forecast = replace(forecast, entries=(same, named, other))
    text = render(tmp_path, result, forecast)
    head, first, second = tables(text)["Forecast vs. measured"]
    assert head == ["schedule", "forecast", "interval", "measured", "within interval"]
    assert first[0] == "constantin the forecast: wsd <b>"
    measured = {row.name: row.mean["loss"] for row in result.summaries()}
    assert float(first[3].split(" ± ")[0]) == pytest.approx(measured["constant"], rel=1e-3)
    assert (first[4], second[4]) == ("yes", "no")
    assert second[0] == "decayed <b>&matched by name; the learning rates differ"
    assert "1 of 2 measured losses are within their interval" in text
    assert "Gray: logged losses" in text  # from the forecast section


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(0.5, 2, "yes"), (0.5, 0.9, "no"), (1.1, 2, "no")]
)
def test_measured_loss_within_interval(
    tmp_path: Path, low: float, high: float, answer: str
) -> None:
    result, forecast = make_comparison(), make_forecast()
    loss = {row.name: row.mean["loss"] for row in result.summaries()}["constant"]
    entry = replace(forecast.entries[0], name="constant", schedule="0.02 * constant(1)")
    entry = replace(entry, low=low * loss, high=high * loss)
    text = render(tmp_path, result, replace(forecast, entries=(entry,), tied=()))
    assert tables(text)["Forecast vs. measured"][1][-1] == answer


def test_forecast_of_other_length_is_not_matched(tmp_path: Path) -> None:
    forecast = make_forecast()
    entry = replace(forecast.entries[0], name="constant", schedule="0.02 * constant(1)")
    forecast = replace(forecast, entries=(entry,), tied=())
    assert "Forecast vs. measured" in render(tmp_path, make_comparison(), forecast)
    forecast = replace(forecast, total_steps=90)
    assert "Forecast vs. measured" not in render(tmp_path, make_comparison(), forecast)


def test_style_maps_chart_colors_to_page_colors(report: str) -> None:
    style = report[report.index("<style>") : report.index("</style>")]
    for color in (TEXT, SOFT, GRID, FAINT):
        assert f'[fill="{color}"]' in style
        assert f'[stroke="{color}"]' in style
    dark = style[style.rindex("prefers-color-scheme") :]
    for light_color, dark_color in zip(PALETTE, DARK_PALETTE, strict=True):
        assert f'svg [fill="{light_color}"] {{ fill: {dark_color}; }}' in dark
        assert f'svg [stroke="{light_color}"] {{ stroke: {dark_color}; }}' in dark


def test_missing_seeds_are_shown(tmp_path: Path) -> None:
    complete = make_comparison()
    incomplete = Comparison(complete.task, complete.schedules, complete.runs[1:])
    page = write_report(tmp_path / "m.html", comparison=incomplete, title="x").read_text("utf-8")
    assert page.count("seeds missing: 1") == 1
    assert "Left out because runs are missing" in page
    plain = write_report(tmp_path / "p.html", comparison=complete, title="x").read_text("utf-8")
    assert "missing" not in plain


def test_recipe_of_plateau_uses_realized_schedule() -> None:
    whole = make_comparison()
    name = next(iter(whole.schedules))
    first = whole.runs_for(name)[0]
    realized = "staircase([1, 0.5], at=[40])"
    plateau = replace(first, schedule="plateau(factor=0.5)", realized_schedule=realized)
    result = Comparison("t", {"falls": "plateau(factor=0.5)"}, (plateau,), {})
    namespace: dict[str, object] = {}
    code = recipe(result)
    exec(code, namespace)  # noqa: S102 -- our own text
    assert realized in code


def test_colors_stay_if_another_schedule_has_no_point() -> None:
    whole = make_grid_comparison(lrs=(0.01, 0.02))
    first = next(iter(whole.families()))
    diverged_runs = tuple(
        replace(run, diverged=50) if name in whole.families()[first] else run
        for name in whole.schedules
        for run in whole.runs_for(name)
    )
    diverged = replace(whole, runs=diverged_runs)
    chart = charts.loss_by_lr_chart(diverged, list(diverged.best_runs(8)))
    lines = {line.name: line for line in chart.lines if line.style != "thick"}
    assert list(lines) == list(whole.families())
    assert [len(line.xs) for line in lines.values()] == [0, *[2] * (len(lines) - 1)]
    plot_comparison(diverged)
    page = "".join(_lr_sensitivity(diverged))
    second = list(lines)[1]
    pens = dict(zip(lines, PALETTE, strict=False))
    drawn = {name: page.count(f'stroke="{pen}"') for name, pen in pens.items()}
    assert drawn[second] > drawn[first] == 2  # its legend entry in the broad and the narrow figure


HOSTILE = (
    "</script></style><script>window.attacked = 1</script>"
    '<img src=x onerror="window.attacked = 1"><b>\'"&]]>\n--><!--'
)


def make_hostile_comparison() -> Comparison:
    """Return a comparison with hostile text wherever a file could have one."""
    whole = add_training_metrics(make_grid_comparison(lrs=(0.01, 0.02)))
    names = {name: f"{name} {HOSTILE}" for name in whole.schedules}

    def attack(evaluation: Evaluation) -> Evaluation:
        metrics = {
            f"{name}{HOSTILE}" * (name != "loss") or name: v
            for name, v in evaluation.metrics.items()
        }
        return replace(
            evaluation, metrics=metrics, train=metrics, lrs={HOSTILE: 0.1, f"{HOSTILE}2": 0.2}
        )

    runs = tuple(
        replace(
            run,
            seed=f"{HOSTILE}{run.seed}",
            optimizer=HOSTILE,
            evaluations=tuple(map(attack, run.evaluations)),
        )
        for run in whole.runs
    )
    return Comparison(
        HOSTILE,
        {names[name]: text for name, text in whole.schedules.items()},
        runs,
        {HOSTILE: HOSTILE, "task": HOSTILE},
        {names[name]: config._replace(optimizer=HOSTILE) for name, config in whole.configs.items()},
        {f"{HOSTILE}{i}": f"Traceback\n{HOSTILE}" for i in range(9)},
    )


def test_no_text_of_a_result_becomes_markup_or_code(tmp_path: Path) -> None:
    result = make_hostile_comparison()
    search = replace(make_range_test_result(), task=HOSTILE, optimizer=HOSTILE, stop_reason=HOSTILE)
    forecast = make_forecast()
    entries = tuple(
        replace(entry, name=f"{HOSTILE}{i}", notes=(HOSTILE,))
        for i, entry in enumerate(forecast.entries)
    )
    forecast = replace(
        forecast,
        entries=entries,
        tied=(),
        logs={HOSTILE: forecast.logs["run.csv"]},
        notes=(HOSTILE,),
    )
    numbers = dict.fromkeys(LAYER_STAT_COLUMNS, 0.5)
    stats = [LayerStats(k, HOSTILE, HOSTILE, 0.1, **numbers) for k in range(3)]
    options = {"comparison": result, "forecast": forecast, "layer_stats": stats}
    text = write_report(tmp_path / "h.html", lr_search=search, **options, title=HOSTILE).read_text(
        "utf-8"
    )
    page = Page(text)
    assert not {"img", "b"} & set(page.tags)
    assert page.tags.count("script") == 1 + len(re.findall("<figure>.*?<script", text, re.DOTALL))
    assert page.tags.count("style") == 1
    assert not any(name.startswith("on") for name, _ in page.attributes)
    tree(text)
    for code in (compare_call(result), recipe(result)):
        names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        assert "window" not in names


def test_names_that_end_in_a_config_are_taken_apart(tmp_path: Path) -> None:
    code = compare_call(make_large_comparison())
    for name, schedule in EIGHT_SCHEDULES.items():
        assert f'"{name}": {schedule!r},' in code
    assert "lrs=[0.001, 0.01, 0.1, 1.5]," in code
    assert 'optimizers=["sgd", "slow", "medium", "fast"],' in code
    assert "seeds=3," in code
    assert "total_steps=100," in code
    lengths = compare_call(make_grid_comparison(lrs=(0.01, 0.02), lengths=(40, 100)))
    assert '"constant": constant(1),' in lengths
    assert "total_steps=[40, 100]," in lengths


def test_reproduced_comparison_has_the_same_runs() -> None:
    from ratecraft.experiments import Plateau, compare

    schedules = {"a": constant(1), "b": cosine(1, 0), "c": Plateau(cosine(1, 0.5), patience=1)}
    options = {"lrs": [0.01, 0.003], "seeds": [1], "total_steps": 6, "workers": 0}
    result = compare("digits", schedules, **options)
    code = compare_call(result)
    assert '"digits",' in code
    namespace = {"__name__": "__main__"}
    exec(code.replace("total_steps=6", "total_steps=6, workers=0"), namespace)  # noqa: S102
    again = namespace["result"]
    assert list(again.schedules) == list(result.schedules)
    assert [run.losses for run in again.runs] == [run.losses for run in result.runs]


def test_call_of_a_task_without_a_name_says_which_function_to_write() -> None:
    assert "task,  # the function of: a quadratic" in compare_call(make_comparison())
    stored = replace(make_comparison(), task="path/to/file.py:task")
    assert '"path/to/file.py:task",' in compare_call(stored)


def test_schedules_with_distant_peaks_are_drawn_as_factors(tmp_path: Path) -> None:
    schedules = {"high": constant(1), "low": 0.05 * cosine(1, 0)}
    result = make_comparison(schedules)
    chart = charts.schedules_chart(result.best_runs(8))
    assert chart.y_label == charts.FACTOR_LABEL
    assert [max(line.ys) for line in chart.lines] == [1, 1]
    assert chart.lines[1].ys[50] == pytest.approx(0.5)
    caption = "divided by the highest one of its schedule, since the highest ones range from 1e-3"
    assert caption in render(tmp_path, result)
    near = make_comparison({"high": constant(1), "low": 0.2 * cosine(1, 0)})
    assert charts.schedules_chart(near.best_runs(8)).y_label == "learning rate"
    assert "divided by" not in render(tmp_path, near)


def test_heat_map_comes_first_with_many_candidates(tmp_path: Path) -> None:
    result = make_large_comparison()
    text = render(tmp_path, result)
    first, *_ = tree(text).iter("figure")
    assert text.index("<figure>") < text.index("<table>")
    for svg in first.findall("{http://www.w3.org/2000/svg}svg"):
        cells = {}
        for group in svg.iter("{http://www.w3.org/2000/svg}g"):
            name, _, value = group[0].text.rpartition(": ")
            cells[name] = value
        means = {row.name.replace("lr ", ""): row.mean["loss"] for row in result.summaries()}
        assert {name.replace("1e-3", "0.001") for name in cells} == set(means)
        for name, value in cells.items():
            mean = means[name.replace("1e-3", "0.001")]
            assert value == ("diverged" if math.isnan(mean) else number(mean))
    assert "diverged on at least one seed" in text
    assert "Final validation loss" not in render(tmp_path, make_comparison())


def test_many_failed_runs_are_collapsed(tmp_path: Path) -> None:
    failed = {f"x, seed {i}": "Error: broken" for i in range(9)}
    text = render(tmp_path, replace(make_comparison(), failed=failed))
    details = tree(text).find("body/main/details")
    assert "".join(details.find("summary").itertext()) == "9 failed runs"
    assert len(details.findall("p")) == 9


def test_long_tables_scroll_in_a_box(tmp_path: Path) -> None:
    assert 'class="wide tall"' in render(tmp_path, make_large_comparison())
    assert 'class="wide tall"' not in render(tmp_path, make_comparison())


def test_large_page_stays_small(tmp_path: Path) -> None:
    # 456 kB before there was a script, a heat map and data for them.
    assert len(render(tmp_path, make_large_comparison()).encode()) < 1.5 * 456_000

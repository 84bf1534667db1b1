import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from quadratic import (
    SCHEDULES,
    comparison,
    followed,
    forecast,
    lr_finder_result,
    range_test,
    several,
)

import ratecraft
from ratecraft import constant, parse
from ratecraft._render import _svg as svg
from ratecraft.errors import RatecraftError
from ratecraft.report import _series as series
from ratecraft.report import plot_comparison, write_report
from ratecraft.report._comparison import _sensitivity
from ratecraft.report._page import _recipe
from ratecraft.results import Comparison, Forecast, LayerStats, load

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what is there."""

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
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture
def report(tmp_path: Path) -> str:
    path = write_report(
        tmp_path / "new" / "report.html",
        comparison=comparison(),
        found=range_test(),
        title="A <script>&",
    )
    return path.read_text(encoding="utf-8")


def tree(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own text


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, as text."""
    return cells(tree(text))


def cells(element: ET.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of the first table below each heading, by the heading; of the page's body alone."""
    found, heading = {}, ""
    for element in tree(text).find("body/main"):
        if element.tag == "h2":
            heading = "".join(element.itertext())
        elif element.tag == "div" and heading not in found:
            found[heading] = cells(element)
    return found


def folds(text: str) -> dict[str, list[list[list[str]]]]:
    """The tables of each candidate's fold, by what stands on it."""
    root = tree(text).find("body/main/details")
    return {
        "".join(fold.find("summary").itertext()): [cells(one) for one in fold.iter("table")]
        for fold in root.findall("details")
    }


def written(tmp_path: Path, result: Comparison, foreseen: Forecast | None = None) -> str:
    path = write_report(tmp_path / "r.html", comparison=result, forecast=foreseen, title="t")
    text = path.read_text("utf-8")
    Page(text)
    return text


def test_the_page_is_well_formed(report: str) -> None:
    page = Page(report)
    assert page.tags.count("h1") == 1
    assert page.tags.count("figure") == 5
    assert "details" in page.tags
    tree(report)


def test_nothing_is_fetched_and_no_script_runs(report: str) -> None:
    page = Page(report)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "xlink:href", "srcset"} & names
    assert not any(name.startswith("on") for name in names)
    assert set(re.findall(r"https?://[^\s\"']*", report)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in report
    assert "@import" not in report


def test_everything_is_escaped(report: str) -> None:
    assert "<script" not in report
    assert "<b>" not in report
    assert "A &lt;script&gt;&amp;" in report
    words = "".join(Page(report).words)
    for text in ("decayed <b>&", "3.11 <x>", "the loss was <4 times its lowest"):
        assert text in words


def test_the_verdict_and_the_table_are_those_of_the_result(report: str) -> None:
    result = comparison()
    words = "".join(Page(report).words)
    assert result.verdict() in words
    head, first, second = rows(report)[:3]
    assert head == ["schedule", "seeds", "validation loss", "above the best", "distance", "time"]
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
    found = [other.gap, other.gap_low, other.gap_high]
    assert [gap, low, high] == pytest.approx(found, rel=0.05)


def test_every_run_is_listed(report: str) -> None:
    listed = cells(tree(report).find("body/main/details/div"))[1:]
    assert len(listed) == 6
    assert [row[1] for row in listed] == ["0", "1", "2"] * 2
    assert listed[0][-2:] == ["100", "0.25 s"]


def test_the_recipe_builds_the_same_lrs(report: str) -> None:
    root = tree(report)
    code = "".join(root.find(".//pre").itertext())
    curves = [
        eval(line, {"parse": parse})  # noqa: S307 - the point is that the text is Python
        for line in code.splitlines()
        if line.startswith("(")
    ]
    result = comparison()
    assert [list(c) for c in curves] == [list(result.runs_for(n)[0].curve()) for n in SCHEDULES]


def test_a_diverged_schedule_has_no_mean_and_is_counted(tmp_path: Path) -> None:
    schedules = {"good": constant(1), "hot": 400 * constant(1)}
    result = comparison(schedules)
    text = write_report(tmp_path / "r.html", comparison=result, title="t").read_text("utf-8")
    head, first, second = rows(text)[:3]
    assert head[-2] == "diverged"
    assert (first[0], first[-2]) == ("goodconstant(1)", "0")
    assert (second[0], second[2], second[-2]) == ("hot400 * constant(1)", "-", "3")
    assert "nan" not in text.replace("nance", "")
    assert "A line ends where the first of its seeds diverged." in text


@pytest.mark.parametrize("lr", [0.02, 5.0], ids=["finished", "all diverged"])
def test_one_seed_is_enough_for_a_page(tmp_path: Path, lr: float) -> None:
    result = comparison(lr=lr, seeds=1)
    text = write_report(tmp_path / "r.html", comparison=result, title="t").read_text("utf-8")
    Page(text)
    assert result.verdict() in "".join(Page(text).words)
    assert "±" not in rows(text)[1][2]


def test_a_range_test_without_an_answer_says_so(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "r.html", comparison=comparison(), found=range_test(None), title="t"
    )
    words = "".join(Page(path.read_text("utf-8")).words)
    assert "No lr suggested: the loss never fell & rose" in words


def test_a_found_lr_is_shown_with_its_band_and_reason(tmp_path: Path) -> None:
    one = write_report(
        tmp_path / "r.html", comparison=comparison(), found=lr_finder_result(), title="t"
    )
    page = one.read_text()
    assert "<strong>0.1, from 0.05 to 0.2</strong>: the best is &lt;near&gt; 0.1" in page
    assert "Loss after short runs at different lrs" in page
    assert "112 of 200 steps in 6 short runs" in page
    two = write_report(
        tmp_path / "n.html", comparison=comparison(), found=lr_finder_result(None), title="t"
    )
    assert "<strong>No answer</strong>: no answer: none gained &amp; none lost" in two.read_text()


def test_a_search_without_a_run_has_no_figure(tmp_path: Path) -> None:
    none = replace(lr_finder_result(None), runs=())
    page = write_report(tmp_path / "r.html", comparison=comparison(), found=none, title="t")
    assert "<strong>No answer</strong>" in page.read_text()


def test_without_a_range_test_its_section_is_missing(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", comparison=comparison(), title="t")
    assert "Range test" not in path.read_text("utf-8")


def test_a_saved_result_makes_the_same_page(tmp_path: Path) -> None:
    result = comparison(lr=1.5)
    loaded = load(result.save(tmp_path / "c.json"))
    assert isinstance(loaded, Comparison)
    pages = [
        write_report(tmp_path / "r.html", comparison=r, title="t").read_text("utf-8")
        for r in (result, loaded)
    ]
    assert pages[0] == pages[1]


def test_long_runs_make_a_small_page(tmp_path: Path) -> None:
    schedules = {f"s{i}": (0.5 + i / 20) * constant(1) for i in range(4)}
    runs = []
    for schedule in schedules.values():
        run = comparison({"s": schedule}, seeds=1).runs[0]
        long = tuple(run.losses[k % 100] for k in range(50_000))
        runs.append(ratecraft.results.Run(run.schedule, 0.02, 0, 50_000, 20, long, run.evaluations))
    texts = {name: repr(s) for name, s in schedules.items()}
    result = Comparison("long", texts, tuple(runs))
    path = write_report(tmp_path / "r.html", comparison=result, title="t")
    assert path.stat().st_size < 200_000


def test_what_steps_did_is_drawn(tmp_path: Path) -> None:
    names = ("weight", "step", "gradient", "gradient_l1", "unclipped", "effective", "relative",
             "decay", "low", "median", "high")  # fmt: skip
    numbers = dict.fromkeys(names, 0.5)
    rows = [LayerStats(k, "all", layer, 0.1, **numbers) for k in range(3) for layer in ("a<", "b")]
    path = tmp_path / "r.html"
    write_report(path, comparison=comparison(), measured=rows, title="x")
    page = Page(path.read_text(encoding="utf-8"))
    assert "What steps did" in page.words
    assert "Effective lr by layer" in page.words
    assert "a<" in page.words


def test_a_forecast_has_a_page_of_its_own_and_a_place_beside_a_comparison(tmp_path: Path) -> None:
    path = write_report(tmp_path / "f.html", forecast=forecast(), title="What if")
    page = Page(path.read_text(encoding="utf-8"))
    words = "".join(page.words)
    assert forecast().verdict() in words
    for told in ("wsd <b>", "a doubt", "a weakness", "not told from the best", "0.9 to 1.1"):
        assert told in words, told
    assert words.count("not told from the best") == 1
    assert "Every run" not in words
    both = write_report(
        tmp_path / "b.html", comparison=comparison(), forecast=forecast(), title="Both"
    )
    words = "".join(Page(both.read_text(encoding="utf-8")).words)
    assert "Every run" in words
    assert "Foreseen" in words
    with pytest.raises(RatecraftError, match="neither was given"):
        write_report(tmp_path / "n.html", title="x")


def test_several_lrs_are_shown_as_what_the_lr_matters(tmp_path: Path) -> None:
    result = replace(several(lrs=(0.01, 0.02)), failed={"x, seed 3": "Traceback\nError: broken"})
    words = "".join(Page(written(tmp_path, result)).words)
    for told in (
        "StepOptions much the lr matters",
        "above the best",
        "Failed: x, seed 3",
        "broken",
    ):
        assert told in words
    assert len(result.best_per_schedule().schedules) == len(SCHEDULES)
    assert "StepOptions much the lr matters" not in written(tmp_path, comparison())


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_flat_region_is_that_of_the_result(tmp_path: Path, seeds: int) -> None:
    result = several(lrs=(0.01, 0.1, 0.4, 0.9), seeds=seeds)
    flat = result.flat()
    head, *listed = tables(written(tmp_path, result))["StepOptions much the lr matters"]
    assert head[:3] == ["schedule", "best lr", "not told from it"]
    assert [row[0] for row in listed] == list(flat) == list(SCHEDULES)
    for row, one in zip(listed, flat.values(), strict=True):
        assert float(row[1]) == one.best
        assert ("or lower" in row[2]) == one.open_low
        assert ("or higher" in row[2]) == one.open_high
        ends = {float(end) for end in re.findall(r"[0-9.e]+(?= |$)", row[2])}
        assert ends == {one.low, one.high}


def test_colours_are_those_of_the_other_figures_where_a_lr_is_missing() -> None:
    result = several(lrs=(0.01, 0.02))
    first, *rest = result.runs
    result = replace(result, runs=(replace(first, stopped=40), *rest))
    lines, bands = series.sensitivity(result)
    assert list(lines) == list(bands) == list(SCHEDULES)
    assert [len(xs) for xs, _ in lines.values()] == [1, 2]


@pytest.mark.parametrize(
    ("lrs", "seeds", "told"),
    [
        ((0.001, 0.002), 3, "the best lr is the highest tried: try higher ones"),
        ((0.5, 0.9), 3, "the best lr is the lowest tried: try lower ones"),
        ((0.01, 0.02), 1, "one seed tells no lr from another"),
        ((0.001, 0.05, 0.99), 3, "its neighbours are worse: the lr matters"),
    ],
)
def test_what_a_flat_region_means_is_said(
    tmp_path: Path, lrs: tuple[float, ...], seeds: int, told: str
) -> None:
    result = several(lrs=lrs, seeds=seeds)
    _, first, *_ = tables(written(tmp_path, result))["StepOptions much the lr matters"]
    assert first[-1] == told


def test_how_soon_is_told_where_there_is_a_target(tmp_path: Path) -> None:
    result = several(lrs=(0.01, 0.02))
    text = written(tmp_path, result)
    head, *listed = tables(text)["StepOptions soon"]
    assert head == ["schedule", "steps", "time", "seeds"]
    reached = result.best_per_schedule().time_to_target(result.target())
    assert {row[0] for row in listed} == set(reached)
    for name, steps, time, seeds in listed:
        assert float(steps) == pytest.approx(reached[name].steps, abs=0.5)
        assert float(time.removesuffix(" s")) == pytest.approx(reached[name].seconds, rel=0.01)
        assert seeds == f"{reached[name].seeds} of 3"
    assert [float(row[1]) for row in listed] == sorted(float(row[1]) for row in listed)
    assert "the lowest that every finished schedule reached" in "".join(Page(text).words)


def test_the_soonest_is_first(tmp_path: Path) -> None:
    result = comparison({"a slow one": 0.3 * constant(1), "b fast one": constant(1)})
    _, first, second = tables(written(tmp_path, result))["StepOptions soon"]
    assert first[0] == "b fast one"
    assert float(first[1]) < float(second[1])


def test_one_that_did_not_come_there_is_last_in_how_soon(tmp_path: Path) -> None:
    schedules = {"slow": 0.01 * constant(1), **SCHEDULES}
    result = comparison(schedules)
    result = replace(
        result,
        runs=tuple(
            replace(r, diverged=99) if r in result.runs_for("slow") else r for r in result.runs
        ),
    )
    assert tables(written(tmp_path, result))["StepOptions soon"][-1] == ["slow", "-", "-", "0 of 3"]


def test_without_a_target_nothing_is_said_of_how_soon(tmp_path: Path) -> None:
    result = comparison({"alone": constant(1)})
    assert result.target() is None
    assert "StepOptions soon" not in written(tmp_path, result)


def test_loss_over_budgets_is_drawn_for_several_lengths(tmp_path: Path) -> None:
    result = several(lrs=(0.01, 0.02), totals=(40, 100))
    lines, bands = series.budgets(result)
    assert list(lines) == list(bands) == list(SCHEDULES)
    xs, ys = lines["constant"]
    assert list(xs) == [40, 100]
    best = result.runs_for("constant, 100 steps, lr 0.02")
    assert ys[1] == pytest.approx(sum(run.final() for run in best) / 3)
    assert bands["constant"][1][1] == max(run.final() for run in best)
    text = written(tmp_path, result)
    assert "Loss over budgets" in text
    head, *listed = tables(text)["Results"]
    assert head[:2] == ["schedule", "steps"]
    assert [row[1] for row in listed] == ["100"] * 4 + ["40"] * 4
    # The best of each length has nothing above it.
    assert [row[4] == "" for row in listed] == [True, False, False, False] * 2
    plain = written(tmp_path, several(lrs=(0.01, 0.02)))
    assert "Loss over budgets" not in plain
    assert "steps" not in tables(plain)["Results"][0]


def test_what_was_stopped_early_says_so_and_has_no_mean(tmp_path: Path) -> None:
    result = comparison()
    first, *rest = result.runs
    result = replace(result, runs=(replace(first, stopped=40), *rest))
    text = written(tmp_path, result)
    (row,) = [row for row in tables(text)["Results"] if row[0].startswith("constant")]
    assert row[0].endswith("stopped early: 1 of 3 seeds")
    assert row[2] == "-"
    assert "100, stopped early" in "".join(Page(text).words)
    assert "stopped early" not in written(tmp_path, comparison())


def test_each_further_metric_has_a_figure(tmp_path: Path) -> None:
    text = written(tmp_path, comparison())
    assert "<title>Validation distance</title>" in text
    assert "Training distance" not in text


def test_of_many_lines_the_best_are_drawn_and_the_caption_says_so(tmp_path: Path) -> None:
    schedules = {f"s{i}": (1 + i / 10) * constant(1) for i in range(11)}
    result = comparison(schedules, seeds=1)
    shown = series.shown(result)
    assert list(shown.schedules) == [f"s{i}" for i in range(3, 11)]
    text = written(tmp_path, result)
    captions = ["".join(c.itertext()) for c in tree(text).iter("figcaption")]
    assert len(captions) == 4
    assert all("Drawn are the 8 best of 11." in caption for caption in captions)
    keyed = [row for row in tree(text).find(".//tbody") if row.find(".//span") is not None]
    assert len(keyed) == 8
    assert "Drawn are" not in written(tmp_path, comparison())


def test_every_epoch_of_every_run_is_in_its_fold(tmp_path: Path) -> None:
    result = followed(comparison())
    found = folds(written(tmp_path, result))
    assert list(found) == list(SCHEDULES)
    for name, listed in found.items():
        for run, (head, *epochs) in zip(result.runs_for(name), listed, strict=True):
            assert head == [
                *("epoch", "step", "training loss", "validation loss"),
                *("training distance", "validation distance"),
                *("lr of body", "lr of head <i>"),
            ]
            assert len(epochs) == 5
            for row, one in zip(epochs, run.evaluations, strict=True):
                expected = [one.step / 20, one.step, one.train["loss"], one.metrics["loss"]]
                expected += [0.125, one.metrics["distance"], *one.lrs.values()]
                assert list(map(float, row)) == pytest.approx(expected, rel=1e-3)


def test_an_older_result_has_its_lrs_from_the_schedule(tmp_path: Path) -> None:
    result = comparison()
    head, *_, last = folds(written(tmp_path, result))["decayed <b>&"][0]
    assert head == ["epoch", "step", "validation loss", "validation distance", "lr"]
    lr = result.runs_for("decayed <b>&")[0].curve()(99)
    assert float(last[-1]) == pytest.approx(lr, rel=1e-3)


def test_a_hundred_runs_make_a_light_page(tmp_path: Path) -> None:
    lrs = tuple(0.001 * k for k in range(1, 11))
    result = followed(several(lrs=lrs, totals=(200,), seeds=5))
    assert len(result.runs) == 100
    assert len(written(tmp_path, result)) < 600_000


def test_of_many_evaluations_some_are_listed(tmp_path: Path) -> None:
    result = followed(comparison())
    run = result.runs[0]
    many = tuple(replace(run.evaluations[0], step=k) for k in range(1, 50_001))
    long = replace(run, total_steps=50_000, losses=(1.0,) * 50_000, evaluations=many)
    result = replace(result, runs=(long, *result.runs[1:]))
    text = written(tmp_path, result)
    listed = folds(text)["constant"][0]
    assert len(listed) < 2000
    assert (listed[1][1], listed[-1][1]) == ("1", "50000")
    assert "of 50000 evaluations, all of which are in the result" in text


def test_what_was_foreseen_stands_beside_what_happened(tmp_path: Path) -> None:
    result, before = comparison(), forecast()
    same, named, other = before.candidates
    loss = result.summaries()[0].mean["loss"]
    near = {"low": 0.5 * loss, "high": 2 * loss, "loss": loss}
    same = replace(same, schedule="0.02 * constant(1)", **near)
    named = replace(named, name="decayed <b>&", schedule="constant(0.3)")
    before = replace(before, candidates=(same, named, other))
    text = written(tmp_path, result, before)
    head, first, second = tables(text)["ForecastEntry, and what happened"]
    assert head == ["schedule", "foreseen", "band", "happened", "in the band"]
    assert first[0] == "constantforeseen as wsd <b>"
    happened = {row.name: row.mean["loss"] for row in result.summaries()}
    assert float(first[3].split(" ± ")[0]) == pytest.approx(happened["constant"], rel=1e-3)
    assert (first[4], second[4]) == ("yes", "no")
    assert second[0] == "decayed <b>&of the same name, but its lrs differ"
    assert "1 of 2 ended within their bands" in text
    assert "Grey: what was logged" in text  # the forecast itself is there, too


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.5, 2, "yes"), (0.5, 0.9, "no"), (1.1, 2, "no")]
)
def test_a_band_is_kept_or_not(tmp_path: Path, low: float, high: float, told: str) -> None:
    result, before = comparison(), forecast()
    loss = {row.name: row.mean["loss"] for row in result.summaries()}["constant"]
    one = replace(before.candidates[0], name="constant", schedule="0.02 * constant(1)")
    one = replace(one, low=low * loss, high=high * loss)
    text = written(tmp_path, result, replace(before, candidates=(one,), tied=()))
    assert tables(text)["ForecastEntry, and what happened"][1][-1] == told


def test_what_was_trained_for_another_length_does_not_stand_beside(tmp_path: Path) -> None:
    before = forecast()
    one = replace(before.candidates[0], name="constant", schedule="0.02 * constant(1)")
    before = replace(before, candidates=(one,), tied=())
    assert "ForecastEntry, and" in written(tmp_path, comparison(), before)
    assert "ForecastEntry, and" not in written(
        tmp_path, comparison(), replace(before, total_steps=90)
    )


def test_charts_take_the_colours_of_the_page(report: str) -> None:
    style = report[report.index("<style>") : report.index("</style>")]
    for color in (svg.TEXT, svg.SOFT, svg.GRID, svg.FAINT):
        assert f'[fill="{color}"]' in style
        assert f'[stroke="{color}"]' in style
    assert 'figure [stroke="#000000"]' in style[style.index("prefers-color-scheme") :]


def test_seeds_that_are_missing_are_told(tmp_path: Path) -> None:
    whole = comparison()
    lacking = Comparison(whole.task, whole.schedules, whole.runs[1:])
    page = write_report(tmp_path / "m.html", comparison=lacking, title="x").read_text("utf-8")
    assert page.count("seeds missing: 1") == 1
    assert "Left out, since runs are missing" in page
    plain = write_report(tmp_path / "p.html", comparison=whole, title="x").read_text("utf-8")
    assert "missing" not in plain


def test_the_recipe_of_a_plateau_is_what_it_did() -> None:
    whole = comparison()
    name = next(iter(whole.schedules))
    first = whole.runs_for(name)[0]
    did = "staircase([1, 0.5], at=[40])"
    plateau = replace(first, schedule="plateau(factor=0.5)", innermost_optimizer=did)
    result = Comparison("t", {"falls": "plateau(factor=0.5)"}, (plateau,), {})
    there: dict[str, object] = {}
    recipe = _recipe(result)
    exec(recipe, there)  # noqa: S102 -- our own text
    assert did in recipe


def test_a_schedule_keeps_its_colour_where_another_has_no_point() -> None:
    whole = several(lrs=(0.01, 0.02))
    first = next(iter(whole.families()))
    lost = tuple(
        replace(run, diverged=50) if name in whole.families()[first] else run
        for name in whole.schedules
        for run in whole.runs_for(name)
    )
    lines, bands = series.sensitivity(replace(whole, runs=lost))
    assert list(lines) == list(bands) == list(whole.families())
    assert [len(xs) for xs, _ in lines.values()] == [0, *[2] * (len(lines) - 1)]
    plot_comparison(replace(whole, runs=lost))
    page = "".join(_sensitivity(replace(whole, runs=lost)))
    second = list(lines)[1]
    pens = dict(zip(lines, svg.PALETTE, strict=False))
    drawn = {name: page.count(f'stroke="{pen}"') for name, pen in pens.items()}
    assert drawn[second] > drawn[first] == 2  # its key in the broad and in the narrow figure

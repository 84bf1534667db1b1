import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from quadratic import SCHEDULES, comparison, forecast, found_rate, range_test

import ratecraft
from ratecraft import constant, parse
from ratecraft.errors import RatecraftError
from ratecraft.records import Comparison, Measured, Setting, load
from ratecraft.view import write_report

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
    root = tree(text)
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def test_the_page_is_well_formed(report: str) -> None:
    page = Page(report)
    assert page.tags.count("h1") == 1
    assert page.tags.count("figure") == 4
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


def test_the_verdict_and_the_table_are_those_of_the_record(report: str) -> None:
    record = comparison()
    words = "".join(Page(report).words)
    assert record.verdict() in words
    head, first, second = rows(report)[:3]
    assert head == ["schedule", "seeds", "validation loss", "above the best", "distance"]
    best, other = record.summaries()
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
    listed = rows(report)[4:]
    assert len(listed) == 6
    assert [row[1] for row in listed] == ["0", "1", "2"] * 2
    assert listed[0][-2:] == ["100", "0.25 s"]


def test_the_recipe_builds_the_same_rates(report: str) -> None:
    root = tree(report)
    code = "".join(root.find(".//pre").itertext())
    curves = [
        eval(line, {"parse": parse})  # noqa: S307 - the point is that the text is Python
        for line in code.splitlines()
        if line.startswith("(")
    ]
    record = comparison()
    assert [list(c) for c in curves] == [list(record.of(n)[0].curve()) for n in SCHEDULES]


def test_a_diverged_schedule_has_no_mean_and_is_counted(tmp_path: Path) -> None:
    schedules = {"good": constant(1), "hot": 400 * constant(1)}
    record = comparison(schedules)
    text = write_report(tmp_path / "r.html", comparison=record, title="t").read_text("utf-8")
    head, first, second = rows(text)[:3]
    assert head[-1] == "diverged"
    assert (first[0], first[-1]) == ("goodconstant(1)", "0")
    assert (second[0], second[2], second[-1]) == ("hot400 * constant(1)", "-", "3")
    assert "nan" not in text.replace("nance", "")
    assert "A line ends where the first of its seeds diverged." in text


@pytest.mark.parametrize("rate", [0.02, 5.0], ids=["finished", "all diverged"])
def test_one_seed_is_enough_for_a_page(tmp_path: Path, rate: float) -> None:
    record = comparison(rate=rate, seeds=1)
    text = write_report(tmp_path / "r.html", comparison=record, title="t").read_text("utf-8")
    Page(text)
    assert record.verdict() in "".join(Page(text).words)
    assert "±" not in rows(text)[1][2]


def test_a_range_test_without_an_answer_says_so(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "r.html", comparison=comparison(), found=range_test(None), title="t"
    )
    words = "".join(Page(path.read_text("utf-8")).words)
    assert "No rate suggested: the loss never fell & rose" in words


def test_a_found_rate_is_shown_with_its_band_and_reason(tmp_path: Path) -> None:
    one = write_report(tmp_path / "r.html", comparison=comparison(), found=found_rate(), title="t")
    page = one.read_text()
    assert "<strong>0.1, from 0.05 to 0.2</strong>: the best is &lt;near&gt; 0.1" in page
    assert "Loss after short runs at different rates" in page
    assert "112 of 200 updates in 6 short runs" in page
    two = write_report(
        tmp_path / "n.html", comparison=comparison(), found=found_rate(None), title="t"
    )
    assert "<strong>No answer</strong>: no answer: none gained &amp; none lost" in two.read_text()


def test_a_search_without_a_run_has_no_figure(tmp_path: Path) -> None:
    none = replace(found_rate(None), runs=())
    page = write_report(tmp_path / "r.html", comparison=comparison(), found=none, title="t")
    assert "<strong>No answer</strong>" in page.read_text()


def test_without_a_range_test_its_section_is_missing(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", comparison=comparison(), title="t")
    assert "Range test" not in path.read_text("utf-8")


def test_a_saved_record_makes_the_same_page(tmp_path: Path) -> None:
    record = comparison(rate=1.5)
    loaded = load(record.save(tmp_path / "c.json"))
    assert isinstance(loaded, Comparison)
    pages = [
        write_report(tmp_path / "r.html", comparison=r, title="t").read_text("utf-8")
        for r in (record, loaded)
    ]
    assert pages[0] == pages[1]


def test_long_runs_make_a_small_page(tmp_path: Path) -> None:
    schedules = {f"s{i}": (0.5 + i / 20) * constant(1) for i in range(4)}
    runs = []
    for schedule in schedules.values():
        run = comparison({"s": schedule}, seeds=1).runs[0]
        long = tuple(run.losses[k % 100] for k in range(50_000))
        runs.append(ratecraft.records.Run(run.schedule, 0.02, 0, 50_000, 20, long, run.evaluations))
    texts = {name: repr(s) for name, s in schedules.items()}
    record = Comparison("long", texts, tuple(runs))
    path = write_report(tmp_path / "r.html", comparison=record, title="t")
    assert path.stat().st_size < 200_000


def test_what_updates_did_is_drawn(tmp_path: Path) -> None:
    names = ("weight", "step", "gradient", "gradient_l1", "unclipped", "effective", "relative",
             "decay", "low", "median", "high")  # fmt: skip
    numbers = dict.fromkeys(names, 0.5)
    rows = [Measured(k, "all", layer, 0.1, **numbers) for k in range(3) for layer in ("a<", "b")]
    path = tmp_path / "r.html"
    write_report(path, comparison=comparison(), measured=rows, title="x")
    page = Page(path.read_text(encoding="utf-8"))
    assert "What updates did" in page.words
    assert "Effective rate by layer" in page.words
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


def test_several_rates_are_shown_as_what_the_rate_matters(tmp_path: Path) -> None:
    tried = {rate: comparison(rate=rate) for rate in (0.01, 0.02)}
    names = list(SCHEDULES)
    record = Comparison(
        "t",
        {f"{n}, rate {r:g}": one.schedules[n] for n in names for r, one in tried.items()},
        tuple(run for one in tried.values() for run in one.runs),
        {},
        {f"{n}, rate {r:g}": Setting(r, "", 100) for n in names for r in tried},
        {"x, seed 3": "Traceback\nValueError: broken"},
    )
    path = write_report(tmp_path / "r.html", comparison=record, title="x")
    words = "".join(Page(path.read_text(encoding="utf-8")).words)
    for told in ("How much the rate matters", "above the best", "Failed: x, seed 3", "broken"):
        assert told in words
    assert len(record.at_best_rates().schedules) == len(names)
    plain = write_report(tmp_path / "p.html", comparison=comparison(), title="x")
    assert "How much the rate matters" not in plain.read_text(encoding="utf-8")

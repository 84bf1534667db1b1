"""What the script of a report does, in a browser, on the demo's report and on 128 candidates."""

import json
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quadratic import make_large_comparison, make_lr_finder_result

from ratecraft import parse
from ratecraft._render._axis import number
from ratecraft.cli._demo import DEMO_SCHEDULES
from ratecraft.experiments import compare
from ratecraft.report import write_report
from ratecraft.results import Comparison

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.peers

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser found; tried {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def demo() -> Comparison:
    """Return what `ratecraft demo` compares, after a few steps."""
    schedules = {name: parse(text) for name, text in DEMO_SCHEDULES.items()}
    return compare("digits", schedules, lrs=0.003, seeds=2, total_steps=60, workers=0)


@pytest.fixture(scope="module")
def demo_report(demo: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "report.html"
    return write_report(path, comparison=demo, lr_search=make_lr_finder_result(), title="The demo")


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "report.html"
    return write_report(path, comparison=make_large_comparison(), title="128 candidates")


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Return a function that opens a report; errors, messages and requests fail the test."""
    contexts, problems = [], []

    def open_page(path: Path, viewport: dict[str, int] = DESKTOP, **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(5000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda r: r.url == path.as_uri() or problems.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def chart(page: Any, title: str) -> Any:
    return page.locator("figure", has=page.locator("text", has_text=re.compile(f"^{title}$"))).first


def picture(figure: Any) -> Any:
    return figure.locator(":scope > svg:visible")


def data(figure: Any) -> Any:
    return json.loads(figure.locator("script").text_content())


def hover(figure: Any, fraction: float) -> dict[str, str]:
    """Point at a fraction of the x axis; return the values that are shown, and "at"."""
    plot = picture(figure).locator(":scope > svg")
    plot.scroll_into_view_if_needed()
    box = figure.page.evaluate(
        """svg => { const outer = svg.ownerSVGElement.getBoundingClientRect(),
          scale = outer.width / svg.ownerSVGElement.viewBox.baseVal.width;
          return ["x", "y", "width", "height"].map((name, i) =>
            svg.getAttribute(name) * scale + [outer.left, outer.top, 0, 0][i]); }""",
        plot.element_handle(),
    )
    figure.page.mouse.move(box[0] + fraction * box[2], box[1] + box[3] / 2)
    return shown_values(figure)


def shown_values(figure: Any) -> dict[str, str]:
    box = figure.locator(".values")
    if box.is_hidden():
        return {}
    rows = box.locator("div:not(.at)").all()
    values = {
        row.locator("span").nth(1).inner_text(): row.locator("b").inner_text() for row in rows
    }
    return values | {"at": box.locator(".at").inner_text()}


def tick_labels(figure: Any) -> list[str]:
    return picture(figure).locator(":scope > g:not(.entry) text").all_text_contents()


def paths(figure: Any) -> list[str]:
    drawn = picture(figure).locator(":scope > svg > path, :scope > g:not(.entry) > path")
    return [path.get_attribute("d") for path in drawn.all()]


def column(page: Any, table: Any, i: int) -> list[str]:
    return table.locator(f"tbody tr:visible td:nth-child({i + 1})").all_inner_texts()


@pytest.mark.parametrize("report", ["demo_report", "large_report"])
def test_script_draws_the_same_chart_as_python(
    visit: Any, report: str, request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(report))
    figures = [f for f in page.locator("figure").all() if f.locator(".tools button").count()]
    assert len(figures) >= 4
    for figure in figures:
        before, labels = paths(figure), tick_labels(figure)
        button = figure.locator(".tools button").last
        button.click()
        assert paths(figure) != before
        button.click()
        after = paths(figure)
        assert tick_labels(figure) == labels
        assert [re.sub(r"[-\d.]+", "", d) for d in after] == [
            re.sub(r"[-\d.]+", "", d) for d in before
        ]
        for old, new in zip(before, after, strict=True):
            old_numbers, new_numbers = (
                [float(n) for n in re.findall(r"-?\d+\.?\d*", d)] for d in (old, new)
            )
            assert new_numbers == pytest.approx(old_numbers, abs=0.11)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_hover_shows_the_values_at_the_nearest_x(
    visit: Any, demo: Comparison, demo_report: Path, viewport: dict[str, int]
) -> None:
    figure = chart(visit(demo_report, viewport), "Validation loss")
    for i, fraction in ((-1, 0.97), (0, 0.03)):
        expected = {}
        for name in DEMO_SCHEDULES:
            losses = [run.evaluations[i].metrics["loss"] for run in demo.runs_for(name)]
            expected[name] = number(float(f"{statistics.fmean(losses):.6g}"))
        step = demo.runs[0].evaluations[i].step
        assert hover(figure, fraction) == expected | {"at": f"step {step}"}
    figure.page.mouse.move(1, 1)
    assert shown_values(figure) == {}


def test_hover_shows_the_learning_rate_of_a_step(
    visit: Any, demo: Comparison, demo_report: Path
) -> None:
    figure = chart(visit(demo_report), "Schedules")
    values = hover(figure, 0.5)
    step = int(values.pop("at").removeprefix("step "))
    assert 25 <= step <= 35
    for name, text in values.items():
        expected = demo.runs_for(name)[0].curve()(step)
        assert float(text) == pytest.approx(expected, rel=1e-3)


def test_touch_and_arrow_keys_show_values_too(visit: Any, demo_report: Path) -> None:
    page = visit(demo_report, PHONE, has_touch=True)
    figure = chart(page, "Validation loss")
    picture(figure).scroll_into_view_if_needed()
    box = picture(figure).bounding_box()
    page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.7 * box["height"])
    assert set(DEMO_SCHEDULES) < set(shown_values(figure))
    page = visit(demo_report)
    figure = chart(page, "Validation loss")
    picture(figure).focus()
    page.keyboard.press("End")
    assert shown_values(figure)["at"] == "step 60"
    page.keyboard.press("ArrowLeft")
    assert shown_values(figure)["at"] == "step 45"
    page.keyboard.press("Escape")
    assert shown_values(figure) == {}


def test_legend_hides_and_shows_a_line(visit: Any, demo_report: Path) -> None:
    page = visit(demo_report)
    figure = chart(page, "Validation loss")
    before = paths(figure)
    entry = picture(figure).get_by_role("button", name="cosine", exact=True)
    assert entry.get_attribute("aria-pressed") == "true"
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert len(paths(figure)) == len(before) - 2  # the line and its band
    assert "cosine" not in hover(figure, 0.9)
    entry.focus()
    page.keyboard.press("Enter")
    assert entry.get_attribute("aria-pressed") == "true"
    assert "cosine" in hover(figure, 0.9)


def test_axis_of_the_remaining_lines_is_fitted_to_them(visit: Any, large_report: Path) -> None:
    figure = chart(visit(large_report), "Validation distance")
    lines, before = data(figure)["lines"], tick_labels(figure)
    entries = picture(figure).locator(".entry")
    for i in range(1, len(lines)):
        entries.nth(i).click()
    assert tick_labels(figure) != before
    assert set(hover(figure, 0.9)) == {lines[0]["name"], "at"}


def test_log_switch_changes_the_axis(visit: Any, demo_report: Path) -> None:
    figure = chart(visit(demo_report), "Schedules")
    button = figure.get_by_role("button", name="log y")
    assert button.get_attribute("aria-pressed") == "false"
    assert "0" in tick_labels(figure)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    labels = tick_labels(figure)
    assert "1e-3" in labels
    values = hover(figure, 0.5)
    assert float(values["constant"]) == 0.003
    figure.get_by_role("button", name="log x").click()
    assert {"1", "10"} <= set(tick_labels(figure))


def leading(text: str) -> float:
    return float(re.match(r"[-+\d.e]+", text.replace(",", ""))[0])


def test_click_on_a_head_sorts_numbers_as_numbers(visit: Any, large_report: Path) -> None:
    page = visit(large_report)
    table = page.locator("table").first
    heads = table.locator("thead th").all_inner_texts()
    i = next(i for i, text in enumerate(heads) if "validation loss" in text)
    head = table.locator("thead th").nth(i)
    for direction in ("ascending", "descending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == direction
        cells = column(page, table, i)
        values = [leading(cell) for cell in cells if cell != "-"]
        assert len(cells) == 128
        assert 0 < cells.count("-") < 128
        assert set(cells[len(values) :]) == {"-"}
        assert values == sorted(values, reverse=direction == "descending")
    first = table.locator("thead th").first
    first.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    names = table.locator("tbody td:first-child strong").all_inner_texts()
    assert names == sorted(names, key=lambda n: [float(p) if "." in p else p for p in n.split()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.2 ± 0.1", 1.2), ("2.4 s", 2.4), ("1e-3", 0.001), ("1,234", 1234), ("3 of 3", 3),
     ("2.3x (1.9 to 2.8)", 2.3), ("-0.5", -0.5), ("100, diverged", 100)],
)  # fmt: skip
def test_units_and_spreads_do_not_matter_for_the_order(
    visit: Any, tmp_path: Path, text: str, expected: float
) -> None:
    from ratecraft._render._html import table, table_row
    from ratecraft.report._page import _page

    cells = [text, "-", str(expected - 0.0004), str(expected + 0.0004)]
    path = tmp_path / "table.html"
    path.write_text(_page("t", [table(["name", "v"], [table_row(["a", c]) for c in cells])]))
    page = visit(path)
    page.get_by_role("button", name="v", exact=True).click()
    assert column(page, page.locator("table"), 1) == [cells[2], text, cells[3], "-"]


@pytest.mark.parametrize(
    "names",
    [
        ["cosine, 90 steps", "cosine, 1,000 steps", "cosine, 10,000 steps"],
        ["slope -1.5", "slope -1", "slope 0.5", "slope 2"],
        ["wsd-2", "wsd-10"],  # a hyphen
        ["lr 1e-3", "lr 0.01", "lr 0.1"],
    ],
    ids=["thousands", "negative", "hyphen", "exponent"],
)
def test_numbers_in_names_are_sorted_by_their_value(
    visit: Any, tmp_path: Path, names: list[str]
) -> None:
    from ratecraft._render._html import table, table_row
    from ratecraft.report._page import _page

    path = tmp_path / "table.html"
    path.write_text(_page("t", [table(["name"], [table_row([n]) for n in reversed(names)])]))
    page = visit(path)
    page.get_by_role("button", name="name", exact=True).click()
    assert column(page, page.locator("table"), 0) == names


def test_filter_keeps_the_rows_with_all_words(visit: Any, large_report: Path) -> None:
    page = visit(large_report)
    page.get_by_role("searchbox").first.fill("cosine fast")
    names = page.locator("table").first.locator("tbody tr:visible strong").all_inner_texts()
    assert len(names) == 8  # cosine, warmup + cosine
    assert all("cosine" in name and "fast" in name for name in names)
    assert page.locator(".filter").first.inner_text().strip() == "8 of 128 rows"


def test_short_tables_have_no_filter(visit: Any, demo_report: Path) -> None:
    assert visit(demo_report).locator("main > .filter").count() == 0


def test_copy_button_copies_the_text_of_a_schedule(visit: Any, demo_report: Path) -> None:
    page = visit(demo_report, permissions=["clipboard-read", "clipboard-write"])
    row = page.locator("tbody tr", has=page.locator("strong", has_text=re.compile("^WSD$"))).first
    row.get_by_role("button").click()
    assert page.evaluate("navigator.clipboard.readText()") == DEMO_SCHEDULES["WSD"]
    page.locator("pre button").first.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("from ratecraft import ")


def test_contents_stay_beside_a_broad_page_and_are_collapsed_on_a_phone(
    visit: Any, demo_report: Path
) -> None:
    page = visit(demo_report)
    side = page.locator("nav.side")
    side.get_by_role("link", name="Reproduce").click()
    assert page.evaluate("scrollY") > 500
    assert side.bounding_box()["y"] == pytest.approx(0, abs=1)
    assert page.locator("details.contents").is_hidden()
    page = visit(demo_report, PHONE)
    assert page.locator("nav.side").is_hidden()
    link = page.locator("details.contents").get_by_role("link", name="Reproduce")
    assert link.is_hidden()
    page.locator("details.contents summary").click()
    link.click()
    assert page.evaluate("scrollY") > 500


@pytest.mark.parametrize("report", ["demo_report", "large_report"])
def test_phone_page_does_not_scroll_sideways(
    visit: Any, report: str, request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(report), PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for fraction in (0.02, 0.5, 0.98):
        hover(chart(page, "Validation loss"), fraction)
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_lines_change_color_in_the_dark(visit: Any, demo_report: Path) -> None:
    colors = []
    for scheme in ("light", "dark"):
        figure = chart(visit(demo_report, color_scheme=scheme), "Validation loss")
        line = picture(figure).locator(":scope > svg > path[fill=none]").first
        hover(figure, 0.5)
        key = figure.locator(".values path").first
        strokes = [part.evaluate("e => getComputedStyle(e).stroke") for part in (line, key)]
        assert strokes[0] == strokes[1]
        colors.append(strokes[0])
    assert colors[0] != colors[1]


def test_first_figure_of_a_large_report_is_at_the_top(visit: Any, large_report: Path) -> None:
    page = visit(large_report)
    box = picture(page.locator("figure").first).bounding_box()
    assert box["y"] + box["height"] < 1500
    assert "Final validation loss" in page.locator("figure").first.text_content()


def test_page_without_javascript_shows_everything(visit: Any, large_report: Path) -> None:
    page = visit(large_report, java_script_enabled=False)
    assert page.locator("table").first.locator("tbody tr:visible").count() == 128
    for figure in page.locator("figure").all():
        assert picture(figure).count() == 1
    assert page.get_by_role("link", name="Results").first.is_visible()
    assert page.locator("button").count() == page.locator("input").count() == 0


def test_no_text_of_a_result_runs_in_the_page(visit: Any, tmp_path: Path) -> None:
    from test_page import HOSTILE, make_hostile_comparison

    path = write_report(tmp_path / "h.html", comparison=make_hostile_comparison(), title=HOSTILE)
    page = visit(path)
    for figure in page.locator("figure").all():
        if figure.locator(".tools").count():
            hover(figure, 0.5)
            figure.locator(".tools button").last.click()
            picture(figure).locator(".entry").first.click()
    page.locator("th button").first.click()
    page.locator("main summary:visible").last.click()
    assert page.evaluate("window.attacked") is None
    assert page.locator("img, b:not(.values b)").count() == 0
    assert page.title() == " ".join(HOSTILE.split())

"""A report in a browser: it loads nothing, logs no errors, and fits a phone."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from quadratic import (
    add_training_metrics,
    make_forecast,
    make_grid_comparison,
    make_range_test_result,
)

from ratecraft.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    # Stop the browser's own requests, and all name lookups.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--hide-scrollbars", "--enable-logging=stderr", "--v=0"),
)
DARK = "--blink-settings=preferredColorScheme=0"
PHONE, DESKTOP = 390, 1200
# A headless window cannot be as narrow as a phone, but a frame can. srcdoc has the same origin.
FRAMES = """<!DOCTYPE html><body style="margin: 0"><pre></pre>{frames}<script>
onload = () => {{
  const visible = (page, name) => [...page.querySelectorAll("svg." + name)]
    .filter(svg => getComputedStyle(svg).display != "none").length
  document.querySelector("pre").textContent = JSON.stringify(
    [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument).map(page => [
      page.documentElement.clientWidth, page.documentElement.scrollWidth,
      visible(page, "broad"), visible(page, "narrow")]))
}}</script></body>"""
FRAME = '<iframe srcdoc="{page}" style="width: {width}px; height: 844px; border: 0"></iframe>'


class Visit(NamedTuple):
    """What the browser reported for one page."""

    dom: str
    console: list[str]
    requested: list[str]


class Browser:
    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def visit(self, page: Path, *flags: str) -> Visit:
        log = self.folder / "net.json"
        log.unlink(missing_ok=True)
        flags += (f"--user-data-dir={self.folder / 'profile'}", f"--log-net-log={log}")
        done = subprocess.run(
            [self.program, *FLAGS, "--net-log-capture-mode=Default", *flags, page.as_uri()],
            capture_output=True,
            encoding="utf-8",
            timeout=180,
            check=True,
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Visit(done.stdout, console, list(requested_urls(log)))


def requested_urls(log: Path) -> Iterator[str]:
    """Yield the URLs requested by pages; the browser's own requests have no initiator."""
    result = json.loads(log.read_text(encoding="utf-8"))
    start = result["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    for event in result["events"]:
        params = event.get("params", {})
        if event["type"] == start and params.get("initiator", "not an origin") != "not an origin":
            yield params["url"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser found; tried {', '.join(BROWSERS)}")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page with all sections and a long title."""
    result = add_training_metrics(make_grid_comparison(lrs=(0.01, 0.02, 0.04), lengths=(60, 100)))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        comparison=result,
        forecast=make_forecast(),
        lr_search=make_range_test_result(),
        title="A" * 90 + " <b>",
    )
    # A collapsed table has no width.
    text = path.read_text("utf-8").replace("<details>", '<details open="open">')
    path.write_text(text, "utf-8")
    return path


def image_size_and_brightness(path: Path) -> tuple[tuple[int, int], float]:
    """Return the size of an image and the brightness of its corner."""
    from matplotlib.image import imread

    pixels = imread(path)
    return (pixels.shape[1], pixels.shape[0]), float(pixels[0, 0, :3].mean())


def test_page_loads_nothing_and_logs_nothing(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "desktop.png"
    visit = browser.visit(report, f"--screenshot={picture}", f"--window-size={DESKTOP},1600")
    assert visit.console == []
    assert visit.requested == []
    size, brightness = image_size_and_brightness(picture)
    assert size == (DESKTOP, 1600)
    assert brightness > 0.9


def test_requests_and_console_errors_are_detected(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="http://example.invalid/a.png"/><link rel="stylesheet" '
        'href="https://example.invalid/b.css"/><script>console.error("an error")</script>'
    )
    visit = browser.visit(page, "--dump-dom")
    assert {"http://example.invalid/a.png", "https://example.invalid/b.css"} <= set(visit.requested)
    assert any("an error" in line for line in visit.console)


def test_page_follows_dark_color_scheme(browser: Browser, report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "dark.png"
    visit = browser.visit(report, DARK, f"--screenshot={picture}", f"--window-size={DESKTOP},1600")
    assert visit.console == []
    assert image_size_and_brightness(picture)[1] < 0.2


def test_page_prints_to_pdf(browser: Browser, report: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    visit = browser.visit(report, DARK, f"--print-to-pdf={paper}")
    assert visit.console == []
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 20_000


def test_page_fits_phone_width(browser: Browser, report: Path, tmp_path: Path) -> None:
    text = report.read_text("utf-8")
    wide = '<!DOCTYPE html><div style="width: 800px">wide</div>'
    frames = [(text, PHONE), (text, 320), (text, DESKTOP), (wide, PHONE)]
    outer = tmp_path / "outer.html"
    outer.write_text(
        FRAMES.format(
            frames="".join(FRAME.format(page=html.escape(p), width=w) for p, w in frames)
        ),
        "utf-8",
    )
    picture = tmp_path / "phone.png"
    visit = browser.visit(outer, "--dump-dom", f"--window-size={DESKTOP},900")
    phone, small, desktop, control = json.loads(re.search("<pre>(.*?)</pre>", visit.dom)[1])
    charts = text.count("<figure>")
    assert phone == [PHONE, PHONE, 0, charts]
    assert small == [320, 320, 0, charts]
    assert desktop == [DESKTOP, DESKTOP, charts, 0]
    assert control[1] > PHONE  # the check can fail
    browser.visit(outer, f"--screenshot={picture}", f"--window-size={DESKTOP},844")
    assert picture.read_bytes().startswith(b"\x89PNG")

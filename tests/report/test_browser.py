"""A report as a browser shows it: nothing is fetched, nothing complains, and it fits a phone."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from quadratic import followed, forecast, range_test, several

from ratecraft.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    # The browser has errands of its own; nothing of them matters, and no name is looked up.
    *("--disable-background-networking", "--disable-component-step", "--disable-sync"),
    *("--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--hide-scrollbars", "--enable-logging=stderr", "--v=0"),
)
DARK = "--blink-settings=preferredColorScheme=0"
PHONE, DESKTOP = 390, 1200
# A window is never as narrow as a phone, but a frame is. What stands in it has the same origin.
FRAMES = """<!DOCTYPE html><body style="margin: 0"><pre></pre>{frames}<script>
onload = () => {{
  const shown = (page, kind) => [...page.querySelectorAll("svg." + kind)]
    .filter(svg => getComputedStyle(svg).display != "none").length
  document.querySelector("pre").textContent = JSON.stringify(
    [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument).map(page => [
      page.documentElement.clientWidth, page.documentElement.scrollWidth,
      shown(page, "broad"), shown(page, "narrow")]))
}}</script></body>"""
FRAME = '<iframe srcdoc="{page}" style="width: {width}px; height: 844px; border: 0"></iframe>'


class Visit(NamedTuple):
    """What a browser wrote while it had a page open."""

    dom: str
    console: list[str]
    fetched: list[str]


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
        return Visit(done.stdout, console, list(fetched(log)))


def fetched(log: Path) -> Iterator[str]:
    """Every address that a page asked for, beside files; what the browser itself wants has none."""
    result = json.loads(log.read_text(encoding="utf-8"))
    start = result["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    for event in result["events"]:
        about = event.get("params", {})
        if event["type"] == start and about.get("initiator", "not an origin") != "not an origin":
            yield about["url"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, and long names."""
    result = followed(several(lrs=(0.01, 0.02, 0.04), totals=(60, 100)))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, comparison=result, forecast=forecast(), found=range_test(), title="A" * 90 + " <b>"
    )
    # Folded, a table has no width.
    text = path.read_text("utf-8").replace("<details>", '<details open="open">')
    path.write_text(text, "utf-8")
    return path


def image(path: Path) -> tuple[tuple[int, int], float]:
    """A picture's size, and how light its corner is."""
    from matplotlib.image import imread

    pixels = imread(path)
    return (pixels.shape[1], pixels.shape[0]), float(pixels[0, 0, :3].mean())


def test_a_page_is_complete_without_a_network_and_without_complaints(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "desktop.png"
    seen = browser.visit(report, f"--screenshot={picture}", f"--window-size={DESKTOP},1600")
    assert seen.console == []
    assert seen.fetched == []
    size, light = image(picture)
    assert size == (DESKTOP, 1600)
    assert light > 0.9


def test_a_page_that_fetches_and_complains_would_be_caught(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="http://example.invalid/a.png"/><link rel="stylesheet" '
        'href="https://example.invalid/b.css"/><script>console.error("a complaint")</script>'
    )
    seen = browser.visit(page, "--dump-dom")
    assert {"http://example.invalid/a.png", "https://example.invalid/b.css"} <= set(seen.fetched)
    assert any("a complaint" in line for line in seen.console)


def test_a_page_is_dark_where_that_is_preferred(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "dark.png"
    seen = browser.visit(report, DARK, f"--screenshot={picture}", f"--window-size={DESKTOP},1600")
    assert seen.console == []
    assert image(picture)[1] < 0.2


def test_a_page_prints(browser: Browser, report: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    seen = browser.visit(report, DARK, f"--print-to-pdf={paper}")
    assert seen.console == []
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 20_000


def test_a_page_fits_a_phone(browser: Browser, report: Path, tmp_path: Path) -> None:
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
    seen = browser.visit(outer, "--dump-dom", f"--window-size={DESKTOP},900")
    phone, small, desktop, control = json.loads(re.search("<pre>(.*?)</pre>", seen.dom)[1])
    charts = text.count("<figure>")
    assert phone == [PHONE, PHONE, 0, charts]
    assert small == [320, 320, 0, charts]
    assert desktop == [DESKTOP, DESKTOP, charts, 0]
    assert control[1] > PHONE  # else nothing would ever be told to be too wide
    browser.visit(outer, f"--screenshot={picture}", f"--window-size={DESKTOP},844")
    assert picture.read_bytes().startswith(b"\x89PNG")

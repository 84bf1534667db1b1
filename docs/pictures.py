"""Draw the README's two pictures: a schedule in the terminal, and the report of the demo.

    python docs/pictures.py             # images/terminal.svg
    python docs/pictures.py report.html # images/report.png as well, with Chromium

``report.html`` is what ``make demo`` writes. Run this again when `show` or the report changes;
tests/test_pictures.py compares the first picture with what the command prints.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COMMAND = ["show", "warmup(10).then(cosine())", "wsd(10)", "--total-steps", "100"]
WIDTH = 78  # characters
REPORT_SIZE = "1180,1750"  # pixels
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.S)  # fetched from the network


def terminal_picture() -> str:
    """Return what the command prints, as an SVG image of a terminal."""
    size = {"COLUMNS": str(WIDTH), "LINES": "24"}
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"} | size
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "ratecraft", *COMMAND],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    console = Console(record=True, width=WIDTH, file=StringIO())
    quoted = " ".join(f'"{part}"' if "(" in part else part for part in COMMAND)
    console.print(Text(f"$ ratecraft {quoted}"))
    console.print(Text.from_ansi(done.stdout))
    picture = console.export_svg(title="ratecraft show", unique_id="terminal")
    return "\n".join(line.rstrip() for line in FONT_FACE.sub("", picture).splitlines()) + "\n"


def draw_report(report: Path) -> None:
    """Write a picture of the top of a report, taken by Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("a picture of the report needs Chromium")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={REPORT_SIZE}"]
    target = f"--screenshot={IMAGES / 'report.png'}"
    command = [browser, *options, target, report.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


if __name__ == "__main__":
    (IMAGES / "terminal.svg").write_text(terminal_picture())
    if len(sys.argv) > 1:
        draw_report(Path(sys.argv[1]))

"""Write command-line.md from the help of the commands.

Run it from anywhere: ``python docs/reference/command_line.py`` writes the page, and with
``--check`` it exits with code 1 if the page differs.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from ratecraft.cli._app import app

PAGE: Final = Path(__file__).with_name("command-line.md")
COLUMNS: Final = 84  # what fits next to both menus of the site

HEAD: Final = """# Command line: commands and options of ratecraft

This page has the options of each command, as `ratecraft COMMAND --help` prints them.
`ratecraft` and `python -m ratecraft` are the same command.

* A schedule is written in the [notation](../notation.md), for example `"cosine(1, 0)"`.
* A task is a Python function that returns a model, data and a loss, written `file.py:function`.
  [Compare learning-rate schedules](../how-to/compare-schedules.md) shows one.
* Two tasks are built in and need no download: `digits` and `stdlib-text`.
* A plot has the size of the terminal, or of `COLUMNS` and `LINES`.
  It is in ASCII if the output's encoding has no other characters.
* With `--json`, standard output has one line of JSON, and messages go to standard error.
  `compare --json` also prints one line for each event.

<!-- Written by command_line.py: change that file, not this page. -->
"""

# What each command is for, in the order of a project.
SETUP: Final = "../how-to/check-a-training-setup.md"
FIND: Final = "../how-to/find-a-learning-rate.md"
RANGE_TEST: Final = "../how-to/lr-range-test.md"
FORECAST: Final = "../how-to/forecast-from-a-log.md"
COMPARE: Final = "../how-to/compare-schedules.md"
INSTALL: Final = "../get-started/install.md"
SECTIONS: Final = {
    "show": f"Look at a schedule [before you train]({SETUP}), or save a figure of it.",
    "check": f"Find [mistakes in a schedule]({SETUP}) without a model.",
    "doctor": f"Find [mistakes in a training set-up]({SETUP}), "
    "for example a parameter that no optimizer holds.",
    "find": f"[Find a learning rate]({FIND}) for a run, or run an [LR range test]({RANGE_TEST}).",
    "train": f"Train a [task]({COMPARE}) once, for example to get a log for `ratecraft forecast`.",
    "forecast": f"Forecast the final loss of other schedules [from a log]({FORECAST}).",
    "compare": f"[Compare schedules]({COMPARE}) by training each of them with several seeds.",
    "merge": f"Combine the stores of a [job array]({COMPARE}#run-on-ray-or-slurm).",
    "report": f"Write a report or figures of [runs that are already saved]({COMPARE}).",
    "demo": f"[See what ratecraft does]({INSTALL}#run-the-demo) on a small data set.",
    "info": f"Check the [installation]({INSTALL}#check-the-installation), "
    "and copy its output into a bug report.",
}


def help_text(*command: str) -> str:
    """Return what ``ratecraft COMMAND --help`` prints in a terminal of that width."""
    output = io.StringIO()
    console = Console(file=output, width=COLUMNS, color_system=None, legacy_windows=False)
    app.help_print(command, console=console)
    return "\n".join(line.rstrip() for line in output.getvalue().strip().splitlines())


def page() -> str:
    """Return the page."""
    commands = {name for name in app if not name.startswith("-")}
    if commands != set(SECTIONS):
        raise ValueError(f"SECTIONS must have these commands: {sorted(commands)}")
    parts = [f"{HEAD}\n```text\n{help_text()}\n```\n"]
    for name, sentence in SECTIONS.items():
        parts.append(f"## ratecraft {name}\n\n{sentence}\n\n```text\n{help_text(name)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with --check compare it."""
    if sys.argv[1:] == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        sys.stdout.write(f"{PAGE.name} differs: run python docs/reference/command_line.py\n")
        return 1
    if sys.argv[1:]:
        sys.stdout.write("python docs/reference/command_line.py [--check]\n")
        return 2
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

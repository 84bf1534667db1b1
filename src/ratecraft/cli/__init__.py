"""The ``ratecraft`` command.

_app.py       the app: commands, error messages and exit codes
_options.py   options that several commands share, their checks, the files that they name
_show.py      show
_check.py     check, doctor
_find.py      find
_forecast.py  forecast
_train.py     train
_compare.py   compare
_config.py    the configuration of compare, from options and a TOML file
_report.py    report, merge
_demo.py      demo
_info.py      info
_console.py   standard output and error: any text, plots, JSON, closed pipes

Each command imports what it needs when it runs, so `ratecraft --help` stays fast.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default ``sys.argv[1:]``, and exit with its code."""
    from ._app import run

    sys.exit(run(arguments))

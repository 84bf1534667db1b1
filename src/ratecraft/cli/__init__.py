"""The ``ratecraft`` command.

_app.py       the app: commands, error messages and exit codes
_renamed.py   hints for renamed commands and options
_show.py      show
_check.py     check
_doctor.py    doctor
_find.py      find
_forecast.py  forecast
_train.py     train
_compare.py   compare
_config.py    the configuration of compare, from options and a TOML file
_live.py      progress of compare: live view, lines of text or lines of JSON
_merge.py     merge
_demo.py      demo
_info.py      info
_notation.py  the words of the notation, for --help
_tables.py    results as tables and as JSON
_files.py     output files: checks before a command runs, writing afterwards
_console.py   standard output and error, the progress bar, numbers in options

Each command imports what it needs when it runs, so `ratecraft --help` stays fast.

Exit codes: 0 success, 1 no result or errors found, 2 wrong usage, 130 interrupted with Ctrl-C,
143 terminated by SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code.

    Args:
        arguments: the command line without the program's name. Default: ``sys.argv[1:]``.
    """
    try:
        from ._app import run

        code = run(arguments)
    except KeyboardInterrupt:  # Ctrl-C during the imports
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)

"""The command: show, check, doctor, find, predict, train, compare, merge, demo, info.

say.py       show, check, doctor
find.py      find
foresee.py   predict
prove.py     train, compare, merge, demo
info.py      info
plan.py      what compare is told, from options and from a TOML file
live.py      how a comparison stands, while it runs
console.py   output, checks before work begins, the bar
main.py      the app; how every error ends
__main__.py  python -m ratecraft

Each command imports what it needs as it runs.

Exit codes: 0 done, 1 no result or errors found, 2 used wrongly, 130 stopped with Ctrl-C, 143
stopped by SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    try:
        from ._app import run

        code = run(arguments)
    except KeyboardInterrupt:  # while it was loading
        sys.stderr.write("error: stopped\n")
        code = 130
    sys.exit(code)

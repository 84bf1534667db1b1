"""The command and its end: every error is a message and a code, never a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

from ratecraft._version import __version__
from ratecraft.errors import RatecraftError, RunFailed

from ._compare import compare, demo, merge, train
from ._console import err
from ._find import find
from ._forecast import predict
from ._info import info
from ._show import check, doctor, show

app = App(
    name="ratecraft",
    help="""Say, find, foresee, prove and see your learning rate before you pay for the run.

Exit codes: 0 done; 1 no result, or errors found; 2 used wrongly; 130 stopped with Ctrl-C; 143
stopped by SIGTERM. `NO_COLOR=1` leaves colours out, `RATECRAFT_TRACEBACK=1` shows where an
unexpected error came from.

Example: `ratecraft find digits --total-steps "epochs(10)"`
""",
    version=__version__,
    version_flags=["--version"],
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # it is told like every other end, with a code of its own
)
for command in (show, check, doctor, find, predict, train, compare, merge, demo, info):
    app.command(command)
app.register_install_completion_command(add_to_startup=False)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a job scheduler sends it before time is up; it ends all as Ctrl-C does."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command and return its exit code; every error is a message, never a traceback."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(f"{error}\nsee: ratecraft --help", 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except RatecraftError as error:
        return _fail(str(error), 2)
    except _Terminated:
        return _fail("stopped by SIGTERM", 143)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            return _fail(_told(error), 1)
        return _fail("this command trains with torch: pip install 'ratecraft[torch]'", 2)
    except (Exception, SystemExit) as error:
        # Most likely the user's own model or loss; a traceback of ours would not help them.
        if os.environ.get("RATECRAFT_TRACEBACK"):
            raise
        return _fail(f"{_told(error)}\nRATECRAFT_TRACEBACK=1 shows where it came from", 1)
    return 0


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the tidying short
    raise _Terminated


def _fail(message: str, code: int) -> int:
    err.print("[bold red]error:[/bold red] ", end="")
    err.print(message, markup=False)
    return code


def _told(error: BaseException) -> str:
    """Return an unexpected error in words, with the last place outside installed packages."""
    place, frame = "", error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if "site-packages" not in code.co_filename:
            place = f" (in {code.co_name}, {code.co_filename}:{frame.tb_lineno})"
        frame = frame.tb_next
    return f"{type(error).__name__}: {error}{place}"

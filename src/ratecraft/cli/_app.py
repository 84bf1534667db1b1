"""The app: commands, error messages and exit codes. Errors never end in a traceback."""

import inspect
import os
import signal
import traceback
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError

from ratecraft._version import __version__
from ratecraft.errors import RatecraftError, RunFailed
from ratecraft.schedule._parser import VERBS, WORDS

from ._check import check, doctor
from ._compare import compare
from ._console import err
from ._demo import demo
from ._find import find
from ._forecast import forecast
from ._info import info
from ._report import merge, report
from ._show import show
from ._train import train

app = App(
    name="ratecraft",
    help="""Learning-rate schedules: draw them, find a learning rate, forecast and compare losses.

Example: `ratecraft find digits --total-steps "epochs(10)"`

Exit codes: 0 success; 1 no result, or errors found; 2 wrong usage; 130 interrupted with Ctrl-C;
143 terminated by SIGTERM.

Environment: `NO_COLOR=1` turns colors off; `RATECRAFT_TRACEBACK=1` shows the traceback of an
unexpected error.
""",
    version=__version__,
    version_flags=["--version"],
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `run` reports Ctrl-C, with its own exit code
)
NOTATION_HELP: Final = (
    f"Words of the notation: {', '.join(sorted(WORDS))}. "
    f"Methods: {', '.join(f'.{verb}()' for verb in VERBS)}. Multiply with *."
)
for command in (show, check, doctor, find, forecast, train, compare, report, merge, demo, info):
    if command in (show, check):
        text = inspect.getdoc(command) or ""
        command.__doc__ = text.replace("\nArgs:\n", f"\n{NOTATION_HELP}\n\nArgs:\n")
    app.command(command)
app.register_install_completion_command(add_to_startup=False)


class _Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that a terminated command cleans up as after Ctrl-C."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command, print its error message if it fails, and return the exit code."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["ratecraft", *(error.command_chain or ()), "--help"])
        return _fail(f"{error}\nsee: {command}", 2)
    except RatecraftError as error:
        return _fail(str(error), 1 if isinstance(error, RunFailed) else 2)
    except _Terminated:
        return _fail("terminated by SIGTERM", 143)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return _fail("this command needs torch: pip install torch", 2)
        # Usually an error in the user's own model or loss: one line is enough.
        if os.environ.get("RATECRAFT_TRACEBACK"):
            raise
        return _fail(f"{_describe(error)}\nset RATECRAFT_TRACEBACK=1 for the traceback", 1)
    return 0


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not stop the cleanup
    raise _Terminated


def _fail(message: str, code: int) -> int:
    err.print("error: ", style="bold red", end="")
    err.print(message)
    return code


def _describe(error: BaseException) -> str:
    """Return an unexpected error in one line, with the last frame outside installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if "site-packages" not in frame.filename]
    location = "".join(f" (in {last.name}, {last.filename}:{last.lineno})" for last in outside[-1:])
    return f"{type(error).__name__}: {error}{location}"

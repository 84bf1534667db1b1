"""The app: commands, error messages and exit codes. Errors never end in a traceback."""

import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError, UnknownOptionError

from ratecraft._interrupt import raise_or_exit
from ratecraft._version import __version__
from ratecraft.errors import RatecraftError, RunFailed
from ratecraft.schedule._parser import VERBS, WORDS

from ._check import check, doctor
from ._compare import compare
from ._console import (
    OUTPUT_CLOSED,
    OutputClosed,
    OutputConsole,
    accept_any_text,
    discard,
    err,
    flush_output,
    is_closed,
)
from ._demo import demo
from ._find import find
from ._forecast import forecast
from ._info import info
from ._report import merge, report
from ._show import show
from ._train import train


def _as_markup(text: str) -> str:
    """Return Markdown of paragraphs and code as rich's markup, which loads faster."""
    paragraphs = text.strip().replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n")
    return re.sub("`(.*?)`", r"[markdown.code]\1[/]", paragraphs)


HELP: Final = """\
Learning-rate schedules: draw them, find a learning rate, forecast and compare losses.

Example: `ratecraft find digits --total-steps "epochs(10)"`

Exit codes: 0 success; 1 no result, or errors found; 2 wrong usage; 130 interrupted with Ctrl-C;
141 the output was closed, as `head` does; 143 terminated by SIGTERM.

Environment: `NO_COLOR=1` turns colors off; `RATECRAFT_TRACEBACK=1` shows the traceback of an
unexpected error.
"""
app = App(
    name="ratecraft",
    help=_as_markup(HELP),
    version=__version__,
    version_flags=["--version"],
    help_format="rich",  # Markdown takes as long to load as half of cyclopts
    console=OutputConsole(),
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
    app.command(command, help_format="markdown")
app.register_install_completion_command(add_to_startup=False)


class _Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that a terminated command cleans up as after Ctrl-C."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command, print its error message if it fails, and return the exit code."""
    accept_any_text()
    argv = sys.argv
    error = _call_app(arguments)
    sys.argv = argv
    if not _is_ignored(signal.SIGINT):  # from here on, Ctrl-C ends Python without a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = 0 if error is None else _report(error)
    except OutputClosed:
        return OUTPUT_CLOSED
    return flush_output() or code


def _call_app(arguments: Sequence[str] | None) -> BaseException | None:
    """Run the command, and return the exception that ended it."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        if not _is_ignored(signal.SIGINT):
            signal.signal(signal.SIGINT, raise_or_exit)
        words = _with_script_arguments(sys.argv[1:] if arguments is None else arguments)
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except BaseException as error:  # Ctrl-C, and the exit of a task, too
        return error
    return None


def _with_script_arguments(words: Sequence[str]) -> Sequence[str]:
    """Return a command line with the arguments of a script, after ``--``, as options of compare."""
    if list(words[:1]) != ["compare"] or "--" not in words:
        return words
    i = words.index("--")
    return [*words[:i], *(f"--arguments={word}" for word in words[i + 1 :])]


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN  # in a background job of a shell


def _report(error: BaseException) -> int:
    """Print the message of an exception that ended the command, and return the exit code."""
    if isinstance(error, OutputClosed):
        raise error
    causes = list(_causes(error))
    if any(isinstance(cause, BrokenPipeError) for cause in causes) and is_closed(sys.stdout):
        discard(sys.stdout)  # a task printed something
        return OUTPUT_CLOSED
    if any(isinstance(cause, _Terminated) for cause in causes):
        return _fail("terminated by SIGTERM", 143)
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return _fail("interrupted", 130)
    if isinstance(error, CycloptsError):
        chain = tuple(error.command_chain or ())
        command = " ".join(["ratecraft", *chain, "--help"])
        is_script_option = chain == ("compare",) and isinstance(error, UnknownOptionError)
        hint = "\nthe arguments of a script follow --" if is_script_option else ""
        return _fail(f"{error}{hint}\nsee: {command}", 2)
    if isinstance(error, RatecraftError):
        return _fail(str(error), 1 if isinstance(error, RunFailed) else 2)
    # Usually an error in the user's own model or loss: one line is enough.
    if os.environ.get("RATECRAFT_TRACEBACK"):
        raise error
    return _fail(f"{_describe(error)}\nset RATECRAFT_TRACEBACK=1 for the traceback", 1)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes: an import may turn a Ctrl-C into another error."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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

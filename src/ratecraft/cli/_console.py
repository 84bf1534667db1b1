"""Standard output and error: any text, plots and JSON, on any terminal and into pipes."""

import io
import os
import select
import shutil
import sys
from collections.abc import Callable
from json import dumps, loads
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from ratecraft._render._text import ENCODING_ERRORS, encodable, printable

PLOT_COLUMNS: Final = (40, 160)  # the smallest and the largest width of a plot
PLOT_ROWS: Final = (8, 30)
ROWS_AROUND_PLOT: Final = 8  # of the terminal: labels, legend, the lines below the plot, the prompt
OUTPUT_CLOSED: Final = 141  # 128 + SIGPIPE, the exit code of other programs in a shell


class OutputClosed(BaseException):
    """The program that reads the output has closed it, as ``head`` does."""


class OutputConsole(Console):
    """A console that prints control characters of any text as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as the text to print: rich calls this for every string."""
        return super().render_str(encodable(printable(text), self.encoding), **options)

    def on_broken_pipe(self) -> None:
        """End the command: no program reads its output any more."""
        discard(self.file)
        raise OutputClosed


def plain_console(**options: Any) -> OutputConsole:
    """Return a console that prints text as it is: "[0.1]" is no markup, and ":100:" no emoji."""
    return OutputConsole(highlight=False, soft_wrap=True, emoji=False, markup=False, **options)


out: Final = plain_console()
err: Final = plain_console(stderr=True)


def accept_any_text() -> None:
    """Let standard output and error replace the characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)


def print_plot(
    draw: Callable[..., str], content: Any, *, console: Console = out, **options: Any
) -> None:
    """Print what ``draw``, for example `terminal_chart`, returns in the size of the terminal."""
    columns, rows = console.size if console.is_terminal else shutil.get_terminal_size()
    text = draw(
        content,
        width=min(max(columns, PLOT_COLUMNS[0]), PLOT_COLUMNS[1]),
        height=min(max(rows - ROWS_AROUND_PLOT, PLOT_ROWS[0]), PLOT_ROWS[1]),
        color=True,  # the console leaves the colors out where they do not belong
        **options,
    )
    console.print(Text.from_ansi(encodable(text, console.encoding)))


def print_json(value: Any, console: Console = out) -> None:
    """Print a value as one line of JSON, which has no nan and no inf: they become null."""
    console.print(dumps(loads(dumps(value), parse_constant=lambda constant: None)))


def flush_output() -> int:
    """Write what is left of standard output, and return an exit code."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:  # at its exit, Python would print a traceback
        discard(sys.stdout)
        return OUTPUT_CLOSED if isinstance(error, BrokenPipeError) else 1
    return 0


def is_closed(stream: Any) -> bool:
    """Return whether a stream is a pipe that its reader has closed."""
    if stream is None or not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard(stream: Any) -> None:
    """Discard what is written to a stream from now on, and what it has not written yet."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)

"""Standard output and error, the progress bar, and durations in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

# Paths and schedules are printed as they are: "[0.1]" is no markup, and ":100:" is no emoji.
out: Final = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
err: Final = Console(highlight=False, soft_wrap=True, emoji=False, markup=False, stderr=True)


def has_color() -> bool:
    """Return whether the output may have colors: it is a terminal, and NO_COLOR is not set."""
    return out.is_terminal and not out.no_color


def format_duration(seconds: float) -> str:
    """Return a duration in readable units: 2.4 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error; yield the function that advances it.

    Standard output is left to the results, so it can be piped.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn(unit), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, planned: bar.update(task, completed=done, total=planned)

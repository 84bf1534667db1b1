"""Standard output and error, the progress bar, and numbers in options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from ratecraft.errors import SettingError

# emoji=False: ":100:" in a path or a schedule is not an emoji.
out: Final = Console(highlight=False, soft_wrap=True, emoji=False)
err: Final = Console(highlight=False, soft_wrap=True, emoji=False, stderr=True)


def has_color() -> bool:
    """Return whether the output may have colors: it is a terminal, and NO_COLOR is not set."""
    return out.is_terminal and not out.no_color


def check_counts(seeds: int, workers: int | None = None) -> None:
    """Raise a SettingError unless there is a seed, and the number of workers is not negative."""
    if seeds < 1:
        raise SettingError(f"--seeds {seeds}: expected a number >= 1")
    if workers is not None and workers < 0:
        raise SettingError(f"--workers {workers}: expected a number >= 0")


def parse_number(text: str, option: str) -> float:
    """Return a number that was given as text."""
    try:
        return float(text)
    except ValueError:
        raise SettingError(f'{option} {text!r}: expected a number, or "find"') from None


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error; yield the function that advances it.

    Standard output is left to the results, so it can be piped.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(done: int, planned: int) -> None:
            bar.update(task, completed=done, total=planned)

        yield advance

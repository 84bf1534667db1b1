"""Where output goes, what is checked before work begins, and the bar while it lasts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ratecraft.errors import SettingError

# emoji=False: ":100:" in a path or a text is no picture.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(highlight=False, soft_wrap=True, emoji=False, stderr=True)


def colored() -> bool:
    """Whether what is printed may have colours: on a terminal, unless NO_COLOR says otherwise."""
    return out.is_terminal and not out.no_color


def check_output(path: Path | None, *suffixes: str) -> None:
    """Refuse a file that could not be written, before anything is trained."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise SettingError(f"{path}: expected a file ending in {', '.join(suffixes)}")
    if path.is_dir():
        raise SettingError(f"{path} is a folder; name a file")
    parent = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingError(
            f"{path} cannot be written: {parent} is no folder that can be written to"
        )


def check_counts(seeds: int, workers: int | None = None) -> None:
    """Refuse numbers of runs and workers that are none."""
    if seeds < 1 or (workers is not None and workers < 0):
        raise SettingError(f"--seeds {seeds}, --workers {workers}: expected >= 1 and >= 0")


def number(text: str, what: str) -> float:
    """Return the number that an option says."""
    try:
        return float(text)
    except ValueError:
        raise SettingError(f'{what} {text!r}: expected a number, or "find"') from None


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on the error stream, so that results can be piped."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        line = bar.add_task(title, total=None)

        def advance(done: int, planned: int) -> None:
            bar.update(line, completed=done, total=planned)

        yield advance

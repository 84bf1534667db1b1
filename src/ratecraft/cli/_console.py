"""Standard output and error, progress bars, the progress of a comparison, durations in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from json import dumps
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from ratecraft.experiments import Progress

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
def progress_bar(title: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on standard error; yield the function that advances it.

    It also takes a text that follows the bar, and one for the line below. Standard output is left
    to the results, so it can be piped.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn()
    bar = Progress(title, *columns, TextColumn("{task.fields[text]}"), console=err)
    task = bar.add_task(title, total=None, text="")
    with Live(bar, console=err, transient=True, redirect_stdout=out.is_terminal) as view:

        def advance(done: int, planned: int, text: str = "", below: str = "") -> None:
            bar.update(task, completed=done, total=planned, text=text)
            if below:
                view.update(Group(bar, below))

        yield advance


@contextmanager
def show_progress(*, json: bool, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows each `Progress`, on a terminal in a live view."""
    if json:
        yield lambda progress: out.print(dumps(progress.as_dict()))
    elif quiet:
        yield lambda progress: None
    elif err.is_terminal:
        with progress_bar("training", "runs") as advance:
            yield partial(_advance, advance)
    else:
        yield _print_line


def _print_line(progress: Progress) -> None:
    """Print a line for each run that ends, but only the last of those found in the store."""
    is_last = progress.done == progress.planned
    if progress.event == "started" or (progress.event == "resumed" and not is_last):
        return
    ended = progress.done + progress.failed
    err.print(f"[{ended}/{progress.planned}] {_describe(progress)}")


def _describe(progress: Progress) -> str:
    """Return an event in words."""
    if progress.event == "restarted":
        return f"{progress.name}: its worker died; trying again"
    run = progress.run
    if run is None:
        return f"{progress.name}: failed: {progress.error}"
    left = "" if progress.left is None else f"; {format_duration(progress.left)} left"
    if run.diverged is not None:
        return f"{progress.name}: diverged at step {run.diverged}{left}"
    if run.stopped is not None:
        return f"{progress.name}: stopped early after {run.stopped} steps{left}"
    return f"{progress.name}: loss {run.final():.4g} in {format_duration(run.seconds)}{left}"


def _advance(advance: Callable[..., None], progress: Progress) -> None:
    """Show an event in the live view; a failure also as a line that stays."""
    left = "" if progress.left is None else f"{format_duration(progress.left)} left"
    ended = progress.done + progress.failed
    advance(ended, progress.planned, left, _describe_state(progress))
    if progress.event in ("failed", "restarted"):
        err.print(_describe(progress))


def _describe_state(progress: Progress) -> str:
    """Return how many runs are running or failed, and the best loss so far."""
    parts = [f"{progress.running} running"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best_loss is not None:
        parts.append(f"best so far {progress.best_loss:.4g}: {progress.best}")
    return "  ".join(parts)

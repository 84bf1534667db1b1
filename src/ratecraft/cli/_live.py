"""Progress of a comparison while it runs: a live view, lines of text or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from ._console import err, format_duration, out

if TYPE_CHECKING:
    from ratecraft.experiments import Progress


ProgressStyle = Literal["auto", "quiet", "json"]


@contextmanager
def show_progress(style: ProgressStyle) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows each `Progress`; "auto" is a live view on a terminal."""
    if style == "json":
        yield lambda progress: out.print(json.dumps(progress.as_dict()))
    elif style == "quiet":
        yield lambda progress: None
    elif err.is_terminal:
        with _live_view() as show:
            yield show
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


@contextmanager
def _live_view() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as ProgressBar
    from rich.text import Text

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"),
               TimeElapsedColumn(), TextColumn("{task.fields[left]}"))  # fmt: skip
    bar, state = ProgressBar(*columns, console=err), Text()
    task = bar.add_task("training", total=None, left="")
    with Live(
        Group(bar, state), console=err, transient=True, refresh_per_second=4,
        redirect_stdout=out.is_terminal,
    ) as view:  # fmt: skip

        def show(progress: Progress) -> None:
            left = "" if progress.left is None else f"{format_duration(progress.left)} left"
            ended = progress.done + progress.failed
            bar.update(task, completed=ended, total=progress.planned, left=left)
            state.plain = _describe_state(progress)
            if progress.event in ("failed", "restarted"):
                view.console.print(_describe(progress))

        yield show


def _describe_state(progress: Progress) -> str:
    """Return how many runs are running or failed, and the best loss so far."""
    parts = [f"{progress.running} running"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best_loss is not None:
        parts.append(f"best so far {progress.best_loss:.4g}: {progress.best}")
    return "  ".join(parts)

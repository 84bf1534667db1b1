"""Progress of a comparison while it runs: a live view, lines of text or lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rich.markup import escape

from ._console import err, out

if TYPE_CHECKING:
    from ratecraft.experiments import Progress


ProgressStyle = Literal["auto", "quiet", "json"]


@contextmanager
def show_progress(style: ProgressStyle) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows each `Progress`.

    Args:
        style: "json" prints lines of JSON on standard output; "quiet" shows nothing; "auto"
            shows a live view on standard error if it is a terminal, and else prints lines there.
    """
    if style == "json":
        yield _print_json
    elif style == "quiet":
        yield _ignore
    elif err.is_terminal:
        with _live_view() as show:
            yield show
    else:
        yield _print_line


def _ignore(_: Progress) -> None:
    """Show nothing."""


def _print_json(progress: Progress) -> None:
    out.print(json.dumps(progress.as_dict()), markup=False)


def _print_line(progress: Progress) -> None:
    """Print a line for each run that ends, but only the last of those found in the store."""
    is_last = progress.done == progress.planned
    if progress.event == "started" or (progress.event == "resumed" and not is_last):
        return
    ended = progress.done + progress.failed
    err.print(f"[{ended}/{progress.planned}] {_describe(progress)}", markup=False)


def _describe(progress: Progress) -> str:
    """Return an event in words."""
    if progress.event == "restarted":
        return f"{progress.name}: its worker died; trying again"
    if progress.event == "failed":
        return f"{progress.name}: failed: {progress.error}"
    left = "" if progress.left is None else f"; {format_duration(progress.left)} left"
    run = progress.run
    if run is None or run.diverged is not None:
        return f"{progress.name}: diverged at step {run.diverged if run else '?'}{left}"
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
    bar = ProgressBar(*columns, console=err)
    task = bar.add_task("training", total=None, left="")
    state = Text()
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
                view.console.print(escape(_describe(progress)))

        yield show


def _describe_state(progress: Progress) -> str:
    """Return how many runs are running or failed, and the best loss so far."""
    parts = [f"{progress.running} running"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best_loss is not None:
        parts.append(f"best so far {progress.best_loss:.4g}: {progress.best}")
    return "  ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration in readable units: 2.4 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"

"""StepOptions a comparison stands, while it runs: a live view, plain lines, lines of JSON, or nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rich.markup import escape

from ._console import err, out

if TYPE_CHECKING:
    from ratecraft.experiments._progress import Progress


Show = Literal["auto", "quiet", "json"]


@contextmanager
def live(show: Show) -> Iterator[Callable[[Progress], None]]:
    """Return what shows each `Progress`; on the error stream, so that results can be piped."""
    if show == "json":
        yield _json
    elif show == "quiet":
        yield _nothing
    elif err.is_terminal:
        with _view() as view:
            yield view
    else:
        yield _line


def _nothing(_: Progress) -> None:
    """Show nothing."""


def _json(progress: Progress) -> None:
    out.print(json.dumps(progress.as_dict()), markup=False)


def _line(progress: Progress) -> None:
    """Print a line for each run that ends; of those that were there the last one alone."""
    if progress.what == "started" or (progress.what == "kept" and progress.done < progress.planned):
        return
    err.print(f"[{progress.done + progress.failed}/{progress.planned}] {_told(progress)}",
              markup=False)  # fmt: skip


def _told(progress: Progress) -> str:
    if progress.what == "again":
        return f"{progress.name}: its worker died; once more"
    if progress.what == "failed":
        return f"{progress.name}: failed: {progress.error}"
    rest = "" if progress.left is None else f"; {duration(progress.left)} left"
    run = progress.run
    if run is None or run.diverged is not None:
        return f"{progress.name}: diverged at step {run.diverged if run else '?'}{rest}"
    if run.stopped is not None:
        return f"{progress.name}: stopped early after {run.stopped} steps{rest}"
    return f"{progress.name}: loss {run.final():.4g} in {duration(run.seconds)}{rest}"


@contextmanager
def _view() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"),
               TimeElapsedColumn(), TextColumn("{task.fields[left]}"))  # fmt: skip
    bar = Bar(*columns, console=err)
    line = bar.add_task("training", total=None, left="")
    state = Text()
    with Live(
        Group(bar, state), console=err, transient=True, refresh_per_second=4,
        redirect_stdout=out.is_terminal,
    ) as shown:  # fmt: skip

        def view(progress: Progress) -> None:
            left = "" if progress.left is None else f"{duration(progress.left)} left"
            ended = progress.done + progress.failed
            bar.update(line, completed=ended, total=progress.planned, left=left)
            told = [f"{progress.running} running"]
            if progress.failed:
                told.append(f"{progress.failed} failed")
            if progress.best_loss is not None:
                told.append(f"best so far {progress.best_loss:.4g}: {progress.best}")
            state.plain = "  ".join(told)
            if progress.what in ("failed", "again"):
                shown.console.print(escape(_told(progress)))

        yield view


def duration(seconds: float) -> str:
    """Return a time in words: 2.4 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"

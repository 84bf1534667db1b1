"""The progress of a comparison as a view of its running trials, or as lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from ratecraft._progress import create_bar, format_duration, open_callback, show_view
from ratecraft._render._text import printable

from ._execution import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_TRIAL_LINES: Final = 8  # running trials that a view shows
ProgressCallback = Callable[[Progress], object]


def show_progress(
    progress: ProgressCallback | bool | None,
) -> AbstractContextManager[ProgressCallback | None]:
    """Return the context of what to call with each event for a ``progress=`` argument."""
    return open_callback(progress, _trials_view, _print_line)


@contextmanager
def _trials_view() -> Iterator[ProgressCallback]:
    with show_view() as replace:
        yield _TrialsView(replace)


class _TrialsView:
    """A bar over the steps of all runs, and below it the runs that are training."""

    def __init__(self, replace: Callable[[RenderableType], None]) -> None:
        self._replace, self._bar = replace, create_bar("training")
        self._running: dict[str, Progress] = {}
        replace(self._bar)

    def __call__(self, progress: Progress) -> None:
        """Show an event; a failure also as a line that stays."""
        from rich.console import Group

        if progress.event in ("started", "step"):
            self._running[progress.name] = progress
        else:
            self._running.pop(progress.name, None)
        if progress.event in ("failed", "restarted"):
            sys.stderr.write(f"{_describe(progress)}\n")
        left = "" if progress.left is None else f"  {format_duration(progress.left)} left"
        self._bar.update(
            self._bar.task_ids[0],
            completed=progress.done_steps,
            total=progress.planned_steps,
            text=f"{progress.done + progress.failed}/{progress.planned} runs{left}",
        )
        self._replace(Group(self._bar, _describe_state(progress), *self._trial_lines()))

    def _trial_lines(self) -> Iterator[RenderableType]:
        from rich.text import Text

        for trial in list(self._running.values())[:MAX_TRIAL_LINES]:
            state = "starting"
            if trial.loss is not None:
                end = f" of {trial.total_steps}" if trial.total_steps else ""
                state = f"step {trial.step}{end}  loss {trial.loss:.4g}"
            # The state comes first: a long name is cut at its end.
            yield Text(f"  {state:32}  {printable(trial.name)}", no_wrap=True, overflow="ellipsis")
        more = len(self._running) - MAX_TRIAL_LINES
        if more > 0:
            yield Text(f"  and {more} more")


def _print_line(progress: Progress) -> None:
    """Print a line for each run that ends, but only the last of those found in the store."""
    is_last = progress.done == progress.planned
    if progress.event in ("started", "step") or (progress.event == "resumed" and not is_last):
        return
    ended = progress.done + progress.failed
    sys.stderr.write(f"[{ended}/{progress.planned}] {_describe(progress)}\n")
    sys.stderr.flush()


def _describe(progress: Progress) -> str:
    """Return an event in words."""
    return printable(f"{progress.name}: {_describe_outcome(progress)}")


def _describe_outcome(progress: Progress) -> str:
    if progress.event == "restarted":
        return "its worker died; trying again"
    run = progress.run
    if run is None:
        return f"failed: {progress.error}"
    left = "" if progress.left is None else f"; {format_duration(progress.left)} left"
    if run.diverged is not None:
        return f"diverged at step {run.diverged}{left}"
    if run.stopped is not None:
        return f"stopped early after {run.stopped} steps{left}"
    return f"loss {run.final():.4g} in {format_duration(run.seconds)}{left}"


def _describe_state(progress: Progress) -> RenderableType:
    """Return how many runs are running or failed, and the best loss so far."""
    from rich.text import Text

    parts = [f"{progress.running} running"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.best_loss is not None:
        parts.append(f"best so far {progress.best_loss:.4g}: {printable(progress.best)}")
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")

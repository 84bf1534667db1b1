"""Progress bars on a terminal and in notebooks, for the commands and for Python alike.

Progress goes to standard error, and only if that is a terminal, if a notebook runs the code, or
if the caller asks for it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from .errors import SettingError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

REFRESH_SECONDS: Final = 0.2  # between two changes of a view
NOTEBOOK_COLUMNS: Final = 100  # width of a view in a notebook
PRINTED_SHARES: Final = 10  # lines printed in place of a bar, one for each tenth

P = ParamSpec("P")
StepCallback = Callable[[int, int], object]  # called with (steps done, all steps)
_is_active = ContextVar("is_active", default=False)  # whether a view is shown already


def format_duration(seconds: float) -> str:
    """Return a duration in readable units: 2.4 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{round(seconds, 3):.2g} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def has_view(progress: Callable[..., object] | bool | None) -> bool:
    """Return whether a ``progress=`` argument asks for a view, and there is room for one.

    A terminal and a notebook have room, but only for one view, and only in the first process of
    a distributed run.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise SettingError(
            f"progress={progress!r}: expected None, True, False or a function that is called with "
            "the progress"
        )
    if progress is False or callable(progress) or _is_active.get() or not _is_first_process():
        return False
    if _in_notebook():
        return True
    is_dumb = os.environ.get("TERM") == "dumb"
    return sys.stderr is not None and sys.stderr.isatty() and not is_dumb


def _is_first_process() -> bool:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return True
    return bool(distributed.get_rank() == 0)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


@contextmanager
def show_view() -> Iterator[Callable[[RenderableType], None]]:
    """Show a rich renderable until the block ends; yield the function that replaces it.

    Text printed in the block appears above it.
    """
    token = _is_active.set(True)
    try:
        with _notebook_view() if _in_notebook() else _terminal_view() as replace:
            yield replace
    finally:
        _is_active.reset(token)


@contextmanager
def _terminal_view() -> Iterator[Callable[[RenderableType], None]]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)
    # Output that goes to a file must not be redirected to the terminal.
    redirect = sys.stdout is not None and sys.stdout.isatty()
    with Live(console=console, transient=True, redirect_stdout=redirect) as view:
        try:
            yield view.update
        finally:  # rich keeps text without a line end
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()


@contextmanager
def _notebook_view() -> Iterator[Callable[[RenderableType], None]]:
    """Show plain text, because rich needs ipywidgets to change its output in a notebook."""
    from IPython.display import display
    from rich.console import Console

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    next_time = 0.0

    def replace(renderable: RenderableType) -> None:
        nonlocal next_time
        if time.monotonic() < next_time:
            return
        next_time = time.monotonic() + REFRESH_SECONDS
        text = StringIO()
        console = Console(
            file=text, width=NOTEBOOK_COLUMNS, color_system=None, force_jupyter=False, emoji=False
        )
        console.print(renderable)
        handle.update({"text/plain": text.getvalue().rstrip()}, raw=True)

    try:
        yield replace
    finally:
        handle.update({"text/plain": ""}, raw=True)


def create_bar(title: str, unit: str = "") -> Progress:
    """Return a bar with a count of units, or with no count; its task 0 has the field ``text``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    count = (MofNCompleteColumn(), TextColumn(unit)) if unit else ()
    text = TextColumn("{task.fields[text]}", markup=False)
    bar = Progress(title, BarColumn(), *count, TimeElapsedColumn(), text)
    bar.add_task(title, total=None, text="")
    return bar


@contextmanager
def open_callback(
    progress: Callable[P, object] | bool | None,
    open_view: Callable[[], AbstractContextManager[Callable[P, object]]],
    print_line: Callable[P, object],
) -> Iterator[Callable[P, object] | None]:
    """Yield what to call with the progress for a ``progress=`` argument, or None.

    It is the caller's own function, or it shows a view; with ``progress=True`` it prints lines
    where there is no room for a view. If it raises, it is not called again.
    """
    if has_view(progress):
        with open_view() as update:
            yield _call_until_error(update)
    elif callable(progress):
        yield _call_until_error(progress)
    elif progress is True and not _is_active.get() and _is_first_process():
        yield _call_until_error(print_line)
    else:
        yield None


def _call_until_error(callback: Callable[P, object]) -> Callable[P, None]:
    """Return a function whose first error is a warning: it must not end hours of training."""
    is_active = True

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal is_active
        if not is_active:
            return
        try:
            callback(*args, **kwargs)
        except Exception as error:
            is_active = False
            frame = traceback.extract_tb(error.__traceback__)[-1]
            warnings.warn_explicit(
                f"the progress function raised {type(error).__name__}: {error}; training goes on "
                "without it",
                RuntimeWarning,
                frame.filename,
                frame.lineno or 0,
            )

    return call


def show_steps(
    progress: StepCallback | bool | None, title: str, unit: str = "steps"
) -> AbstractContextManager[StepCallback | None]:
    """Return the context of what to call after each step for a ``progress=`` argument."""
    return open_callback(progress, partial(_step_bar, title, unit), _line_printer(title, unit))


@contextmanager
def _step_bar(title: str, unit: str) -> Iterator[StepCallback]:
    bar, start, next_time = create_bar(title, unit), time.monotonic(), 0.0

    with show_view() as replace:

        def advance(done: int, planned: int) -> None:
            nonlocal next_time
            now = time.monotonic()
            if now < next_time and done < planned:
                return
            next_time = now + REFRESH_SECONDS
            left = (now - start) / done * (planned - done)
            bar.update(
                bar.task_ids[0],
                completed=done,
                total=planned,
                text=f"{format_duration(left)} left",
            )
            replace(bar)

        replace(bar)
        yield advance


def _line_printer(title: str, unit: str) -> StepCallback:
    printed = 0

    def advance(done: int, planned: int) -> None:
        nonlocal printed
        share = done * PRINTED_SHARES // planned
        if share > printed:
            printed = share
            sys.stderr.write(f"{title}: {done}/{planned} {unit}\n")

    return advance

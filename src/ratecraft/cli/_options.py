"""Options that several commands share: their types, their checks, and the files that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ratecraft.errors import SettingError

from ._console import out

if TYPE_CHECKING:
    from ratecraft.experiments._task import AnyTask
    from ratecraft.results import Result

TotalSteps = Annotated[str | None, Parameter(alias="-n")]
StepsPerEpoch = Annotated[
    float | None, Parameter(help="Steps per epoch, needed if a length is in epochs.")
]
Seed = Annotated[int, Parameter(help="Seed of the initial weights and the data order.")]
Save = Annotated[Path | None, Parameter(help="Write the result as JSON.")]
Output = Annotated[tuple[Path, ...], Parameter(alias="-o", negative="", show_default=False)]
Figures = Annotated[
    Output, Parameter(help="Also write a figure (.png, .svg or .pdf); can be repeated.")
]
Reports = Annotated[
    Output,
    Parameter(
        help="Also write a report (.html) or a figure (.png, .svg or .pdf); can be repeated."
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not ``None``."""
    return {name: value for name, value in options.items() if value is not None}


def use_script_arguments(name: str) -> None:
    """Set ``sys.argv`` as in ``python file.py``: the code of ``file.py:function`` may parse it.

    Worker processes inherit it, and `run` puts the old one back.
    """
    if file := name.rpartition(":")[0]:  # a built-in task has none
        sys.argv = [file]


def check_counts(seeds: int | None, workers: int | None = None) -> None:
    """Raise a SettingError unless there is a seed, and the number of workers is not negative."""
    for option, count, minimum in (("--seeds", seeds, 1), ("--workers", workers, 0)):
        if count is not None and count < minimum:
            raise SettingError(f"{option} {count}: expected a number >= {minimum}")


def load_task(name: str, optimizer: str | None = None) -> AnyTask:
    """Return a task that has a name, with another optimizer if one is given."""
    from ratecraft import experiments
    from ratecraft.experiments._task import with_optimizer

    use_script_arguments(name)
    task = experiments.load_task(name)
    return with_optimizer(replace(task, name=task.name or name), optimizer)


def check_output(path: Path | None, *suffixes: str) -> None:
    """Raise a SettingError, before anything is trained, if a file cannot be written."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise SettingError(f"{path}: expected a file ending in {', '.join(suffixes)}")
    if path.is_dir():
        raise SettingError(f"{path} is a directory; expected a file name")
    parent = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingError(f"{path} cannot be written: {parent} is not a writable directory")


def check_outputs(save: Path | None, outputs: Sequence[Path], *, reports: bool = True) -> None:
    """Check the values of ``--save`` and ``--output``, which may be reports or only figures."""
    from ratecraft._render._matplotlib import FIGURE_SUFFIXES, figure_class

    suffixes = (".html", *FIGURE_SUFFIXES) if reports else FIGURE_SUFFIXES
    check_output(save, ".json")
    for path in outputs:
        check_output(path, *suffixes)
    if any(path.suffix.lower() in FIGURE_SUFFIXES for path in outputs):
        figure_class()


def write_outputs(
    result: Result,
    save: Path | None,
    outputs: Sequence[Path],
    *,
    console: Console = out,
    **sections: Any,
) -> None:
    """Write a result as JSON, figures of it, and reports with these sections; print the paths."""
    from ratecraft.report import save_figure, write_report

    if save is not None:
        console.print(f"result: {result.save(save)}")
    for path in outputs:
        if path.suffix.lower() == ".html":
            console.print(f"report: {write_report(path, **sections)}")
        else:
            console.print(f"figure: {save_figure(_plot(result), path)}")


def _plot(result: Result) -> Any:
    from ratecraft import report, results

    plots: dict[type[Result], Any] = {
        results.Comparison: report.plot_comparison,
        results.Forecast: report.plot_forecast,
        results.LRFinderResult: report.plot_lr_finder,
        results.LRRangeTestResult: report.plot_range_test,
    }
    return plots[type(result)](result)

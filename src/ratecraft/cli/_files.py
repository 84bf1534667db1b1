"""Output files: checks before a command runs, writing afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import SettingError

from ._console import err, out

if TYPE_CHECKING:
    from ratecraft.results import Comparison


FIGURE_SUFFIXES: Final = (".png", ".svg", ".pdf")
REPORT_SUFFIXES: Final = (".html", *FIGURE_SUFFIXES)


def check_output(path: Path | None, *suffixes: str) -> None:
    """Raise a SettingError, before anything is trained, if a file cannot be written.

    Args:
        path: the file, or ``None`` if there is nothing to write.
        suffixes: the file name must end in one of these, if there are any.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise SettingError(f"{path}: expected a file ending in {', '.join(suffixes)}")
    if path.is_dir():
        raise SettingError(f"{path} is a directory; expected a file name")
    parent = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingError(f"{path} cannot be written: {parent} is not a writable directory")


def check_result_files(save: Path | None, outputs: Sequence[Path]) -> None:
    """Check the values of ``--save`` and ``--output`` of a command that trains."""
    check_output(save, ".json")
    for path in outputs:
        check_output(path, *REPORT_SUFFIXES)


def write_comparison(
    result: Comparison,
    save: Path | None,
    outputs: Sequence[Path],
    *,
    title: str,
    quiet: bool = False,
    **sections: Any,
) -> None:
    """Write a comparison as JSON, reports and figures, and print the paths.

    Args:
        result: the comparison; without runs, nothing is written.
        save: the JSON file, or ``None``.
        outputs: reports (.html) and figures.
        title: title of the reports.
        quiet: print the paths on standard error.
        sections: other results that `write_report` takes.
    """
    from ratecraft.report import plot_comparison, save_figure, write_report

    if not result.runs:
        return
    console = err if quiet else out
    if save is not None:
        console.print(f"result: {result.save(save)}", markup=False)
    for path in outputs:
        if path.suffix.lower() == ".html":
            report = write_report(path, comparison=result, title=title, **sections)
            console.print(f"report: {report}", markup=False)
        else:
            console.print(f"figure: {save_figure(plot_comparison(result), path)}", markup=False)

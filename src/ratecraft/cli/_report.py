"""report and merge: show a saved result or the runs of a store; combine stores."""

from pathlib import Path
from typing import Any

from ratecraft.errors import SettingError

from ._compare import load_forecast, print_comparison
from ._console import out, print_plot
from ._options import Reports, check_output, check_outputs, write_outputs


def report(
    path: Path, *, task: str | None = None, forecast: Path | None = None, output: Reports = ()
) -> None:
    """Show a saved result, or the finished runs of a store, and write a report or figures of it.

    A store can be read while a comparison is still writing to it.

    Example: `ratecraft report runs.db --output report.html`

    Args:
        path: A store, or a result that --save wrote.
        task: Task of the runs, for a store with runs of several tasks.
        forecast: Forecast saved by `ratecraft forecast`, to show next to the runs.
    """
    from ratecraft.experiments import read_comparison
    from ratecraft.report import terminal_chart
    from ratecraft.results import Comparison, Forecast, load

    check_outputs(None, output)
    if task is not None and not _is_store(path):
        raise SettingError(f"--task is for a store; {path} is not one")
    result = read_comparison(path, task) if _is_store(path) else load(path)
    if not isinstance(result, Comparison) and forecast is not None:
        raise SettingError(f"--forecast needs the runs of a comparison; {path} has none")
    sections: dict[str, Any] = {"forecast": forecast and load_forecast(forecast)}
    if isinstance(result, Comparison):
        sections["comparison"] = result
        print_comparison(result)
    else:
        sections = {"forecast": result} if isinstance(result, Forecast) else {"lr_search": result}
        print_plot(terminal_chart, result.chart())
        out.print(result.verdict())
    write_outputs(result, None, output, **sections, title=f"Report on {path.name}")


def _is_store(path: Path) -> bool:
    if not path.is_file():  # of a pipe, reading would take the first bytes of a result
        return False
    try:
        with path.open("rb") as file:
            # A store is an empty file until its first write.
            return file.read(16) in (b"SQLite format 3\0", b"")
    except OSError:
        return False  # loading it as a result gives the error message


def merge(target: Path, *sources: Path) -> None:
    """Copy the runs of several stores, such as those of shards, into one store.

    Example: `ratecraft merge all.db shard-1.db shard-2.db`

    Args:
        target: The store to copy to; created if it does not exist.
        sources: The stores to copy from; they are not changed.
    """
    from ratecraft.experiments import merge as merge_stores

    if not sources:
        raise SettingError("merge needs stores: ratecraft merge all.db shard-1.db shard-2.db")
    check_output(target)
    out.print(f"{target}: {merge_stores(target, *sources)} new runs")

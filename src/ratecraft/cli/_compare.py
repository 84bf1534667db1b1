"""compare: train several schedules and compare them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ratecraft.errors import RunFailed, SettingError

from ._config import CompareConfig, CompareOptions
from ._console import err, out, plain_console, print_json
from ._find import find_and_print
from ._options import (
    check_counts,
    check_output,
    check_outputs,
    given,
    load_task,
    use_script_arguments,
    write_outputs,
)

if TYPE_CHECKING:
    from ratecraft.experiments import Progress
    from ratecraft.experiments._engines import Engine
    from ratecraft.experiments._plateau import Candidate
    from ratecraft.experiments._script import Script
    from ratecraft.results import Comparison, Forecast, LRFinderResult, OptimalLRRange, Summary


def compare(
    task: str, *schedules: str, options: CompareOptions | None = None, json: bool = False
) -> None:
    """Train with several schedules over several seeds, and report which is better.

    With `--store`, every finished run is saved: after an interruption, the same command trains
    only the missing runs.

    Example: `ratecraft compare digits "constant(1)" "cosine(1, 0)" --lrs 0.001,0.01`

    Your own training script is run once for each trial; what follows `--` are its arguments:
    `ratecraft compare train.py "wsd(20)" "cosine(1, 0)" --lrs 1e-4,3e-4 -- --config small.yaml`

    Args:
        task: What to train: digits, stdlib-text, a function of yours as file.py:function, a script
            of yours as file.py, or a .toml file with these options as keys; options on the command
            line override it.
        schedules: Schedules in the notation, each a factor of the learning rate. A script may have
            none: then its own is used.
        options: The other options.
        json: Print one line of JSON for every event and for the result.
    """
    config = CompareConfig.load(task, schedules, options)
    script = config.script()
    candidates, lrs = config.candidates(script), config.lr_values()
    lengths, shard = config.lengths(), config.shard_index()
    if script is not None and not lrs:
        raise SettingError(f"{config.task}: give the lrs of a script, such as --lrs 1e-4,3e-4")
    check_outputs(config.save, config.output)
    check_counts(config.seeds, config.workers)
    check_output(config.store)
    _check_engine(config)
    forecast = None if config.forecast is None else load_forecast(config.forecast)
    console, lr_search = err if json else out, None
    if not lrs:
        lr_search = _find_lr(config, console)
        lrs = [lr_search.lr or 0.0]
    result = compare_and_print(
        script or config.task,
        candidates,
        json=json,
        quiet=bool(config.quiet),
        store=config.store,
        engine=_engine(config),
        lrs=lrs,
        total_steps=None if script and config.total_steps is None else lengths,
        shard=shard,
        optimizers=config.optimizer_names(),
        seeds=config.seeds,
        workers=config.workers,
        halving=config.halving,
        branches=config.branches,
    )
    if shard != (1, 1):
        err.print(
            f"shard {shard[0]} of {shard[1]} is done; after the last one run: ratecraft merge "
            f"all.db {config.store} ..., then this command with --store all.db and without --shard"
        )
    if result.runs:
        write_outputs(
            result,
            config.save,
            config.output,
            console=console,
            comparison=result,
            lr_search=lr_search,
            forecast=forecast,
            title=f"Schedules on {config.task}",
        )
    fail_on_bad_runs(result, is_shard=shard != (1, 1))


def _find_lr(config: CompareConfig, console: Console) -> LRFinderResult:
    names = config.optimizer_names()
    if names is not None and len(names) > 1:
        raise SettingError(
            "--lrs find finds the lr of one optimizer; for several optimizers write the lrs: "
            "--lrs 0.001,0.01,0.1"
        )
    task = load_task(config.task, names[0] if names else None)
    result = find_and_print(task, config.lengths()[0], console=console)
    if result.lr is None:
        raise RunFailed(f"{result.reason}; or give --lrs")
    return result


def _check_engine(config: CompareConfig) -> None:
    from ratecraft.experiments._engines import check_engine

    if (config.address or config.cpus) and config.engine != "ray":
        raise SettingError("--address and --cpus need --engine ray")
    if config.gpus is not None and config.workers == 0:
        raise SettingError("--gpus needs worker processes; leave out --workers 0")
    check_engine(config.engine)


def _engine(config: CompareConfig) -> Engine | str | None:
    """Return the engine, with the resources for each trial that are given."""
    from ratecraft.experiments._engines import LocalEngine, RayEngine, cores

    if config.engine == "ray":
        return RayEngine(**given(address=config.address, cpus=config.cpus, gpus=config.gpus))
    if config.gpus is None:
        return config.engine
    return LocalEngine(config.workers or cores(), gpus=config.gpus)


def load_forecast(path: Path) -> Forecast:
    """Return a forecast that `ratecraft forecast` saved."""
    from ratecraft.results import Forecast, load

    result = load(path)
    if not isinstance(result, Forecast):
        raise SettingError(
            f"{path} holds a {type(result).__name__}; expected a forecast, saved by ratecraft "
            "forecast --save"
        )
    return result


def compare_and_print(
    task: str | Script,
    schedules: Mapping[str, Candidate],
    *,
    json: bool = False,
    quiet: bool = False,
    store: Path | None = None,
    engine: Engine | str | None = None,
    **options: Any,
) -> Comparison:
    """Train every schedule, show the progress and print the result; close an `Engine`.

    ``options`` are those of `ratecraft.compare`; ``None`` stands for their defaults.
    """
    from ratecraft.experiments import compare as compare_schedules
    from ratecraft.experiments._display import show_progress

    if isinstance(task, str):
        use_script_arguments(task)
    latest: list[Progress] = []
    events = plain_console(file=sys.stdout)
    try:
        # Standard output is left to the result: what tasks print goes to standard error.
        with show_progress(not (json or quiet)) as show, redirect_stdout(sys.stderr):

            def report(progress: Progress) -> None:
                latest[:] = [progress]
                if json:
                    print_json(progress.as_dict(), events)
                elif show is not None:
                    show(progress)

            result = compare_schedules(
                task, schedules, store=store, engine=engine, progress=report, **given(**options)
            )
    except KeyboardInterrupt:
        if latest and store is not None:
            err.print(
                f"{latest[0].done} of {latest[0].planned} runs are saved in {store}; run the same "
                "command again to train the rest"
            )
        raise
    finally:
        if engine is not None and not isinstance(engine, str):
            engine.close()
    if json:
        _print_comparison_json(result)
    else:
        print_comparison(result)
    return result


def fail_on_bad_runs(result: Comparison, *, is_shard: bool = False) -> None:
    """Raise RunFailed if a run failed, or if the loss of every run became nan or inf."""
    count = len(result.failed)
    if count:
        failed = "a run failed" if count == 1 else f"{count} runs failed"
        raise RunFailed(f"{failed}; with a --store, the same command tries only these again")
    if not is_shard and all(run.diverged is not None for run in result.runs):
        raise RunFailed("the loss of every run became nan or inf; use a lower lr")


def print_comparison(result: Comparison) -> None:
    """Print a comparison: its table, the best learning rates, failed runs and the verdict."""
    from ratecraft.results._base import pluralize
    from ratecraft.results._verdict import gap_texts, mean_texts

    if not result.runs:
        out.print("no runs: the shard is empty, or every run failed")
        return
    lengths = sorted({run.total_steps for run in result.runs})
    seeds = len({run.seed for run in result.runs})
    steps = " and ".join(f"{length:,}" for length in lengths)
    table = Table(title=f"Validation after {steps} steps, {pluralize(seeds, 'seed')}")
    table.add_column("schedule", overflow="fold")
    metrics, rows = result.metrics(), result.summaries()
    for metric in metrics:
        table.add_column(f"{metric} ± sd", justify="right")
    table.add_column("relative to best", justify="right")
    table.add_column("diverged", justify="right")
    columns = [*(mean_texts(rows, metric) for metric in metrics), gap_texts(rows)]
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(row.name, *cells, _diverged(row))
    out.print(table)
    if seeds > 1:  # one seed cannot show which learning rates are equally good
        for family, lr_range in result.optimal_lr_ranges().items():
            out.print(f"{family}: {_describe_range(lr_range)}")
    for name, error in result.failed.items():
        out.print(f"failed: {name}: {error.strip().splitlines()[-1]}")
    out.print(result.verdict())


def _diverged(row: Summary) -> str:
    stopped = " (stopped early)" if row.stopped else ""
    missing = f" ({row.missing} missing)" if row.missing else ""
    return f"{row.diverged} of {row.seeds}{stopped}{missing}"


def _describe_range(lr_range: OptimalLRRange) -> str:
    low = ", or lower" if lr_range.open_low else ""
    high = ", or higher" if lr_range.open_high else ""
    equal = f"{lr_range.low:g} to {lr_range.high:g}{low}{high}"
    return f"best lr {lr_range.best:g}, not significantly worse: {equal}"


def _print_comparison_json(result: Comparison) -> None:
    print_json(
        {
            "event": "result",
            "verdict": result.verdict() if result.runs else "",
            "rows": [asdict(row) for row in result.summaries()],
            "failed": result.failed,
        }
    )

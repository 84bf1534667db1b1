"""compare: train several schedules and compare them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ratecraft.errors import RunFailed, SettingError

from ._config import CompareConfig
from ._console import check_counts, err, out
from ._files import check_output, check_result_files, write_comparison
from ._find import find_and_print
from ._live import ProgressStyle, show_progress
from ._tables import print_comparison, print_comparison_json

if TYPE_CHECKING:
    from ratecraft.experiments import Progress
    from ratecraft.experiments._engines import Engine
    from ratecraft.experiments._plateau import Candidate
    from ratecraft.results import Comparison, Forecast, LRFinderResult


def compare(
    task: str,
    *schedules: str,
    lrs: Annotated[str | None, Parameter(alias="--lr")] = None,
    optimizers: Annotated[str | None, Parameter(alias="--optimizer")] = None,
    seeds: int | None = None,
    total_steps: Annotated[str | None, Parameter(alias="-n")] = None,
    workers: int | None = None,
    engine: str | None = None,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    store: Path | None = None,
    halving: bool | None = None,
    branches: bool | None = None,
    shard: str | None = None,
    forecast: Path | None = None,
    save: Path | None = None,
    output: Annotated[tuple[Path, ...], Parameter(alias="-o")] = (),
    quiet: bool | None = None,
    json: bool = False,
) -> None:
    """Train with several schedules over several seeds, and report which is better.

    With `--store`, every finished run is saved: after an interruption, the same command trains
    only the missing runs.

    Example: `ratecraft compare digits "constant(1)" "cosine(1, 0)" --lrs 0.001,0.01`

    Args:
        task: What to train: digits, stdlib-text, a function of yours as file.py:function, or a
            .toml file with these options as keys; options on the command line override it.
        schedules: Schedules in the notation, each a factor of the learning rate.
        lrs: Learning rate that every schedule multiplies, several separated by commas, or "find"
            to search for it first (the default). Write 1 if the schedules are learning rates.
        optimizers: Optimizer to use instead of the task's, or several separated by commas;
            `ratecraft find --help` lists the names.
        seeds: Number of seeds for each candidate. Default: 3.
        total_steps: Length of each run: a number of steps, or a duration such as "epochs(10)"
            (the default), or several separated by commas.
        workers: Number of worker processes; 0 trains in this process. Default: one for each CPU
            core.
        engine: Where to train: "local" (worker processes, the default) or "ray".
        address: Address of a Ray cluster, such as "auto". Default: start Ray on this machine.
        cpus: CPU cores for each Ray worker. Default: 1.
        gpus: GPUs for each Ray worker; with 0.25, four share one. Default: 0.
        store: SQLite file in which to save finished runs.
        halving: Stop the worse half of each schedule's learning rates after a quarter and after
            half of the run. Stopped runs have no final loss.
        branches: Train the common beginning of runs only once, for example that of cooldowns of
            several lengths.
        shard: Train only part i of n, written i/n, for job arrays; `ratecraft merge` combines the
            stores.
        forecast: Forecast saved by `ratecraft forecast`, to show next to the results.
        save: Write the result as JSON.
        output: Also write a report (.html) or a figure (.png, .svg or .pdf); can be repeated.
        quiet: Do not show progress.
        json: Print one line of JSON for every event and for the result.
    """
    given = {name: value for name, value in locals().items() if name not in ("task", "json")}
    config = CompareConfig.load(task, given)
    candidates, lengths, shard_index = config.candidates(), config.lengths(), config.shard_index()
    check_result_files(config.save, config.output)
    check_counts(config.seeds, config.workers)
    check_output(config.store)
    loaded_forecast = _load_forecast(config.forecast)
    is_sharded = shard_index != (1, 1)
    lr_values = config.lr_values()
    if is_sharded:
        _check_shard(config, lr_values)
    lr_search = None
    if not lr_values:
        lr_search = _find_lr(config, console=err if json else out)
        lr_values = [lr_search.lr or 0.0]
    result = compare_and_print(
        config.task,
        candidates,
        style="json" if json else "quiet" if config.quiet else "auto",
        store=config.store,
        lrs=lr_values,
        seeds=config.seeds,
        total_steps=lengths,
        workers=config.workers,
        engine=_engine(config),
        optimizers=config.optimizer_names(),
        halving=config.halving,
        branches=config.branches,
        shard=shard_index,
    )
    if is_sharded:
        err.print(
            f"shard {shard_index[0]} of {shard_index[1]} is done; after the last one run: "
            f"ratecraft merge all.db {config.store} ..., then this command with --store all.db "
            "and without --shard",
            markup=False,
        )
    write_comparison(
        result,
        config.save,
        config.output,
        title=f"Schedules on {config.task}",
        quiet=json,
        lr_search=lr_search,
        forecast=loaded_forecast,
    )
    if result.failed:
        count = len(result.failed)
        failed = "a run failed" if count == 1 else f"{count} runs failed"
        raise RunFailed(f"{failed}; with a --store, the same command tries only these again")
    if not is_sharded:
        fail_if_all_diverged(result)


def _check_shard(config: CompareConfig, lr_values: list[float]) -> None:
    """Raise a SettingError if shards would not fit together."""
    if config.store is None:
        raise SettingError("--shard needs its own --store; ratecraft merge combines the stores")
    if not lr_values:
        raise SettingError(
            "--shard needs lrs, such as --lrs 0.001,0.01: every shard would find a different lr"
        )


def _find_lr(config: CompareConfig, *, console: Console) -> LRFinderResult:
    """Find the learning rate of a comparison, by short runs.

    Raises:
        RunFailed: none was found.
        SettingError: there are several optimizers.
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments._task import with_optimizer

    names = config.optimizer_names()
    if names is not None and len(names) > 1:
        raise SettingError(
            "--lrs find finds the lr of one optimizer; for several optimizers write the lrs: "
            "--lrs 0.001,0.01,0.1"
        )
    task = load_task(config.task)
    if names is not None:
        task = with_optimizer(task, names[0])
    result = find_and_print(task, config.task, total_steps=config.lengths()[0], console=console)
    if result.lr is None:
        raise RunFailed(f"{result.reason}; or give --lrs")
    return result


def _engine(config: CompareConfig) -> Engine | str | None:
    if config.engine == "ray":
        from ratecraft.experiments._engines import RayEngine

        return RayEngine(config.address, cpus=config.cpus, gpus=config.gpus)
    if config.address is not None or config.gpus or config.cpus != 1:
        raise SettingError("--address, --cpus and --gpus need --engine ray")
    return None if config.engine == "local" else config.engine


def _load_forecast(path: Path | None) -> Forecast | None:
    from ratecraft.results import Forecast, load

    if path is None:
        return None
    result = load(path)
    if not isinstance(result, Forecast):
        raise SettingError(
            f"{path} holds a {type(result).__name__}; expected a forecast, saved by ratecraft "
            "forecast --save"
        )
    return result


def compare_and_print(
    task: str,
    schedules: Mapping[str, Candidate],
    *,
    style: ProgressStyle = "auto",
    store: Path | None = None,
    engine: Engine | str | None = None,
    **options: Any,
) -> Comparison:
    """Train every schedule, show the progress, and print the table and the verdict.

    Args:
        task: name of the task.
        schedules: schedules by name.
        style: how to show the progress; "json" prints the result as JSON, too.
        store: SQLite file in which to save finished runs.
        engine: where to train; closed at the end if it is an `Engine`.
        options: other options of `ratecraft.experiments.compare`.
    """
    from ratecraft.experiments import compare as compare_schedules

    latest: list[Progress] = []
    try:
        with show_progress(style) as show:

            def report(progress: Progress) -> None:
                latest[:] = [progress]
                show(progress)

            result = compare_schedules(
                task, schedules, store=store, engine=engine, progress=report, **options
            )
    except KeyboardInterrupt:
        if latest and store is not None:
            err.print(
                f"{latest[0].done} of {latest[0].planned} runs are saved in {store}; run the same "
                "command again to train the rest",
                markup=False,
            )
        raise
    finally:
        if engine is not None and not isinstance(engine, str):
            engine.close()
    if style == "json":
        print_comparison_json(result)
    else:
        print_comparison(result)
    return result


def fail_if_all_diverged(result: Comparison) -> None:
    """Raise RunFailed if the loss of every run became nan or inf."""
    if all(run.diverged is not None for run in result.runs):
        raise RunFailed("the loss of every run became nan or inf; use a lower lr")

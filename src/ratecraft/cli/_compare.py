"""train, compare, merge, demo: what is really trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from ratecraft.errors import RunFailed, SettingError
from ratecraft.schedule import epochs, parse, parse_length

from ._config import CompareConfig
from ._console import bar, check_counts, check_output, colored, err, out
from ._find import find_and_print
from ._live import Show, duration, live

if TYPE_CHECKING:
    from ratecraft.experiments._engines import Engine
    from ratecraft.experiments._plateau import Candidate
    from ratecraft.results import Comparison, Evaluation, Forecast, LRFinderResult


FIGURES: Final = (".html", ".png", ".svg", ".pdf")
DEMO_SCHEDULES: Final = {
    "constant": "constant(1)",
    "step decay": "staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])",
    "exponential": "exponential(1, 0.01)",
    "cosine": "warmup(percent(5)).then(cosine(1, 0))",
    "WSD": "warmup(percent(5)).then(constant(1)).then(cooldown(percent(20)))",
}


def train(
    task: str,
    schedule: str,
    *,
    lr: float = 1.0,
    total_steps: Annotated[str, Parameter(alias="-t")] = "epochs(10)",
    optimizer: str | None = None,
    seed: int = 0,
    save: Path | None = None,
    output: Annotated[tuple[Path, ...], Parameter(alias="-o")] = (),
) -> None:
    """Train once, and print after each epoch the losses, the metrics and every group's lr.

    Example: `ratecraft train digits "warmup(45).then(cosine(1, 0))" --lr 0.01`

    Args:
        task: digits, stdlib-text, or your own as file.py:function.
        schedule: Text of the schedule, or "plateau(constant(1), factor=0.5, patience=2)".
        lr: What the schedule multiplies.
        total_steps: Length of the run: steps, or a length such as "epochs(10)".
        optimizer: Optimizer in place of the task's, as `ratecraft find` takes it.
        seed: Seed of initial weights and data order.
        save: Write the result as JSON, which `ratecraft forecast` reads.
        output: Write a report (.html) or a figure (.png, .svg, .pdf); may be given again.
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments import train as train_one
    from ratecraft.experiments._compare import environment
    from ratecraft.experiments._plateau import parse_candidate
    from ratecraft.experiments._task import with_optimizer
    from ratecraft.results import Comparison

    _check_outputs(save, output)
    candidate, length = parse_candidate(schedule), parse_length(total_steps)
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    with bar("training", "steps") as progress:
        seen: list[Evaluation] = []

        def watch(evaluation: Evaluation) -> None:
            seen.append(evaluation)
            if len(seen) == 1:
                out.print(_row(_titles(evaluation)), markup=False)
            out.print(_row(_cells(evaluation, loaded.steps_per_epoch)), markup=False)

        run = train_one(
            loaded, candidate, lr=lr, seed=seed, total_steps=length, progress=progress, watch=watch
        )
    run = replace(run, optimizer=optimizer or "")
    result = Comparison(loaded.name or task, {schedule: run.schedule}, (run,), environment())
    if run.diverged is None:
        out.print(f"{len(run.losses):,} steps in {duration(run.seconds)}", markup=False)
    _write(result, save, output, title=f"{schedule} on {task}")
    if run.diverged is not None:
        raise RunFailed(f"the loss became nan or inf at step {run.diverged}; train at a lower --lr")


def _titles(evaluation: Evaluation) -> list[str]:
    metrics = [f"{part} {name}" for name in evaluation.metrics for part in ("train", "val")]
    lrs = list(evaluation.lrs)
    return [
        "epoch",
        "step",
        *metrics,
        *(["lr"] if len(lrs) == 1 else map("lr {}".format, lrs)),
    ]


def _cells(evaluation: Evaluation, steps_per_epoch: int) -> list[str]:
    values = [
        value
        for name in evaluation.metrics
        for value in (evaluation.train.get(name, math.nan), evaluation.metrics[name])
    ]
    done = evaluation.step / steps_per_epoch
    return [
        f"{done:.3g}",
        str(evaluation.step),
        *(f"{value:.4g}" for value in values),
        *(f"{lr:.4g}" for lr in evaluation.lrs.values()),
    ]


def _row(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>{10 if i > 1 else 6}}" for i, cell in enumerate(cells))


def compare(
    task: str,
    *schedules: str,
    lrs: Annotated[str | None, Parameter(alias="--lr")] = None,
    optimizers: Annotated[str | None, Parameter(alias="--optimizer")] = None,
    seeds: int | None = None,
    total_steps: Annotated[str | None, Parameter(alias="-t")] = None,
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
    """Train schedules side by side and say which was better, and by how much.

    With `--store` every complete run is kept in a file: what was stopped or killed goes on where
    it was with the same command.

    Example: `ratecraft compare digits "constant(1)" "cosine(1, 0)" --lrs 0.001,0.01`

    Args:
        task: digits, stdlib-text, your own as file.py:function, or a .toml file that says all of
            this by the same names; options count before it.
        schedules: Texts of schedules, each a factor of the lr.
        lrs: What every schedule multiplies: a number, several with commas between, or "find" to
            look for it first, the default. Write 1 if the schedules are lrs themselves.
        optimizers: Optimizer in place of the task's, as `ratecraft find` takes it, or several with
            commas between.
        seeds: Runs per candidate, default 3.
        total_steps: Length of each run: steps, or a length such as "epochs(10)", the default; several
            with commas between.
        workers: Worker processes; default one a processor core; 0 trains in this process.
        engine: "local" or "ray".
        address: Of a Ray cluster, such as "auto"; default Ray on this machine.
        cpus: Processor cores for each trial under Ray, default 1.
        gpus: GPUs for each trial under Ray; 0.25 puts four trials on one.
        store: An SQLite file to keep complete runs in.
        halving: End the worse half of each schedule's lrs after a quarter and after half of the
            run. What those would have come to is not known then.
        branches: Train once what runs share at their beginning, as cooldowns of several lengths do.
        shard: Do part i of n alone, as i/n, for job arrays; `ratecraft merge` joins the stores.
        forecast: A result of `ratecraft forecast`, to be shown beside what happened.
        save: Write the result as JSON.
        output: Write a report (.html) or a figure (.png, .svg, .pdf); may be given again.
        quiet: Show no progress.
        json: Print lines of JSON: what happens as it happens, and the result.
    """
    given = {name: value for name, value in locals().items() if name not in ("task", "json")}
    told = CompareConfig.read(task, given)
    named, lengths, part = told.named(), told.lengths(), told.part()
    _check_outputs(told.save, told.output)
    check_counts(told.seeds, told.workers)
    check_output(told.store)
    foreseen = _forecast(told.forecast)
    if part != (1, 1) and told.store is None:
        raise SettingError("--shard needs a --store of its own, which ratecraft merge then takes")
    multiples, kinds, found = told.multiples(), told.kinds(), None
    if not multiples and part != (1, 1):
        raise SettingError(
            "--shard needs lrs, --lrs 0.001,0.01: a shard that looks for one may find another"
        )
    if not multiples:
        found = _found(told, kinds, to=err if json else out)
        multiples = [found.lr or 0.0]
    show: Show = "json" if json else "quiet" if told.quiet else "auto"
    result = _compare(
        told.task,
        named,
        show=show,
        store=told.store,
        lrs=multiples,
        seeds=told.seeds,
        total_steps=lengths,
        workers=told.workers,
        engine=_engine(told),
        optimizers=kinds,
        halving=told.halving,
        branches=told.branches,
        shard=part,
    )
    if part != (1, 1):
        err.print(
            f"shard {part[0]} of {part[1]} is done; when all are: ratecraft merge all.db "
            f"{told.store} ..., and the same command with --store all.db and without --shard",
            markup=False,
        )
    _write(
        result, told.save, told.output, found=found, forecast=foreseen, quiet=json,
        title=f"Schedules on {told.task}",
    )  # fmt: skip
    if result.failed:
        failed = f"{len(result.failed)} runs failed" if len(result.failed) > 1 else "a run failed"
        raise RunFailed(f"{failed}; with a --store the same command tries again what is missing")
    if part == (1, 1):
        _fail_if_all_diverged(result)


def merge(target: Path, *sources: Path) -> None:
    """Copy the runs of several stores, such as those of shards, into one.

    Example: `ratecraft merge all.db shard-1.db shard-2.db`

    Args:
        target: The store that takes them; made if it is not there.
        sources: The others, which stay as they are.
    """
    from ratecraft.experiments import merge as merge_stores

    if not sources:
        raise SettingError("merge needs stores: ratecraft merge all.db shard-1.db shard-2.db")
    check_output(target)
    count = merge_stores(target, *sources)
    out.print(f"{target}: {count} runs that were not in it before", markup=False)


def demo(*, folder: Path = Path("ratecraft-demo"), seeds: int = 3) -> None:
    """Do the whole job on handwritten digits: find, show, train side by side, report.

    Args:
        folder: Where the report and the results are written.
        seeds: Runs per schedule.
    """
    from ratecraft.experiments import load_task
    from ratecraft.report import terminal_curve

    check_counts(seeds)
    check_output(folder / "report.html")
    task = load_task("digits")
    total_steps = epochs(10)
    _heading("1 Find an lr, by short runs")
    found = find_and_print(task, "digits", total_steps=total_steps)
    if found.lr is None:
        raise RunFailed(found.reason)
    _heading(f"2 Show five schedules before training, at lr {found.lr:.3g}")
    schedules: dict[str, Candidate] = {name: parse(text) for name, text in DEMO_SCHEDULES.items()}
    curves = {
        name: (found.lr * parse(text)).resolve(
            total_steps=total_steps, steps_per_epoch=task.steps_per_epoch
        )
        for name, text in DEMO_SCHEDULES.items()
    }
    out.print(terminal_curve(curves, color=colored()), markup=False)
    _heading(f"3 Train each with {seeds} seeds")
    result = _compare("digits", schedules, lrs=found.lr, seeds=seeds, total_steps=total_steps)
    found.save(folder / "found-lr.json")
    _write(
        result,
        folder / "comparison.json",
        [folder / "report.html"],
        found=found,
        title="Five schedules on handwritten digits",
    )
    _fail_if_all_diverged(result)


def _found(told: CompareConfig, kinds: Sequence[str] | None, *, to: Console) -> LRFinderResult:
    """Look for the lr of a comparison."""
    from ratecraft.experiments import load_task
    from ratecraft.experiments._task import with_optimizer

    lengths = told.lengths()
    if kinds is not None and len(kinds) > 1:
        raise SettingError(
            "--lrs find looks for one lr, and each optimizer has its own; give several "
            "lrs, --lrs 0.001,0.01,0.1"
        )
    task = load_task(told.task)
    if kinds is not None:
        task = with_optimizer(task, kinds[0])
    found = find_and_print(task, told.task, total_steps=lengths[0], to=to)
    if found.lr is None:
        raise RunFailed(f"{found.reason}; or give --lrs")
    return found


def _engine(told: CompareConfig) -> Engine | str | None:
    if told.engine == "ray":
        from ratecraft.experiments._engines import RayEngine

        return RayEngine(told.address, cpus=told.cpus, gpus=told.gpus)
    if told.address is not None or told.gpus or told.cpus != 1:
        raise SettingError("--address, --cpus and --gpus belong to --engine ray")
    return None if told.engine == "local" else told.engine


def _forecast(path: Path | None) -> Forecast | None:
    from ratecraft.results import Forecast, load

    if path is None:
        return None
    result = load(path)
    if not isinstance(result, Forecast):
        raise SettingError(
            f"{path} holds a {type(result).__name__}; expected a forecast, as ratecraft forecast "
            "--save writes it"
        )
    return result


def _compare(
    task: str,
    schedules: Mapping[str, Candidate],
    *,
    show: Show = "auto",
    store: Path | None = None,
    engine: Engine | str | None = None,
    **settings: Any,
) -> Comparison:
    """Train every schedule, showing how it stands, and print the table and the verdict."""
    from ratecraft.experiments import Progress
    from ratecraft.experiments import compare as train_all

    last: list[Progress] = []
    try:
        with live(show) as view:

            def hear(progress: Progress) -> None:
                last[:] = [progress]
                view(progress)

            result = train_all(
                task, schedules, store=store, engine=engine, progress=hear, **settings
            )
    except KeyboardInterrupt:
        if last and store is not None:
            err.print(
                f"{last[0].done} of {last[0].planned} runs are in {store}; the same command goes "
                "on with the rest",
                markup=False,
            )
        raise
    finally:
        if engine is not None and not isinstance(engine, str):
            engine.close()
    if show == "json":
        _print_json(result)
    else:
        _print_table(result)
    return result


def _print_table(result: Comparison) -> None:
    from rich.table import Table

    if not result.runs:
        out.print("no runs: there is nothing to do for this shard, or nothing worked")
        return
    totals = sorted({run.total_steps for run in result.runs})
    seeds = len({run.seed for run in result.runs})
    after = " and ".join(f"{total:,}" for total in totals)
    table = Table(title=f"Validation after {after} steps, {seeds} seeds")
    table.add_column("schedule", overflow="fold")
    for metric in result.metrics():
        table.add_column(escape(f"{metric} ± spread"), justify="right")
    table.add_column("diverged", justify="right")
    for row in result.summaries():
        cells = [_cell(row.mean[m], row.spread[m]) for m in result.metrics()]
        fate = f"{row.diverged} of {row.seeds}" + " (stopped early)" * (row.stopped > 0)
        fate += f" ({row.missing} missing)" * (row.missing > 0)
        table.add_row(escape(row.name), *cells, fate)
    out.print(table)
    for family, flat in result.flat().items() if seeds > 1 else ():  # one seed tells nothing
        more = ["or lower"] * flat.open_low + ["or higher"] * flat.open_high
        reach = f"{flat.low:g} to {flat.high:g}{''.join(f', {one}' for one in more)}"
        out.print(f"{family}: best lr {flat.best:g}, not told from it {reach}", markup=False)
    for name, error in result.failed.items():
        out.print(f"failed: {name}: {error.strip().splitlines()[-1]}", markup=False)
    if result.runs:
        out.print(result.verdict(), markup=False)


def _print_json(result: Comparison) -> None:
    rows = [asdict(row) for row in result.summaries()]
    data = {"what": "result", "verdict": result.verdict() if result.runs else "", "rows": rows}
    out.print(json.dumps(_finite(data | {"failed": result.failed})), markup=False)


def _finite(value: Any) -> Any:
    """Return plain data with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(
    result: Comparison,
    save: Path | None,
    outputs: Sequence[Path],
    *,
    title: str,
    quiet: bool = False,
    **parts: Any,
) -> None:
    """Write the result, reports and figures, and say where they are."""
    from ratecraft.report import plot_comparison, save_figure, write_report

    if not result.runs:
        return
    written = []
    if save is not None:
        written.append(f"result: {result.save(save)}")
    for path in outputs:
        if path.suffix.lower() == ".html":
            written.append(f"report: {write_report(path, comparison=result, title=title, **parts)}")
        else:
            written.append(f"figure: {save_figure(plot_comparison(result), path)}")
    for line in written:
        (err if quiet else out).print(line, markup=False)


def _check_outputs(save: Path | None, outputs: Sequence[Path]) -> None:
    check_output(save, ".json")
    for path in outputs:
        check_output(path, *FIGURES)


def _cell(mean: float, spread: float) -> str:
    """Return mean ± sample standard deviation, with digits that tell small values apart."""
    if math.isnan(mean):
        return "-"
    small = 0 < abs(mean) < 0.001 or abs(mean) >= 1e4
    texts = [f"{value:.3g}" if small else f"{value:.4f}" for value in (mean, spread)]
    return texts[0] if math.isnan(spread) else " ± ".join(texts)


def _fail_if_all_diverged(result: Comparison) -> None:
    if all(run.diverged is not None for run in result.runs):
        raise RunFailed("the loss of every run became nan or inf; train at a lower --lr")


def _heading(text: str) -> None:
    out.print(f"\n[bold]{text}[/bold]")

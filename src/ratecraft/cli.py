"""The command: show, check, doctor, find, predict, compare, demo.

Each imports what it needs as it runs.

Exit codes: 0 done, 1 no result or errors found, 2 used wrongly, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape

import ratecraft
from ratecraft.errors import RatecraftError, RunFailed, ScheduleError, SettingError
from ratecraft.schedule import Duration, Finding, Schedule, parse, parse_length

if TYPE_CHECKING:
    from ratecraft.compare import Task
    from ratecraft.records import Comparison, FoundRate, RangeTest, Run

__all__ = ["main"]

app = App(
    name="ratecraft",
    help="Say, find, foresee, prove and see your learning rate before you pay for the run.",
    version=ratecraft.__version__,
    version_flags=["--version"],
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # it is told like every other end, with a code of its own
)

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)

DEMO_SCHEDULES: Final = {
    "constant": "constant(1)",
    "step decay": "staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])",
    "exponential": "exponential(1, 0.01)",
    "cosine": "warmup(percent(5)).then(cosine(1, 0))",
    "WSD": "warmup(percent(5)).then(constant(1)).then(cooldown(percent(20)))",
}


@app.command
def show(
    *schedules: str,
    total: Annotated[str | None, Parameter(alias="-t")] = None,
    epoch: float | None = None,
    log: bool = False,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Draw schedules in the terminal, without training anything.

    Example: `ratecraft show "3e-4 * warmup(500).then(cosine(1, 0.1))" --total 10000`

    Args:
        *schedules: Texts of schedules; several are overlaid.
        total: Length of the run: updates, or a length such as "epochs(10)". Default: where the
            schedule itself ends.
        epoch: Updates per epoch, if anything is said in epochs.
        log: Draw the rate on a logarithmic axis.
        output: Also write a figure: a .png, .svg or .pdf file.
    """
    from ratecraft.view import plot_curves, save_figure, terminal_curve

    if not schedules:
        raise ScheduleError('show needs a schedule, for example: ratecraft show "cosine(1, 0)"')
    length: Duration | float | None = None if total is None else parse_length(total)
    curves = {}
    for text in schedules:
        schedule = parse(text)
        curve = schedule.resolve(length, epoch=epoch)
        if length is None:
            if curve.natural_length == float("inf"):
                raise ScheduleError(f"{schedule!r} has no end; say how far to draw: --total 10000")
            curve = schedule.resolve(ratecraft.steps(curve.natural_length), epoch=epoch)
        curves[repr(schedule)] = curve
    out.print(terminal_curve(curves, log_y=log, color=out.is_terminal), markup=False)
    for name, curve in curves.items():
        first, last = curve(0), curve(len(curve) - 1)
        out.print(
            f"{name}\n  first {first:.6g}, last {last:.6g}, {len(curve):,} updates", markup=False
        )
    if output is not None:
        out.print(f"figure: {save_figure(plot_curves(curves, log=log), output)}", markup=False)


@app.command
def check(
    *schedules: str,
    total: Annotated[str | None, Parameter(alias="-t")] = None,
    epoch: float | None = None,
) -> None:
    """Say what schedules will do over a run that nobody may have meant.

    Exits with 1 if there is an error among the findings.

    Example: `ratecraft check "warmup(500).then(cosine(1, 0, over=1000))" --total 2000`

    Args:
        *schedules: Texts of schedules.
        total: Length of the run: updates, or a length such as "epochs(10)".
        epoch: Updates per epoch, if anything is said in epochs.
    """
    if not schedules:
        raise ScheduleError('check needs a schedule, for example: ratecraft check "cosine(1, 0)"')
    length = None if total is None else parse_length(total)
    found = []
    for text in schedules:
        findings = ratecraft.check(parse(text), length, epoch=epoch)
        _print_findings(findings, text)
        found += findings
    _fail_on_errors(found)


@app.command
def doctor(setup: str, *, total: Annotated[int | None, Parameter(alias="-t")] = None) -> None:
    """Say what is wrong with a training set-up before it runs.

    Exits with 1 if there is an error among the findings.

    Example: `ratecraft doctor train.py:build --total 10000`

    Args:
        setup: A function as file.py:function that builds all and returns it: models,
            optimizers, schedulers, a Hugging Face Trainer; one, or several in any order.
        total: Updates that the run is going to make.
    """
    from ratecraft.compare.task import called, load_function
    from ratecraft.torch import doctor as examine

    things = called(load_function(setup), setup)
    things = things if isinstance(things, tuple | list) else (things,)
    try:
        findings = examine(*things, total=total)
    except TypeError as error:
        raise SettingError(f"{setup}: {error}") from None
    _print_findings(findings, setup)
    _fail_on_errors(findings)


@app.command
def find(
    task: str,
    *,
    total: Annotated[str | None, Parameter(alias="-t")] = None,
    updates: int | None = None,
    optimizer: str | None = None,
    seed: int = 0,
    classic: bool = False,
    low: float | None = None,
    high: float | None = None,
    linear: bool = False,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Find the learning rate for a run, by short runs, or with --classic by a range test.

    Example: `ratecraft find my_task.py:task --total "epochs(30)"`

    Args:
        task: digits, stdlib-text, or your own as file.py:function.
        total: Length of the run to come: updates, or a length such as "epochs(30)"; default
            "epochs(10)".
        updates: What the search may cost, default 200; with --classic the length of the test,
            default one epoch, or 100 updates if that is longer.
        optimizer: Optimizer in place of the task's: sgd, momentum, nesterov, adagrad, adadelta,
            rmsprop, adam, adamw, nadam, radam, adamax, lbfgs, muon, schedulefree-adamw, prodigy,
            or a class such as torch.optim.AdamW.
        seed: Seed of initial weights and data order.
        classic: Run the classical range test, and show what known rules make of it.
        low: First rate of the range test, default 1e-8.
        high: Last rate of the range test, default 10.
        linear: Raise the rate of the range test linearly, not geometrically.
        save: Write the record as JSON.
        output: Also write a figure: a .png, .svg or .pdf file.
    """
    from ratecraft.compare import load_task
    from ratecraft.compare.task import with_optimizer
    from ratecraft.rules import RULES
    from ratecraft.view import plot_found_rate, plot_range_test, save_figure

    _check_output(save, ".json")
    _check_output(output, ".png", ".svg", ".pdf")
    sweep = {"low": low, "high": high, "spacing": "linear" if linear else None}
    sweep = {name: value for name, value in sweep.items() if value is not None}
    if sweep and not classic:
        raise SettingError("--low, --high and --linear belong to the range test; add --classic")
    if classic and total is not None:
        raise SettingError("--total: the range test knows nothing of the run; leave out --classic")
    if updates is not None:
        sweep["updates"] = updates
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    record: FoundRate | RangeTest
    if classic:
        record = _sweep(loaded, task, seed=seed, **sweep)
        rate, figure = record.suggestion, partial(plot_range_test, record, tuple(RULES))
        for rule in RULES:
            told, reason = record.suggest(rule)
            cell = "-" if told is None else f"{told:.3g}"
            out.print(f"  {rule:<11}{cell:>9}  {reason}", markup=False)
    else:
        record = _find(loaded, task, total=parse_length(total or "epochs(10)"), seed=seed, **sweep)
        rate, figure = record.rate, partial(plot_found_rate, record)
    if save is not None:
        out.print(f"record: {record.save(save)}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(figure(), output)}", markup=False)
    if rate is None:
        raise RunFailed(record.reason)


@app.command
def compare(
    task: str,
    *schedules: str,
    rate: str = "find",
    seeds: int = 3,
    total: Annotated[str, Parameter(alias="-t")] = "epochs(10)",
    optimizer: str | None = None,
    workers: int | None = None,
    store: Path | None = None,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Train schedules side by side and say which was better, and by how much.

    With `--store` every complete run is kept in a file: what was stopped or killed goes on where
    it was with the same command.

    Example: `ratecraft compare digits "constant(1)" "cosine(1, 0)" --rate 0.01`

    Args:
        task: digits, stdlib-text, or your own as file.py:function.
        *schedules: Texts of schedules, each a factor of the rate.
        rate: What every schedule multiplies: a number, several with commas between, or "find" to
            look for it first. Write 1 if the schedules are rates themselves.
        seeds: Runs per schedule.
        total: Length of each run: updates, or a length such as "epochs(10)".
        optimizer: Optimizer in place of the task's, as `ratecraft find` takes it, or several with
            commas between.
        workers: Worker processes; default one a processor core; 0 trains in this process.
        store: An SQLite file to keep complete runs in.
        save: Write the record as JSON.
        output: Write a report: an .html file.
    """
    from ratecraft.compare import load_task
    from ratecraft.compare.task import with_optimizer
    from ratecraft.view import write_report

    named = {text: parse(text) for text in schedules}
    if not named:
        raise ScheduleError(
            'compare needs schedules, for example: ratecraft compare digits "cosine(1, 0)"'
        )
    _check_output(save, ".json")
    _check_output(output, ".html")
    _check_counts(seeds, workers)
    _check_output(store)
    length, found = parse_length(total), None
    kinds = [None] if optimizer is None else [one.strip() for one in optimizer.split(",")]
    rates = [] if rate == "find" else [_number(one, "--rate") for one in rate.split(",")]
    if any(one < 0 for one in rates):
        raise SettingError(f"--rate {rate}: a rate must be >= 0")
    if rate == "find":
        if len(kinds) > 1:
            raise SettingError(
                "--rate find looks for one rate, and each optimizer has its own; give several "
                "rates, --rate 0.001,0.01,0.1"
            )
        loaded = load_task(task)
        if kinds[0] is not None:
            loaded = with_optimizer(loaded, kinds[0])
        found = _find(loaded, task, total=length)
        if found.rate is None:
            raise RunFailed(f"{found.reason}; or give --rate")
        rates = [found.rate]
    record = _compare(
        task,
        named,
        rate=rates,
        seeds=seeds,
        total=length,
        workers=workers,
        optimizer=None if optimizer is None else kinds,
        store=store,
    )
    if save is not None:
        out.print(f"record: {record.save(save)}", markup=False)
    if output is not None:
        report = write_report(output, comparison=record, found=found, title=f"Schedules on {task}")
        out.print(f"report: {report}", markup=False)
    _fail_if_all_diverged(record)


@app.command
def predict(
    *given: str,
    total: Annotated[int | None, Parameter(alias="-t")] = None,
    epoch: float | None = None,
    plan: tuple[str, ...] = (),
    plan_total: tuple[int, ...] = (),
    loss: str | None = None,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Foresee the loss of schedules that were not run, from the logs of one run or two.

    Without schedules it recommends one of the WSD family.

    Example: `ratecraft predict log.csv "warmup(500).then(cosine(1, 0))" --total 20000`

    Args:
        *given: Logs (CSV, JSON, JSON lines, trainer_state.json, TensorBoard's events, a saved
            comparison) and texts of schedules: factors of the logs' peak rate, or rates.
        total: Updates of the run to foresee. Default: as many as the longest log has.
        epoch: Updates per epoch, if schedules speak of epochs.
        plan: The schedule of a log, as the rate itself; once for each log, in order. Needed where
            a log has no rates, better where it begins late.
        plan_total: Updates that the plan was made for, where the log ends before; once for each
            plan.
        loss: The logs' column of losses, if it is none of the usual ones.
        save: Write the record as JSON.
        output: Write a report (.html) or a figure (.png, .svg, .pdf).
    """
    from rich.table import Table

    from ratecraft.foresee import forecast, read_logs, recommend
    from ratecraft.view import plot_forecast, save_figure, terminal_forecast, write_report

    paths = [one for one in given if Path(one).exists() or "(" not in one]
    schedules = {one: parse(one) for one in given if one not in paths}
    if not paths:
        raise ScheduleError(
            'predict needs the log of a run: ratecraft predict log.csv "cosine(1, 0)"'
        )
    if plan and len(plan) != len(paths):
        raise SettingError(f"--plan is given {len(plan)} times for {len(paths)} logs")
    if plan_total and len(plan_total) != len(plan):
        raise SettingError(f"--plan-total is given {len(plan_total)} times for {len(plan)} plans")
    if total is not None and total < 1:
        raise SettingError(f"--total {total}: expected a number of updates, at least 1")
    _check_output(save, ".json")
    _check_output(output, ".html", ".png", ".svg", ".pdf")
    plans = [parse(text) for text in plan] if plan else [None] * len(paths)
    lengths = list(plan_total) if plan_total else [None] * len(paths)
    logs = [
        log
        for path, one, long in zip(paths, plans, lengths, strict=True)
        for log in read_logs(path, schedule=one, total=long, loss=loss, epoch=epoch)
    ]
    length = max(len(log.every_rate) for log in logs) if total is None else total
    record = (
        forecast(logs, schedules, length, epoch=epoch)
        if schedules
        else recommend(logs, length, epoch=epoch)
    )
    out.print(terminal_forecast(record, color=out.is_terminal), markup=False)
    table = Table(title=f"Loss after {length:,} updates")
    table.add_column("schedule", overflow="fold")
    table.add_column("foreseen", justify="right", no_wrap=True)
    table.add_column("band", justify="right", no_wrap=True)
    for one in record.candidates:
        text = escape("\n  ".join([one.name, *one.notes]))
        table.add_row(text, f"{one.loss:.4f}", f"{one.low:.4f} to {one.high:.4f}")
    out.print(table)
    for note in record.notes:
        out.print(f"weak: {note}", markup=False)
    out.print(record.verdict(), markup=False)
    if save is not None:
        out.print(f"record: {record.save(save)}", markup=False)
    if output is not None and output.suffix.lower() == ".html":
        title = "What other schedules would have cost"
        out.print(f"report: {write_report(output, forecast=record, title=title)}", markup=False)
    elif output is not None:
        out.print(f"figure: {save_figure(plot_forecast(record), output)}", markup=False)


@app.command
def demo(*, folder: Path = Path("ratecraft-demo"), seeds: int = 3) -> None:
    """Do the whole job on handwritten digits: find, show, train side by side, report.

    Args:
        folder: Where the report and the records are written.
        seeds: Runs per schedule.
    """
    from ratecraft.compare import load_task
    from ratecraft.view import terminal_curve, write_report

    _check_counts(seeds)
    _check_output(folder / "report.html")
    task = load_task("digits")
    total = ratecraft.epochs(10)
    _heading("1 Find a rate, by short runs")
    found = _find(task, "digits", total=total)
    if found.rate is None:
        raise RunFailed(found.reason)
    _heading(f"2 Show five schedules before training, at rate {found.rate:.3g}")
    schedules = {name: parse(text) for name, text in DEMO_SCHEDULES.items()}
    curves = {
        name: (found.rate * schedule).resolve(total, epoch=task.epoch)
        for name, schedule in schedules.items()
    }
    out.print(terminal_curve(curves, color=out.is_terminal), markup=False)
    _heading(f"3 Train each with {seeds} seeds")
    record = _compare("digits", schedules, rate=found.rate, seeds=seeds, total=total)
    found.save(folder / "found-rate.json")
    record.save(folder / "comparison.json")
    report = write_report(
        folder / "report.html",
        comparison=record,
        found=found,
        title="Five schedules on handwritten digits",
    )
    records = f"{folder}/found-rate.json, {folder}/comparison.json"
    out.print(f"\nReport: {report}\nRecords: {records}", markup=False)
    _fail_if_all_diverged(record)


def _find(
    task: Task, name: str, *, total: Duration | int, seed: int = 0, **settings: Any
) -> FoundRate:
    """Find the rate for a fresh model, with a bar, and print how."""
    import torch

    from ratecraft.compare.loop import start
    from ratecraft.finder import find_lr
    from ratecraft.view import terminal_found_rate

    length = len(ratecraft.constant(1).resolve(total, epoch=task.epoch))
    torch.manual_seed(seed)
    model, optimizer = start(task)
    with _bar("short runs", "updates at most") as progress:
        record = find_lr(
            model,
            optimizer,
            task.train,
            task.loss,
            total=length,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    record = replace(record, seed=seed)
    out.print(terminal_found_rate(record), markup=False)
    out.print(f"{record.task}\n{record.optimizer}: {record.cost}", markup=False)
    out.print(record.reason, markup=False)
    if record.rate is not None:
        out.print(
            f"rate: [bold]{record.rate:.3g}[/bold] (as good: {record.low:.3g} to {record.high:.3g})"
        )
    return record


def _sweep(task: Task, name: str, *, seed: int = 0, **settings: Any) -> RangeTest:
    """Run a range test on a fresh model, with a bar, and print its curve and its suggestion."""
    import torch

    from ratecraft.compare.loop import start
    from ratecraft.finder import range_test
    from ratecraft.view import terminal_plot

    torch.manual_seed(seed)
    model, optimizer = start(task)
    with _bar("range test", "updates") as progress:
        record = range_test(
            model,
            optimizer,
            task.train,
            task.loss,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    record = replace(record, seed=seed)
    lines = {"smoothed loss": (record.rates, record.smoothed)}
    plot = terminal_plot(lines, log_x=True, x_label="rate", y_label="loss", mark=record.suggestion)
    out.print(plot, markup=False)
    out.print(f"{record.task}\ntested with {record.optimizer}: {record.cost}", markup=False)
    out.print(f"{record.stopped}; {record.reason}", markup=False)
    if record.suggestion is not None:
        out.print(f"suggested rate: [bold]{record.suggestion:.3g}[/bold]")
    return record


def _compare(
    task: str, schedules: dict[str, Schedule], *, seeds: int, **settings: Any
) -> Comparison:
    """Train every schedule, with a bar, and print the table and the verdict."""
    from rich.table import Table

    from ratecraft.compare import compare as train_all

    with _bar("training", "runs") as progress:

        def advance(done: int, planned: int, run: Run) -> None:
            progress(done, planned)

        record = train_all(task, schedules, seeds=seeds, progress=advance, **settings)
    table = Table(title=f"Validation after {record.runs[0].total:,} updates, {seeds} seeds")
    table.add_column("schedule")
    for metric in record.metrics():
        table.add_column(escape(f"{metric} ± spread"), justify="right")
    table.add_column("diverged", justify="right")
    for row in record.summaries():
        cells = [_cell(row.mean[m], row.spread[m]) for m in record.metrics()]
        table.add_row(escape(row.name), *cells, f"{row.diverged} of {row.seeds}")
    out.print(table)
    for name, error in record.failed.items():
        out.print(f"failed: {name}: {error.splitlines()[-1]}", markup=False)
    out.print(record.verdict(), markup=False)
    return record


def _print_findings(findings: Sequence[Finding], what: str) -> None:
    for finding in findings:
        out.print(str(finding), markup=False)
    if not findings:
        out.print(f"{what}: nothing to report", markup=False)


def _fail_on_errors(findings: Sequence[Finding]) -> None:
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        are = "is an error" if errors == 1 else "are errors"
        raise RunFailed(f"{errors} of the findings {are}")


def _cell(mean: float, spread: float) -> str:
    """Return mean ± sample standard deviation, with digits that tell small values apart."""
    if math.isnan(mean):
        return "-"
    small = 0 < abs(mean) < 0.001 or abs(mean) >= 1e4
    texts = [f"{value:.3g}" if small else f"{value:.4f}" for value in (mean, spread)]
    return texts[0] if math.isnan(spread) else " ± ".join(texts)


def _check_output(path: Path | None, *suffixes: str) -> None:
    """Refuse a file that could not be written, before anything is trained."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise SettingError(f"{path}: expected a file ending in {', '.join(suffixes)}")
    if path.is_dir():
        raise SettingError(f"{path} is a folder; name a file")
    parent = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingError(
            f"{path} cannot be written: {parent} is no folder that can be written to"
        )


def _check_counts(seeds: int, workers: int | None = None) -> None:
    if seeds < 1 or (workers is not None and workers < 0):
        raise SettingError(f"--seeds {seeds}, --workers {workers}: expected >= 1 and >= 0")


def _fail_if_all_diverged(record: Comparison) -> None:
    if all(run.diverged is not None for run in record.runs):
        raise RunFailed("the loss of every run became nan or inf; train at a lower --rate")


def _heading(text: str) -> None:
    out.print(f"\n[bold]{text}[/bold]")


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingError(f'{what} {text!r}: expected a number, or "find"') from None


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on the error stream, so that results can be piped."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        line = bar.add_task(title, total=None)

        def advance(done: int, planned: int) -> None:
            bar.update(line, completed=done, total=planned)

        yield advance


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code; every error is a message, never a traceback."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(f"{error}\nsee: ratecraft --help", 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except RatecraftError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            return _fail(_told(error), 1)
        return _fail("this command trains with torch: pip install 'ratecraft[torch]'", 2)
    except Exception as error:
        # Most likely the user's own model or loss; a traceback of ours would not help them.
        if os.environ.get("RATECRAFT_TRACEBACK"):
            raise
        return _fail(f"{_told(error)}\nRATECRAFT_TRACEBACK=1 shows where it came from", 1)
    return 0


def _fail(message: str, code: int) -> int:
    err.print("[bold red]error:[/bold red] ", end="")
    err.print(message, markup=False)
    return code


def _told(error: Exception) -> str:
    """Return an unexpected error in words, with the last place outside installed packages."""
    place, frame = "", error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if "site-packages" not in code.co_filename:
            place = f" (in {code.co_name}, {code.co_filename}:{frame.tb_lineno})"
        frame = frame.tb_next
    return f"{type(error).__name__}: {error}{place}"


if __name__ == "__main__":
    main()

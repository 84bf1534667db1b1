"""The trials of a script: their processes, and a run or a failure of each."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from ratecraft._files import write_atomically
from ratecraft._trial import TRIAL_VARIABLE
from ratecraft.results import Run
from ratecraft.results._run import SCRIPT_SCHEDULE

from . import _run_command
from ._reports import ScriptReporter
from ._script import Script
from ._script_log import Measured, ScriptLog, first_not_finite, foreign_rows, measure
from ._trials import HALVING_POINTS, RANKING_WINDOW, Job, Trial, TrialFailure, better_half

LOG_POLL_SECONDS: Final = 0.1  # between two looks at the log
SHOWN_LINES: Final = 20  # of the end of the output of a script that failed
SHOWN_BYTES: Final = 1 << 14


class Ended(NamedTuple):
    """How the process of a trial ended.

    Attributes:
        code: exit code; negative for a signal, None if it was stopped.
        seconds: wall time.
        error: why it could not be started; else empty.
        stopped: the step at which early stopping ended it, or None.
        timed_out: whether its time was over.
    """

    code: int | None
    seconds: float
    error: str = ""
    stopped: int | None = None
    timed_out: bool = False


def run_script_job(script: Script, job: Job) -> list[Run | TrialFailure]:
    """Return the run or the failure of each trial of a job, in order."""
    report = ScriptReporter()
    if job[0].halving_group and len(job) > 1:
        outcomes = _run_halved(script, job, report)
        return [outcomes[trial] for trial in job]
    return [_run_trial(script, trial, report) for trial in job]


def _run_trial(
    script: Script, trial: Trial, report: ScriptReporter, fraction: float = 1.0
) -> Run | TrialFailure:
    directory = Path(script.directory, trial.key).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    log = ScriptLog(directory)
    ended = _execute(script, trial, directory, log, report, fraction)
    log.read()
    report.end()
    rows, foreign, read = log.rows, not log.rows and not ended.error, ""
    if foreign:
        rows, read = foreign_rows(directory, script.metric)
    measured = measure(rows, script.metric, foreign=foreign)
    diverged = first_not_finite(measured)
    if ended.stopped is None and diverged is None:
        problem = _problem(script, trial, ended, log, measured, read)
        if problem:
            return _failure(script, problem, directory, ended)
    sizes = log.sizes
    total_steps = int(max(sizes.get("total_steps", 1), measured.total_steps, len(measured.losses)))
    if trial.total_steps:  # an argument of the script
        total_steps = int(trial.total_steps)
    return Run(
        schedule=trial.schedule,
        lr=trial.lr,
        seed=trial.seed,
        total_steps=total_steps,
        steps_per_epoch=int(sizes.get("steps_per_epoch", total_steps)),
        losses=tuple(measured.losses.values()),
        evaluations=measured.evaluations,
        diverged=diverged,
        seconds=ended.seconds,
        optimizer=trial.optimizer or "",
        stopped=ended.stopped if diverged is None else None,
        loss_steps=tuple(measured.losses),
    )


def _execute(
    script: Script,
    trial: Trial,
    directory: Path,
    log: ScriptLog,
    report: ScriptReporter,
    fraction: float,
) -> Ended:
    """Run the process of a trial until it ends, or until this fraction of its steps is logged."""
    path = directory / "trial.json"
    is_own = trial.schedule.startswith(SCRIPT_SCHEDULE)
    values = {"lr": trial.lr, "schedule": None if is_own else trial.schedule, "seed": trial.seed}
    write_atomically(path, json.dumps(values))
    environment = {"OMP_NUM_THREADS": "1", **os.environ, TRIAL_VARIABLE: str(path)}
    environment["PYTHONUNBUFFERED"] = "1"
    start, stopped, timed_out = time.monotonic(), None, False
    command = [sys.executable, "-I", _run_command.__file__, str(directory)]
    with subprocess.Popen(  # noqa: S603 - the user's script
        [*command, *script.command(trial, directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the process that compares
    ) as process:
        while process.poll() is None:
            time.sleep(LOG_POLL_SECONDS)
            if log.read() and log.rows:
                total_steps = int(log.sizes.get("total_steps", 0))
                report(trial.key, log.last_step, total_steps, log.last_loss)
            seconds = time.monotonic() - start
            timed_out = script.timeout is not None and seconds > script.timeout
            end = fraction * log.sizes.get("total_steps", math.inf)
            if fraction < 1 and log.last_step >= end:
                stopped = math.ceil(end)
            if timed_out or stopped is not None:
                break
        process.stdin.close()  # type: ignore[union-attr]  # ends the script, if it still runs
        line = process.stdout.read().decode()  # type: ignore[union-attr]
    seconds = time.monotonic() - start
    result: dict[str, Any] = json.loads(line) if line.strip() else {"code": -signal.SIGKILL}
    is_stopped = timed_out or stopped is not None
    code = None if is_stopped else result.get("code")
    return Ended(code, seconds, result.get("error", ""), stopped, timed_out)


def _problem(
    script: Script, trial: Trial, ended: Ended, log: ScriptLog, measured: Measured, read: str
) -> str:
    """Return why a trial has no result; empty if it has one.

    ``read`` says what a log without a validation loss has.
    """
    last_step = max([log.last_step, *(e.step for e in measured.evaluations[-1:])])
    if ended.error:
        return f"could not be started: {ended.error}"
    if ended.timed_out:
        return f"was stopped after {script.timeout:g} s (timeout), at step {last_step}"
    if ended.code:
        return f"{_exit_text(ended.code)} after step {last_step}"
    if not measured.names:
        return _no_log(log, read)
    for name in ("lr", "schedule", "seed"):
        if "start" in log.events and name not in log.events and not script.takes(name):
            use = "trial.lr * trial.schedule" if name == "schedule" else f"trial.{name}"
            return (
                f"did not use the {name} of its trial: use {use}, or pass {{{name}}} in an argument"
            )
    if log.schedulers and not any(log.schedulers) and not script.takes("schedule"):
        return (
            "did not use the schedule of its trial: its ScheduleLR has another one; write "
            "ScheduleLR(optimizer, lr=trial.lr * trial.schedule, ...)"
        )
    if not measured.evaluations:
        expected = script.metric or "val_loss"
        return (
            f"logged {', '.join(measured.names)}, but no {expected}: log {expected}=..., or name "
            "the loss to compare with --metric"
        )
    total_steps = float(trial.total_steps or log.sizes.get("total_steps", 0))
    if trial.total_steps and last_step > total_steps:
        return (
            f"did not use the total_steps of its trial, {total_steps:g}: it is at step {last_step}"
        )
    steps = sorted(log.rows)
    interval = max((b - a for a, b in pairwise(steps)), default=last_step)
    if last_step + max(interval, 1) < total_steps:
        return f"ended with exit code 0 after step {last_step} of {total_steps:g}"
    return ""


def _no_log(log: ScriptLog, read: str) -> str:
    if read:
        return (
            f"logged no validation loss with a step ({read}): evaluate during the run, call "
            "trial.log(step, val_loss=...), or name the loss to compare with --metric"
        )
    if "start" in log.events:
        return "ended without a log: call trial.log(step, loss=..., val_loss=...)"
    return (
        "ended without a log: call trial.log(step, val_loss=...), or let it log into the "
        "directory of its trial, {directory} in its arguments"
    )


def _exit_text(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (by the system, if memory was short)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _failure(script: Script, problem: str, directory: Path, ended: Ended) -> TrialFailure:
    path = directory / _run_command.OUTPUT_NAME
    output = path.read_bytes()[-SHOWN_BYTES:].decode(errors="replace") if path.exists() else ""
    lines = [line for line in output.splitlines() if line.strip()][-SHOWN_LINES:]
    line = f"{Path(script.file).name} {problem}"
    if lines and (ended.code or ended.timed_out or "without a log" in problem):
        line += f"; its output ends with: {lines[-1].strip()[:200]}"
    trace = "\n".join([*lines, line])
    return TrialFailure(line, trace)


def _run_halved(
    script: Script, job: Sequence[Trial], report: ScriptReporter
) -> dict[Trial, Run | TrialFailure]:
    """Run a job whose learning rates compete, as `halve` does for a Task.

    A script is stopped at each of the points, and started again for the rest.
    """
    outcomes: dict[Trial, Run | TrialFailure] = {}
    active = list(dict.fromkeys(trial.lr for trial in job))
    for fraction in (*HALVING_POINTS, 1.0):
        trials = [trial for trial in job if trial.lr in active]
        for trial in trials:
            outcome = outcomes.get(trial)
            if outcome is None or (isinstance(outcome, Run) and outcome.stopped is not None):
                outcomes[trial] = _run_trial(script, trial, report, fraction)
        if fraction < 1:
            ranked = sorted(active, key=partial(_recent_loss, outcomes, trials, fraction))
            active = ranked[: better_half(len(ranked))]
            for trial in trials:
                if trial.lr not in active:
                    outcomes[trial] = _cut(outcomes[trial], fraction)
    return outcomes


def _cut(outcome: Run | TrialFailure, fraction: float) -> Run | TrialFailure:
    """Return a run without what it logged until it was stopped, which depends on its speed."""
    if not isinstance(outcome, Run) or outcome.diverged is not None:
        return outcome
    stopped = math.ceil(fraction * outcome.total_steps)
    losses = {k: x for k, x in zip(outcome.loss_steps, outcome.losses, strict=True) if k <= stopped}
    return replace(
        outcome,
        stopped=stopped,
        losses=tuple(losses.values()),
        loss_steps=tuple(losses),
        evaluations=tuple(e for e in outcome.evaluations if e.step <= stopped),
    )


def _recent_loss(
    outcomes: Mapping[Trial, Run | TrialFailure], trials: Sequence[Trial], at: float, lr: float
) -> float:
    """Return the mean of the last training losses before a fraction of the run; inf without one."""
    means = []
    for trial in trials:
        if trial.lr != lr:
            continue
        run = outcomes[trial]
        if not isinstance(run, Run) or run.diverged is not None:
            return math.inf
        end = at * run.total_steps
        pairs = list(zip(run.loss_steps, run.losses, strict=True))
        pairs = pairs or [(e.step, e.metrics["loss"]) for e in run.evaluations]
        before = [(step, loss) for step, loss in pairs if step <= end]
        recent = [loss for step, loss in before if step > end - RANKING_WINDOW * run.total_steps]
        recent = recent or [loss for _, loss in before[-1:]]
        if not recent:
            return math.inf
        means.append(statistics.fmean(recent))
    return statistics.fmean(means)

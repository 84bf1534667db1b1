"""Comparisons of training runs."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ._files import save
from ._run import Run

MAX_NAMES_IN_SENTENCE: Final = 4
"""A sentence names at most this many candidates, and then says how many more there are."""


class RunConfig(NamedTuple):
    """Configuration that distinguishes candidates with the same schedule.

    Attributes:
        lr: learning rate that the schedule multiplies.
        optimizer: optimizer that replaces the one of the task; empty if none does.
        total_steps: number of steps of the run.
    """

    lr: float
    optimizer: str
    total_steps: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of one candidate over its seeds.

    Attributes:
        name: name of the candidate.
        schedule: text of its schedule.
        seeds: number of runs.
        diverged: number of runs that diverged.
        mean: mean of each metric over seeds; NaN if a run diverged, was stopped early or is
            missing.
        spread: sample standard deviation of each metric over seeds.
        gap: mean difference between its validation loss and the loss of the best candidate
            with the same total_steps, paired by seed; NaN if no seed is shared.
        gap_low: lower end of the 95 % confidence interval of ``gap``; NaN with fewer than 2
            pairs.
        gap_high: upper end of that interval.
        stopped: number of runs that were stopped early.
        missing: number of seeds that other candidates with the same total_steps have and this
            one lacks.
        total_steps: number of steps of its runs; 0 if it has no runs.
    """

    name: str
    schedule: str
    seeds: int
    diverged: int
    mean: Mapping[str, float]
    spread: Mapping[str, float]
    gap: float = math.nan
    gap_low: float = math.nan
    gap_high: float = math.nan
    stopped: int = 0
    missing: int = 0
    total_steps: int = 0


class OptimalLRRange(NamedTuple):
    """Learning rates whose results do not differ significantly from the best one.

    Attributes:
        best: learning rate with the lowest mean validation loss.
        low: lowest learning rate of the range: no learning rate from ``low`` to ``best`` is
            significantly worse than ``best`` at 95 % confidence.
        high: highest learning rate of the range.
        open_low: no lower learning rate was found to be worse, so the range may reach further.
        open_high: no higher learning rate was found to be worse.
    """

    best: float
    low: float
    high: float
    open_low: bool
    open_high: bool


class TimeToTarget(NamedTuple):
    """Steps and wall time that a candidate needs to reach a loss.

    Attributes:
        seeds: number of runs that reached the loss.
        steps: mean number of steps before the first evaluation at or below the loss; NaN
            unless every run reached it.
        seconds: mean wall time of these steps, assuming that all steps of a run take equally
            long; NaN unless every run reached the loss.
    """

    seeds: int
    steps: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates trained on one task with the same seeds.

    Attributes:
        task: description of the task.
        schedules: text of the schedule of each candidate, by name of the candidate, in order.
        runs: all runs, ordered by candidate and then by seed.
        environment: package versions and a description of the machine.
        configs: configuration of a candidate by name, where candidates share a schedule.
        failed: traceback of each run that failed, by text such as "cosine, seed 0".
    """

    task: str
    schedules: Mapping[str, str]
    runs: tuple[Run, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, RunConfig] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def runs_for(self, name: str) -> tuple[Run, ...]:
        """Return the runs of one candidate.

        Args:
            name: name of the candidate, a key of ``schedules``.
        """
        text, config = self.schedules[name], self.configs.get(name)
        return tuple(
            run
            for run in self.runs
            if run.schedule == text
            and config in (None, RunConfig(run.lr, run.optimizer, run.total_steps))
        )

    def families(self) -> dict[str, tuple[str, ...]]:
        """Return candidates that differ only in their learning rate, by the part they share."""
        groups: dict[object, list[str]] = {}
        for name, text in self.schedules.items():
            config = self.configs.get(name)
            groups.setdefault((text, *config[1:]) if config else name, []).append(name)
        # `ratecraft.experiments` builds the names, and puts the lr last if there are several.
        return {
            names[0].removesuffix(f", lr {self.configs[names[0]].lr:g}")
            if len(names) > 1
            else names[0]: tuple(names)
            for names in groups.values()
        }

    def best_per_schedule(self) -> Comparison:
        """Return the candidate with the best lr for each schedule, optimizer and total_steps."""
        ranks = {row.name: rank for rank, row in enumerate(self.summaries())}
        best = {min(names, key=ranks.__getitem__) for names in self.families().values()}
        return self.select([name for name in self.schedules if name in best])

    def select(self, names: Sequence[str]) -> Comparison:
        """Return a comparison with a subset of the candidates.

        Args:
            names: names of candidates, keys of ``schedules``, in the order of the result.
        """
        return dataclasses.replace(
            self,
            schedules={name: self.schedules[name] for name in names},
            configs={name: self.configs[name] for name in names if name in self.configs},
            runs=tuple(run for name in names for run in self.runs_for(name)),
        )

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, ``loss`` first."""
        names = {name: None for run in self.runs for e in run.evaluations for name in e.metrics}
        return ("loss", *(name for name in names if name != "loss"))

    def summaries(self) -> tuple[Summary, ...]:
        """Return one row per candidate, by total_steps (longest first) and mean validation loss.

        A candidate with a seed that diverged, was stopped early or is missing has no mean:
        averaging the remaining seeds would favor it. It comes after candidates with a mean.
        """
        rows = []
        seeds: dict[int, set[int]] = {}
        for run in self.runs:
            seeds.setdefault(run.total_steps, set()).add(run.seed)
        for name, text in self.schedules.items():
            runs = self.runs_for(name)
            diverged = sum(run.diverged is not None for run in runs)
            stopped = sum(run.stopped is not None for run in runs)
            values = {m: [run.final(m) for run in runs] for m in self.metrics()}
            total_steps = runs[0].total_steps if runs else 0
            missing = len(seeds.get(total_steps, ())) - len({run.seed for run in runs})
            complete = bool(runs) and not diverged and not stopped and not missing
            mean = {m: statistics.fmean(v) if complete else math.nan for m, v in values.items()}
            spread = {m: _spread(v) if complete else math.nan for m, v in values.items()}
            counts = {"stopped": stopped, "missing": missing, "total_steps": total_steps}
            rows.append(Summary(name, text, len(runs), diverged, mean, spread, **counts))
        rows.sort(key=lambda r: (-r.total_steps, math.isnan(r.mean["loss"]), r.mean["loss"]))
        best: dict[int, str] = {}
        for row in rows:
            best.setdefault(row.total_steps, row.name)
        return tuple(
            dataclasses.replace(row, gap=gap, gap_low=low, gap_high=high)
            for row in rows
            for gap, low, high in [self._gap(best[row.total_steps], row.name)]
        )

    def _gap(self, best: str, other: str) -> tuple[float, float, float]:
        """Return the mean loss difference paired by seed, and its 95 % confidence interval."""
        best_losses = {run.seed: run.final() for run in self.runs_for(best)}
        differences = [
            run.final() - best_losses[run.seed]
            for run in self.runs_for(other)
            if run.seed in best_losses
        ]
        if not differences or not all(map(math.isfinite, differences)):
            return math.nan, math.nan, math.nan
        gap = statistics.fmean(differences)
        if len(differences) < 2 or best == other:
            return gap, math.nan, math.nan
        from scipy.special import stdtrit

        half = statistics.stdev(differences) / math.sqrt(len(differences))
        half *= float(stdtrit(len(differences) - 1, 0.975))
        return gap, gap - half, gap + half

    def optimal_lr_ranges(self) -> dict[str, OptimalLRRange]:
        """Return the range of equally good learning rates of each schedule.

        The range extends from the best learning rate in both directions up to the first one
        that is significantly worse: the 95 % confidence interval of its differences, paired by
        seed, is above 0. With one seed no learning rate is significantly worse. Schedules with
        fewer than two learning rates that finished are left out.
        """
        ranges = {}
        for family, names in self.families().items():
            rows = [row for row in self.select(names).summaries() if row.seeds]
            if len(rows) < 2 or math.isnan(rows[0].mean["loss"]):
                continue
            lrs = {row.name: self.runs_for(row.name)[0].lr for row in rows}
            best = lrs[rows[0].name]
            equal = {lrs[row.name] for row in rows if not row.gap_low > 0 and row.gap == row.gap}
            lower = sorted((lr for lr in lrs.values() if lr < best), reverse=True)
            higher = sorted(lr for lr in lrs.values() if lr > best)
            low, open_low = _reach(best, lower, equal)
            high, open_high = _reach(best, higher, equal)
            ranges[family] = OptimalLRRange(best, low, high, open_low, open_high)
        return ranges

    def time_to_target(self, loss: float) -> dict[str, TimeToTarget]:
        """Return the steps and time that each candidate needs to reach a validation loss.

        Losses are known at evaluations only.

        Args:
            loss: validation loss to reach, such as the one `target` returns.
        """
        times = {}
        for name in self.schedules:
            runs = self.runs_for(name)
            first_steps = [
                next((e.step for e in run.evaluations if e.metrics["loss"] <= loss), None)
                for run in runs
            ]
            reached = [
                (step, run.seconds * step / max(len(run.losses), 1))
                for step, run in zip(first_steps, runs, strict=True)
                if step is not None
            ]
            all_reached = bool(runs) and len(reached) == len(runs)
            times[name] = TimeToTarget(
                len(reached),
                statistics.fmean(step for step, _ in reached) if all_reached else math.nan,
                statistics.fmean(seconds for _, seconds in reached) if all_reached else math.nan,
            )
        return times

    def target(self) -> float | None:
        """Return the lowest loss that every schedule reached at its best learning rate.

        Schedules that did not finish are ignored. ``None`` if fewer than two finished.
        """
        best = self.best_per_schedule()
        lowest = [
            max(_lowest(run) for run in best.runs_for(row.name))
            for row in best.summaries()
            if not math.isnan(row.mean["loss"])
        ]
        return max(lowest) if len(lowest) > 1 else None

    def verdict(self) -> str:
        """Return a sentence that names the best candidate and its margin.

        Candidates are compared with the best one in pairs of runs with the same seed, since
        these share initial weights and data order. The sentence names the candidates that do
        not differ from the best one at 95 % confidence (Student's t). Each total_steps gets a
        verdict of its own.
        """
        by_length: dict[int, list[str]] = {}
        for row in self.summaries():
            if row.total_steps:
                by_length.setdefault(row.total_steps, []).append(row.name)
        if len(by_length) > 1:
            return " ".join(
                f"{total_steps:,} steps: {self.select(names).verdict()}"
                for total_steps, names in by_length.items()
            )
        rows = [row for row in self.summaries() if row.seeds and not math.isnan(row.mean["loss"])]
        missing = [row.name for row in self.summaries() if row.missing or not row.seeds]
        if not rows and missing:
            return "No schedule has a finished run for every seed."
        if not rows:
            return "Every schedule diverged on at least one seed: try a lower lr."
        return f"{self._ranking(rows)}.{self._omissions(missing)}"

    def _ranking(self, rows: Sequence[Summary]) -> str:
        """Return how the best of the rows, which are sorted by loss, differs from the others."""
        best = rows[0]
        if len(rows) == 1:
            reason = "that finished" if len(self.schedules) > 1 else "in this comparison"
            return f"{best.name} is the only schedule {reason}"
        second = rows[1]
        lead = f"{best.name} has the lowest validation loss, {second.gap:.4g} below {second.name}"
        if math.isnan(second.gap_low):
            return f"{lead} (one seed, so this may be chance)"
        lead += f" (95 % confidence: {second.gap_low:.2g} to {second.gap_high:.2g})"
        equal = [row.name for row in rows[1:] if not row.gap_low > 0]
        if not equal:
            return lead
        return f"{lead}; not significantly worse with {best.seeds} seeds: {_listed(equal)}"

    def _omissions(self, missing: Sequence[str]) -> str:
        """Return the sentences of a verdict about candidates without a final loss."""
        stopped = sum(row.stopped > 0 for row in self.summaries())
        text = ""
        if stopped:
            text += (
                f" Early stopping ended {stopped} of {len(self.schedules)} candidates, so their "
                "final losses are unknown."
            )
        if missing:
            text += f" Left out because runs are missing: {_listed(missing)}."
        return text

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: path of the file; missing folders are created. `ratecraft.results.load` reads
                the file.
        """
        return save(self, path)


def _reach(best: float, outward: Sequence[float], equal: set[float]) -> tuple[float, bool]:
    """Return the end of the range of equal lrs, and whether no worse lr bounds it."""
    end = best
    for lr in outward:
        if lr not in equal:
            return end, False
        end = lr
    return end, True


def _lowest(run: Run) -> float:
    """Return the lowest validation loss of a run."""
    losses = [evaluation.metrics["loss"] for evaluation in run.evaluations]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of names left out."""
    omitted = len(names) - MAX_NAMES_IN_SENTENCE
    return ", ".join(
        [*names[:MAX_NAMES_IN_SENTENCE], *([f"{omitted} more"] if omitted > 0 else [])]
    )


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan

"""What was really trained: runs, and comparisons of them."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ratecraft.schedule import Curve, parse

from ._files import save

SHOWN: Final = 4  # names in a sentence


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured after a number of steps.

    Attributes:
        step: how many steps were done.
        metrics: on the validation data; ``loss`` is always there.
        train: the same metrics on the last training batches, likewise in evaluation mode.
        lrs: the lr of the step before, by the param group's name or number.
    """

    step: int
    metrics: Mapping[str, float]
    train: Mapping[str, float] = field(default_factory=dict)
    lrs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        schedule: the schedule's text, as a factor of ``lr``.
        lr: what the schedule multiplies.
        seed: the seed of initial weights and data order.
        total_steps: steps planned; ``steps_per_epoch`` of them make an epoch.
        losses: the training loss of each step that was made.
        evaluations: what was measured, in time order; the last is the result.
        diverged: the step at which the loss stopped being finite, or ``None``.
        seconds: wall time of the run.
        optimizer: the optimizer in place of the task's own; empty for that one.
        stopped: the step after which early stopping ended it, or ``None``.
        innermost_optimizer: where the schedule follows a metric, the schedule of what it did; else empty.
    """

    schedule: str
    lr: float
    seed: int
    total_steps: int
    steps_per_epoch: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    diverged: int | None = None
    seconds: float = 0.0
    optimizer: str = ""
    stopped: int | None = None
    innermost_optimizer: str = ""

    def curve(self) -> Curve:
        """Return the lrs that this run was trained with."""
        text = self.innermost_optimizer or self.schedule
        return (self.lr * parse(text)).resolve(
            total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch
        )

    def final(self, metric: str = "loss") -> float:
        """Return a metric's last value; NaN if the run diverged or was stopped early.

        Args:
            metric: the name of a validation metric.
        """
        if self.diverged is not None or self.stopped is not None or not self.evaluations:
            return math.nan
        return self.evaluations[-1].metrics[metric]


class Setting(NamedTuple):
    """What tells candidates of one schedule apart.

    Attributes:
        lr: what the schedule multiplies.
        optimizer: in place of the task's own; empty for that one.
        total_steps: steps of the run.
    """

    lr: float
    optimizer: str
    total_steps: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One candidate's results over seeds: mean and sample standard deviation of each metric.

    Attributes:
        name: what it is called.
        schedule: the schedule's text.
        seeds: how many runs there are.
        diverged: how many of them diverged.
        mean: of each metric; NaN if a run diverged or was stopped early.
        spread: sample standard deviation over seeds.
        gap: how far its validation loss is above the best one's of as many steps, by pairs of
            one seed; NaN where there are no pairs.
        gap_low: the low end of the 95 % confidence interval of that; NaN with fewer than 2 pairs.
        gap_high: the high end.
        stopped: how many of its runs were stopped early.
        missing: how many seeds that others of as many steps have it lacks.
        total_steps: steps of its runs, 0 if it has none.
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


class Flat(NamedTuple):
    """The lrs around a schedule's best one that cannot be told from it.

    Attributes:
        best: the lr with the lowest mean validation loss.
        low: the lowest lr next to it whose loss 95 % confidence does not tell from the best.
        high: the highest.
        open_low: nothing lower was tried that is told to be worse.
        open_high: nothing higher.
    """

    best: float
    low: float
    high: float
    open_low: bool
    open_high: bool


class TimeToTarget(NamedTuple):
    """What it took to come down to a loss.

    Attributes:
        seeds: how many runs came there.
        steps: mean steps until the first evaluation there; NaN unless all runs came there.
        seconds: mean wall time until then, taking all steps of a run for equally long.
    """

    seeds: int
    steps: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates trained side by side, each with the same seeds.

    Attributes:
        task: what was trained, in words.
        schedules: the text of each candidate's schedule, by the candidate's name, in order.
        runs: every run, by candidate and then by seed.
        environment: versions and the machine.
        settings: by name, what tells a candidate from others of its schedule, where something
            does.
        failed: by name and seed as text, why a run ended with an error.
    """

    task: str
    schedules: Mapping[str, str]
    runs: tuple[Run, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Run, ...]:
        """Return the runs of one candidate.

        Args:
            name: the candidate's name, one of ``schedules``.
        """
        text, setting = self.schedules[name], self.settings.get(name)
        return tuple(
            run
            for run in self.runs
            if run.schedule == text
            and setting in (None, Setting(run.lr, run.optimizer, run.total_steps))
        )

    def families(self) -> dict[str, tuple[str, ...]]:
        """Return the candidates that differ in nothing but the lr, by what they share."""
        alike: dict[object, list[str]] = {}
        for name, text in self.schedules.items():
            setting = self.settings.get(name)
            alike.setdefault((text, *setting[1:]) if setting else name, []).append(name)
        # Names are built by `ratecraft.experiments`: where there are several lrs they come last.
        return {
            names[0].removesuffix(f", lr {self.settings[names[0]].lr:g}")
            if len(names) > 1
            else names[0]: tuple(names)
            for names in alike.values()
        }

    def best_per_schedule(self) -> Comparison:
        """Return the same with the best lr of each schedule, optimizer and length alone."""
        places = {row.name: place for place, row in enumerate(self.summaries())}
        kept = {min(names, key=places.__getitem__) for names in self.families().values()}
        return self.select([name for name in self.schedules if name in kept])

    def select(self, names: Sequence[str]) -> Comparison:
        """Return the same with some of the candidates alone.

        Args:
            names: the candidates' names, of ``schedules``, in the order that is wanted.
        """
        return dataclasses.replace(
            self,
            schedules={name: self.schedules[name] for name in names},
            settings={name: self.settings[name] for name in names if name in self.settings},
            runs=tuple(run for name in names for run in self.runs_for(name)),
        )

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, ``loss`` first."""
        names = {name: None for run in self.runs for e in run.evaluations for name in e.metrics}
        return ("loss", *(name for name in names if name != "loss"))

    def summaries(self) -> tuple[Summary, ...]:
        """Return one row a candidate: longest runs first, best mean validation loss first.

        One with a seed that diverged, was stopped early or is missing has no mean, since leaving
        that seed out would flatter it, and comes after the others.
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
            told = bool(runs) and not diverged and not stopped and not missing
            mean = {m: statistics.fmean(v) if told else math.nan for m, v in values.items()}
            spread = {m: _spread(v) if told else math.nan for m, v in values.items()}
            counts = {"stopped": stopped, "missing": missing, "total": total_steps}
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
        """Return how far one is above another, by pairs of one seed, with its 95 % interval."""
        firsts = {run.seed: run.final() for run in self.runs_for(best)}
        pairs = [
            run.final() - firsts[run.seed] for run in self.runs_for(other) if run.seed in firsts
        ]
        if not pairs or not all(map(math.isfinite, pairs)):
            return math.nan, math.nan, math.nan
        gap = statistics.fmean(pairs)
        if len(pairs) < 2 or best == other:
            return gap, math.nan, math.nan
        from scipy.special import stdtrit

        half = statistics.stdev(pairs) / math.sqrt(len(pairs))
        half *= float(stdtrit(len(pairs) - 1, 0.975))
        return gap, gap - half, gap + half

    def flat(self) -> dict[str, Flat]:
        """Return the flat region of each schedule's lrs, where several finished.

        It reaches from the best lr as far as no lr between is told to be worse, by the 95 %
        confidence interval of the differences seed by seed. One seed tells nothing.
        """
        found = {}
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
            found[family] = Flat(best, low, high, open_low, open_high)
        return found

    def time_to_target(self, loss: float) -> dict[str, TimeToTarget]:
        """Return what each candidate needed to come down to a validation loss, at evaluations.

        Args:
            loss: the validation loss; `target` has one.
        """
        found = {}
        for name in self.schedules:
            runs = self.runs_for(name)
            places = [
                next((e.step for e in run.evaluations if e.metrics["loss"] <= loss), None)
                for run in runs
            ]
            there = [
                (place, run.seconds * place / max(len(run.losses), 1))
                for place, run in zip(places, runs, strict=True)
                if place is not None
            ]
            every = bool(runs) and len(there) == len(runs)
            found[name] = TimeToTarget(
                len(there),
                statistics.fmean(place for place, _ in there) if every else math.nan,
                statistics.fmean(seconds for _, seconds in there) if every else math.nan,
            )
        return found

    def target(self) -> float | None:
        """Return the lowest loss that every finished schedule reached at its best lr.

        ``None`` if fewer than two finished.
        """
        best = self.best_per_schedule()
        lowest = [
            max(_lowest(run) for run in best.runs_for(row.name))
            for row in best.summaries()
            if not math.isnan(row.mean["loss"])
        ]
        return max(lowest) if len(lowest) > 1 else None

    def verdict(self) -> str:
        """Return in one sentence which candidate was better and by how much.

        The others are compared with the best seed by seed, since runs of one seed share their
        initial weights and data order. What 95 % confidence (Student's t) does not tell from the
        best is named. Runs of different lengths are judged apart.
        """
        totals = list(dict.fromkeys(row.total_steps for row in self.summaries() if row.total_steps))
        if len(totals) > 1:
            names = {
                total_steps: [
                    row.name for row in self.summaries() if row.total_steps == total_steps
                ]
                for total_steps in totals
            }
            told = (
                f"{total_steps:,} steps: {self.select(names[total_steps]).verdict()}"
                for total_steps in totals
            )
            return " ".join(told)
        rows = [row for row in self.summaries() if row.seeds and not math.isnan(row.mean["loss"])]
        stopped = sum(row.stopped > 0 for row in self.summaries())
        missing = [row.name for row in self.summaries() if row.missing or not row.seeds]
        if not rows and missing:
            return "No schedule has a run that finished for every seed."
        if not rows:
            return "Every schedule diverged, on one seed at least: train at a lower lr."
        best = rows[0]
        late = (
            f" Early stopping ended {stopped} of {len(self.schedules)} candidates, so their final "
            "losses are not known."
            if stopped
            else ""
        )
        if missing:
            late += f" Left out, since runs are missing: {_and(_some(missing))}."
        if len(rows) == 1:
            others = len(self.schedules) > 1
            fate = "that finished" if others else "here"
            return f"{best.name} is the only schedule {fate}.{late}"
        second = rows[1]
        lead = f"{best.name} has the lowest validation loss, {second.gap:.4g} below {second.name}"
        if math.isnan(second.gap_low):
            return f"{lead} (one seed: that may be luck).{late}"
        lead += f" (95 % confidence: {second.gap_low:.2g} to {second.gap_high:.2g})"
        near = [row.name for row in rows[1:] if not row.gap_low > 0]
        if not near:
            return f"{lead}.{late}"
        return f"{lead}; {best.seeds} seeds cannot tell {_and(_some(near))} from it.{late}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON and return its path.

        Args:
            path: the file; folders that are missing are made. `ratecraft.results.load` reads it.
        """
        return save(self, path)


def _reach(best: float, outward: Sequence[float], equal: set[float]) -> tuple[float, bool]:
    """Return how far the lrs that are equal to the best one go, and whether that is open."""
    end = best
    for lr in outward:
        if lr not in equal:
            return end, False
        end = lr
    return end, True


def _lowest(run: Run) -> float:
    """Return the lowest validation loss of a run."""
    losses = [one.metrics["loss"] for one in run.evaluations]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def _some(names: Sequence[str]) -> list[str]:
    """Return names for a sentence, the first of them if there are many."""
    return [*names[:SHOWN], *([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else [])]


def _and(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan

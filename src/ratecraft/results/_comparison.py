"""Comparisons of training runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratecraft._render._axis import number
from ratecraft._render._chart import Chart

from . import _statistics
from ._base import SavedResult, pluralize, short_repr
from ._charts import MAX_CHART_LINES, metric_chart
from ._run import Run
from ._statistics import OptimalLRRange, Summary, TimeToTarget
from ._verdict import gap_texts, mean_texts, verdict


class RunConfig(NamedTuple):
    """Configuration that distinguishes candidates with the same schedule.

    Attributes:
        lr: learning rate that the schedule multiplies.
        optimizer: optimizer that replaces the task's own; empty if none does.
        total_steps: number of steps of the run.
    """

    lr: float
    optimizer: str
    total_steps: int


@dataclass(frozen=True, slots=True)
class Comparison(SavedResult):
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

    def __repr__(self) -> str:
        counts = pluralize(len(self.schedules), "schedule"), pluralize(len(self.runs), "run")
        best = next(filter(_statistics.finished, self.summaries()), None)
        if best is None:
            return short_repr(self, *counts, "none finished")
        return short_repr(self, *counts, f"best {best.name}", f"loss {number(best.mean['loss'])}")

    def runs_for(self, name: str) -> tuple[Run, ...]:
        """Return the runs of one candidate, given its name in ``schedules``."""
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
        families = {}
        for first, *others in groups.values():
            name = first.removesuffix(f", lr {self.configs[first].lr:g}") if others else first
            families[name] = (first, *others)
        return families

    def best_per_schedule(self) -> Comparison:
        """Return the candidate with the best lr for each schedule, optimizer and total_steps."""
        ranks = {row.name: rank for rank, row in enumerate(self.summaries())}
        best = {min(names, key=ranks.__getitem__) for names in self.families().values()}
        return self.select([name for name in self.schedules if name in best])

    def best_runs(self, limit: int) -> dict[str, tuple[Run, ...]]:
        """Return the runs of each schedule at its best lr, for the ``limit`` best schedules."""
        best = self.best_per_schedule()
        names = {row.name for row in best.summaries()[:limit]}
        return {name: best.runs_for(name) for name in best.schedules if name in names}

    def select(self, names: Sequence[str]) -> Comparison:
        """Return a comparison of the candidates with these names, in this order."""
        return dataclasses.replace(
            self,
            schedules={name: self.schedules[name] for name in names},
            configs={name: self.configs[name] for name in names if name in self.configs},
            runs=tuple(run for name in names for run in self.runs_for(name)),
        )

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, ``loss`` first."""
        names = (name for run in self.runs for e in run.evaluations for name in e.metrics)
        return tuple(dict.fromkeys(["loss", *names]))

    def summaries(self) -> tuple[Summary, ...]:
        """Return one row per candidate, by total_steps (longest first) and mean validation loss.

        The mean is the geometric one if all losses are positive. A candidate has no mean, and comes
        last, if a seed diverged, was stopped early or is missing: the remaining seeds would favor
        it.
        """
        runs = {name: self.runs_for(name) for name in self.schedules}
        return _statistics.summarize(self.schedules, runs, self.metrics())

    def optimal_lr_ranges(self) -> dict[str, OptimalLRRange]:
        """Return the range of equally good lrs of each schedule with two or more that finished.

        The range extends from the best one to both sides, up to the first one that is
        significantly worse, as in `verdict` for the learning rates of one schedule.
        """
        ranges = {}
        for family, names in self.families().items():
            lrs = {name: runs[0].lr for name in names if (runs := self.runs_for(name))}
            lr_range = _statistics.optimal_lr_range(self.select(names).summaries(), lrs)
            if lr_range is not None:
                ranges[family] = lr_range
        return ranges

    def time_to_target(self, loss: float) -> dict[str, TimeToTarget]:
        """Return what each candidate needs to reach a validation loss, such as `target`."""
        return {
            name: _statistics.time_to_target(self.runs_for(name), loss) for name in self.schedules
        }

    def target(self) -> float | None:
        """Return the lowest loss that all finished schedules reached, if at least two did."""
        best = self.best_per_schedule()
        names = [row.name for row in best.summaries() if _statistics.finished(row)]
        lowest = [max(map(_statistics.lowest_loss, best.runs_for(name))) for name in names]
        return max(lowest) if len(lowest) > 1 else None

    def chart(self) -> Chart:
        """Return the chart of the validation loss over steps, mean and range over the seeds.

        The 8 best schedules are drawn, each at its best learning rate.
        """
        return metric_chart(self.best_runs(MAX_CHART_LINES))

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = self.summaries()
        cells = zip(rows, mean_texts(rows), gap_texts(rows), strict=True)
        head = "schedule", "seeds", "validation loss", "relative to best"
        return head, [(row.name, str(row.seeds), *texts) for row, *texts in cells]

    def verdict(self) -> str:
        """Return a sentence that names the best candidate and its margin, for each total_steps.

        It also names the candidates that are not significantly worse. Losses are compared as
        ratios if all are positive, else as differences, paired by seed. The 95 % intervals are
        corrected for the number of candidates with Tukey's range test, in which each candidate has
        its own variance, but at least the mean one. Other metrics are not judged.
        """
        return verdict(self.summaries())

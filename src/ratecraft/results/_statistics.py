"""Statistics of the runs of a comparison: means, gaps to the best candidate, equally good lrs."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from ratecraft._render._axis import number

from ._base import pluralize, short_repr
from ._run import Run
from ._significance import differences_from_first

MAX_LOG_RATIO: Final = 700.0  # a larger ratio of two losses is infinite


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of one candidate over its seeds.

    Attributes:
        name: name of the candidate.
        schedule: text of its schedule.
        seeds: number of runs.
        diverged: number of runs that diverged.
        mean: mean of each metric over seeds; NaN if a seed diverged, was stopped or is missing, or
            lacks the metric.
        spread: sample standard deviation of each metric over seeds.
        gap: the loss relative to the best candidate with the same total_steps, paired by seed: its
            ratio, averaged as logarithms, if ``is_ratio``, else its mean difference. NaN if the
            candidate has no mean.
        gap_low: lower end of the 95 % confidence interval of ``gap``, corrected for the number of
            candidates; NaN for the best candidate and with one seed.
        gap_high: upper end of that interval.
        is_ratio: whether all losses are positive, so that gaps are ratios.
        seeds_worse: number of seeds with a higher loss than the best candidate.
        stopped: number of runs that were stopped early.
        missing: number of seeds that only other candidates with the same total_steps have.
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
    is_ratio: bool = False
    seeds_worse: int = 0
    stopped: int = 0
    missing: int = 0
    total_steps: int = 0

    @property
    def is_worse(self) -> bool:
        """Whether its loss is significantly higher than that of the best candidate."""
        return self.gap_low > (1 if self.is_ratio else 0)

    def __repr__(self) -> str:
        spread = f" ± {number(self.spread['loss'])}" if self.seeds > 1 else ""
        loss = f"loss {number(self.mean['loss'])}{spread}"
        seeds, unit = pluralize(self.seeds, "seed"), "x" if self.is_ratio else ""
        gap = f"gap {number(self.gap)}{unit}"
        return short_repr(self, self.name, seeds, loss, gap)


class OptimalLRRange(NamedTuple):
    """Learning rates that are not significantly worse than the best one.

    Attributes:
        best: learning rate with the lowest mean validation loss.
        low: lowest learning rate of the range.
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
    """Steps and wall time that a candidate needs to reach a loss; NaN unless every run did.

    Attributes:
        seeds: number of runs that reached the loss.
        steps: mean number of steps before the first evaluation at or below the loss.
        seconds: mean wall time of these steps, if all steps of a run take equally long.
    """

    seeds: int
    steps: float
    seconds: float


def finished(row: Summary) -> bool:
    """Return whether no seed is missing, diverged or was stopped early, so that it has a mean."""
    return math.isfinite(row.mean["loss"])


def summarize(
    schedules: Mapping[str, str], runs: Mapping[str, Sequence[Run]], metrics: Sequence[str]
) -> tuple[Summary, ...]:
    seeds: dict[int, set[int]] = {}
    for run in chain.from_iterable(runs.values()):
        seeds.setdefault(run.total_steps, set()).add(run.seed)
    rows = []
    for name, schedule in schedules.items():
        tried = runs[name]
        total_steps = tried[0].total_steps if tried else 0
        diverged = sum(run.diverged is not None for run in tried)
        stopped = sum(run.stopped is not None for run in tried)
        missing = len(seeds.get(total_steps, ())) - len({run.seed for run in tried})
        complete = () if diverged or stopped or missing else tried
        finals = {metric: [run.final(metric) for run in complete] for metric in metrics}
        mean = {m: statistics.fmean(v) if v else math.nan for m, v in finals.items()}
        spread = {m: _deviation(v) for m, v in finals.items()}
        row = Summary(
            name, schedule, len(tried), diverged, mean, spread,
            stopped=stopped, missing=missing, total_steps=total_steps,
        )  # fmt: skip
        rows.append(row)
    lengths = sorted({row.total_steps for row in rows}, reverse=True)
    groups = [[row for row in rows if row.total_steps == length] for length in lengths]
    return tuple(chain.from_iterable(_ranked(group, runs) for group in groups))


def _deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN if a value is missing or not finite."""
    is_defined = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if is_defined else math.nan


def _ranked(rows: Sequence[Summary], runs: Mapping[str, Sequence[Run]]) -> list[Summary]:
    """Return candidates with the same total_steps by loss, with their gaps to the best one."""
    losses = {
        row.name: [run.final() for run in sorted(runs[row.name], key=lambda run: run.seed)]
        for row in rows
        if finished(row)
    }
    is_ratio = min(chain.from_iterable(losses.values()), default=0.0) > 0
    if is_ratio:
        losses = {name: list(map(math.log, values)) for name, values in losses.items()}
    complete = sorted(filter(finished, rows), key=lambda row: statistics.fmean(losses[row.name]))
    table = [losses[row.name] for row in complete]
    gaps = differences_from_first(table) if table else []
    ranked = [
        dataclasses.replace(
            row,
            gap=_exp(gap) if is_ratio else gap,
            gap_low=_exp(low) if is_ratio else low,
            gap_high=_exp(high) if is_ratio else high,
            is_ratio=is_ratio,
            seeds_worse=sum(a > b for a, b in zip(losses[row.name], table[0], strict=True)),
        )
        for row, (gap, low, high) in zip(complete, gaps, strict=True)
    ]
    return [*ranked, *(row for row in rows if not finished(row))]


def _exp(value: float) -> float:
    if math.isnan(value):
        return math.nan  # this very object, so that equal summaries compare as equal
    return math.inf if value > MAX_LOG_RATIO else math.exp(value)


def optimal_lr_range(rows: Sequence[Summary], lrs: Mapping[str, float]) -> OptimalLRRange | None:
    rows = [row for row in rows if row.seeds]
    if len(rows) < 2 or not finished(rows[0]):
        return None
    best = lrs[rows[0].name]
    worse = [lrs[row.name] for row in rows if math.isnan(row.gap) or row.is_worse]
    below = max((lr for lr in worse if lr < best), default=-math.inf)
    above = min((lr for lr in worse if lr > best), default=math.inf)
    equal = [lr for row in rows if below < (lr := lrs[row.name]) < above]
    return OptimalLRRange(best, min(equal), max(equal), math.isinf(below), math.isinf(above))


def time_to_target(runs: Sequence[Run], loss: float) -> TimeToTarget:
    steps, seconds = [], []
    for run in runs:
        reached = [e.step for e in run.evaluations if e.metrics["loss"] <= loss]
        if reached:
            steps.append(reached[0])
            seconds.append(run.seconds * reached[0] / max(run.trained_steps, 1))
    if not runs or len(steps) < len(runs):
        return TimeToTarget(len(steps), math.nan, math.nan)
    return TimeToTarget(len(steps), statistics.fmean(steps), statistics.fmean(seconds))


def lowest_loss(run: Run) -> float:
    losses = [evaluation.metrics["loss"] for evaluation in run.evaluations]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)

"""Statistics of the runs of a comparison: means, gaps paired by seed, equally good lrs."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from ratecraft._render._axis import number

from ._base import pluralize, short_repr
from ._run import Run


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of one candidate over its seeds.

    Attributes:
        name: name of the candidate.
        schedule: text of its schedule.
        seeds: number of runs.
        diverged: number of runs that diverged.
        mean: mean of each metric over seeds; NaN if a seed diverged, was stopped or is missing.
        spread: sample standard deviation of each metric over seeds.
        gap: mean loss difference, paired by seed, to the best candidate with the same
            total_steps; NaN if no seed is shared.
        gap_low: lower end of the 95 % confidence interval of ``gap``; NaN below 2 pairs.
        gap_high: upper end of that interval.
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
    stopped: int = 0
    missing: int = 0
    total_steps: int = 0

    def __repr__(self) -> str:
        spread = f" ± {number(self.spread['loss'])}" if self.seeds > 1 else ""
        loss = f"loss {number(self.mean['loss'])}{spread}"
        seeds, gap = pluralize(self.seeds, "seed"), f"gap {number(self.gap)}"
        return short_repr(self, self.name, seeds, loss, gap)


class OptimalLRRange(NamedTuple):
    """Learning rates that are not significantly worse than the best, at 95 % confidence.

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
    return not math.isnan(row.mean["loss"])


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
        spread = {m: statistics.stdev(v) if len(v) > 1 else math.nan for m, v in finals.items()}
        counts = {"stopped": stopped, "missing": missing, "total_steps": total_steps}
        rows.append(Summary(name, schedule, len(tried), diverged, mean, spread, **counts))
    rows.sort(key=lambda row: (-row.total_steps, not finished(row), row.mean["loss"]))
    best: dict[int, str] = {}
    for row in rows:
        best.setdefault(row.total_steps, row.name)
    return tuple(
        dataclasses.replace(row, gap=gap, gap_low=low, gap_high=high)
        for row in rows
        for gap, low, high in [_gap(runs[best[row.total_steps]], runs[row.name])]
    )


def _gap(best: Sequence[Run], other: Sequence[Run]) -> tuple[float, float, float]:
    """Return the mean loss difference paired by seed, and its 95 % confidence interval."""
    best_losses = {run.seed: run.final() for run in best}
    differences = [run.final() - best_losses[run.seed] for run in other if run.seed in best_losses]
    if not differences or not all(map(math.isfinite, differences)):
        return math.nan, math.nan, math.nan
    gap = statistics.fmean(differences)
    if len(differences) < 2 or other is best:
        return gap, math.nan, math.nan
    from scipy.special import stdtrit

    half = statistics.stdev(differences) / math.sqrt(len(differences))
    half *= float(stdtrit(len(differences) - 1, 0.975))
    return gap, gap - half, gap + half


def optimal_lr_range(rows: Sequence[Summary], lrs: Mapping[str, float]) -> OptimalLRRange | None:
    rows = [row for row in rows if row.seeds]
    if len(rows) < 2 or not finished(rows[0]):
        return None
    best = lrs[rows[0].name]
    worse = [lrs[row.name] for row in rows if math.isnan(row.gap) or row.gap_low > 0]
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
            seconds.append(run.seconds * reached[0] / max(len(run.losses), 1))
    if not runs or len(steps) < len(runs):
        return TimeToTarget(len(steps), math.nan, math.nan)
    return TimeToTarget(len(steps), statistics.fmean(steps), statistics.fmean(seconds))


def lowest_loss(run: Run) -> float:
    losses = [evaluation.metrics["loss"] for evaluation in run.evaluations]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)

"""Frozen results and their files: what the wings hand to each other.

A record is plain data, saved as one JSON file that says what it is; pictures are drawn from
records alone, without torch and without running anything again.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ratecraft.errors import RecordError
from ratecraft.rules import CONTROLLED, RULES, Suggestion, suggest
from ratecraft.schedule import Curve, parse

__all__ = [
    "Breakdown",
    "Comparison",
    "Evaluation",
    "Forecast",
    "Foreseen",
    "FoundRate",
    "Measured",
    "RangeTest",
    "Run",
    "ShortRun",
    "Summary",
    "layer_names",
    "load",
    "load_measured",
]

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a learning-rate range test saw.

    Attributes:
        rates: the rate of each update, ascending.
        losses: the training loss before each update.
        smoothed: the same, as an exponential moving average with bias correction.
        stopped: why the test ended, in words.
        suggestion: the rate to train with; ``None`` if the curve shows none.
        reason: how the suggestion was chosen, or why there is none.
        task: what was tested, in words.
        optimizer: the class of the optimizer.
        seconds: wall time of the test.
        low: the rate that the test was to begin with.
        high: the rate that it was to end with.
        planned: updates that were to be made.
        spacing: "geometric" or "linear" rates.
        batches: batches that were used up.
        control: how many batches were used again and again as control variates; 0 if none.
        seed: the seed of initial weights and data order, where one was set.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    stopped: str
    suggestion: float | None
    reason: str
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    planned: int = 0
    spacing: str = "geometric"
    batches: int = 0
    control: int = 0
    seed: int | None = None

    @classmethod
    def from_curve(
        cls,
        rates: Sequence[float],
        losses: Sequence[float],
        smoothed: Sequence[float],
        stopped: str,
        **settings: Any,
    ) -> RangeTest:
        """Return the record of a curve, with what the rule for its kind makes of it."""
        rule = CONTROLLED if settings.get("control") else next(iter(RULES))
        rate, reason = suggest(rule, rates, losses, smoothed)
        curve = tuple(rates), tuple(losses), tuple(smoothed)
        return cls(*curve, stopped, rate, reason, **settings)

    def suggest(self, rule: str = "minimum/10") -> Suggestion:
        """Return the rate that a known rule reads off this curve, and how; or why it reads none.

        Args:
            rule: "minimum/10", "minimum/4", "steepest", "valley" or "slide"; see `ratecraft.rules`.

        Raises:
            SettingError: there is no such rule.
        """
        return suggest(rule, self.rates, self.losses, self.smoothed)

    @property
    def cost(self) -> str:
        """What the test cost, in words."""
        made = f"{len(self.rates)} updates"
        return f"{made}, {self.batches or len(self.rates)} batches, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path."""
        return _save(self, path)


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A run in miniature, by which a rate was tried.

    Attributes:
        rate: its rate, before it cooled down.
        losses: the training loss before each update.
        gain: the loss of the batches that were kept, before less after; -inf if it diverged.
        noise: the standard error of the gain over those batches.
        lot: which batches it was given: 0 the first ones, 1 those after them.
    """

    rate: float
    losses: tuple[float, ...]
    gain: float
    noise: float
    lot: int = 0


@dataclass(frozen=True, slots=True)
class FoundRate:
    """The rate to train with, and how it was found; or why there is none.

    Attributes:
        rate: the rate to train with, the peak of a schedule; ``None`` if there is no answer.
        low: the lowest rate that promises nearly as much.
        high: the highest.
        reason: how they were found, or why not and what to try.
        before: the loss before any training.
        runs: the short runs, by rate.
        length: updates in each of them.
        total: length of the run to come that was reckoned with, in updates.
        allowed: the updates that the search was allowed.
        updates: the updates that it made.
        looks: batches whose loss was computed without an update.
        batches: batches that were read.
        task: what is trained, in words.
        optimizer: the class of the optimizer.
        seconds: wall time.
        seed: the seed of initial weights and data order, where one was set.
    """

    rate: float | None
    low: float | None
    high: float | None
    reason: str
    before: float
    runs: tuple[ShortRun, ...]
    length: int
    total: int | None = None
    allowed: int = 0
    updates: int = 0
    looks: int = 0
    batches: int = 0
    task: str = ""
    optimizer: str = ""
    seconds: float = 0.0
    seed: int | None = None

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The rates, ascending, that did not diverge, and the mean loss after their short runs."""
        gains: dict[float, list[float]] = {}
        for run in self.runs:
            gains.setdefault(run.rate, []).append(run.gain)
        means = {rate: statistics.fmean(some) for rate, some in gains.items()}
        kept = {rate: gain for rate, gain in sorted(means.items()) if math.isfinite(gain)}
        return tuple(kept), tuple(self.before - gain for gain in kept.values())

    @property
    def cost(self) -> str:
        """What the search cost, in words."""
        made = f"{self.updates} of {self.allowed} updates in {len(self.runs)} short runs"
        return f"{made}, {self.looks} losses without gradients, {self.seconds:.3g} s"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path."""
        return _save(self, path)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What several schedulers make of a rate together: base x the product of their factors.

    Attributes:
        group: the param group's name or number.
        base: its own rate.
        factors: each scheduler's own factor at each update, by the scheduler's name.
        rates: their product with the base.
    """

    group: str
    base: float
    factors: Mapping[str, tuple[float, ...]]
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a law says of one schedule that was not run.

    Attributes:
        name: what the schedule is called.
        schedule: its text, as the rate itself.
        loss: the loss at the end of the run.
        low: the low end of the band that it lies in, four times of five or more.
        high: the high end.
        updates: some updates on the way, and
        losses: the losses after these.
        notes: what makes this one uncertain, in words.
    """

    name: str
    schedule: str
    loss: float
    low: float
    high: float
    updates: tuple[int, ...]
    losses: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def curve(self, total: int, epoch: float | None = None) -> Curve:
        """Return the rates of this schedule."""
        return parse(self.schedule).resolve(total, epoch=epoch)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a law that was fitted to logs says of schedules that were not run, best first.

    Attributes:
        candidates: the schedules, by predicted loss.
        tied: pairs of names of which the law cannot say which is better.
        total: length of the runs, in updates.
        epoch: updates per epoch, if there is such.
        peak: the highest rate of the logged runs.
        logs: by name, after how many updates each loss was logged, and the losses.
        law: the parameters of the law.
        error: root mean square of what the law leaves of the logarithms of the logged losses.
        notes: what weakens all of it, in words.
    """

    candidates: tuple[Foreseen, ...]
    tied: tuple[tuple[str, str], ...]
    total: int
    epoch: float | None
    peak: float
    logs: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]]
    law: Mapping[str, float]
    error: float
    notes: tuple[str, ...] = ()

    def verdict(self) -> str:
        """Return the answer in one sentence."""
        best = self.candidates[0]
        equal = [other for pair in self.tied if best.name in pair for other in pair]
        equal = [one.name for one in self.candidates[1:] if one.name in equal]
        told = f"{best.name} would end at {best.loss:.4g} ({best.low:.4g} to {best.high:.4g})"
        if len(self.candidates) == 1:
            return told
        if len(equal) == len(self.candidates) - 1:
            return f"{told}; the law cannot tell any of the others from it"
        if equal:
            return f"{told}; the law cannot tell {' or '.join(equal)} from it"
        second = self.candidates[1]
        return f"{told}, {second.loss - best.loss:.2g} below {second.name}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path."""
        return _save(self, path)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one update did to one layer, as `ratecraft.torch.Probe` saw it.

    Attributes:
        update: which update, from 0 on.
        group: the param group's name or number.
        layer: the path of the module whose parameters these are.
        rate: the group's rate in this update.
        weight: L2 norm of the layer's weights before the update.
        step: L2 norm of what the update added, without decoupled weight decay.
        gradient: L2 norm of the gradient that the update used.
        gradient_l1: its L1 norm.
        unclipped: L2 norm of the gradient as backward left it, before clipping; 0 where it was
            not seen.
        effective: step / gradient: the rate that plain gradient descent would have needed.
        relative: step / weight: by what share of themselves the weights moved.
        decay: the share by which decoupled weight decay shrank them, rate x weight decay.
        low: 5 % of the layer's coordinates had a lower rate, by the method's own formula.
        median: half of them had.
        high: 95 % of them had.
    """

    update: int
    group: str
    layer: str
    rate: float
    weight: float
    step: float
    gradient: float
    gradient_l1: float
    unclipped: float
    effective: float
    relative: float
    decay: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics on the validation data after a number of updates; ``loss`` is always there."""

    update: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        schedule: the schedule's text, as a factor of ``rate``.
        rate: what the schedule multiplies.
        seed: the seed of initial weights and data order.
        total: updates planned; ``epoch`` of them make an epoch.
        losses: the training loss of each update that was made.
        evaluations: validation metrics, in time order; the last is the result.
        diverged: the update at which the loss stopped being finite, or ``None``.
        seconds: wall time of the run.
        optimizer: the optimizer in place of the task's own; empty for that one.
    """

    schedule: str
    rate: float
    seed: int
    total: int
    epoch: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    diverged: int | None = None
    seconds: float = 0.0
    optimizer: str = ""

    def curve(self) -> Curve:
        """Return the rates that this run was trained with."""
        return (self.rate * parse(self.schedule)).resolve(self.total, epoch=self.epoch)

    def final(self, metric: str = "loss") -> float:
        """Return a metric's last value; NaN if the run diverged."""
        if self.diverged is not None or not self.evaluations:
            return math.nan
        return self.evaluations[-1].metrics[metric]


@dataclass(frozen=True, slots=True)
class Summary:
    """One candidate's results over seeds: mean and sample standard deviation of each metric.

    Attributes:
        name: what it is called.
        schedule: the schedule's text.
        seeds: how many runs there are.
        diverged: how many of them diverged.
        mean: of each metric; NaN if a run diverged.
        spread: sample standard deviation over seeds.
        gap: how far its validation loss is above the best one's, by pairs of one seed; NaN where
            there are no pairs.
        gap_low: the low end of the 95 % confidence interval of that; NaN with fewer than 2 pairs.
        gap_high: the high end.
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates trained side by side, each with the same seeds.

    Attributes:
        task: what was trained, in words.
        schedules: the text of each candidate's schedule, by the candidate's name, in order.
        runs: every run, by candidate and then by seed.
        environment: versions and the machine.
        settings: by name, what a candidate's rate and optimizer are, where there are several;
            an empty optimizer is the task's own.
        failed: by name and seed as text, why a run ended with an error.
    """

    task: str
    schedules: Mapping[str, str]
    runs: tuple[Run, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Run, ...]:
        """Return the runs of one candidate."""
        text, setting = self.schedules[name], self.settings.get(name)
        return tuple(
            run
            for run in self.runs
            if run.schedule == text and setting in (None, (run.rate, run.optimizer))
        )

    def at_best_rates(self) -> Comparison:
        """Return the same with the best rate of each schedule and optimizer alone."""
        if not self.settings:
            return self
        best: dict[tuple[str, str], str] = {}
        for row in self.summaries():
            best.setdefault((row.schedule, self.settings[row.name][1]), row.name)
        kept = [name for name in self.schedules if name in best.values()]
        return dataclasses.replace(
            self,
            schedules={name: self.schedules[name] for name in kept},
            settings={name: self.settings[name] for name in kept},
            runs=tuple(run for name in kept for run in self.of(name)),
        )

    def metrics(self) -> tuple[str, ...]:
        """Return the names of all metrics, ``loss`` first."""
        names = {name: None for run in self.runs for e in run.evaluations for name in e.metrics}
        return ("loss", *(name for name in names if name != "loss"))

    def summaries(self) -> tuple[Summary, ...]:
        """Return one row a candidate, best mean validation loss first, diverged ones last.

        One with a diverged seed has no mean: leaving that seed out would flatter it.
        """
        rows = []
        for name, text in self.schedules.items():
            runs = self.of(name)
            diverged = sum(run.diverged is not None for run in runs)
            values = {m: [run.final(m) for run in runs] for m in self.metrics()}
            told = bool(runs) and not diverged
            mean = {m: statistics.fmean(v) if told else math.nan for m, v in values.items()}
            spread = {m: _spread(v) if told else math.nan for m, v in values.items()}
            rows.append(Summary(name, text, len(runs), diverged, mean, spread))
        rows.sort(key=lambda r: (math.isnan(r.mean["loss"]), r.mean["loss"]))
        return tuple(
            dataclasses.replace(row, gap=gap, gap_low=low, gap_high=high)
            for row in rows
            for gap, low, high in [self._gap(rows[0].name, row.name)]
        )

    def _gap(self, best: str, other: str) -> tuple[float, float, float]:
        """Return how far one is above another, by pairs of one seed, with its 95 % interval."""
        firsts = {run.seed: run.final() for run in self.of(best)}
        pairs = [run.final() - firsts[run.seed] for run in self.of(other) if run.seed in firsts]
        if not pairs or not all(map(math.isfinite, pairs)):
            return math.nan, math.nan, math.nan
        gap = statistics.fmean(pairs)
        if len(pairs) < 2 or best == other:
            return gap, math.nan, math.nan
        from scipy.special import stdtrit

        half = statistics.stdev(pairs) / math.sqrt(len(pairs))
        half *= float(stdtrit(len(pairs) - 1, 0.975))
        return gap, gap - half, gap + half

    def verdict(self) -> str:
        """Return in one sentence which candidate was better and by how much.

        The others are compared with the best seed by seed, since runs of one seed share their
        initial weights and data order. What 95 % confidence (Student's t) does not tell from the
        best is named.
        """
        rows = [row for row in self.summaries() if row.seeds and not row.diverged]
        if not rows:
            return "Every schedule diverged, on one seed at least: train at a lower rate."
        best = rows[0]
        if len(rows) == 1:
            others = len(self.schedules) > 1
            return f"{best.name} is the only schedule {'that finished' if others else 'here'}."
        second = rows[1]
        lead = f"{best.name} has the lowest validation loss, {second.gap:.4g} below {second.name}"
        if math.isnan(second.gap_low):
            return f"{lead} (one seed: that may be luck)."
        lead += f" (95 % confidence: {second.gap_low:.2g} to {second.gap_high:.2g})"
        near = [row.name for row in rows[1:] if not row.gap_low > 0]
        if not near:
            return f"{lead}."
        if len(near) > SHOWN:
            near = [*near[:SHOWN], f"{len(near) - SHOWN} more"]
        return f"{lead}; {best.seeds} seeds cannot tell {_and(near)} from it."

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this record as JSON and return its path."""
        return _save(self, path)


Record = RangeTest | FoundRate | Comparison | Forecast


SHOWN: Final = 4  # names in a sentence


def _and(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _save(record: Record, path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    head = {"ratecraft": type(record).__name__, "format": FORMAT}
    text = json.dumps(head | _plain(record), allow_nan=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A file is there whole or not at all.
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(target)
    return target


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON knows no nan and no inf
    return value


def load(path: str | os.PathLike[str]) -> Record:
    """Return the record in a file that ``save`` wrote.

    Raises:
        RecordError: the file is missing, or holds no record of this version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise RecordError(f"{path} is not a record: {error}") from None
    if not isinstance(data, dict) or "ratecraft" not in data:
        raise RecordError(f"{path} is not a record: it does not say what it is")
    kind, version = data.pop("ratecraft"), data.pop("format", None)
    if version != FORMAT:
        raise RecordError(f"{path} has format {version}, and this version reads {FORMAT}")
    try:
        match kind:
            case "RangeTest":
                return _range_test(data)
            case "FoundRate":
                return _found_rate(data)
            case "Comparison":
                return _comparison(data)
            case "Forecast":
                return _forecast(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} is a damaged {kind}: {error}") from None
    raise RecordError(f"{path} holds a {kind}, which this version does not know")


def layer_names(rows: Sequence[Measured]) -> dict[tuple[str, str], str]:
    """Return what to call each layer of each group: with the group where it is in several."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        known = groups.setdefault(row.layer, [])
        if row.group not in known:
            known.append(row.group)
    return {
        (group, layer): f"{layer} ({group})" if len(some) > 1 else layer
        for layer, some in groups.items()
        for group in some
    }


def load_measured(path: str | os.PathLike[str]) -> list[Measured]:
    """Read the rows that ``Probe.save`` wrote, as CSV or as lines of JSON.

    Raises:
        RecordError: no such file, or a row that is none.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8", newline="") as file:
            lines = file if source.suffix == ".jsonl" else None
            found = [json.loads(line) for line in lines] if lines else list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise RecordError(f"{source}: {error}") from None
    kinds = {one.name: {"int": int, "str": str}.get(str(one.type), float) for one in _ROW}
    rows = []
    for number, row in enumerate(found, 1):
        try:
            rows.append(Measured(**{name: kind(row[name]) for name, kind in kinds.items()}))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{source}: row {number} is no row of a Probe ({error}); expected the columns "
                f"{', '.join(kinds)}"
            ) from None
    return rows


_ROW: Final = dataclasses.fields(Measured)


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _range_test(data: dict[str, Any]) -> RangeTest:
    for name in ("rates", "losses", "smoothed"):
        data[name] = _floats(data[name])
    return RangeTest(**data)


def _found_rate(data: dict[str, Any]) -> FoundRate:
    data["runs"] = tuple(
        ShortRun(
            float(run["rate"]),
            _floats(run["losses"]),
            float(run["gain"]),
            float(run["noise"]),
            run["lot"],
        )
        for run in data["runs"]
    )
    return FoundRate(**data)


def _forecast(data: dict[str, Any]) -> Forecast:
    data["candidates"] = tuple(
        Foreseen(**one | {name: tuple(one[name]) for name in ("updates", "losses", "notes")})
        for one in data["candidates"]
    )
    data["tied"] = tuple((first, second) for first, second in data["tied"])
    data["logs"] = {
        name: (tuple(updates), _floats(losses)) for name, (updates, losses) in data["logs"].items()
    }
    data["notes"] = tuple(data["notes"])
    return Forecast(**data)


def _comparison(data: dict[str, Any]) -> Comparison:
    runs = []
    for run in data["runs"]:
        evaluations = tuple(
            Evaluation(e["update"], {k: float(v) for k, v in e["metrics"].items()})
            for e in run.pop("evaluations")
        )
        runs.append(Run(**run | {"losses": _floats(run["losses"]), "evaluations": evaluations}))
    settings = {name: (float(rate), str(kind)) for name, (rate, kind) in data["settings"].items()}
    return Comparison(
        data["task"],
        data["schedules"],
        tuple(runs),
        data["environment"],
        settings,
        data["failed"],
    )

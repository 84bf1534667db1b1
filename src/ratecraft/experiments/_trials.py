"""The values that a comparison combines, its trials with stable keys, and their jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from operator import index
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.results import RunConfig
from ratecraft.schedule import Duration, Schedule, epochs
from ratecraft.schedule._nodes import schedules_by_name

from ._plateau import Candidate, Plateau, curve_of, parse_candidate
from ._task import Task


class Grid(NamedTuple):
    """Schedules x learning rates x optimizers x seeds x lengths."""

    schedules: Mapping[str, Candidate]  # by name
    lrs: Sequence[float]
    optimizers: Sequence[str | None]  # None: the one of the task
    seeds: Sequence[int]
    lengths: Mapping[str, int]  # numbers of steps by the text of the length

    @classmethod
    def create(
        cls, task: Task, schedules: Any, lrs: Any, optimizers: Any, seeds: Any, total_steps: Any
    ) -> Grid:
        """Return the grid of the arguments of `compare`, or raise an error of one of them."""
        if not isinstance(seeds, Iterable):
            seeds = range(_integer("seeds", seeds))
        candidates = _candidates_by_name(schedules)
        lrs = [_checked_lr(lr) for lr in _as_list(lrs)]
        optimizers = _as_list(optimizers)
        seeds = [_integer("seed", seed) for seed in seeds]
        lengths = [_checked_length(length) for length in _as_list(total_steps)]
        steps: dict[str, int] = {}
        for length, schedule, lr in product(lengths, candidates.values(), lrs):
            steps[str(length)] = len(curve_of(schedule, lr, length, task.steps_per_epoch))
        if not (steps and optimizers and seeds):
            raise ScheduleError("compare needs at least one schedule, one lr and one seed")
        if len(set(steps.values())) < len(lengths):
            raise SettingError(f"the same length is given twice: {', '.join(steps)}")
        for name, values in (("lr", lrs), ("optimizer", optimizers), ("seed", seeds)):
            if len(set(values)) < len(values):
                raise SettingError(f"the same {name} is given twice: {values}")
        return cls(candidates, lrs, optimizers, seeds, steps)


def _as_list(value: Any) -> list[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if several else [value]


def _integer(name: str, value: Any) -> int:
    """Return a whole number as an int, since a trial's key depends on the type."""
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise SettingError(f"{name} {value!r}: expected a whole number")
    return index(value)


def _checked_lr(value: Any) -> float:
    lr = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else -1
    if not lr >= 0:
        raise SettingError(f"lr {value!r}: expected numbers >= 0")
    return lr


def _checked_length(value: Any) -> int | Duration:
    if value is None:
        return epochs(10)
    if isinstance(value, str):
        raise SettingError(
            f"total_steps={value!r}: expected a number of steps or a length; "
            "ratecraft.parse_length reads a text"
        )
    return value if isinstance(value, Duration) else _integer("total_steps", value)


def _candidates_by_name(schedules: Any) -> dict[str, Candidate]:
    by_name = schedules_by_name(schedules, (Schedule, Plateau))
    for schedule in by_name.values():
        parse_candidate(repr(schedule))  # as a worker does; a custom schedule cannot be read
    if len(set(by_name.values())) < len(by_name):
        raise ScheduleError("the same schedule is given twice")
    return by_name


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run to be made."""

    task: str  # the name by which a worker loads it
    source_hash: str  # of the code of the task; a trial of changed code is another trial
    schedule: str  # its text
    lr: float
    optimizer: str | None  # None: the one of the task
    seed: int
    total_steps: str  # the length of the run as text
    halving_group: str = ""  # the lrs and seeds that compete in early stopping, as text

    @property
    def key(self) -> str:
        """A hash of everything that determines the result."""
        # A file can be named by several paths; only its own name and its code count.
        fields = asdict(self) | {"task": self.task.rpartition("/")[2]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


Job = tuple[Trial, ...]  # that one worker trains in one call


def candidate_names(candidates: Sequence[tuple[str, str | None, str, float]]) -> list[str]:
    """Return the names of (schedule, optimizer, length, lr) without the parts that all share."""
    _, optimizers, lengths, lrs = (set(values) for values in zip(*candidates, strict=True))
    lr_text: Callable[[float], str] = "{:g}".format
    if len(set(map(lr_text, lrs))) < len(lrs):  # some agree in the first 6 digits
        lr_text = repr
    names = []
    for schedule, optimizer, length, lr in candidates:
        parts = [schedule]
        if len(optimizers) > 1 and optimizer is not None:
            parts.append(optimizer)
        if len(lengths) > 1:
            parts.append(f"{length} steps" if length.isdigit() else length)
        if len(lrs) > 1:
            parts.append(f"lr {lr_text(lr)}")
        names.append(", ".join(parts))
    return names


class TrialPlan(NamedTuple):
    """Everything that a comparison trains.

    Attributes:
        schedules: the text of the schedule of each candidate, by the name of the candidate.
        configs: the rest of its configuration, likewise; empty if all candidates share it.
        trials: the trials, each with the name of its run.
        jobs: the trials in groups: one alone, runs with a common beginning, or the learning rates
            of one schedule, of which early stopping ends the worse ones.
    """

    schedules: Mapping[str, str]
    configs: Mapping[str, RunConfig]
    trials: Mapping[Trial, str]
    jobs: Sequence[Job]

    @classmethod
    def create(
        cls,
        task: str,
        source_hash: str,
        grid: Grid,
        *,
        halving: bool,
        branches: bool,
        shard: tuple[int, int],
    ) -> TrialPlan:
        """Return the plan of a grid, of which a shard (i, n) trains the i-th of n parts."""
        candidates = list(product(grid.schedules, grid.optimizers, grid.lengths, grid.lrs))
        names = candidate_names(candidates)
        if len(set(names)) < len(names):
            raise SettingError(f"two candidates have the same name: {', '.join(names)}")
        halving_group = f"lrs {grid.lrs}, seeds {grid.seeds}" if halving else ""
        schedules: dict[str, str] = {}
        configs: dict[str, RunConfig] = {}
        trials: dict[Trial, str] = {}
        jobs: dict[object, list[Trial]] = {}
        for name, (schedule_name, optimizer, length, lr) in zip(names, candidates, strict=True):
            text = schedules[name] = repr(grid.schedules[schedule_name])
            configs[name] = RunConfig(lr, optimizer or "", grid.lengths[length])
            for seed in grid.seeds:
                trial = Trial(task, source_hash, text, lr, optimizer, seed, length, halving_group)
                trials[trial] = f"{name}, seed {seed}"
                key: object = trial
                if halving:  # among the learning rates of a schedule
                    key = optimizer, text, length
                elif branches:  # runs with a common beginning
                    key = optimizer, lr, seed
                jobs.setdefault(key, []).append(trial)
        if len(configs) == len(grid.schedules):
            configs = {}
        i, count = shard
        own_jobs = [tuple(job) for job in jobs.values()][i - 1 :: count]
        own_trials = set(chain.from_iterable(own_jobs))
        trials = {trial: name for trial, name in trials.items() if trial in own_trials}
        return cls(schedules, configs, trials, own_jobs)

"""The values that a comparison combines, its trials with stable keys, and their jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import index
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.results import RunConfig
from ratecraft.schedule import Duration, Schedule, epochs
from ratecraft.schedule._nodes import schedules_by_name

from ._plateau import Candidate, Plateau, curve_of, parse_candidate
from ._task import Task


class Grid(NamedTuple):
    """Schedules x learning rates x optimizers x seeds x lengths.

    Attributes:
        schedules: the schedules by name.
        lrs: learning rates that each schedule multiplies.
        optimizers: optimizers that replace the one of the task; None for that one.
        seeds: seeds of initial weights and data order.
        lengths: lengths of the runs.
    """

    schedules: Mapping[str, Candidate]
    lrs: Sequence[float]
    optimizers: Sequence[str | None]
    seeds: Sequence[int]
    lengths: Sequence[int | Duration]

    @classmethod
    def create(
        cls, schedules: Any, lrs: Any, optimizers: Any, seeds: Any, total_steps: Any
    ) -> Grid:
        """Return the grid of the arguments of `compare`, or raise an error of one of them."""
        if not isinstance(seeds, Iterable):
            seeds = range(_integer("seeds", seeds))
        grid = cls(
            _candidates_by_name(schedules),
            [_checked_lr(lr) for lr in _as_list(lrs)],
            _as_list(optimizers),
            [_integer("seed", seed) for seed in seeds],
            [_checked_length(length) for length in _as_list(total_steps)],
        )
        if not all(grid):
            raise ScheduleError("compare needs at least one schedule, one lr and one seed")
        for name, values in zip(("lr", "optimizer", "seed", "length"), grid[1:], strict=True):
            if len(set(values)) < len(values):
                raise SettingError(f"the same {name} is given twice: {values}")
        return grid

    def resolve_lengths(self, task: Task) -> dict[str, int]:
        """Return the number of steps by the text of each length; every schedule must fit."""
        steps: dict[str, int] = {}
        for length in self.lengths:
            for schedule in self.schedules.values():
                for lr in self.lrs:
                    curve = curve_of(schedule, lr, length, task.steps_per_epoch)
                    steps[str(length)] = len(curve)
        if len(set(steps.values())) < len(self.lengths):
            raise SettingError(f"the same length is given twice: {', '.join(steps)}")
        return steps


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
    for name, schedule in by_name.items():
        # Workers receive the schedule as text.
        if parse_candidate(repr(schedule)) != schedule:
            raise ScheduleError(f"{name}: {schedule!r} cannot be sent to a worker as text")
    if len(set(by_name.values())) < len(by_name):
        raise ScheduleError("the same schedule is given twice")
    return by_name


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run to be made.

    Attributes:
        task: name by which a worker loads the task.
        source_hash: hash of the code of the task; a trial of changed code is another trial.
        schedule: text of the schedule.
        lr: learning rate that the schedule multiplies.
        optimizer: optimizer that replaces the one of the task, or None.
        seed: seed of the initial weights and the data order.
        total_steps: length of the run, as text.
        halving_group: the learning rates and seeds that compete in early stopping, as text;
            empty without it.
    """

    task: str
    source_hash: str
    schedule: str
    lr: float
    optimizer: str | None
    seed: int
    total_steps: str
    halving_group: str = ""

    @property
    def key(self) -> str:
        """A hash of everything that determines the result."""
        fields = {name: value for name, value in asdict(self).items() if name != "task"}
        # A file can be named by several paths; only its own name and its code count.
        fields["task"] = self.task.rpartition("/")[2]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


Job = tuple[Trial, ...]
"""Trials that one worker trains in one call."""


def candidate_name(schedule: str, optimizer: str | None, length: str | None, lr: str | None) -> str:
    """Return the name of a candidate; what all candidates share is ``None``."""
    parts = [schedule]
    if optimizer is not None:
        parts.append(optimizer)
    if length is not None:
        parts.append(f"{length} steps" if length.isdigit() else length)
    if lr is not None:
        parts.append(f"lr {lr}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class TrialPlan:
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
    jobs: tuple[Job, ...]

    @classmethod
    def create(
        cls,
        task: str,
        source_hash: str,
        grid: Grid,
        lengths: Mapping[str, int],
        *,
        halving: bool,
        branches: bool,
        shard: tuple[int, int],
    ) -> TrialPlan:
        """Return the plan of a grid, with the number of steps by the text of each length.

        Raises:
            SettingError: two candidates have the same name.
        """
        halving_group = f"lrs {grid.lrs}, seeds {grid.seeds}" if halving else ""
        schedules: dict[str, str] = {}
        configs: dict[str, RunConfig] = {}
        trials: dict[Trial, str] = {}
        combinations = itertools.product(
            grid.schedules.items(), grid.optimizers, lengths.items(), grid.lrs
        )
        for (schedule_name, schedule), optimizer, (length, steps), lr in combinations:
            name = candidate_name(
                schedule_name,
                optimizer if len(grid.optimizers) > 1 else None,
                length if len(lengths) > 1 else None,
                f"{lr:g}" if len(grid.lrs) > 1 else None,
            )
            if name in schedules:
                raise SettingError("two candidates have the same name; lrs must differ in 6 digits")
            schedules[name] = repr(schedule)
            configs[name] = RunConfig(lr, optimizer or "", steps)
            for seed in grid.seeds:
                trial = Trial(
                    task, source_hash, repr(schedule), lr, optimizer, seed, length, halving_group
                )
                trials[trial] = f"{name}, seed {seed}"
        if len(configs) == len(grid.schedules):
            configs = {}
        groups: dict[object, list[Trial]] = {}
        for trial in trials:
            key: object = trial
            if halving:
                key = trial.optimizer, trial.schedule, trial.total_steps
            elif branches:
                key = trial.optimizer, trial.lr, trial.seed
            groups.setdefault(key, []).append(trial)
        i, count = shard
        jobs = tuple(map(tuple, groups.values()))[i - 1 :: count]
        in_shard = set(itertools.chain.from_iterable(jobs))
        trials = {trial: name for trial, name in trials.items() if trial in in_shard}
        return cls(schedules, configs, trials, jobs)

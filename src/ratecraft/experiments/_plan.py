"""The values that a comparison combines, and the plan of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.results import RunConfig
from ratecraft.schedule import Duration, Schedule, epochs
from ratecraft.schedule._nodes import schedules_by_name

from ._plateau import Candidate, Plateau, curve_of, parse_candidate
from ._reports import SCRIPT_STEPS
from ._script import Script, ScriptSchedule
from ._task import AnyTask
from ._trials import Job, Trial, candidate_names


class Grid(NamedTuple):
    """Schedules x learning rates x optimizers x seeds x lengths."""

    schedules: Mapping[str, Candidate | ScriptSchedule]  # by name
    lrs: Sequence[float]
    optimizers: Sequence[str | None]  # None: the one of the task
    seeds: Sequence[int]
    lengths: Mapping[str, int]  # numbers of steps by the text of the length

    @classmethod
    def create(
        cls, task: AnyTask, schedules: Any, lrs: Any, optimizers: Any, seeds: Any, total_steps: Any
    ) -> Grid:
        """Return the grid of the arguments of `compare`, or raise an error of one of them."""
        candidates, seeds = _candidates_by_name(schedules), _seed_list(seeds)
        lrs = [_checked_lr(lr) for lr in _as_list(lrs)]
        optimizers = _as_list(optimizers)
        lengths = [_checked_length(length) for length in _as_list(total_steps)]
        steps: dict[str, int] = {}
        for length, schedule, lr in product(lengths, candidates.values(), lrs):
            steps[str(length)] = len(curve_of(schedule, lr, length, task.steps_per_epoch))
        grid = cls(candidates, lrs, optimizers, seeds, steps).checked()
        if len(set(steps.values())) < len(lengths):
            raise SettingError(f"the same length is given twice: {', '.join(steps)}")
        return grid

    @classmethod
    def of_script(
        cls, script: Script, schedules: Any, lrs: Any, optimizers: Any, seeds: Any, total_steps: Any
    ) -> Grid:
        """Return the grid of a script, whose length is known only when it runs."""
        candidates, seeds = script_schedules(script, schedules), _seed_list(seeds)
        _check_values_known(script, schedules, seeds)
        for name, value in (("optimizer", optimizers), ("total_steps", total_steps)):
            if value is not None and not script.takes(name):
                raise SettingError(
                    f"{script.file} sets its own {name}: leave out {name}, or write {{{name}}} in "
                    "an argument of the script"
                )
        steps = {"": SCRIPT_STEPS}
        if total_steps is not None:
            lengths = [_integer("total_steps", length) for length in _as_list(total_steps)]
            steps = {str(length): length for length in lengths}
        lrs = [_checked_lr(lr) for lr in _as_list(lrs)]
        return cls(candidates, lrs, _as_list(optimizers), seeds, steps).checked()

    def checked(self) -> Grid:
        """Return the grid, or raise if it is empty or has a value twice."""
        if not (self.schedules and self.lrs and self.optimizers and self.seeds):
            raise ScheduleError("compare needs at least one schedule, one lr and one seed")
        columns = ("lr", self.lrs), ("optimizer", self.optimizers), ("seed", self.seeds)
        for name, values in columns:
            if len(set(values)) < len(values):
                raise SettingError(f"the same {name} is given twice: {values}")
        return self


def _check_values_known(script: Script, schedules: Any, seeds: Sequence[int]) -> None:
    """Raise a SettingError if a script without ratecraft does not get the values."""
    given = {"lr": True, "schedule": bool(schedules), "seed": len(seeds) > 1}
    for name, is_needed in given.items():
        if is_needed and not script.uses_ratecraft and not script.takes(name):
            only = ", or compare one seed" if name == "seed" else ""
            raise SettingError(
                f"{script.file} cannot know the {name} of its trial: call ratecraft.trial in it, "
                f"or pass {{{name}}} in an argument{only}"
            )


def script_schedules(script: Script, schedules: Any) -> dict[str, Candidate | ScriptSchedule]:
    """Return the schedules of a script by name: those of ``schedules``, or its own."""
    if script.takes("schedule"):
        items = schedules if isinstance(schedules, Mapping) else {str(x): x for x in schedules}
        return {name: ScriptSchedule(value) for name, value in items.items()}
    if not schedules:
        name = Path(script.file).name
        return {name: ScriptSchedule(name)}
    candidates = _candidates_by_name(schedules)
    for name, candidate in candidates.items():
        if isinstance(candidate, Plateau):
            raise ScheduleError(
                f"{name}: a script measures its own losses, so it needs a PlateauLR of its own; "
                "give compare only schedules"
            )
    return {**candidates}


def _as_list(value: Any) -> list[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return list(value) if several else [value]


def _seed_list(seeds: Any) -> list[int]:
    """Return the seeds; a number stands for 0, 1, ... below it."""
    if not isinstance(seeds, Iterable):
        seeds = range(_integer("seeds", seeds))
    return [_integer("seed", seed) for seed in seeds]


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

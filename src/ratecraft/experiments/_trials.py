"""Trials, each with a stable key, and the jobs that train them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from ratecraft.errors import SettingError
from ratecraft.results import RunConfig

from ._plateau import Candidate

JobMode = Literal["alone", "branched", "halved"]


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


class Job(NamedTuple):
    """Trials that one worker trains in one call.

    Attributes:
        mode: "alone", a single trial; "branched", runs with a common beginning; "halved", the
            learning rates of one schedule, of which early stopping ends the worse ones.
        trials: the trials.
    """

    mode: JobMode
    trials: tuple[Trial, ...]


class CandidateConfig(NamedTuple):
    """A candidate: the text of a schedule, with the configuration of its runs."""

    schedule: str
    lr: float
    optimizer: str | None
    total_steps: str


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """Everything that a comparison trains.

    Attributes:
        candidates: the candidates by name.
        trials: the trials, each with the name of its run.
        jobs: the trials, grouped into jobs for workers.
        configs: by name, the configuration that distinguishes candidates with the same schedule;
            empty if there is only one configuration.
    """

    candidates: Mapping[str, CandidateConfig]
    trials: Mapping[Trial, str]
    jobs: tuple[Job, ...]
    configs: Mapping[str, RunConfig]

    @classmethod
    def create(
        cls,
        task: str,
        source_hash: str,
        *,
        schedules: Mapping[str, Candidate],
        lrs: Sequence[float],
        optimizers: Sequence[str | None],
        seeds: Sequence[int],
        lengths: Mapping[str, int],
        mode: JobMode,
        shard: tuple[int, int],
    ) -> TrialPlan:
        """Return the plan of all schedules x lrs x optimizers x lengths x seeds.

        Args:
            task: name by which a worker loads the task.
            source_hash: hash of the code of the task.
            schedules: the schedules by name.
            lrs: learning rates that each schedule multiplies.
            optimizers: optimizers that replace the one of the task; None for that one.
            seeds: seeds of initial weights and data order.
            lengths: number of steps by the text of the length.
            mode: how the trials are grouped into jobs.
            shard: (i, n) plans only the i-th of n parts of the jobs.
        """
        candidates = name_candidates(schedules, optimizers, lrs, list(lengths))
        group = f"lrs {list(lrs)}, seeds {list(seeds)}" if mode == "halved" else ""
        trials = {
            Trial(
                task, source_hash, *config[:3], seed, config.total_steps, group
            ): f"{name}, seed {seed}"
            for name, config in candidates.items()
            for seed in seeds
        }
        groups: dict[object, list[Trial]] = {}
        for trial in trials:
            group_keys: dict[JobMode, object] = {
                "alone": trial,
                "branched": (trial.optimizer, trial.lr, trial.seed),
                "halved": (trial.optimizer, trial.schedule, trial.total_steps),
            }
            groups.setdefault(group_keys[mode], []).append(trial)
        index, count = shard
        jobs = [Job(mode, tuple(members)) for members in groups.values()][index - 1 :: count]
        in_shard = {trial for job in jobs for trial in job.trials}
        several = len(lrs) > 1 or len(optimizers) > 1 or len(lengths) > 1
        configs = {
            name: RunConfig(config.lr, config.optimizer or "", lengths[config.total_steps])
            for name, config in candidates.items()
            if several
        }
        named_trials = {trial: name for trial, name in trials.items() if trial in in_shard}
        return cls(candidates, named_trials, tuple(jobs), configs)


def name_candidates(
    schedules: Mapping[str, Candidate],
    optimizers: Sequence[str | None],
    lrs: Sequence[float],
    lengths: Sequence[str],
) -> dict[str, CandidateConfig]:
    """Return every candidate by a name that holds only what differs between candidates.

    Raises:
        SettingError: two candidates have the same name.
    """
    candidates: dict[str, CandidateConfig] = {}
    combinations = list(itertools.product(schedules.items(), optimizers, lengths, lrs))
    for (name, schedule), optimizer, length, lr in combinations:
        parts = [name]
        if optimizer is not None and len(optimizers) > 1:
            parts.append(optimizer)
        if len(lengths) > 1:
            parts.append(f"{length} steps" if length.isdigit() else length)
        if len(lrs) > 1:
            parts.append(f"lr {lr:g}")
        candidates[", ".join(parts)] = CandidateConfig(repr(schedule), lr, optimizer, length)
    if len(candidates) < len(combinations):
        raise SettingError("two candidates have the same name; lrs must differ in 6 digits")
    return candidates

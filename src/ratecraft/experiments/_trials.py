"""What is to be trained: trials, each with an identity that does not change."""

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
        task: the name by which a worker finds the task.
        source: what the task's code was, as a hash; other code is another trial.
        schedule: the text of the schedule.
        lr: what the schedule multiplies.
        optimizer: an optimizer in place of the task's own, or None.
        seed: of initial weights and data order.
        total_steps: length of the run, as text.
        halved: the lrs and seeds among which early stopping chooses, as text; empty without.
    """

    task: str
    source: str
    schedule: str
    lr: float
    optimizer: str | None
    seed: int
    total_steps: str
    halved: str = ""

    @property
    def key(self) -> str:
        """What this trial is known by: a hash of all that decides its result."""
        told = {name: value for name, value in asdict(self).items() if name != "task"}
        # A task may be named by a relative path, or from another folder; its code is what counts.
        told["task"] = self.task.rpartition("/")[2]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


class Job(NamedTuple):
    """Trials that one worker does in one go, and how.

    Attributes:
        how: "alone", one trial; "branched", runs that share a beginning; "halved", the lrs of
            one schedule, of which early stopping ends the worse ones.
        trials: what is done.
    """

    how: JobMode
    trials: tuple[Trial, ...]


class Named(NamedTuple):
    """A candidate: a schedule's text, and what tells it from others of that schedule."""

    schedule: str
    lr: float
    optimizer: str | None
    total_steps: str


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """Everything that a comparison trains.

    Attributes:
        candidates: what is compared, by name.
        trials: every run, with its name in words.
        jobs: the trials as workers are given them.
        configs: what tells candidates of one schedule apart, where something does.
    """

    candidates: Mapping[str, Named]
    trials: Mapping[Trial, str]
    jobs: tuple[Job, ...]
    configs: Mapping[str, RunConfig]

    @classmethod
    def of(
        cls,
        place: str,
        code: str,
        named: Mapping[str, Candidate],
        lrs: Sequence[float],
        kinds: Sequence[str | None],
        seeds: Sequence[int],
        totals: Mapping[str, int],
        how: JobMode,
        shard: tuple[int, int],
    ) -> TrialPlan:
        """Return the plan of schedules x lrs x optimizers x lengths x seeds."""
        chosen = candidates(named, kinds, lrs, list(totals))
        among = f"lrs {list(lrs)}, seeds {list(seeds)}" if how == "halved" else ""
        trials = {
            Trial(place, code, *one[:3], seed, one.total_steps, among): f"{name}, seed {seed}"
            for name, one in chosen.items()
            for seed in seeds
        }
        groups: dict[object, list[Trial]] = {}
        for trial in trials:
            shared: dict[JobMode, object] = {
                "alone": trial,
                "branched": (trial.optimizer, trial.lr, trial.seed),
                "halved": (trial.optimizer, trial.schedule, trial.total_steps),
            }
            groups.setdefault(shared[how], []).append(trial)
        jobs = [Job(how, tuple(some)) for some in groups.values()][shard[0] - 1 :: shard[1]]
        mine = {trial for job in jobs for trial in job.trials}
        several = len(lrs) > 1 or len(kinds) > 1 or len(totals) > 1
        configs = {
            name: RunConfig(one.lr, one.optimizer or "", totals[one.total_steps])
            for name, one in chosen.items()
            if several
        }
        kept = {trial: name for trial, name in trials.items() if trial in mine}
        return cls(chosen, kept, tuple(jobs), configs)


def candidates(
    named: Mapping[str, Candidate],
    kinds: Sequence[str | None],
    lrs: Sequence[float],
    totals: Sequence[str],
) -> dict[str, Named]:
    """Return every candidate by what tells it from the others.

    Raises:
        SettingError: two would have one name.
    """
    found: dict[str, Named] = {}
    every = list(itertools.product(named.items(), kinds, totals, lrs))
    for (name, schedule), kind, total_steps, lr in every:
        parts = [name]
        if kind is not None and len(kinds) > 1:
            parts.append(kind)
        if len(totals) > 1:
            parts.append(f"{total_steps} steps" if total_steps.isdigit() else total_steps)
        if len(lrs) > 1:
            parts.append(f"lr {lr:g}")
        found[", ".join(parts)] = Named(repr(schedule), lr, kind, total_steps)
    if len(found) < len(every):
        raise SettingError("two candidates would have one name; lrs must differ in 6 digits")
    return found

"""Trials with stable keys, their jobs and failures, and the names of candidates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, NamedTuple

from ratecraft.results import Run

HALVING_POINTS: Final = (0.25, 0.5)  # fractions of the run after which the worse half stops
RANKING_WINDOW: Final = 0.1  # fraction of the run whose training losses rank the learning rates


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run to be made."""

    task: str  # the name by which a worker loads it
    source_hash: str  # of the code of the task; a trial of changed code is another trial
    schedule: str  # its text
    lr: float
    optimizer: str | None  # None: the one of the task
    seed: int
    total_steps: str  # the length of the run as text; empty if a script knows it
    halving_group: str = ""  # the lrs and seeds that compete in early stopping, as text

    @property
    def key(self) -> str:
        """A hash of everything that determines the result."""
        # A file can be named by several paths; only its own name and its code count.
        fields = asdict(self) | {"task": self.task.rpartition("/")[2]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


Job = tuple[Trial, ...]  # that one worker trains in one call


class TrialFailure(NamedTuple):
    """Why a trial has no run, as plain data, since not every exception can be pickled."""

    line: str  # the reason, with the position in the user's own file
    trace: str  # the traceback, or the end of the output of a script


def better_half(lrs: int) -> int:
    """Return how many learning rates early stopping continues with."""
    return (lrs + 1) // 2


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


def with_common_length(runs: Mapping[Trial, Run]) -> dict[Trial, Run]:
    """Return runs of which those of a script all have the length of the longest one.

    The length of a script's run is that of its ScheduleLR, or else its last logged step, which
    comes early if the run diverged.
    """
    length = max(
        (run.total_steps for trial, run in runs.items() if not trial.total_steps), default=0
    )
    return {
        trial: run if trial.total_steps else replace(run, total_steps=length)
        for trial, run in runs.items()
    }

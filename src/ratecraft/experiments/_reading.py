"""read_comparison: the runs of a store as a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ratecraft.errors import ResultError, SettingError
from ratecraft.results import Comparison, Run, RunConfig

from ._store import Store
from ._trials import Trial, candidate_name


def read_comparison(store: str | os.PathLike[str], task: str | None = None) -> Comparison:
    """Return the complete runs of a store as a comparison, even while one writes to it.

    Schedules are named by their text. Of a task whose code was edited, only the runs of the code
    that was stored last are returned.

    Args:
        store: the file.
        task: name of the task, for a store with runs of several.

    Raises:
        ResultError: the file is not a store, or has no complete run.
        SettingError: ``task`` is missing, or not one of the tasks in the store.

    >>> import tempfile
    >>> from ratecraft import constant
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"lrs": [0.02, 0.05], "seeds": 1, "total_steps": 5, "workers": 0}
    ...     result = compare("digits", constant(1), store=f"{folder}/runs.db", **options)
    ...     read_comparison(f"{folder}/runs.db").runs == result.runs
    True
    """
    with Store(store, read_only=True) as opened:
        runs = _runs_of_task(opened, task)
    trials = list(runs)
    optimizers = len({trial.optimizer for trial in trials}) > 1
    # Comparisons that share a store may write the same length in two ways: 20 and epochs(2).
    lengths = {run.total_steps: trial.total_steps for trial, run in runs.items()}
    lrs = _lr_texts({trial.lr for trial in trials})
    candidates: dict[str, dict[int, Run]] = {}
    configs: dict[str, RunConfig] = {}
    for trial, run in runs.items():
        name = candidate_name(
            trial.schedule,
            trial.optimizer if optimizers else None,
            lengths[run.total_steps] if len(lengths) > 1 else None,
            lrs[trial.lr] if len(lrs) > 1 else None,
        )
        configs[name] = RunConfig(trial.lr, trial.optimizer or "", run.total_steps)
        seeds = candidates.setdefault(name, {})
        # With and without halving, a store may have the same run twice.
        if trial.seed not in seeds or seeds[trial.seed].stopped is not None:
            seeds[trial.seed] = run
    return Comparison(
        task=trials[0].task,
        schedules={name: next(iter(seeds.values())).schedule for name, seeds in candidates.items()},
        runs=tuple(seeds[seed] for seeds in candidates.values() for seed in sorted(seeds)),
        configs=configs,
    )


def _lr_texts(lrs: Iterable[float]) -> dict[float, str]:
    """Return learning rates as text, in full if some agree in the first 6 digits."""
    texts = {lr: f"{lr:g}" for lr in lrs}
    if len(set(texts.values())) == len(texts):
        return texts
    return {lr: repr(lr) for lr in texts}


def _runs_of_task(store: Store, task: str | None) -> dict[Trial, Run]:
    runs = store.all_runs()
    if not runs:
        raise ResultError(f"{store.path} has no complete run yet")
    tasks = list(dict.fromkeys(trial.task for trial in runs))
    if task is None and len(tasks) > 1:
        raise SettingError(f"{store.path} has runs of several tasks; write one: {', '.join(tasks)}")
    task = task or tasks[0]
    if task not in tasks:
        raise SettingError(f"{store.path} has no run of {task}; expected {', '.join(tasks)}")
    *_, last = (trial for trial in runs if trial.task == task)
    return {
        trial: run
        for trial, run in runs.items()
        if (trial.task, trial.source_hash) == (task, last.source_hash)
    }

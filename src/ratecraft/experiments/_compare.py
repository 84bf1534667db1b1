"""compare: train every schedule, learning rate and optimizer with every seed."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from ratecraft._keywords import explain_arguments
from ratecraft._training._snapshot import preserve_rng
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import Comparison
from ratecraft.schedule import Duration

from ._display import show_progress
from ._engines import Engine, check_engine, open_engine
from ._environment import environment
from ._execution import Execution, Progress
from ._jobs import planned_steps
from ._plateau import Candidate, Plateau
from ._source import identify, reference
from ._store import Store
from ._task import Task, build_task, load_task, with_optimizer
from ._train import Training, create_model_and_optimizer
from ._trials import Grid, TrialPlan


@explain_arguments(
    "compare() takes a task and its schedules, as a list or a dict of names; write the rest by "
    "name: compare(task, [cosine(1, 0), wsd(500)], lrs=[1e-3, 3e-3])"
)
def compare(
    task: str | Callable[[], Task],
    schedules: Mapping[str, Candidate] | Sequence[Candidate] | Candidate,
    *,
    lrs: float | Sequence[float],
    optimizers: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    total_steps: int | Duration | Sequence[int | Duration] | None = None,
    workers: int | None = None,
    engine: Engine | str | None = None,
    store: str | os.PathLike[str] | None = None,
    halving: bool = False,
    branches: bool = False,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[Progress], object] | bool | None = None,
) -> Comparison:
    """Train every schedule at every learning rate, with every optimizer and seed.

    Runs of one seed share their initial weights and data order. A run that diverges is a result;
    a run that raises is listed in ``failed``, and the other runs continue. With a ``store`` every
    complete run is saved: after an interruption the same call trains only the missing runs. Every
    engine gives the same numbers, bit for bit, on one type of machine.

    Args:
        task: name of a task, as for `load_task`, or a function that returns a `Task`.
        schedules: a dict of schedules by name, or a list, in which the text of a schedule is its
            name. A `Plateau` counts as a schedule.
        lrs: learning rate that each schedule multiplies, or several; 1 if the schedules are
            learning rates themselves.
        optimizers: short name or class path of an optimizer that replaces the one of the task,
            such as "adamw" or "torch.optim.AdamW", or several.
        seeds: number of seeds (0, 1, ...), or a list of them.
        total_steps: length of each run, in steps or ``epochs(n)``, or several; default
            ``epochs(10)``.
        workers: number of worker processes; default one per core. 0 trains in this process.
        engine: "local", "ray" or an engine, instead of ``workers``. An engine object stays open.
        store: SQLite file for the runs; several comparisons may share it, one at a time.
        halving: stop the worse half of the learning rates of each schedule after a quarter and
            after half of the run. Stopped runs have no final loss.
        branches: train steps that runs of one learning rate, optimizer and seed share at their
            beginning once. The numbers stay the same; one worker trains these runs in sequence.
        shard: (i, n) trains only the i-th of n parts, for job arrays; see `merge`.
        progress: called with a `Progress` for each event; if it raises, a warning says so, and the
            training goes on without it. None: a view of the running trials, if standard error is
            a terminal or in a notebook; True: a view, or lines elsewhere; False: none.

    Raises:
        TaskError, ScheduleError, SettingError: an argument is invalid; raised before training.
        ResultError: ``store`` is not a store.
        RunFailed: another comparison writes to ``store``, no run gave a result, or a worker
            process died three times on one run.

    >>> from ratecraft import constant, cosine
    >>> from ratecraft.experiments import compare
    >>> result = compare(
    ...     "digits", [constant(1), cosine(1, 0)], lrs=0.05, seeds=1, total_steps=20, workers=0
    ... )
    >>> [summary.seeds for summary in result.summaries()]
    [1, 1]
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingError(
            "compare() was called while a worker process imported your file: put the call under "
            'if __name__ == "__main__":'
        )
    if workers is not None and workers < 0:
        raise SettingError(f"workers={workers}: expected a number >= 0")
    check_engine(engine)
    if halving and branches:
        raise SettingError("halving and branches cannot be combined; leave one out")
    if not 1 <= shard[0] <= shard[1]:
        raise SettingError(f"shard {shard[0]}/{shard[1]}: expected i/n with i from 1 to n")
    first_task = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    grid = Grid.create(first_task, schedules, lrs, optimizers, seeds, total_steps)
    if halving and len(grid.lrs) < 2:
        raise SettingError("halving chooses among lrs; pass several")
    _check_task(first_task, grid)
    inline = workers == 0 and engine is None
    source = task if inline else reference(task)
    # Without a store, a function in this process needs no identity.
    identified = store is not None or not inline or isinstance(task, str)
    name, source_hash = identify(task) if identified else ("", "")
    plan = TrialPlan.create(
        name, source_hash, grid, halving=halving, branches=branches, shard=shard
    )
    steps = {job: planned_steps(job, grid.lengths, first_task.steps_per_epoch) for job in plan.jobs}
    with (
        nullcontext() if store is None else Store(store) as open_store,
        show_progress(progress) as callback,
    ):
        execution = Execution(plan, steps, open_store, source, callback)
        if execution.missing:
            with open_engine(engine, workers, len(execution.missing)) as opened:
                execution.run(opened)
    done, failed = execution.done, execution.failed
    if failed and not done:
        raise RunFailed(next(iter(failed.values())).line)
    return Comparison(
        task=first_task.name
        or (task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)),
        schedules=plan.schedules,
        runs=tuple(done[trial] for trial in plan.trials if trial in done),
        environment={"task": task} | environment() if isinstance(task, str) else environment(),
        configs=plan.configs,
        failed={plan.trials[trial]: failure.trace for trial, failure in failed.items()},
    )


def _check_task(task: Task, grid: Grid) -> None:
    """Build the models and optimizers once, so that errors appear before any training."""
    for optimizer in grid.optimizers:
        with preserve_rng():
            create_model_and_optimizer(with_optimizer(task, optimizer))
    for schedule in grid.schedules.values():
        if isinstance(schedule, Plateau):  # checks that the task has its metric
            Training(task, schedule, total_steps=next(iter(grid.lengths.values())))

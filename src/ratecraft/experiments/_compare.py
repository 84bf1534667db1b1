"""compare: train every schedule, learning rate and optimizer with every seed."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

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
from ._plan import Grid, TrialPlan
from ._plateau import Candidate, Plateau
from ._reports import SCRIPT_STEPS
from ._script import Script, is_script
from ._source import identify, reference
from ._store import Store
from ._task import AnyTask, Task, build_task, load_task, with_optimizer
from ._train import Training, create_model_and_optimizer
from ._trainer_task import TrainerTask
from ._trials import Job, with_common_length


@explain_arguments(
    "compare() takes a task and its schedules, as a list or a dict of names; write the rest by "
    "name: compare(task, [cosine(1, 0), wsd(500)], lrs=[1e-3, 3e-3])"
)
def compare(
    task: str | Callable[[], AnyTask] | Script,
    schedules: Mapping[str, Candidate] | Sequence[Candidate] | Candidate = (),
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
        task: name of a task, as for `load_task`, a function that returns a `Task`, or a training
            script: its file, such as "train.py", or a `Script`.
        schedules: a dict of schedules by name, or a list, in which the text of a schedule is its
            name. A `Plateau` counts as a schedule. A script may have none: then its own is used.
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
    settings = (schedules, lrs, optimizers, seeds, total_steps)
    options = {"halving": halving, "branches": branches, "shard": shard}
    with ExitStack() as stack:
        if isinstance(task, Script) or is_script(task):
            script = task if isinstance(task, Script) else Script(str(task))
            if not script.directory:
                folder = stack.enter_context(_trials_folder(store))
                script = replace(script, directory=folder)
            prepared = _prepare_script(script, settings, options)
        else:
            inline = workers == 0 and engine is None
            # Without a store, a function in this process needs no identity.
            identified = store is not None or not inline or isinstance(task, str)
            prepared = _prepare_task(task, settings, options, inline, identified)
        open_store = None if store is None else stack.enter_context(Store(store))
        callback = stack.enter_context(show_progress(progress))
        execution = Execution(prepared.plan, prepared.steps, open_store, prepared.source, callback)
        if execution.missing:
            with open_engine(engine, workers, len(execution.missing)) as opened:
                execution.run(opened)
    return prepared.comparison(execution)


class _Prepared(NamedTuple):
    """What a comparison trains, and how it is described."""

    plan: TrialPlan
    steps: Mapping[Job, int]  # planned, of each job
    source: str | Callable[[], AnyTask] | Script
    description: str
    task: str  # by which `compare` finds it again; empty for a function

    def comparison(self, execution: Execution) -> Comparison:
        """Return the result, or raise RunFailed if no run gave one."""
        done, failed = with_common_length(execution.done), execution.failed
        if failed and not done:
            raise RunFailed(next(iter(failed.values())).line)
        plan, runs = self.plan, {trial: done[trial] for trial in self.plan.trials if trial in done}
        lengths = {trial: run.total_steps for trial, run in runs.items() if not trial.total_steps}
        configs = plan.configs
        if lengths:  # those of a script are known only now
            length = next(iter(lengths.values()))
            configs = {n: config._replace(total_steps=length) for n, config in configs.items()}
        return Comparison(
            task=self.description,
            schedules=plan.schedules,
            runs=tuple(runs.values()),
            environment={"task": self.task} | environment() if self.task else environment(),
            configs=configs,
            failed={plan.trials[trial]: failure.trace for trial, failure in failed.items()},
        )


@contextmanager
def _trials_folder(store: str | os.PathLike[str] | None) -> Iterator[str]:
    """Yield the folder for a script's trials; without a store, a temporary one."""
    if store is not None:
        yield f"{os.fspath(store)}.trials"
        return
    with tempfile.TemporaryDirectory(prefix="ratecraft-") as folder:
        yield folder


def _prepare_script(
    script: Script, settings: tuple[Any, ...], options: Mapping[str, Any]
) -> _Prepared:
    if options["branches"]:
        raise SettingError("a script trains each run from its start; leave out branches")
    script.launcher()  # raises before any trial is started
    grid = Grid.of_script(script, *settings)
    _check_halving(grid, options)
    plan = TrialPlan.create(script.file, script.source_hash, grid, **options)
    steps = {job: SCRIPT_STEPS * len(job) for job in plan.jobs}
    return _Prepared(plan, steps, script, str(script), repr(replace(script, directory="")))


def _prepare_task(
    task: str | Callable[[], AnyTask],
    settings: tuple[Any, ...],
    options: Mapping[str, Any],
    inline: bool,
    identified: bool,
) -> _Prepared:
    first_task = load_task(task) if isinstance(task, str) else build_task(task, repr(task))
    grid = Grid.create(first_task, *settings)
    _check_halving(grid, options)
    _check_task(first_task, grid, is_divided=options["halving"] or options["branches"])
    source = task if inline else reference(task)
    name, source_hash = identify(task) if identified else ("", "")
    plan = TrialPlan.create(name, source_hash, grid, **options)
    steps = {job: planned_steps(job, grid.lengths, first_task.steps_per_epoch) for job in plan.jobs}
    names = first_task.name, task if isinstance(task, str) else getattr(task, "__name__", "")
    description = next((name for name in names if name), type(task).__name__)
    return _Prepared(plan, steps, source, description, task if isinstance(task, str) else "")


def _check_halving(grid: Grid, options: Mapping[str, Any]) -> None:
    if options["halving"] and len(grid.lrs) < 2:
        raise SettingError("halving chooses among lrs; pass several")


def _check_task(task: AnyTask, grid: Grid, *, is_divided: bool) -> None:
    """Build the models and optimizers once, so that errors appear before any training."""
    if isinstance(task, TrainerTask) and is_divided:
        raise SettingError(
            f"{task.trainer_name} trains each run in one piece, which can neither stop nor branch "
            "on the way; leave out halving and branches"
        )
    for optimizer in grid.optimizers:
        changed = with_optimizer(task, optimizer)
        if isinstance(changed, Task):  # a trainer has created them to count its steps
            with preserve_rng():
                create_model_and_optimizer(changed)
    for schedule in grid.schedules.values():
        # Checks that the task has its metric; those of a trainer are known when it evaluates.
        if isinstance(schedule, Plateau) and isinstance(task, Task):
            Training(task, schedule, total_steps=next(iter(grid.lengths.values())))

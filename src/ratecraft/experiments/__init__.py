"""Train schedules side by side: schedules x learning rates x optimizers x seeds.

_task.py           Task: a model, a loss and data, built by a plain function; mean metrics
_trainer_task.py   TrainerTask: a task that a trainer trains in its own loop, and a run of it
_lightning_task.py  a task that a Lightning Trainer trains
_hugging_face_task.py  a task that a Hugging Face Trainer trains
_source.py         loading task functions from files and modules; hashes of their code
_builtin_tasks.py  the built-in tasks: digits and stdlib-text
_plateau.py        Plateau: a schedule times a factor that follows a metric, as a value
_training_run.py   the schedule, the losses and the measurements of a run in progress
_train.py          train: the training loop, its batches and its snapshots
_script.py         Script: a training script, which is run once for each trial
_script_log.py     what a script has logged: losses, evaluations, and whether it used its trial
_script_run.py     the process of a script's trial, and its run or why it has none
_run_command.py    a program that runs a command and stops all its processes with it
_trials.py         trials with stable keys, their jobs and failures
_plan.py           the values that a comparison combines, and the plan of its trials
_jobs.py           execution of one job in a worker: runs with a common beginning, which is
                   trained once; early stopping among the learning rates of one schedule
_engines.py        engines that run jobs: local processes, Ray, or this process
_reports.py        reports of workers: steps of their runs, and what they print
_time_left.py      the time that a comparison still takes, from the steps of its jobs
_store.py          runs in an SQLite file, each stored completely or not at all; merge
_environment.py    the versions and the machine, which can change the numbers
_execution.py      execution of all jobs by an engine; Progress: an event of it
_display.py        the progress of a comparison as a view of its trials, or as lines
_compare.py        compare: trains all candidates with all seeds
"""

import ratecraft.torch as _torch  # noqa: F401  # first: an older torch is refused
from ratecraft._public import set_public_module as _set_public_module

from ._compare import compare as compare
from ._execution import Progress as Progress
from ._plateau import Plateau as Plateau
from ._script import Script as Script
from ._store import merge as merge
from ._store import read_comparison as read_comparison
from ._task import Task as Task
from ._task import load_task as load_task
from ._train import train as train
from ._trainer_task import TrainerTask as TrainerTask

_set_public_module(globals())

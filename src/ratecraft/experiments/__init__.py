"""Train schedules side by side: schedules x learning rates x optimizers x seeds.

_task.py           Task: a model, a loss and data, built by a plain function; mean metrics
_source.py         loading task functions from files and modules; hashes of their code
_builtin_tasks.py  the built-in tasks: digits and stdlib-text
_plateau.py        Plateau: a schedule times a factor that follows a metric, as a value
_train.py          train: the training loop, its batches and its snapshots
_trials.py         the values that a comparison combines, trials with stable keys, and jobs
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
from ._store import merge as merge
from ._store import read_comparison as read_comparison
from ._task import Task as Task
from ._task import load_task as load_task
from ._train import train as train

_set_public_module(globals())

"""PROVE: schedules x lrs x optimizers x seeds, really trained.

task.py      Task: what is trained, as plain Python
source.py    where its code is: files, modules, and what those held when they ran
data.py      two tasks on real data that need no download: digits, stdlib-text
plateau.py   Plateau: a schedule whose factor follows a metric, as a value
loop.py      train: the one training loop
branches.py  runs that share a beginning, which is trained once
halving.py   early stopping among the lrs of one schedule
plan.py      trials, each with an identity that does not change, and who does which
work.py      what a worker does
engines.py   where work happens: processes on this machine, Ray, or this process
store.py     runs in one SQLite file, each there whole or not at all
progress.py  what is told while it runs
run.py       compare: every schedule, lr and optimizer with every seed, as one result
"""

from ratecraft._public import set_public_module as _set_public_module

from ._compare import compare as compare
from ._plateau import Plateau as Plateau
from ._progress import Progress as Progress
from ._store import merge as merge
from ._task import Task as Task
from ._task import load_task as load_task
from ._train import train as train

_set_public_module(globals())

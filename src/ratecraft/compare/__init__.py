"""PROVE: schedules x rates x optimizers x seeds, really trained.

task.py     Task: what is trained, as plain Python; loading one from a file
data.py     two tasks on real data that need no download: digits, stdlib-text
loop.py     train: the one training loop
engines.py  where runs happen: worker processes on this machine, or this process
plan.py     trials, each with an identity that does not change
store.py    runs in one SQLite file, each there whole or not at all
run.py      compare: every schedule, rate and optimizer with every seed, as one record
"""

from ratecraft.compare.loop import train
from ratecraft.compare.run import compare
from ratecraft.compare.task import Task, load_task

__all__ = ["Task", "compare", "load_task", "train"]

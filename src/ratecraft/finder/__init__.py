"""FIND: a learning rate, by tests that leave no trace.

preserve.py      preserved(...): everything a test touches is put back, bit for bit
testbed.py       updates as the run will make them, from one start, again and again
find.py          find_lr: the rate, its band and why, from short runs
search.py        which rate to try next, and what to make of those that were tried
sweep.py         range_test: the classical test
line_search.py   line_search: how far the optimizer may go on each batch
trainers.py      find_lr_for, range_test_for: inside Lightning and the Hugging Face Trainer
"""

from ratecraft.finder.find import find_lr
from ratecraft.finder.line_search import line_search
from ratecraft.finder.preserve import preserved
from ratecraft.finder.sweep import range_test
from ratecraft.finder.trainers import find_lr_for, range_test_for

__all__ = [
    "find_lr",
    "find_lr_for",
    "line_search",
    "preserved",
    "range_test",
    "range_test_for",
]

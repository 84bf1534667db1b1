"""FIND: a learning rate, by tests that leave no trace.

preserve.py      preserve_state(...): everything a test touches is put back, bit for bit
testbed.py       steps as the run will make them, from one start, again and again
find.py          find_lr: the lr, its band and why, from short runs
search.py        which lr to try next, and what to make of those that were tried
sweep.py         range_test: the classical test
line_search.py   line_search: how far the optimizer may go on each batch
trainers.py      find_lr_for, range_test_for: inside Lightning and the Hugging Face Trainer
"""

from ratecraft._public import set_public_module as _set_public_module
from ratecraft._training._snapshot import preserve_state as preserve_state

from ._find_lr import find_lr as find_lr
from ._line_search import line_search as line_search
from ._range_test import range_test as range_test

_set_public_module(globals())

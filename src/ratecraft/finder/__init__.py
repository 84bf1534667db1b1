"""FIND: a learning-rate range test that leaves no trace.

preserve.py   preserved(...): everything a test touches is put back, bit for bit
sweep.py      range_test: the classical test
"""

from ratecraft.finder.preserve import preserved
from ratecraft.finder.sweep import range_test

__all__ = ["preserved", "range_test"]

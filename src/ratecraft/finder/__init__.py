"""FIND: a learning-rate range test that leaves no trace.

preserve.py   preserved(...): everything a test touches is put back, bit for bit
sweep.py      range_test: the classical test
trainers.py   range_test_for: the same inside Lightning and the Hugging Face Trainer
"""

from ratecraft.finder.preserve import preserved
from ratecraft.finder.sweep import range_test
from ratecraft.finder.trainers import range_test_for

__all__ = ["preserved", "range_test", "range_test_for"]

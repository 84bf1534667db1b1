"""Find a learning rate with short tests that restore everything they touch.

_find_lr.py     find_lr: a learning rate and its range, from short training runs
_search.py      which learning rate to try next, and where the best one lies
_range_test.py  range_test: the classical learning-rate range test
"""

import ratecraft.torch as _torch  # noqa: F401  # first: an older torch is refused
from ratecraft._public import set_public_module as _set_public_module
from ratecraft._training._snapshot import preserve_state as preserve_state

from ._find_lr import find_lr as find_lr
from ._range_test import range_test as range_test

_set_public_module(globals())

"""Use ratecraft inside Lightning and the Hugging Face Trainer.

_schedulers.py  for_lightning, for_trainer: ScheduleLR with the trainer's run length filled in
_finders.py     find_and_set_lr, find_lr_for, range_test_for: the finders with a trainer's settings
"""

import ratecraft.torch as _torch  # noqa: F401  # first: an older torch is refused
from ratecraft._public import set_public_module as _set_public_module

from ._finders import find_and_set_lr as find_and_set_lr
from ._finders import find_lr_for as find_lr_for
from ._finders import range_test_for as range_test_for
from ._schedulers import for_lightning as for_lightning
from ._schedulers import for_trainer as for_trainer

_set_public_module(globals())

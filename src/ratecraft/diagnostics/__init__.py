"""Inspect and measure training: what schedulers do, and what optimizer steps change.

_describe.py    describe, breakdown, preview: param groups, factors, and the next lrs
_log_lrs.py     log_lrs: the lr of each param group, to TensorBoard, W&B, MLflow and others
_doctor.py      doctor: mistakes in a training setup
_setup.py       TrainingSetup: the models, optimizers and schedulers that doctor examines
_probe.py       Probe: what optimizer steps change in each layer
_coordinate.py  coordinate_lrs: the lr of every single weight under adaptive methods
"""

import ratecraft.torch as _torch  # noqa: F401  # first: an older torch is refused
from ratecraft._public import set_public_module as _set_public_module

from ._coordinate import coordinate_lrs as coordinate_lrs
from ._describe import Description as Description
from ._describe import GroupDescription as GroupDescription
from ._describe import breakdown as breakdown
from ._describe import describe as describe
from ._describe import preview as preview
from ._doctor import doctor as doctor
from ._log_lrs import log_lrs as log_lrs
from ._probe import Probe as Probe

_set_public_module(globals())

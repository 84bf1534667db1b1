"""Learning rate schedules for torch optimizers.

_versions.py    what older torch lacks; torch before 2.6, or none, is refused
_config.py      ScheduleConfig: the arguments of a ScheduleLR as a value
_hyperparam.py  Hyperparam: reads and writes one number of a param group; names of groups
_factors.py     FactorSource: the factor of one scheduler; products of factors
_writer.py      HyperparamWriter: base x factors x external factor, of one hyperparameter
_writers.py     the writers of an optimizer and their hooks
_source.py      ScheduleSource: the schedules of one hyperparameter, as curves by group
_checkpoint.py  Checkpoint: a saved state, read and checked; TimeMap
_step_hooks.py  calls before and after each optimizer step, counted once
_driver.py      ScheduleDriver: counts steps and writes the scheduled values
_resume.py      resume: what on_change= makes of a checkpoint
_scheduler.py   ScheduleLR: a torch LRScheduler that sets the lr from a schedule
_plateau.py     PlateauLR: a schedule times a factor that follows a metric
_from_torch.py  from_torch: the schedule of a torch scheduler
_groups.py      param_groups: a model's parameters in named groups
_optimizers.py  optimizers by name
drop_in/        the classes of torch.optim.lr_scheduler under their own names
"""

import ratecraft.torch._versions as _checked  # noqa: F401  # first: an older torch is refused
from ratecraft._public import set_public_module as _set_public_module

from ._from_torch import from_torch as from_torch
from ._groups import param_groups as param_groups
from ._optimizers import optimizer_named as optimizer_named
from ._plateau import PlateauLR as PlateauLR
from ._scheduler import ScheduleLR as ScheduleLR

_set_public_module(globals())

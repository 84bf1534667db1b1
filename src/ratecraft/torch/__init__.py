"""USE: a schedule driving a torch optimizer.

config.py        what a scheduler was told, as a value; the clock that bends on "continue"
writer.py      one writer per optimizer and field: base x factors x what others did
saved.py       a saved state, read and checked
scheduler.py   ScheduleLR: a torch LRScheduler that reads a curve at the step count
written.py     what makes a scheduler class of torch's write through the writer
plateau.py     a factor that follows a metric, alone or with its schedule
drop_in.py     every class of torch.optim.lr_scheduler by its own name, on the same writer
from_torch.py  a live scheduler of torch read back into a schedule
groups.py      param_groups: a model's parameters in named groups, each in exactly one
optimizers.py  optimizers by name
probe.py       Probe: what a step really did to each layer
coordinate.py  the lr of every single weight under an adaptive method
describe.py    who drives which group, who has which share in the lr, what is going to happen
setup.py       a live set-up: models, optimizers, schedulers, and who steps them
doctor.py      what is wrong with one
trainers.py    Lightning and the Hugging Face Trainer, which know how long the run is
"""

from ratecraft._public import set_public_module as _set_public_module

from ._from_torch import from_torch as from_torch
from ._groups import param_groups as param_groups
from ._plateau import PlateauLR as PlateauLR
from ._scheduler import ScheduleLR as ScheduleLR

_set_public_module(globals())

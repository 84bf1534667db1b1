"""USE: a schedule driving a torch optimizer.

plan.py        what a scheduler was told, as a value; the clock that bends on "continue"
ledger.py      one ledger per optimizer and field: base x factors x what others did
saved.py       a saved state, read and checked
scheduler.py   ScheduleLR: a torch LRScheduler that reads a curve at the update count
written.py     what makes a scheduler class of torch's write through the ledger
plateau.py     a factor that follows a metric, alone or with its schedule
drop_in.py     every class of torch.optim.lr_scheduler by its own name, on the same ledger
from_torch.py  a live scheduler of torch read back into a schedule
groups.py      param_groups: a model's parameters in named groups, each in exactly one
optimizers.py  optimizers by name
probe.py       Probe: what an update really did to each layer
coordinate.py  the rate of every single weight under an adaptive method
describe.py    who drives which group, who has which share in the rate, what is going to happen
setup.py       a live set-up: models, optimizers, schedulers, and who steps them
doctor.py      what is wrong with one
trainers.py    Lightning and the Hugging Face Trainer, which know how long the run is
"""

from ratecraft.torch.describe import (
    Description,
    GroupDescription,
    breakdown,
    describe,
    preview,
)
from ratecraft.torch.doctor import doctor
from ratecraft.torch.from_torch import from_torch
from ratecraft.torch.groups import param_groups
from ratecraft.torch.plateau import PlateauLR
from ratecraft.torch.probe import Probe
from ratecraft.torch.scheduler import ScheduleLR
from ratecraft.torch.trainers import for_lightning, for_trainer

__all__ = [
    "Description",
    "GroupDescription",
    "PlateauLR",
    "Probe",
    "ScheduleLR",
    "breakdown",
    "describe",
    "doctor",
    "for_lightning",
    "for_trainer",
    "from_torch",
    "param_groups",
    "preview",
]

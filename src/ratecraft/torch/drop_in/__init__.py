"""Every class of ``torch.optim.lr_scheduler`` under its own name, as drop-in replacements.

_base.py        DropInScheduler: a torch scheduler class that writes through the HyperparamWriter
_schedulers.py  the classes that follow a schedule, and WarmupMultiFactorScheduler
_plateau.py     ReduceLROnPlateau, which follows a metric
_composites.py  SequentialLR and ChainedScheduler
"""

from torch.optim.lr_scheduler import LRScheduler as LRScheduler
from torch.optim.lr_scheduler import _LRScheduler as _LRScheduler

from ratecraft._public import set_public_module as _set_public_module

from ._composites import ChainedScheduler as ChainedScheduler
from ._composites import SequentialLR as SequentialLR
from ._plateau import ReduceLROnPlateau as ReduceLROnPlateau
from ._schedulers import ConstantLR as ConstantLR
from ._schedulers import CosineAnnealingLR as CosineAnnealingLR
from ._schedulers import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from ._schedulers import CyclicLR as CyclicLR
from ._schedulers import ExponentialLR as ExponentialLR
from ._schedulers import LambdaLR as LambdaLR
from ._schedulers import LinearLR as LinearLR
from ._schedulers import MultiplicativeLR as MultiplicativeLR
from ._schedulers import MultiStepLR as MultiStepLR
from ._schedulers import OneCycleLR as OneCycleLR
from ._schedulers import PolynomialLR as PolynomialLR
from ._schedulers import StepLR as StepLR
from ._schedulers import WarmupMultiFactorScheduler as WarmupMultiFactorScheduler

_set_public_module(globals())

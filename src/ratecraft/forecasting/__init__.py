"""FORESEE: what a schedule is going to do, before it is run.

bound.py       a bound on what any schedule leaves, from its shape: rank, transfer, extend
refine.py      the schedule that logged gradient norms ask for
logs.py        logs of runs, from the files that people have
law.py         a law of the loss under any schedule, fitted to logs
forecast.py    forecast: the losses of schedules that were not run; recommend: which to choose
averaging.py   averaging: over how many steps AdamW's weights average, what is left of the first
measured.py    what a Probe measured, in the form in which the rest of this wing wants it

Importing this loads the standard library only; numpy and scipy come with the first use.
"""

from ratecraft._public import set_public_module as _set_public_module

from ._averaging import Averaging as Averaging
from ._averaging import averaging as averaging
from ._bound import Bound as Bound
from ._bound import Extension as Extension
from ._bound import bound as bound
from ._bound import cooldown_gains as cooldown_gains
from ._bound import extend as extend
from ._bound import transfer as transfer
from ._forecast import forecast as forecast
from ._forecast import recommend as recommend
from ._gradients import gradient_norms as gradient_norms
from ._gradients import layer_averaging as layer_averaging
from ._law import FittedLaw as FittedLaw
from ._law import Law as Law
from ._law import fit as fit
from ._logs import Log as Log
from ._logs import log_of_run as log_of_run
from ._logs import read_logs as read_logs
from ._refine import refine as refine

_set_public_module(globals())

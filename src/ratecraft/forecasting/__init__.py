"""Forecasting: predicted losses of schedules, and learning rates for other schedules or lengths.

_bound.py      convex bound on the final loss, from the shape of a schedule
_refine.py     schedule that minimizes the bound for measured gradient norms
_logs.py       logs of training runs, read from files
_law.py        multi-power law of the loss, fitted to logs
_forecast.py   forecast: predicted losses of given schedules; recommend: best schedules
_averaging.py  averaging of past steps by decoupled weight decay
_gradients.py  gradient norms and averaging per layer, from the rows of a Probe

Importing this package loads the standard library only; numpy and scipy are loaded on first use.
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

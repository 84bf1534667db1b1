"""Forecasting: predicted losses of schedules, and learning rates for other schedules or lengths.

_bound.py        convex bound on the final loss, from the shape of a schedule
_refine.py       gradient norms from the rows of a Probe, and the schedule that they call for
_log.py          Log: the losses and learning rates of a training run
_log_columns.py  names of the columns of logs
_text_logs.py    columns of text logs
_log_files.py    columns of log files: CSV, JSON, JSON lines, text, TensorBoard events
_read_logs.py    read_logs: logs from files, and which of their columns are read
_law.py          multi-power law of the loss, fitted to logs
_forecast.py     forecast: predicted losses of given schedules; recommend: best schedules
_averaging.py    averaging of past steps by decoupled weight decay

Importing this package loads the standard library only; numpy and scipy are loaded on first use.
"""

from ratecraft._public import set_public_module as _set_public_module

from ._averaging import Averaging as Averaging
from ._averaging import averaging as averaging
from ._averaging import layer_averaging as layer_averaging
from ._bound import Bound as Bound
from ._bound import Extension as Extension
from ._bound import bound as bound
from ._bound import cooldown_gains as cooldown_gains
from ._bound import extend as extend
from ._bound import transfer as transfer
from ._forecast import forecast as forecast
from ._forecast import recommend as recommend
from ._law import FittedLaw as FittedLaw
from ._law import Law as Law
from ._law import fit as fit
from ._log import Log as Log
from ._log import log_of_run as log_of_run
from ._read_logs import read_logs as read_logs
from ._refine import gradient_norms as gradient_norms
from ._refine import refine as refine

_set_public_module(globals())

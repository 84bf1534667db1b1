"""FORESEE: what a schedule is going to do, before it is run.

bound.py       a bound on what any schedule leaves, from its shape: rank, transfer, extend
refine.py      the schedule that logged gradient norms ask for
logs.py        logs of runs, from the files that people have
law.py         a law of the loss under any schedule, fitted to logs
forecast.py    forecast: the losses of schedules that were not run; recommend: which to choose
averaging.py   averaging: over how many updates AdamW's weights average, what is left of the first
measured.py    what a Probe measured, in the form in which the rest of this wing wants it

Importing this loads the standard library only; numpy and scipy come with the first use.
"""

from ratecraft.foresee.averaging import Averaging, averaging
from ratecraft.foresee.bound import Bound, Extension, bound, cooldown_gains, extend, transfer
from ratecraft.foresee.forecast import forecast, recommend
from ratecraft.foresee.law import FittedLaw, Law, fit
from ratecraft.foresee.logs import Log, log_of_run, read_logs
from ratecraft.foresee.measured import gradient_norms, measured_averaging
from ratecraft.foresee.refine import refine

__all__ = [
    "Averaging",
    "Bound",
    "Extension",
    "FittedLaw",
    "Law",
    "Log",
    "averaging",
    "bound",
    "cooldown_gains",
    "extend",
    "fit",
    "forecast",
    "gradient_norms",
    "log_of_run",
    "measured_averaging",
    "read_logs",
    "recommend",
    "refine",
    "transfer",
]

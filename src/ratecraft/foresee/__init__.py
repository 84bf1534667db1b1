"""FORESEE: what a schedule is going to do, from the schedule alone.

averaging.py   averaging: over how many updates AdamW's weights average, what is left of the first
measured.py    what a Probe measured, in the form in which the rest of this wing wants it
"""

from ratecraft.foresee.averaging import Averaging, averaging
from ratecraft.foresee.measured import gradient_norms, measured_averaging

__all__ = ["Averaging", "averaging", "gradient_norms", "measured_averaging"]

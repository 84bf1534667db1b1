"""FORESEE: what a schedule is going to do, from the schedule alone.

averaging.py   averaging: over how many updates AdamW's weights average, what is left of the first
"""

from ratecraft.foresee.averaging import Averaging, averaging

__all__ = ["Averaging", "averaging"]

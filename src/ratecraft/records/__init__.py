"""Frozen results and their files: what the wings hand to each other.

A record is plain data, saved as one JSON file that says what it is; pictures are drawn from
records alone, without torch and without running anything again.

found.py      range tests, short runs, the rate that was found
trained.py    runs, and comparisons of them
foreseen.py   forecasts of schedules that were not run
measured.py   what updates did: a Probe's rows, who made the rate
files.py      records as JSON, there whole or not at all
loading.py    the way back
"""

from ratecraft.records.foreseen import Forecast, Foreseen
from ratecraft.records.found import FoundRate, RangeTest, ShortRun
from ratecraft.records.loading import Record, load
from ratecraft.records.measured import Breakdown, Measured, layer_names, load_measured
from ratecraft.records.trained import (
    Comparison,
    Evaluation,
    Flat,
    Reached,
    Run,
    Setting,
    Summary,
)

__all__ = [
    "Breakdown",
    "Comparison",
    "Evaluation",
    "Flat",
    "Forecast",
    "Foreseen",
    "FoundRate",
    "Measured",
    "RangeTest",
    "Reached",
    "Record",
    "Run",
    "Setting",
    "ShortRun",
    "Summary",
    "layer_names",
    "load",
    "load_measured",
]

"""Learning-rate schedules for PyTorch: define, run, find, forecast and compare them.

This module has the functions that build schedules, and the main functions and classes that need
torch or numpy. It loads each of them when it is first used::

    ratecraft.schedule      schedules as values, their text notation, their curves
    ratecraft.torch         ScheduleLR, PlateauLR, param_groups; drop_in with torch's class names
    ratecraft.diagnostics   Probe, doctor, describe, preview, breakdown
    ratecraft.finder        find_lr, range_test
    ratecraft.forecasting   forecast: the final loss under schedules that were not run
    ratecraft.experiments   compare and train: train a task under schedules
    ratecraft.results       result classes, saved as JSON
    ratecraft.report        HTML reports, figures, terminal charts
    ratecraft.integrations  Lightning and the Hugging Face Trainer
    ratecraft.cli           the command line
    ratecraft.errors        all exceptions

``import ratecraft`` loads only Python's standard library.
"""

import importlib as _importlib
import typing as _typing

from ratecraft._version import __version__ as __version__
from ratecraft.errors import RatecraftError as RatecraftError
from ratecraft.errors import ScheduleError as ScheduleError

if _typing.TYPE_CHECKING:
    from ratecraft._trial import trial as trial
    from ratecraft.diagnostics import Probe as Probe
    from ratecraft.diagnostics import describe as describe
    from ratecraft.diagnostics import doctor as doctor
    from ratecraft.diagnostics import preview as preview
    from ratecraft.experiments import Task as Task
    from ratecraft.experiments import compare as compare
    from ratecraft.experiments import train as train
    from ratecraft.finder import find_lr as find_lr
    from ratecraft.finder import range_test as range_test
    from ratecraft.forecasting import forecast as forecast
    from ratecraft.results import load as load
    from ratecraft.schedule import Curve as Curve
    from ratecraft.schedule import Difference as Difference
    from ratecraft.schedule import Duration as Duration
    from ratecraft.schedule import Finding as Finding
    from ratecraft.schedule import Schedule as Schedule
    from ratecraft.schedule import check as check
    from ratecraft.schedule import constant as constant
    from ratecraft.schedule import cooldown as cooldown
    from ratecraft.schedule import cosine as cosine
    from ratecraft.schedule import custom as custom
    from ratecraft.schedule import decay as decay
    from ratecraft.schedule import epochs as epochs
    from ratecraft.schedule import exp_decay as exp_decay
    from ratecraft.schedule import exp_range as exp_range
    from ratecraft.schedule import exponential as exponential
    from ratecraft.schedule import inverse_sqrt as inverse_sqrt
    from ratecraft.schedule import knee as knee
    from ratecraft.schedule import linear as linear
    from ratecraft.schedule import linear_to_zero as linear_to_zero
    from ratecraft.schedule import multiplicative as multiplicative
    from ratecraft.schedule import noam as noam
    from ratecraft.schedule import one_cycle as one_cycle
    from ratecraft.schedule import one_minus_sqrt as one_minus_sqrt
    from ratecraft.schedule import parse as parse
    from ratecraft.schedule import parse_length as parse_length
    from ratecraft.schedule import percent as percent
    from ratecraft.schedule import polynomial as polynomial
    from ratecraft.schedule import power_law as power_law
    from ratecraft.schedule import power_scheduler as power_scheduler
    from ratecraft.schedule import restarts as restarts
    from ratecraft.schedule import rex as rex
    from ratecraft.schedule import samples as samples
    from ratecraft.schedule import sqrt as sqrt
    from ratecraft.schedule import square as square
    from ratecraft.schedule import staircase as staircase
    from ratecraft.schedule import steps as steps
    from ratecraft.schedule import tanh as tanh
    from ratecraft.schedule import tokens as tokens
    from ratecraft.schedule import trapezoid as trapezoid
    from ratecraft.schedule import triangular as triangular
    from ratecraft.schedule import triangular2 as triangular2
    from ratecraft.schedule import untuned_warmup as untuned_warmup
    from ratecraft.schedule import warmup as warmup
    from ratecraft.schedule import wsd as wsd
    from ratecraft.torch import PlateauLR as PlateauLR
    from ratecraft.torch import ScheduleLR as ScheduleLR
    from ratecraft.torch import param_groups as param_groups

_PACKAGES = {  # of the names that are not in ratecraft.schedule
    **dict.fromkeys(("PlateauLR", "ScheduleLR", "param_groups"), "torch"),
    **dict.fromkeys(("Probe", "describe", "doctor", "preview"), "diagnostics"),
    **dict.fromkeys(("Task", "compare", "train"), "experiments"),
    **dict.fromkeys(("find_lr", "range_test"), "finder"),
    "forecast": "forecasting",
    "load": "results",
    "trial": "_trial",
}


def __getattr__(name: str) -> _typing.Any:
    # The command can report Ctrl-C only after this module is loaded, so it loads little.
    if name == "__all__":  # of `from ratecraft import *`, which loads no torch
        return ["RatecraftError", "ScheduleError", *_schedule_names()]
    if name == "schedule":
        return _importlib.import_module("ratecraft.schedule")
    package = _PACKAGES.get(name)
    if package is None and not name.startswith("_") and name in _schedule_names():
        package = "schedule"
    if package is None:
        raise AttributeError(f"module 'ratecraft' has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"ratecraft.{package}"), name)
    globals()[name] = value
    return value


def _schedule_names() -> list[str]:
    names: list[str] = vars(_importlib.import_module("ratecraft.schedule"))["__all__"]
    return names


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, *_schedule_names()})

"""ratecraft: say, find, use, foresee, prove and see your learning rate before you pay for the run.

The map of the house; a wing is a verb, a file is a noun, and imports run down only::

    ratecraft.cli        the command: show check doctor find predict train compare merge demo info
    ratecraft.compare    PROVE    schedules x seeds, really trained
    ratecraft.view       SEE      terminal, figures, one-file report
    ratecraft.torch      USE      ScheduleLR, drop-in names, param_groups, Probe, doctor
    ratecraft.finder     FIND     the rate, by tests that leave no trace
    ratecraft.foresee    FORESEE  what a schedule would cost, from its shape or from a run's log
    ratecraft.rules      from a range test's curve to a rate
    ratecraft.records    frozen results and their files: where the wings meet
    ratecraft.schedule   SAY      schedules as values; all its words are here, too
    ratecraft.errors     every error raised on purpose

This package itself loads nothing but Python's standard library.
"""

from ratecraft.errors import RatecraftError, ScheduleError
from ratecraft.schedule import (
    Curve,
    Difference,
    Duration,
    Finding,
    Schedule,
    check,
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    epochs,
    exp_decay,
    exp_range,
    exponential,
    from_dict,
    inverse_sqrt,
    knee,
    levels,
    linear,
    linear_to_zero,
    multiplicative,
    noam,
    one_cycle,
    one_minus_sqrt,
    parse,
    parse_length,
    percent,
    polynomial,
    power_law,
    power_scheduler,
    restarts,
    rex,
    samples,
    sqrt,
    square,
    staircase,
    steps,
    tanh,
    to_dict,
    tokens,
    trapezoid,
    triangular,
    triangular2,
    untuned,
    warmup,
    wsd,
)

__version__ = "0.1.0"

__all__ = [
    "Curve",
    "Difference",
    "Duration",
    "Finding",
    "RatecraftError",
    "Schedule",
    "ScheduleError",
    "__version__",
    "check",
    "constant",
    "cooldown",
    "cosine",
    "custom",
    "decay",
    "epochs",
    "exp_decay",
    "exp_range",
    "exponential",
    "from_dict",
    "inverse_sqrt",
    "knee",
    "levels",
    "linear",
    "linear_to_zero",
    "multiplicative",
    "noam",
    "one_cycle",
    "one_minus_sqrt",
    "parse",
    "parse_length",
    "percent",
    "polynomial",
    "power_law",
    "power_scheduler",
    "restarts",
    "rex",
    "samples",
    "sqrt",
    "square",
    "staircase",
    "steps",
    "tanh",
    "to_dict",
    "tokens",
    "trapezoid",
    "triangular",
    "triangular2",
    "untuned",
    "warmup",
    "wsd",
]

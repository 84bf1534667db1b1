"""All exceptions of ratecraft.

::

    RatecraftError
    ├── ScheduleError (ValueError)   a schedule, a length or the text of one is not valid
    ├── BindingError  (ValueError)   a schedule and an optimizer do not fit together
    │   └── ScheduleChanged          a checkpoint is from another schedule; choose on_change=
    ├── TaskError     (ValueError)   a task cannot be found, built or trained
    ├── SettingError  (ValueError)   an argument is out of range
    ├── ResultError   (ValueError)   a saved result cannot be read
    ├── LogError      (ValueError)   a log of a run cannot be used
    ├── UnsupportedTorch (ImportError)  torch is not installed, or too old
    └── RunFailed     (RuntimeError) a run gave no result: its loss is not finite, a range test
                                     has no suggestion, a worker died

An argument of the wrong *type*, such as a string instead of a number, raises ``TypeError``.
Each message says what was written, what was expected and what to write instead.
"""

from argparse import ArgumentTypeError


class RatecraftError(Exception):
    """Base class of all exceptions of ratecraft."""


class ScheduleError(RatecraftError, ValueError, ArgumentTypeError):
    """A schedule, a length or the text of one is not valid.

    As an ``ArgumentTypeError`` its message is shown by ``add_argument("--lr", type=parse)``.
    """


class BindingError(RatecraftError, ValueError):
    """A schedule and an optimizer do not fit together."""


class ScheduleChanged(BindingError):
    """A checkpoint is from another schedule or configuration than the scheduler that loads it."""


class TaskError(RatecraftError, ValueError):
    """A task cannot be found, built or trained."""


class SettingError(RatecraftError, ValueError):
    """An argument is out of range."""


class ResultError(RatecraftError, ValueError):
    """A saved result cannot be read."""


class LogError(RatecraftError, ValueError):
    """A log of a run cannot be read, or lacks the data that is needed."""


class UnsupportedTorch(RatecraftError, ImportError):
    """Torch is not installed, or older than what ratecraft supports."""


class RunFailed(RatecraftError, RuntimeError):
    """A run gave no result, for example because its loss is not finite."""

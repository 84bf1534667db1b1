"""Every error ratecraft raises on purpose.

::

    RatecraftError
    ├── ScheduleError (ValueError)   a schedule, a length or a text that cannot be
    ├── BindingError  (ValueError)   a schedule and an optimizer that do not fit
    │   └── ScheduleChanged              a saved state of another plan: say how to go on
    ├── TaskError     (ValueError)   a task that cannot be found, built or used
    ├── SettingError  (ValueError)   a setting outside its range
    ├── ResultError   (ValueError)   a saved result that cannot be read
    ├── LogError      (ValueError)   a run's log that cannot be used
    └── RunFailed     (RuntimeError) what was run gave no result: a loss that is not finite, a
                                     range test without a suggestion, a worker that died

A wrong *type* (a string where a number belongs) is Python's own ``TypeError``.
Each message says what was written, what was expected and what to write instead.
"""

from __future__ import annotations


class RatecraftError(Exception):
    """The root of all errors that ratecraft raises on purpose."""


class ScheduleError(RatecraftError, ValueError):
    """A schedule, a length or a schedule's text that cannot be."""


class BindingError(RatecraftError, ValueError):
    """A schedule and an optimizer that do not fit together."""


class ScheduleChanged(BindingError):
    """A state was saved under another plan than the one it is loaded into."""


class TaskError(RatecraftError, ValueError):
    """A task that cannot be found, built or used."""


class SettingError(RatecraftError, ValueError):
    """A setting outside its range."""


class ResultError(RatecraftError, ValueError):
    """A saved result that cannot be read."""


class LogError(RatecraftError, ValueError):
    """A run's log that cannot be read, or that says nothing of what is asked."""


class RunFailed(RatecraftError, RuntimeError):
    """What was run gave no result, for example since its loss is not a finite number."""

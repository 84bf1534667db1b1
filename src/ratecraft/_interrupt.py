"""Handlers of Ctrl-C for the command."""

import os
import sys
from types import FrameType
from typing import Any, Final

IMPORT_SYSTEM: Final = "<frozen importlib._bootstrap>"
TRAINING: Final = "ratecraft.experiments._execution"  # saves runs, and stops its workers


def exit_at_once(*_: Any) -> None:
    """End the command without an exception."""
    sys.stderr.write("error: interrupted\n")
    sys.stderr.flush()
    os._exit(130)


def raise_or_exit(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end the command during an import before the training.

    Extension modules, such as those of torch, can discard an exception that is raised while they
    are imported, or replace it by another one.
    """
    importing = False
    while frame is not None and frame.f_globals.get("__name__") != TRAINING:
        importing = importing or frame.f_code.co_filename == IMPORT_SYSTEM
        frame = frame.f_back
    if importing and frame is None:
        exit_at_once()
    raise KeyboardInterrupt

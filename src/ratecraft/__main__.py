"""The ``ratecraft`` command: the entry point of the script, and of ``python -m ratecraft``."""

import os
import signal
import sys
from typing import Any


def _exit_at_once(*_: Any) -> None:
    """End the command on Ctrl-C during its imports, which would turn an exception into others."""
    sys.stderr.write("error: interrupted\n")
    sys.stderr.flush()
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _exit_at_once)

from ratecraft.cli import main  # noqa: E402  # after the handler

if __name__ == "__main__":
    main()

"""The ``ratecraft`` command: the entry point of the script, and of ``python -m ratecraft``."""

import signal

from ratecraft._interrupt import exit_at_once

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, exit_at_once)  # imports would turn an exception into others

from ratecraft.cli import main  # after the handler

if __name__ == "__main__":
    main()

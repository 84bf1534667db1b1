"""Where runs happen. An engine is anything with ``submit(function, *arguments) -> Future``."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Self

import torch

__all__ = ["LocalEngine", "cores"]


class LocalEngine:
    """Worker processes on this machine, one torch thread each.

    Every worker is an executor of its own: in a shared pool one killed worker would break the
    futures of all the others. Processes are spawned, since a forked torch can hang.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._slots = [
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker)
            for _ in range(workers)
        ]
        self._next = itertools.cycle(self._slots)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` in the next worker's queue."""
        return next(self._next).submit(function, *arguments)

    def close(self) -> None:
        """Stop all workers at once, finished or not."""
        for slot in self._slots:
            for process in list((slot._processes or {}).values()):
                process.terminate()
            slot.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle

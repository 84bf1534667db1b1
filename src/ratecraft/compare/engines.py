"""Where runs happen. An engine is anything with ``submit(function, *arguments) -> Future``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, Self

import torch

__all__ = ["Engine", "HereEngine", "LocalEngine", "cores"]


class Engine(Protocol):
    """What runs functions somewhere.

    Attributes:
        slots: how many at once; more are not handed to it.
    """

    slots: int

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` and return its future."""

    def close(self) -> None:
        """Stop at once, finished or not."""


class HereEngine:
    """This process: one run after the other, for a debugger or a notebook's own functions."""

    slots = 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` now; what it raises is in the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # a user's task can raise anything
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: nothing is left running."""


class LocalEngine:
    """Worker processes on this machine, one torch thread each.

    Every worker is an executor of its own: in a shared pool one killed worker would break the
    futures of all the others. One that was killed is started anew with the next function. Workers
    end when this process does, however it ends. Processes are spawned, since a forked torch can
    hang.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._workers = [_worker() for _ in range(workers)]
        self._waiting = [0] * workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` in the worker with the least to do."""
        place = self._waiting.index(min(self._waiting))
        try:
            future = self._workers[place].submit(function, *arguments)
        except BrokenProcessPool:
            self._workers[place] = _worker()
            future = self._workers[place].submit(function, *arguments)
        self._waiting[place] += 1

        def done(_: Future[Any]) -> None:
            self._waiting[place] -= 1

        future.add_done_callback(done)
        return future

    def close(self) -> None:
        """Stop all workers at once, finished or not."""
        for worker in self._workers:
            for process in list((worker._processes or {}).values()):
                process.terminate()
            worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _worker() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_end_with_the_driver, daemon=True).start()


def _end_with_the_driver() -> None:
    """End this process when its parent has ended, also if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

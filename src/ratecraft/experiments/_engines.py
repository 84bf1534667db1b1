"""Where runs happen. An engine is anything with ``submit(function, *arguments) -> Future``.

A future whose worker was killed ends with `WorkerDied`, and is submitted again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, Protocol, Self

import torch

from ratecraft.errors import RunFailed, SettingError

REACH: Final = 10.0  # seconds to wait for a cluster's first word


class WorkerDied(Exception):
    """A worker ended without an answer: it was killed, or had no more memory."""


class Engine(Protocol):
    """What runs functions somewhere.

    No more are handed to it than it has ``slots``.
    """

    @property
    def slots(self) -> int:
        """StepOptions many at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` and return its future."""

    def close(self) -> None:
        """Stop at once, finished or not."""


class InlineEngine:
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
        return _translated(future, BrokenProcessPool)

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


class RayEngine:
    """Ray Core tasks, on this machine or on a cluster that exists.

    A task's file must be at the same path on every machine, or be an installed module. Ray that
    is started here sends no usage statistics.

    Args:
        address: a cluster's, such as "auto" or "ray://head:10001"; default Ray on this machine.
        cpus: processor cores for each trial.
        gpus: GPUs for each trial; .25 puts four trials on one.

    Raises:
        SettingError: Ray is not installed, or the cluster has not what one trial needs.
        RunFailed: no cluster answers at that address.
    """

    def __init__(self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError:
            raise SettingError("this engine needs Ray: pip install 'ratecraft[ray]'") from None
        if cpus <= 0 or gpus < 0:
            raise SettingError(f"cpus={cpus}, gpus={gpus}: expected cpus > 0 and gpus >= 0")
        self._ray: Any = ray  # its types differ from version to version
        self._refs = set[Any]()
        self._started = not ray.is_initialized()
        if self._started:
            _start_ray(ray, address)
        there: dict[str, float] = self._ray.cluster_resources()
        counts = [there.get("CPU", 0.0) / cpus]
        if gpus:
            counts.append(there.get("GPU", 0.0) / gpus)
        self.slots = int(min(counts) + 1e-9)
        if not self.slots:
            self.close()
            raise SettingError(
                f"a trial needs {cpus:g} cores and {gpus:g} GPUs; the cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
            )
        # What is to be retried is decided by who waits for it.
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_called)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` as a Ray task."""
        ref = self._remote.remote(function, arguments)
        self._refs.add(ref)
        future: Future[Any] = ref.future()
        future.add_done_callback(lambda _: self._refs.discard(ref))
        lost = self._ray.exceptions
        return _translated(
            future, lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError,
            lost.ObjectLostError,
        )  # fmt: skip

    def close(self) -> None:
        """Stop what runs; Ray itself only if it was started here."""
        if self._started:
            self._ray.shutdown()
            return
        for ref in list(self._refs):
            self._ray.cancel(ref, force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _refuse_silent(address: str) -> None:
    """Raise RunFailed if nothing listens at an address; Ray itself asks for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # "auto", or a word of Ray's own
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise RunFailed(f"Ray does not answer at {address}: {error}") from None


def _start_ray(ray: Any, address: str | None) -> None:
    if address is not None:
        _refuse_silent(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    said = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = said or "0"
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            # A cluster of its own, also where another one runs on this machine.
            ray.init(address="local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise RunFailed(f"Ray does not answer at {address or 'this machine'}: {line}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray puts one of its own in its place
        if said is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def _translated(future: Future[Any], *killed: type[BaseException]) -> Future[Any]:
    """Return a future that ends as another, but with WorkerDied for an engine's own words."""
    told: Future[Any] = Future()
    told.set_running_or_notify_cancel()

    def ended(done: Future[Any]) -> None:
        error = CancelledError() if done.cancelled() else done.exception()
        if error is None:
            told.set_result(done.result())
        elif isinstance(error, (*killed, CancelledError)):
            told.set_exception(WorkerDied(str(error)))
        else:
            told.set_exception(error)

    future.add_done_callback(ended)
    return told


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

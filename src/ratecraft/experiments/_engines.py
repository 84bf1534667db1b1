"""Engines, which run functions in workers and return futures.

The future of a worker that died raises `WorkerDied`; `compare` then submits the job again.
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

CONNECT_TIMEOUT_SECONDS: Final = 10.0  # to open a connection to a Ray cluster


class WorkerDied(Exception):
    """A worker died before it returned: it was killed or ran out of memory."""


class Engine(Protocol):
    """An object that runs functions in workers.

    At most ``slots`` functions are submitted at a time.
    """

    @property
    def slots(self) -> int:
        """Number of functions that run at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` and return its future."""

    def close(self) -> None:
        """Stop all workers at once, finished or not."""


class InlineEngine:
    """Run functions in this process, one after another, as a debugger or a notebook needs it."""

    slots = 1

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` now; an exception is stored in the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # a user's task can raise anything
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no worker exists."""


class LocalEngine:
    """Run functions in worker processes on this machine, with one torch thread each.

    Each worker is an executor of its own, since in a shared pool one killed worker breaks the
    futures of all others. A killed worker is replaced when the next function is submitted.
    Workers exit when this process ends, even if it is killed. Processes are spawned, since torch
    can hang in a forked process.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._workers = [_create_worker() for _ in range(workers)]
        self._pending = [0] * workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` in the worker with the fewest pending functions."""
        index = self._pending.index(min(self._pending))
        try:
            future = self._workers[index].submit(function, *arguments)
        except BrokenProcessPool:
            self._workers[index] = _create_worker()
            future = self._workers[index].submit(function, *arguments)
        self._pending[index] += 1

        def decrement(_: Future[Any]) -> None:
            self._pending[index] -= 1

        future.add_done_callback(decrement)
        return _with_worker_died(future, BrokenProcessPool)

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
    """Run functions as Ray Core tasks, on this machine or on an existing cluster.

    The file of a task must have the same path on every machine, or be an installed module. A Ray
    that is started here sends no usage statistics.

    Args:
        address: address of a cluster, such as "auto" or "ray://head:10001"; default: start Ray on
            this machine.
        cpus: processor cores per trial.
        gpus: GPUs per trial; 0.25 puts four trials on one.

    Raises:
        SettingError: Ray is not installed, or the cluster lacks the resources for one trial.
        RunFailed: no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError:
            raise SettingError("this engine needs Ray: pip install 'ratecraft[ray]'") from None
        if cpus <= 0 or gpus < 0:
            raise SettingError(f"cpus={cpus}, gpus={gpus}: expected cpus > 0 and gpus >= 0")
        self._ray: Any = ray  # its types differ between versions
        self._refs = set[Any]()
        self._started = not ray.is_initialized()
        if self._started:
            _start_ray(ray, address)
        resources: dict[str, float] = self._ray.cluster_resources()
        counts = [resources.get("CPU", 0.0) / cpus]
        if gpus:
            counts.append(resources.get("GPU", 0.0) / gpus)
        self.slots = int(min(counts) + 1e-9)
        if not self.slots:
            self.close()
            raise SettingError(
                f"a trial needs {cpus:g} cores and {gpus:g} GPUs; the cluster has "
                f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}"
            )
        # compare decides about retries.
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` as a Ray task."""
        ref = self._remote.remote(function, arguments)
        self._refs.add(ref)
        future: Future[Any] = ref.future()
        future.add_done_callback(lambda _: self._refs.discard(ref))
        errors = self._ray.exceptions
        return _with_worker_died(
            future, errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError,
            errors.ObjectLostError,
        )  # fmt: skip

    def close(self) -> None:
        """Cancel all tasks; stop Ray itself only if this engine started it."""
        if self._started:
            self._ray.shutdown()
            return
        for ref in list(self._refs):
            self._ray.cancel(ref, force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _check_reachable(address: str) -> None:
    """Raise RunFailed if no connection to an address opens; Ray itself retries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # "auto" or another keyword of Ray
        return
    try:
        socket.create_connection(
            (host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_SECONDS
        ).close()
    except (OSError, OverflowError) as error:
        raise RunFailed(f"Ray does not answer at {address}: {error}") from None


def _start_ray(ray: Any, address: str | None) -> None:
    if address is not None:
        _check_reachable(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    usage_stats = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = usage_stats or "0"
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            # A new cluster, even if another one runs on this machine.
            ray.init(address="local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise RunFailed(f"Ray does not answer at {address or 'this machine'}: {line}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm_handler)  # Ray replaces it
        if usage_stats is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def _with_worker_died(future: Future[Any], *errors: type[BaseException]) -> Future[Any]:
    """Return a future that mirrors another one, but raises WorkerDied for the given errors."""
    mirror: Future[Any] = Future()
    mirror.set_running_or_notify_cancel()

    def copy_outcome(done: Future[Any]) -> None:
        error = CancelledError() if done.cancelled() else done.exception()
        if error is None:
            mirror.set_result(done.result())
        elif isinstance(error, (*errors, CancelledError)):
            mirror.set_exception(WorkerDied(str(error)))
        else:
            mirror.set_exception(error)

    future.add_done_callback(copy_outcome)
    return mirror


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _create_worker() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit this process as soon as its parent has ended, even if the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

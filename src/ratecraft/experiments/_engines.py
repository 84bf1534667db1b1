"""Engines, which run functions in workers and return futures.

The future of a worker that died, since it was killed or ran out of memory, raises the standard
library's ``BrokenExecutor``; `compare` then submits the job again.
"""

import math
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import torch

from ratecraft.errors import RunFailed, SettingError

from ._reports import Report, forward_to

MAILBOX_SECONDS: Final = 0.05  # to wait for the reports of Ray tasks
LAST_REPORT_SECONDS: Final = 1.0  # that a Ray task waits until its last report has arrived
NO_DEVICE: Final = "-1"  # as CUDA_VISIBLE_DEVICES
CONNECT_TIMEOUT_SECONDS: Final = 10.0  # to open a connection to a Ray cluster


class Engine(Protocol):
    """An object that runs functions in workers, at most ``slots`` at a time.

    It may have a method ``reports()``, which returns what its workers have reported since the
    last call, and does not wait.
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
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def close(self) -> None:
        pass  # no worker exists


class LocalEngine:
    """Run functions in worker processes on this machine, with one torch thread each.

    Each worker is an executor of its own, since in a shared pool one killed worker breaks the
    futures of all others. A killed worker is replaced when the next function is submitted.
    Workers exit when this process ends, even if it is killed. Processes are spawned, since torch
    can hang in a forked process. Each worker has a pipe of its own for reports, so that no lock
    is left behind by a killed one.

    Args:
        workers: number of worker processes.
        gpus: GPUs for each worker, which sees no others; 0.25 lets four share one. Then there are
            at most as many workers as the GPUs allow. Default: each sees all of them.

    Raises:
        SettingError: there are fewer GPUs than one worker needs, or ``gpus`` is not a whole number
            above 1.
    """

    def __init__(self, workers: int, *, gpus: float | None = None) -> None:
        self._devices = [""] * workers if gpus is None else _device_lists(workers, gpus)
        self.slots = len(self._devices)
        self._pipes: list[Connection] = []
        self._workers = [self._create_worker(i) for i in range(self.slots)]
        self._futures: list[Future[Any] | None] = [None] * self.slots

    def _create_worker(self, i: int) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        pipe, end = spawn.Pipe(duplex=False)
        self._pipes.append(pipe)
        arguments = end, self._devices[i]
        return ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_start_worker, initargs=arguments
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        i = next(i for i, last in enumerate(self._futures) if last is None or last.done())
        try:
            future = self._workers[i].submit(_call_and_report, function, *arguments)
        except BrokenExecutor:
            self._workers[i] = self._create_worker(i)
            future = self._workers[i].submit(_call_and_report, function, *arguments)
        self._futures[i] = future
        return future

    def reports(self) -> Iterator[Report]:
        for pipe in list(self._pipes):
            try:
                while pipe.poll():
                    yield pipe.recv()
            except (EOFError, OSError):  # the worker has ended
                self._pipes.remove(pipe)
                pipe.close()

    def close(self) -> None:
        for worker in self._workers:
            for process in list((worker._processes or {}).values()):
                process.terminate()
            worker.shutdown(wait=True, cancel_futures=True)
        for pipe in self._pipes:
            pipe.close()


class RayEngine:
    """Run functions as Ray Core tasks, on this machine or on an existing cluster.

    The file of a task must have the same path on every machine, or be an installed module. A Ray
    that is started here sends no usage statistics.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; default: start Ray here.
        cpus: processor cores per trial.
        gpus: GPUs per trial; 0.25 puts four trials on one.

    Raises:
        SettingError: Ray is not installed, or the cluster lacks the resources for one trial.
        RunFailed: no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        ray = _import_ray()
        if cpus <= 0 or gpus < 0:
            raise SettingError(f"cpus={cpus}, gpus={gpus}: expected cpus > 0 and gpus >= 0")
        self._ray = ray
        self._refs = set[Any]()
        self._started = not ray.is_initialized()
        if self._started:
            _start_ray(ray, address)
        self._mailbox: Any = self._ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        self._pending: Any = None  # the latest reports, as long as they have not arrived
        resources: dict[str, float] = self._ray.cluster_resources()
        all_cpus, all_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        self.slots = int(min(all_cpus / cpus, all_gpus / gpus if gpus else math.inf) + 1e-9)
        if not self.slots:
            self.close()
            raise SettingError(
                f"a trial needs {cpus:g} cores and {gpus:g} GPUs; the cluster has {all_cpus:g} "
                f"and {all_gpus:g}"
            )
        # compare decides about retries.
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_call_and_mail)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        ref = self._remote.remote(self._mailbox, function, *arguments)
        self._refs.add(ref)
        errors = self._ray.exceptions
        died = (
            *(errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError),
            *(errors.ObjectLostError, CancelledError),
        )
        future: Future[Any] = Future()

        def copy_outcome(done: Future[Any]) -> None:
            self._refs.discard(ref)
            try:
                future.set_result(done.result())
            except died as error:
                future.set_exception(BrokenExecutor(str(error)))
            except BaseException as error:
                future.set_exception(error)

        ref.future().add_done_callback(copy_outcome)
        return future

    def reports(self) -> list[Report]:
        self._pending = self._pending or self._mailbox.empty.remote()
        ready, _ = self._ray.wait([self._pending], timeout=MAILBOX_SECONDS)
        if not ready:
            return []
        pending, self._pending = self._pending, None
        try:
            return self._ray.get(pending)  # type: ignore[no-any-return]  # Ray's
        except self._ray.exceptions.RayError:  # the mailbox was killed; Ray starts another
            return []

    def close(self) -> None:
        """Cancel all tasks; stop Ray itself only if this engine started it."""
        if self._started:
            self._ray.shutdown()
            return
        self._ray.kill(self._mailbox)
        for ref in list(self._refs):
            self._ray.cancel(ref, force=True)


class Mailbox:
    """The reports that Ray tasks have sent, kept until this process asks for them."""

    def __init__(self) -> None:
        self._reports: list[Report] = []

    def add(self, report: Report) -> None:
        self._reports.append(report)

    def empty(self) -> list[Report]:
        reports, self._reports = self._reports, []
        return reports


def _call_and_mail(mailbox: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a Ray task, and wait for the mailbox only at the end."""
    import ray

    sent: list[Any] = []

    def send(report: Report) -> None:
        sent[:] = [mailbox.add.remote(report)]

    try:
        with forward_to(send):
            return function(*arguments)
    finally:
        if sent:
            ray.wait(sent, timeout=LAST_REPORT_SECONDS)


def check_engine(engine: Engine | str | None) -> None:
    """Raise a SettingError if there is no engine of a name, or if its package is missing."""
    if engine == "ray":
        _import_ray()
    elif isinstance(engine, str) and engine != "local":
        raise SettingError(f'engine {engine!r}: expected "local", "ray" or an engine')


def _import_ray() -> Any:  # its types differ between versions
    try:
        import ray
    except ImportError:
        raise SettingError("this engine needs Ray: pip install ray") from None
    return ray


def _start_ray(ray: Any, address: str | None) -> None:
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # else "auto" or another keyword of Ray
        target = host.strip("[]"), int(port)
        try:  # Ray itself retries for minutes
            socket.create_connection(target, timeout=CONNECT_TIMEOUT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise RunFailed(f"Ray does not answer at {address}: {error}") from None
    options: dict[str, Any] = {"address": address}
    if address is None:  # a new cluster, even if another one runs on this machine
        options = {"address": "local", "num_cpus": cores(), "include_dashboard": False}
    usage_stats = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = usage_stats or "0"
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise RunFailed(f"Ray does not answer at {address or 'this machine'}: {line}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm_handler)  # Ray replaces it
        if usage_stats is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


@contextmanager
def open_engine(engine: Engine | str | None, workers: int | None, jobs: int) -> Iterator[Engine]:
    """Yield the engine that the arguments of `compare` ask for; close it unless it was given."""
    if not isinstance(engine, str | None):
        if engine.slots < 1:
            raise SettingError(f"{engine!r} has {engine.slots} slots; expected 1 or more")
        yield engine
        return
    opened: Engine
    if engine == "ray":
        opened = RayEngine()
    elif workers == 0:
        opened = InlineEngine()
    else:
        opened = LocalEngine(min(workers or cores(), jobs))
    with closing(opened):
        yield opened


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_pipe_ends: list[Connection] = []  # of a worker process: the end that it writes to


def _device_lists(workers: int, gpus: float) -> list[str]:
    """Return which devices each worker sees, as ``CUDA_VISIBLE_DEVICES`` has them."""
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise SettingError(f"gpus={gpus:g}: expected a whole number, or a part of 1 such as 0.25")
    if not gpus:
        return [NO_DEVICE] * workers
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [str(i) for i in range(torch.cuda.device_count())]
    else:
        names = [name.strip() for name in visible.split(",") if name.strip() not in ("", NO_DEVICE)]
    count = min(workers, int(len(names) / gpus + 1e-9))
    if not count:
        raise SettingError(f"a trial needs {gpus:g} GPUs; this machine has {len(names)}")
    width = max(int(gpus), 1)
    starts = [int(i * gpus + 1e-9) for i in range(count)]
    return [",".join(names[start : start + width]) for start in starts]


def _start_worker(pipe_end: Connection, devices: str) -> None:
    _pipe_ends.append(pipe_end)
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    parent = multiprocessing.parent_process()

    def exit_with_parent() -> None:  # even if the parent is killed
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _call_and_report(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a worker process of `LocalEngine`."""
    with forward_to(_pipe_ends[-1].send):
        return function(*arguments)

"""Reports of a worker to the process that compares: steps of its runs, and what it prints."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from os import getpid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from ._training_run import TrainingRun

REPORT_SECONDS: Final = 0.5  # between two reports of a job
# A pipe takes up to 4096 bytes on Linux, and 512 on macOS, as a whole. So on Linux no report is
# torn, by a killed worker or by a forked process that prints at the same time.
MAX_PRINTED_BYTES: Final = 3500


class StepReport(NamedTuple):
    """The last step of a run, and the speed of its job."""

    key: str  # of the trial
    step: int  # number of steps of the run so far
    total_steps: int  # 0 if it is not known, as of some scripts
    loss: float
    job_steps: int  # trained by the job so far
    job_seconds: float  # time of these steps, without the first


class PrintedText(NamedTuple):
    """Text that a worker prints; not always a whole line."""

    process: int
    stream: Literal["stdout", "stderr"]
    data: bytes


Report = StepReport | PrintedText
Send = Callable[[Report], object]
_send: ContextVar[Send | None] = ContextVar("send", default=None)


@contextmanager
def report_to(send: Send) -> Iterator[None]:
    """Send the reports of jobs that run in the block."""
    token = _send.set(send)
    try:
        yield
    finally:
        _send.reset(token)


@contextmanager
def forward_to(send: Send) -> Iterator[None]:
    """Send the reports of jobs that run in the block, and what the block prints."""

    def send_if_open(report: Report) -> None:
        with suppress(OSError):  # the process that compares has ended, and this one will
            send(report)

    stdout, stderr = _stream(send_if_open, "stdout"), _stream(send_if_open, "stderr")
    with report_to(send_if_open), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            yield
        finally:
            stdout.flush()
            stderr.flush()


def _stream(send: Send, name: Literal["stdout", "stderr"]) -> io.TextIOWrapper:
    file = io.BufferedWriter(_PrintedBytes(send, name))
    return io.TextIOWrapper(file, "utf-8", errors="backslashreplace", line_buffering=True)


class _PrintedBytes(io.RawIOBase):
    """A file whose content is sent; programs that it is passed to write to the terminal."""

    def __init__(self, send: Send, name: Literal["stdout", "stderr"]) -> None:
        self._send, self._stream = send, name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1 if self._stream == "stdout" else 2

    def write(self, data: Any) -> int:
        piece = bytes(data[:MAX_PRINTED_BYTES])
        self._send(PrintedText(getpid(), self._stream, piece))
        return len(piece)


class PrintedLines:
    """Joins the text of each worker into lines, and prints each line on the stream it is for."""

    def __init__(self) -> None:
        self._rest: dict[tuple[int, str], bytes] = {}

    def add(self, text: PrintedText) -> None:
        key = text.process, text.stream
        *lines, rest = (self._rest.pop(key, b"") + text.data).split(b"\n")
        for line in lines:
            _print_line(text.stream, line)
        if rest:  # of a bar that is drawn again and again, only the last state is kept
            self._rest[key] = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]

    def flush(self) -> None:
        """Print the text that no newline ended."""
        for (_, stream), rest in self._rest.items():
            _print_line(stream, rest)
        self._rest.clear()


def _print_line(stream: str, line: bytes) -> None:
    file = getattr(sys, stream)
    if file is None:  # a program without a console
        return
    text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    encoding = getattr(file, "encoding", None) or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    file.flush()


class StepReporter:
    """Counts the steps of a job, and reports the latest one every half a second."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys, self._steps, self._start, self._next = keys, 0, 0.0, 0.0

    def __call__(self, index: int, training: TrainingRun) -> None:
        """Count a step of the job's run with this index."""
        now = time.monotonic()
        self._steps += 1
        if self._steps == 1:  # which also sets up what later steps use
            self._start, self._next = now, now + REPORT_SECONDS
        send = _send.get()
        if send is None or now < self._next:
            return
        self._next = now + REPORT_SECONDS
        key, losses, total_steps = self._keys[index], training.losses, training.total_steps
        speed = self._steps, now - self._start
        send(StepReport(key, len(losses), total_steps, losses[-1], *speed))


SCRIPT_STEPS: Final = 1000  # that each run of a script counts as: its length is not known before


class ScriptReporter:
    """Reports the last step that the scripts of a job have logged, every half a second."""

    def __init__(self) -> None:
        self._ended, self._start, self._next = 0, time.monotonic(), 0.0

    def __call__(self, key: str, step: int, total_steps: int, loss: float) -> None:
        """Report the last step of a trial; ``total_steps`` is 0 if it is not known."""
        send, now = _send.get(), time.monotonic()
        if send is None or now < self._next:
            return
        self._next = now + REPORT_SECONDS
        part = min(step / total_steps, 1.0) if total_steps else 0.0
        job_steps = round((self._ended + part) * SCRIPT_STEPS)
        send(StepReport(key, step, total_steps, loss, job_steps, now - self._start))

    def end(self) -> None:
        """Count a trial that has ended."""
        self._ended += 1

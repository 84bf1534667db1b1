"""A program that runs a command until it ends, or until the program's own parent does.

It is started as ``python -I _run_command.py DIRECTORY COMMAND...`` with a pipe as its standard
input, which nothing is written to: its end means that the parent has ended, even if it was killed.
All processes that the command has started are killed then, and also when the command ends. The
output of the command is written to a file in the directory. At the end one line of JSON is printed.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

OUTPUT_NAME: Final = "output.txt"
MAX_OUTPUT_BYTES: Final = 16 << 20  # of which the file has the first half and the last one
LOCK_SECONDS: Final = 10.0  # to wait for the end of the processes of an earlier start
CHILD_SUBREAPER: Final = 36  # of Linux's prctl: orphans become children of this process
DEATH_SIGNAL: Final = 1  # of Linux's prctl: a signal to a process whose parent ends


def main(directory: Path, command: list[str]) -> None:
    with (directory / "lock").open("w") as lock:
        if not _acquire(lock):
            _report({"error": "another process still runs this trial"})
            return
        _prctl(CHILD_SUBREAPER, 1)
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's command
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _prctl(DEATH_SIGNAL, signal.SIGKILL),  # noqa: PLW1509
            )
        except OSError as error:
            sys.stdout.write(json.dumps({"error": f"{command[0]}: {error.strerror}"}))
            return
        threading.Thread(target=_stop_with_parent, args=(process,), daemon=True).start()
        writer = threading.Thread(target=_write_output, args=(process.stdout, directory))
        writer.start()
        code = process.wait()
        orphans = _kill_all(process)
        writer.join()
        _report({"code": code, "orphans": orphans})


def _report(result: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the parent has ended
        os.write(1, json.dumps(result).encode())


def _acquire(lock: IO[str]) -> bool:
    import fcntl  # which Windows lacks; there, no script is run

    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        else:
            return True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _stop_with_parent(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    _kill_all(process)
    os._exit(1)


def _kill_all(process: subprocess.Popen[bytes]) -> int:
    """Kill the command and what it has started; return how many of the latter were running."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    killed = set[int]()
    while running := list(_descendants()):
        for child in running:
            killed.add(child)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with suppress(ChildProcessError):  # which orphans have become
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return len(killed - {process.pid})


def _descendants() -> Iterator[int]:
    """Return the processes that this one and its children have started; Linux only."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            yield child


def _write_output(stream: Any, directory: Path) -> None:
    """Copy the output to a file, without the middle of a very long one."""
    written, last, last_bytes, omitted = 0, deque[bytes](), 0, 0
    with (directory / OUTPUT_NAME).open("ab", buffering=0) as file:
        while chunk := stream.read1(1 << 16):
            if written < MAX_OUTPUT_BYTES // 2:
                file.write(chunk)
                written += len(chunk)
                continue
            last.append(chunk)
            last_bytes += len(chunk)
            while last_bytes > MAX_OUTPUT_BYTES // 2:
                omitted += len(last[0])
                last_bytes -= len(last.popleft())
        if omitted:
            file.write(f"\n... {omitted} bytes of output are left out ...\n".encode())
        file.writelines(last)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

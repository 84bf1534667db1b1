"""Runs in one SQLite file, each there whole or not at all, for whoever goes on with them."""

from __future__ import annotations

import array
import json
import os
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self

from ratecraft.compare.plan import Trial
from ratecraft.errors import RecordError, RunFailed
from ratecraft.records import Evaluation, Run

__all__ = ["Store"]

FORMAT: Final = "1"
LEASE: Final = 60.0  # seconds without a sign of life after which a driver's trials are free again
TABLES: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, trial TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'planned',
    owner TEXT, beat REAL, run TEXT, losses BLOB, error TEXT
);
"""


class Store:
    """Trials and their runs in an SQLite file.

    A trial is planned, running (somebody's, until that one gives no sign of life for a minute),
    done or failed. Several drivers may share a file on one machine: each trial is claimed by one.

    Args:
        path: the file; made if it is not there. ":memory:" keeps nothing.

    Raises:
        RecordError: a file that is no store, or a damaged one; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        if self.path != ":memory:":
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            with self._told():
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")  # a power cut takes nothing back
                self._base.executescript(TABLES)
                self._base.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,))
                (found,) = self._base.execute(
                    "SELECT value FROM about WHERE name = 'format'"
                ).fetchone()
                if found != FORMAT:
                    raise RecordError(
                        f"{self.path} has format {found}, and this version reads {FORMAT}"
                    )
        except BaseException:
            self._base.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is claimed and close the file."""
        with self._told():
            self._base.execute(
                "UPDATE trials SET status = 'planned', owner = NULL "
                "WHERE status = 'running' AND owner = ?",
                (self._owner,),
            )
        self._base.close()

    def plan(self, trials: Iterable[Trial]) -> None:
        """Write down what is to be done; what is known already stays as it is."""
        with self._told(), self._whole():
            self._base.executemany(
                "INSERT OR IGNORE INTO trials (key, trial) VALUES (?, ?)",
                [(trial.key, json.dumps(asdict(trial))) for trial in trials],
            )
            # What failed is tried again: its reason may be gone.
            self._base.executemany(
                "UPDATE trials SET status = 'planned', error = NULL "
                "WHERE key = ? AND status = 'failed'",
                [(trial.key,) for trial in trials],
            )

    def claim(self, trial: Trial) -> bool:
        """Take a trial that is planned, or whose owner is gone; say whether it is ours now."""
        with self._told(), self._whole():
            row = self._base.execute(
                "SELECT status, owner, beat FROM trials WHERE key = ?", (trial.key,)
            ).fetchone()
            if row is None or row[0] not in ("planned", "running"):
                return False
            mine = row[1] == self._owner  # as when its worker died and it is tried again
            if row[0] == "running" and not mine and self._lives(row[1], row[2]):
                return False
            self._base.execute(
                "UPDATE trials SET status = 'running', owner = ?, beat = ? WHERE key = ?",
                (self._owner, time.time(), trial.key),
            )
            return True

    def beat(self) -> None:
        """Give a sign of life for all that is claimed."""
        with self._told():
            self._base.execute(
                "UPDATE trials SET beat = ? WHERE status = 'running' AND owner = ?",
                (time.time(), self._owner),
            )

    def finish(self, trial: Trial, run: Run) -> None:
        """Keep a trial's run."""
        told = {k: v for k, v in asdict(run).items() if k != "losses"}
        packed = zlib.compress(array.array("d", run.losses).tobytes())
        with self._told():
            self._base.execute(
                "UPDATE trials SET status = 'done', owner = NULL, run = ?, losses = ?, "
                "error = NULL WHERE key = ?",
                (json.dumps(told), packed, trial.key),
            )

    def fail(self, trial: Trial, error: str) -> None:
        """Keep why a trial gave no run."""
        with self._told():
            self._base.execute(
                "UPDATE trials SET status = 'failed', owner = NULL, error = ? WHERE key = ?",
                (error, trial.key),
            )

    def runs(self, trials: Sequence[Trial]) -> dict[Trial, Run]:
        """Return the runs of those trials that are done."""
        found = {}
        for trial in trials:
            with self._told():
                row = self._base.execute(
                    "SELECT run, losses FROM trials WHERE key = ? AND status = 'done'",
                    (trial.key,),
                ).fetchone()
            if row is not None:
                found[trial] = _run(*row)
        return found

    def errors(self, trials: Sequence[Trial]) -> dict[Trial, str]:
        """Return why those trials failed that did."""
        found = {}
        for trial in trials:
            with self._told():
                row = self._base.execute(
                    "SELECT error FROM trials WHERE key = ? AND status = 'failed'", (trial.key,)
                ).fetchone()
            if row is not None:
                found[trial] = row[0]
        return found

    def _lives(self, owner: str, beat: float) -> bool:
        host, process, _ = owner.rsplit(":", 2)
        if host == socket.gethostname() and not _is_there(int(process)):
            return False
        return time.time() - beat < LEASE

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Write all or nothing, with nobody else between reading and writing."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RunFailed(
                f"{self.path}: {error}; what was complete before is still in it"
            ) from None
        except sqlite3.DatabaseError as error:
            raise RecordError(
                f"{self.path} is no store of runs, or a damaged one ({error}); it was left as it "
                "is: name another file"
            ) from None


def _run(told: str, packed: bytes) -> Run:
    fields = json.loads(told)
    losses = array.array("d")
    losses.frombytes(zlib.decompress(packed))
    seen = tuple(Evaluation(e["update"], e["metrics"]) for e in fields.pop("evaluations"))
    return Run(**fields, losses=tuple(losses), evaluations=seen)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

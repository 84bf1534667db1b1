"""Runs in one SQLite file, each there whole or not at all, for whoever goes on with them."""

from __future__ import annotations

import array
import json
import logging
import os
import socket
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self

from ratecraft.errors import ResultError, RunFailed
from ratecraft.results import Evaluation, Run

from ._trials import Trial

log = logging.getLogger("ratecraft.experiments")

FORMAT: Final = "1"
NETWORK: Final = frozenset(
    ("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "lustre", "gpfs", "beegfs",
     "ceph", "panfs", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.cephfs", "fuse.rclone")
)  # fmt: skip
BEAT: Final = 10.0  # seconds between signs of life
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
    On a network filesystem, where SQLite's locks cannot be trusted so far, one driver has the file
    for itself, without a write-ahead log.

    Args:
        path: the file; made if it is not there. ":memory:" keeps nothing.
        alone: have the file for oneself; default where it lies on a network filesystem.

    Raises:
        ResultError: a file that is no store, or a damaged one; it is left as it is.
        RunFailed: another driver has the file for itself.
    """

    def __init__(self, path: str | os.PathLike[str], *, alone: bool | None = None) -> None:
        self.path = str(path)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        memory = self.path == ":memory:"
        if not memory:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        kind = "" if memory else filesystem(Path(self.path))
        self._alone = kind in NETWORK if alone is None else alone
        if kind in NETWORK:
            log.warning(
                "%s lies on a network filesystem (%s): one driver at a time writes to it; give "
                "each of several a shard and a store of its own, and merge them", self.path, kind,
            )  # fmt: skip
        wait = 3 if self._alone else 30
        self._base = sqlite3.connect(self.path, timeout=wait, isolation_level=None)
        try:
            with self._told():
                self._refuse_others()
                if self._alone:
                    self._base.execute("PRAGMA locking_mode=EXCLUSIVE")
                    self._base.execute("PRAGMA journal_mode=DELETE")
                    self._base.execute("BEGIN EXCLUSIVE")
                    self._base.execute("COMMIT")  # the lock stays until the file is closed
                else:
                    self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")  # a power cut takes nothing back
                self._base.executescript(TABLES)
                self._base.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,))
                (found,) = self._base.execute(
                    "SELECT value FROM about WHERE name = 'format'"
                ).fetchone()
                if found != FORMAT:
                    raise ResultError(
                        f"{self.path} has format {found}, and this version reads {FORMAT}"
                    )
        except BaseException:
            self._base.close()
            raise
        self._closed = threading.Event()
        if not memory and not self._alone:  # nobody else could read a sign of life
            threading.Thread(target=self._beat, daemon=True).start()

    def _refuse_others(self) -> None:
        """Raise ResultError if this is an SQLite file of somebody else's, before it is touched."""
        found = self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        there = {name for (name,) in found}
        if there and not there >= {"about", "trials"}:
            raise ResultError(
                f"{self.path} is an SQLite file of something else (tables "
                f"{', '.join(sorted(there))}), and was left as it is: name another file"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is claimed and close the file."""
        self._closed.set()
        with self._told():
            self._base.execute(
                "STEP trials SET status = 'planned', owner = NULL "
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
                "STEP trials SET status = 'planned', error = NULL "
                "WHERE key = ? AND status = 'failed'",
                [(trial.key,) for trial in trials],
            )

    def claim(self, *trials: Trial) -> bool:
        """Take trials that are planned, or whose owner is gone; say whether they are ours now.

        Of several that belong together all are taken or none, and those that are done stay so.
        """
        with self._told(), self._whole():
            free = []
            for trial in trials:
                status, owner, beat = self._base.execute(
                    "SELECT status, owner, beat FROM trials WHERE key = ?", (trial.key,)
                ).fetchone() or ("", "", 0.0)
                if status == "running" and owner != self._owner and self._lives(owner, beat):
                    return False
                if status in ("planned", "running"):  # ours: its worker died, once more
                    free.append((self._owner, time.time(), trial.key))
            self._base.executemany(
                "STEP trials SET status = 'running', owner = ?, beat = ? WHERE key = ?", free
            )
            return bool(free)

    def _beat(self) -> None:
        """Give signs of life for all that is claimed, until the store is closed."""
        while not self._closed.wait(BEAT):
            try:
                base = sqlite3.connect(self.path, timeout=5)
                with base:
                    base.execute(
                        "STEP trials SET beat = ? WHERE status = 'running' AND owner = ?",
                        (time.time(), self._owner),
                    )
                base.close()
            except sqlite3.Error:  # the next one is soon; what matters is told by who writes
                continue

    def finish(self, trial: Trial, run: Run) -> None:
        """Keep a trial's run."""
        told = {k: v for k, v in asdict(run).items() if k != "losses"}
        packed = zlib.compress(array.array("d", run.losses).tobytes())
        with self._told():
            self._base.execute(
                "STEP trials SET status = 'done', owner = NULL, run = ?, losses = ?, "
                "error = NULL WHERE key = ?",
                (json.dumps(told), packed, trial.key),
            )

    def fail(self, trial: Trial, error: str) -> None:
        """Keep why a trial gave no run."""
        with self._told():
            self._base.execute(
                # A run that is there stays: this may be a job that was done again for others.
                "STEP trials SET status = 'failed', owner = NULL, error = ? "
                "WHERE key = ? AND status != 'done'",
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

    def take(self, other: Store) -> int:
        """Copy what is done in another store and not here; return how many runs that is."""
        with other._told():
            rows = other._base.execute(
                "SELECT key, trial, run, losses FROM trials WHERE status = 'done'"
            ).fetchall()
        with self._told(), self._whole():
            known = {
                key for (key,) in self._base.execute("SELECT key FROM trials WHERE status = 'done'")
            }
            fresh = [row for row in rows if row[0] not in known]
            self._base.executemany(
                "INSERT OR REPLACE INTO trials (key, trial, status, run, losses) "
                "VALUES (?, ?, 'done', ?, ?)",
                fresh,
            )
        return len(fresh)

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
            if "locked" in str(error):
                raise RunFailed(
                    f"{self.path} is in use by another driver, and there can be one at a time; "
                    "give each of several a shard and a store of its own, and merge them"
                ) from None
            raise RunFailed(
                f"{self.path}: {error}; what was complete before is still in it"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ResultError(
                f"{self.path} is no store of runs, or a damaged one ({error}); it was left as it "
                "is: name another file"
            ) from None


def _run(told: str, packed: bytes) -> Run:
    fields = json.loads(told)
    losses = array.array("d")
    losses.frombytes(zlib.decompress(packed))
    seen = tuple(Evaluation(**one) for one in fields.pop("evaluations"))
    return Run(**fields, losses=tuple(losses), evaluations=seen)


def merge(target: str | os.PathLike[str], *sources: str | os.PathLike[str]) -> int:
    """Copy the runs of some stores into one; return how many were not there before.

    Args:
        target: the store that takes them; made if it is not there.
        sources: the others, as shards of one comparison wrote them. They are left as they are.

    Raises:
        ResultError: a source is missing, or no store.

    >>> import tempfile
    >>> from ratecraft import constant
    >>> from ratecraft.experiments import compare
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     how = {"lrs": [0.02, 0.05], "seeds": 1, "total": 5, "workers": 0}
    ...     parts = [f"{folder}/{i}.db" for i in (1, 2)]
    ...     for i, part in enumerate(parts, 1):
    ...         _ = compare("digits", constant(1), store=part, shard=(i, 2), **how)
    ...     merge(f"{folder}/all.db", *parts)
    2
    """
    for source in sources:
        if not Path(source).is_file():
            raise ResultError(f"there is no store {source}")
        if not Path(source).stat().st_size:
            raise ResultError(f"{source} is empty: its shard was not begun")
        if Path(source).resolve() == Path(target).resolve():
            raise ResultError(f"{source} cannot be merged into itself; name the target first")
    with Store(target) as store:
        count = 0
        for source in sources:
            with Store(source) as other:
                count += store.take(other)
    return count


def filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the kind of filesystem that a path is on, as Linux calls it; empty if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    place = str(path.resolve())
    best, kind = "", ""
    for line in lines:
        _, at, name, *_ = line.split()
        folder = at.replace("\\040", " ").rstrip("/")
        if (place + "/").startswith(folder + "/") and len(folder) >= len(best):
            best, kind = folder, name
    return kind


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Runs in an SQLite file, each stored completely or not at all."""

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

STORE_FORMAT: Final = "2"
"""Version of the tables. 1 had other field names."""
NETWORK_FILESYSTEMS: Final = frozenset(
    ("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "lustre", "gpfs", "beegfs",
     "ceph", "panfs", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.cephfs", "fuse.rclone")
)  # fmt: skip
HEARTBEAT_SECONDS: Final = 10.0  # between two heartbeats of a driver
LEASE_SECONDS: Final = 60.0  # after the last heartbeat, the trials of a driver are free again
TABLES: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, trial TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'planned',
    owner TEXT, heartbeat REAL, run TEXT, losses BLOB, error TEXT
);
"""


class Store:
    """Trials and their runs in an SQLite file.

    A trial is planned, running, done or failed. A running trial belongs to one driver, until a
    minute after the last heartbeat of that driver. Several drivers on one machine may share a
    file. On a network filesystem, where SQLite's locks are unreliable, one driver opens the file
    exclusively, without a write-ahead log.

    Args:
        path: the file; created if it does not exist. ":memory:" stores nothing on disk.
        exclusive: lock the file for this driver; default: only on a network filesystem.

    Raises:
        ResultError: the file is not a store, is damaged or has another format; it is not changed.
        RunFailed: another driver has locked the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, exclusive: bool | None = None) -> None:
        self.path = str(path)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        in_memory = self.path == ":memory:"
        if not in_memory:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        fs_type = "" if in_memory else filesystem(Path(self.path))
        self._exclusive = fs_type in NETWORK_FILESYSTEMS if exclusive is None else exclusive
        if fs_type in NETWORK_FILESYSTEMS:
            log.warning(
                "%s is on a network filesystem (%s): only one driver at a time can write to it; "
                "give each driver its own shard and store, and merge the stores",
                self.path, fs_type,
            )  # fmt: skip
        timeout = 3 if self._exclusive else 30
        self._db = sqlite3.connect(self.path, timeout=timeout, isolation_level=None)
        try:
            with self._translate_errors():
                self._check_file()
                if self._exclusive:
                    self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                    self._db.execute("PRAGMA journal_mode=DELETE")
                    self._db.execute("BEGIN EXCLUSIVE")
                    self._db.execute("COMMIT")  # the lock lasts until the file is closed
                else:
                    self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")  # survives a power failure
                self._db.executescript(TABLES)
                self._db.execute(
                    "INSERT OR IGNORE INTO about VALUES ('format', ?)", (STORE_FORMAT,)
                )
        except BaseException:
            self._db.close()
            raise
        self._closed = threading.Event()
        if not in_memory and not self._exclusive:  # no other driver could read a heartbeat
            threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def _check_file(self) -> None:
        """Raise ResultError for a foreign SQLite file or another format, before any write."""
        rows = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        if tables and not tables >= {"about", "trials"}:
            raise ResultError(
                f"{self.path} is an SQLite file of another program (tables "
                f"{', '.join(sorted(tables))}) and was not changed; write another file name"
            )
        if not tables:
            return
        row = self._db.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        if row is not None and row[0] != STORE_FORMAT:
            raise ResultError(
                f"{self.path} has format {row[0]}, but this version of ratecraft reads format "
                f"{STORE_FORMAT}: train the runs again into a new store"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the claimed trials and close the file."""
        self._closed.set()
        with self._translate_errors():
            self._db.execute(
                "UPDATE trials SET status = 'planned', owner = NULL "
                "WHERE status = 'running' AND owner = ?",
                (self._owner,),
            )
        self._db.close()

    def add(self, trials: Iterable[Trial]) -> None:
        """Add trials; known ones stay unchanged, but failed ones are planned again."""
        with self._translate_errors(), self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO trials (key, trial) VALUES (?, ?)",
                [(trial.key, json.dumps(asdict(trial))) for trial in trials],
            )
            # A failure may have had a temporary cause.
            self._db.executemany(
                "UPDATE trials SET status = 'planned', error = NULL "
                "WHERE key = ? AND status = 'failed'",
                [(trial.key,) for trial in trials],
            )

    def claim(self, *trials: Trial) -> bool:
        """Claim the trials of a job; return whether this driver may train them now.

        Trials that are planned, or whose driver has died, can be claimed. All trials are claimed
        or none; those that are done stay done.
        """
        with self._translate_errors(), self._transaction():
            free = []
            for trial in trials:
                status, owner, heartbeat = self._db.execute(
                    "SELECT status, owner, heartbeat FROM trials WHERE key = ?", (trial.key,)
                ).fetchone() or ("", "", 0.0)
                if status == "running" and owner != self._owner and _is_alive(owner, heartbeat):
                    return False
                if status in ("planned", "running"):  # this driver's own: its worker died
                    free.append((self._owner, time.time(), trial.key))
            self._db.executemany(
                "UPDATE trials SET status = 'running', owner = ?, heartbeat = ? WHERE key = ?",
                free,
            )
            return bool(free)

    def _send_heartbeats(self) -> None:
        """Renew the heartbeat of all claimed trials until the store is closed."""
        while not self._closed.wait(HEARTBEAT_SECONDS):
            try:
                db = sqlite3.connect(self.path, timeout=5)
                with db:
                    db.execute(
                        "UPDATE trials SET heartbeat = ? WHERE status = 'running' AND owner = ?",
                        (time.time(), self._owner),
                    )
                db.close()
            except sqlite3.Error:  # the next one follows soon; writes report lasting errors
                continue

    def finish(self, trial: Trial, run: Run) -> None:
        """Store the run of a trial."""
        fields = {name: value for name, value in asdict(run).items() if name != "losses"}
        losses = zlib.compress(array.array("d", run.losses).tobytes())
        with self._translate_errors():
            self._db.execute(
                "UPDATE trials SET status = 'done', owner = NULL, run = ?, losses = ?, "
                "error = NULL WHERE key = ?",
                (json.dumps(fields), losses, trial.key),
            )

    def fail(self, trial: Trial, error: str) -> None:
        """Store why a trial has no run."""
        with self._translate_errors():
            self._db.execute(
                # A complete run stays: its job may have been repeated for other trials.
                "UPDATE trials SET status = 'failed', owner = NULL, error = ? "
                "WHERE key = ? AND status != 'done'",
                (error, trial.key),
            )

    def runs(self, trials: Sequence[Trial]) -> dict[Trial, Run]:
        """Return the runs of the trials that are done."""
        runs = {}
        for trial in trials:
            with self._translate_errors():
                row = self._db.execute(
                    "SELECT run, losses FROM trials WHERE key = ? AND status = 'done'",
                    (trial.key,),
                ).fetchone()
            if row is not None:
                runs[trial] = _decode_run(*row)
        return runs

    def errors(self, trials: Sequence[Trial]) -> dict[Trial, str]:
        """Return the errors of the trials that failed."""
        errors = {}
        for trial in trials:
            with self._translate_errors():
                row = self._db.execute(
                    "SELECT error FROM trials WHERE key = ? AND status = 'failed'", (trial.key,)
                ).fetchone()
            if row is not None:
                errors[trial] = row[0]
        return errors

    def copy_from(self, other: Store) -> int:
        """Copy the runs of another store that are missing here; return their number."""
        with other._translate_errors():
            rows = other._db.execute(
                "SELECT key, trial, run, losses FROM trials WHERE status = 'done'"
            ).fetchall()
        with self._translate_errors(), self._transaction():
            known = {
                key for (key,) in self._db.execute("SELECT key FROM trials WHERE status = 'done'")
            }
            missing = [row for row in rows if row[0] not in known]
            self._db.executemany(
                "INSERT OR REPLACE INTO trials (key, trial, status, run, losses) "
                "VALUES (?, ?, 'done', ?, ?)",
                missing,
            )
        return len(missing)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write everything or nothing, and lock out other writers from the start."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise RunFailed or ResultError, with advice, in place of an SQLite error."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise RunFailed(
                    f"{self.path} is in use by another driver, and only one can use it at a time; "
                    "give each driver its own shard and store, and merge the stores"
                ) from None
            raise RunFailed(
                f"{self.path}: {error}; runs that were complete before are still in it"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ResultError(
                f"{self.path} is not a store of runs, or is damaged ({error}); it was not changed: "
                "write another file name"
            ) from None


def _decode_run(text: str, packed_losses: bytes) -> Run:
    fields = json.loads(text)
    losses = array.array("d")
    losses.frombytes(zlib.decompress(packed_losses))
    evaluations = tuple(Evaluation(**evaluation) for evaluation in fields.pop("evaluations"))
    return Run(**fields, losses=tuple(losses), evaluations=evaluations)


def merge(target: str | os.PathLike[str], *sources: str | os.PathLike[str]) -> int:
    """Copy the runs of several stores into one; return how many of them are new.

    Args:
        target: the store that receives the runs; created if it does not exist.
        sources: the stores to read, such as those of the shards of a comparison.

    Raises:
        ResultError: a source does not exist or is not a store.

    >>> import tempfile
    >>> from ratecraft import constant
    >>> from ratecraft.experiments import compare, merge
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"lrs": [0.02, 0.05], "seeds": 1, "total_steps": 5, "workers": 0}
    ...     shards = [f"{folder}/{i}.db" for i in (1, 2)]
    ...     for i, store in enumerate(shards, 1):
    ...         _ = compare("digits", constant(1), store=store, shard=(i, 2), **options)
    ...     merge(f"{folder}/all.db", *shards)
    2
    """
    for source in sources:
        if not Path(source).is_file():
            raise ResultError(f"there is no store {source}")
        if not Path(source).stat().st_size:
            raise ResultError(f"{source} is empty: its shard has not started")
        if Path(source).resolve() == Path(target).resolve():
            raise ResultError(f"{source} cannot be merged into itself; write the target first")
    with Store(target) as store:
        count = 0
        for source in sources:
            with Store(source) as other:
                count += store.copy_from(other)
    return count


def filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the filesystem that holds a path, as Linux names it; empty if unknown.

    Args:
        path: a file or folder.
        mounts: the table of mounts.
    """
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    target = f"{path.resolve()}/"
    longest, fs_type = "", ""
    for line in lines:
        _, mount_point, name, *_ = line.split()
        folder = mount_point.replace("\\040", " ").rstrip("/")
        if target.startswith(folder + "/") and len(folder) >= len(longest):
            longest, fs_type = folder, name
    return fs_type


def _is_alive(owner: str, heartbeat: float) -> bool:
    """Return whether the driver that owns a trial is still at work, as far as can be known."""
    host, process, _ = owner.rsplit(":", 2)
    if host == socket.gethostname() and not _process_exists(int(process)):
        return False
    return time.time() - heartbeat < LEASE_SECONDS


def _process_exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Runs in an SQLite file, each stored completely or not at all; merge and read_comparison."""

from __future__ import annotations

import array
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ratecraft._files import parse_json, shortened
from ratecraft.errors import ResultError, RunFailed, SettingError
from ratecraft.results import Comparison, Run, RunConfig
from ratecraft.results._base import PositiveSteps
from ratecraft.results._loading import read_value

from ._trials import Trial, candidate_names, with_common_length

STORE_FORMAT: Final = "2"
"""Version of the tables. 1 had other field names; early files of 2 hold trials without a run."""
WAIT_SECONDS: Final = 30.0  # for another program that is reading or writing the file
CREATE: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials
(key TEXT PRIMARY KEY, trial TEXT NOT NULL, run TEXT NOT NULL, losses BLOB NOT NULL);
INSERT OR IGNORE INTO about VALUES ('format', '{STORE_FORMAT}');
COMMIT;
"""  # noqa: S608 - a constant
SELECT: Final = "SELECT rowid, key, trial, run, losses FROM trials WHERE run IS NOT NULL"
INSERT: Final = """
INSERT INTO trials (key, trial, run, losses) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET run = excluded.run, losses = excluded.losses WHERE run IS NULL
"""


class Store(AbstractContextManager["Store"]):
    """Complete runs, by their trials, in an SQLite file.

    One driver at a time writes to the file: it holds a lock on ``<path>.lock``, which ends with
    its process. Any number of readers, which need no lock, go on meanwhile. A file that is not a
    store, is damaged or has another format is an error, and is not changed.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ResultError(f"{self.path} is a folder; write a file name")
        if read_only and not self.path.is_file():
            raise ResultError(f"there is no store {self.path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, self._translate_errors():
            self._check_tables(read_only)
            if not read_only:
                stack.callback(_lock(self.path).close)
            self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            stack.callback(self._db.close)
            # Bytes that are not UTF-8 are an error of their row, not of the whole query.
            self._db.text_factory = lambda text: text.decode(errors="surrogateescape")
            # A stored run survives a power failure.
            self._db.execute("PRAGMA query_only=ON" if read_only else "PRAGMA synchronous=EXTRA")
            self._check_format()
            if not read_only:
                self._db.executescript(CREATE)
            self._resources = stack.pop_all()

    def _check_tables(self, read_only: bool) -> None:
        tables, is_marked = _tables(self.path)
        if is_marked or (tables and not tables >= {"about", "trials"}):
            raise ResultError(
                f"{self.path} is an SQLite file of another program (tables "
                f"{', '.join(sorted(tables)) or 'none'}) and was not changed; write another file "
                "name"
            )
        if not tables and read_only:
            raise ResultError(f"{self.path} is empty: its shard has not started")

    def _check_format(self) -> None:
        # A file that is new has no table.
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            return
        row = self._db.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        if row is None or row[0] != STORE_FORMAT:
            raise ResultError(
                f"{self.path} has {f'format {row[0]}' if row else 'no format number'}, but this "
                f"version of ratecraft reads format {STORE_FORMAT}: train the runs again into a "
                "new store"
            )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._resources.close()

    def save(self, trial: Trial, run: Run) -> None:
        """Store the run of a trial."""
        fields = {name: value for name, value in asdict(run).items() if name != "losses"}
        losses = zlib.compress(array.array("d", run.losses).tobytes())
        row = (trial.key, json.dumps(asdict(trial)), json.dumps(fields), losses)
        with self._translate_errors():
            self._db.execute(INSERT, row)

    def runs(self, trials: Iterable[Trial]) -> dict[Trial, Run]:
        """Return the runs of the trials that are complete."""
        query = f"{SELECT} AND key = ?"
        with self._translate_errors():
            rows = {trial: self._db.execute(query, (trial.key,)).fetchone() for trial in trials}
        return {trial: self._decode(row)[1] for trial, row in rows.items() if row is not None}

    def all_runs(self) -> dict[Trial, Run]:
        """Return every complete run, in the order of their trials."""
        with self._translate_errors():
            rows = self._db.execute(f"{SELECT} ORDER BY rowid").fetchall()
        return dict(map(self._decode, rows))

    def copy_from(self, other: Store) -> int:
        """Copy the runs of another store that are missing here; return their number."""
        with other._translate_errors():
            rows = other._db.execute(SELECT).fetchall()
        for row in rows:
            other._decode(row)
        with self._translate_errors(), self._db:  # all of them or none
            self._db.execute("BEGIN IMMEDIATE")
            return self._db.executemany(INSERT, [row[1:] for row in rows]).rowcount

    def _decode(self, row: tuple[Any, ...]) -> tuple[Trial, Run]:
        number, key, trial_text, run_text, packed_losses = row
        try:
            trial = read_value(Trial, _parse(trial_text, "trial"), "trial")
            if trial.key != key:
                raise ValueError(f"the key of its trial is {trial.key}, not {shortened(key)}")
            fields = _parse(run_text, "run")
            total_steps = read_value(PositiveSteps, fields.get("total_steps"), "run.total_steps")
            # The log of a script may number its steps from 0 to total_steps.
            losses = _unpack(packed_losses, total_steps + bool(fields.get("loss_steps")))
            run = read_value(Run, fields | {"losses": losses}, "run")
            _check_trial(trial, run)
            return trial, run
        except ValueError as error:
            raise ResultError(
                f"{self.path}: row {number} of the table trials is damaged: {error}; delete this "
                "row to train its run again, or write another file name"
            ) from None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise RunFailed or ResultError, with advice, in place of an SQLite error."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such" in str(error):  # table or column
                raise ResultError(f"{self.path} is a damaged store: {error}") from None
            if "locked" in str(error):
                raise RunFailed(
                    f"another program has kept {self.path} locked for {WAIT_SECONDS:g} seconds; "
                    "close it and run the same again: complete runs are still in the store"
                ) from None
            raise RunFailed(
                f"{self.path}: {error}; runs that were complete before are still in it"
            ) from None
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a message with damaged text
            raise ResultError(
                f"{self.path} is not a store of runs, or is damaged ({error}); it was not changed: "
                "write another file name"
            ) from None


def _lock(path: Path) -> sqlite3.Connection:
    """Return a connection that makes this the driver of a store until it is closed.

    SQLite's lock belongs to one process: it ends with it, even if it is killed, and no worker
    inherits it. It also excludes a second connection in the same process. If several drivers
    start at once, exactly one gets it. With exclusive transactions all of them could fail.
    """
    lock = Path(f"{path.resolve()}.lock")
    with suppress(FileNotFoundError):
        status = lock.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size:  # a lock file is always empty
            raise ResultError(
                f"{lock} is not a lock file of ratecraft, which is empty and no link, and was not "
                "changed; write another file name for the store"
            )
    db = sqlite3.connect(lock, timeout=0, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=MEMORY")  # nothing is committed, so no file is needed
        db.execute("BEGIN IMMEDIATE")
        db.execute("PRAGMA user_version=1")  # fails if only another user may write the file
    except sqlite3.DatabaseError as error:
        db.close()
        if "locked" not in str(error):
            raise RunFailed(f"{path}.lock cannot be locked: {error}") from None
        raise RunFailed(
            f"another comparison is writing to {path}, and only one can at a time; wait until it "
            "ends, or give each its own shard and store, and merge the stores"
        ) from None
    return db


def _tables(path: Path) -> tuple[set[str], bool]:
    """Return the names of the tables of an SQLite file, and whether another program marked it.

    Not a byte of the file, nor of the files next to it, is changed: opening the file normally
    would move what its write-ahead log or its rollback journal holds into it.
    """
    path = Path(os.path.realpath(path))  # SQLite's other files have the name of the file itself
    if not path.exists() or not path.stat().st_size:
        return set(), False
    tables, is_marked = _read_tables(f"{path.as_uri()}?immutable=1")
    if tables:
        return tables, is_marked
    log, journal = (path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "journal"))
    if log.exists():  # an immutable file is read without it
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(path, folder))
            shutil.copy(log, folder)
            return _read_tables(copy.as_uri())
    # A store has its tables, or no byte, while a journal of its first write exists.
    return set(), is_marked or journal.exists()


def _read_tables(uri: str) -> tuple[set[str], bool]:
    with closing(sqlite3.connect(uri, uri=True)) as db:
        db.text_factory = lambda text: text.decode(errors="backslashreplace")
        rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        marks = [db.execute(f"PRAGMA {x}").fetchone() for x in ("application_id", "user_version")]
    return {name for (name,) in rows}, marks != [(0,), (0,)]


def _check_trial(trial: Trial, run: Run) -> None:
    """Raise a ValueError if a run is that of another trial."""
    expected: dict[str, object] = {
        "schedule": trial.schedule,
        "lr": trial.lr,
        "seed": trial.seed,
        "optimizer": trial.optimizer or "",
    }
    if trial.total_steps.isdecimal():  # else a length such as epochs(2)
        expected["total_steps"] = int(trial.total_steps)
    for name, value in expected.items():
        if getattr(run, name) != value:
            raise ValueError(
                f"run.{name} is {shortened(getattr(run, name))}, but that of its trial is "
                f"{shortened(value)}"
            )


def _parse(text: Any, name: str) -> Any:
    """Return the object in a cell of JSON."""
    if not isinstance(text, str):
        raise ValueError(f"{name} is {shortened(text)}; expected JSON text")
    data = parse_json(text, strict=True)
    if not isinstance(data, dict):
        raise ValueError(f"{name} is {shortened(data)}; expected an object")
    return data


def _unpack(packed: Any, total_steps: int) -> list[float]:
    """Return the losses of a run, of which there are at most ``total_steps``."""
    if not isinstance(packed, bytes):
        raise ValueError(f"losses is {shortened(packed)}; expected compressed bytes")
    losses, inflater = array.array("d"), zlib.decompressobj()
    limit = losses.itemsize * total_steps  # a few bytes can inflate to any size
    try:
        data = inflater.decompress(packed, limit + 1)
    except zlib.error as error:
        raise ValueError(f"losses cannot be decompressed: {error}") from None
    if not inflater.eof or inflater.unused_data or len(data) % losses.itemsize:
        raise ValueError(f"losses are not at most {total_steps} numbers, compressed")
    losses.frombytes(data)
    return losses.tolist()


def merge(target: str | os.PathLike[str], *sources: str | os.PathLike[str]) -> int:
    """Copy the runs of several stores into one; return how many of them are new.

    Args:
        target: the store that receives the runs; created if it does not exist.
        sources: the stores to read, such as those of the shards of a comparison. They may still
            be growing.

    Raises:
        ResultError: a source does not exist or is not a store.
        RunFailed: a comparison is writing to the target.

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
        Store(source, read_only=True).close()  # raises before the target is created
        if Path(source).resolve() == Path(target).resolve():
            raise ResultError(f"{source} cannot be merged into itself; write the target first")
    with Store(target) as store:
        count = 0
        for source in sources:
            with Store(source, read_only=True) as other:
                count += store.copy_from(other)
    return count


def read_comparison(store: str | os.PathLike[str], task: str | None = None) -> Comparison:
    """Return the complete runs of a store as a comparison, even while one writes to it.

    Schedules are named by their text. Of a task whose code was edited, only the runs of the code
    that was stored last are returned.

    Args:
        store: the file.
        task: name of the task, for a store with runs of several.

    Raises:
        ResultError: the file is not a store, or has no complete run.
        SettingError: ``task`` is missing, or not one of the tasks in the store.

    >>> import tempfile
    >>> from ratecraft import constant
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"lrs": [0.02, 0.05], "seeds": 1, "total_steps": 5, "workers": 0}
    ...     result = compare("digits", constant(1), store=f"{folder}/runs.db", **options)
    ...     read_comparison(f"{folder}/runs.db").runs == result.runs
    True
    """
    with Store(store, read_only=True) as opened:
        runs = _runs_of_task(opened, task)
    # Comparisons that share a store may write the same length in two ways: 20 and epochs(2).
    lengths = {run.total_steps: trial.total_steps for trial, run in runs.items()}
    names = candidate_names(
        [
            (trial.schedule, trial.optimizer, lengths[run.total_steps], trial.lr)
            for trial, run in runs.items()
        ]
    )
    candidates: dict[str, dict[int, Run]] = {}
    configs: dict[str, RunConfig] = {}
    for name, (trial, run) in zip(names, runs.items(), strict=True):
        configs[name] = RunConfig(trial.lr, trial.optimizer or "", run.total_steps)
        seeds = candidates.setdefault(name, {})
        # With and without halving, a store may have the same run twice.
        if trial.seed not in seeds or seeds[trial.seed].stopped is not None:
            seeds[trial.seed] = run
    return Comparison(
        task=next(iter(runs)).task,
        schedules={name: next(iter(seeds.values())).schedule for name, seeds in candidates.items()},
        runs=tuple(seeds[seed] for seeds in candidates.values() for seed in sorted(seeds)),
        configs=configs,
    )


def _runs_of_task(store: Store, task: str | None) -> dict[Trial, Run]:
    runs = store.all_runs()
    if not runs:
        raise ResultError(f"{store.path} has no complete run yet")
    tasks = list(dict.fromkeys(trial.task for trial in runs))
    if task is None and len(tasks) > 1:
        raise SettingError(f"{store.path} has runs of several tasks; write one: {', '.join(tasks)}")
    task = task or tasks[0]
    if task not in tasks:
        raise SettingError(f"{store.path} has no run of {task}; expected {', '.join(tasks)}")
    *_, last = (trial for trial in runs if trial.task == task)
    return with_common_length(
        {
            trial: run
            for trial, run in runs.items()
            if (trial.task, trial.source_hash) == (task, last.source_hash)
        }
    )

"""Damaged stores give errors with the row, and files of other programs are not changed."""

import dataclasses
import json
import shutil
import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ratecraft.errors import ResultError, RunFailed
from ratecraft.experiments import merge, read_comparison
from ratecraft.experiments._store import Store
from ratecraft.experiments._trials import Trial
from ratecraft.results import Evaluation, Run

TRIAL = Trial("digits", "ratecraft 0", "cosine(1, 0)", 0.1, None, 0, "3")
RUN = Run("cosine(1, 0)", 0.1, 0, 3, 2, (0.5, 0.4, 0.3), (Evaluation(2, {"loss": 0.3}),))
OTHER = dataclasses.replace(TRIAL, seed=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "runs.db") as store:
        store.save(OTHER, dataclasses.replace(RUN, seed=1))
        store.save(TRIAL, RUN)
    return tmp_path / "runs.db"


def execute(path: Path, statement: str, *values: Any) -> None:
    db = sqlite3.connect(path)
    db.execute(statement, values)
    db.commit()
    db.close()


def runs_of(path: Path) -> dict[Trial, Run]:
    with Store(path) as store:
        return store.runs([TRIAL])


def edited(run: Run | Trial, **changes: Any) -> str:
    fields = dataclasses.asdict(run) | changes
    fields.pop("losses", None)
    return json.dumps(fields)


DAMAGE = [
    ("run", "x", "Expecting value"),
    ("run", "[]", r"run is \[\]; expected an object"),
    ("run", b"\x00", r"run is b'\\x00'; expected JSON text"),
    ("run", "[" * 100_000, "nested too deeply"),
    ("run", "{}", "run.total_steps is None; expected a whole number"),
    ("run", edited(RUN, lr="0.1"), "run.lr is '0.1'; expected a finite number"),
    ("run", edited(RUN, seed=None), "run.seed is None; expected a whole number"),
    ("run", edited(RUN, total_steps=10**12), "run.total_steps is 1000000000000; expected"),
    ("run", edited(RUN, schedule=5), "run.schedule is 5; expected a string"),
    ("run", edited(RUN, status="odd"), "run.status is unknown; expected schedule"),
    ("run", edited(RUN, schedule="constant(1)"), "run.schedule is .*, but that of its trial is 'c"),
    (
        "run",
        edited(RUN, schedule="os.abort()"),
        r"run.schedule is 'os.abort\(\)'; expected a sched",
    ),
    ("run", edited(RUN, realized_schedule="1 + x"), "run.realized_schedule is '1 .*; expected a s"),
    ("run", edited(RUN, lr=0.2), "run.lr is 0.2, but that of its trial is 0.1"),
    ("run", edited(RUN, seed=7), "run.seed is 7, but that of its trial is 0"),
    ("run", edited(RUN, optimizer="adam"), "run.optimizer is 'adam', but that of its trial is ''"),
    ("run", edited(RUN, total_steps=4), "run.total_steps is 4, but that of its trial is 3"),
    ("run", edited(RUN, evaluations=[{"step": 1}]), r"run.evaluations\[0\].metrics is missing"),
    ("losses", b"", "losses are not at most 3 numbers, compressed"),
    ("losses", b"\xff\xff", "losses cannot be decompressed"),
    ("losses", "text", "losses is 'text'; expected compressed bytes"),
    ("losses", zlib.compress(b"123"), "losses are not at most 3 numbers"),
    ("losses", zlib.compress(bytes(8)) + b"more", "losses are not at most 3 numbers"),
    ("losses", zlib.compress(bytes(32)), "losses are not at most 3 numbers"),
    ("trial", "{}", "trial.task is missing"),
    ("trial", edited(TRIAL, lr=True), "trial.lr is True; expected a number"),
    ("trial", edited(TRIAL, lr=0.2), f"the key of its trial is .*, not '{TRIAL.key}'"),
]


@pytest.mark.parametrize(("column", "value", "words"), DAMAGE)
def test_damaged_row_raises_with_its_number(
    path: Path, column: str, value: str | bytes, words: str
) -> None:
    execute(path, f"UPDATE trials SET {column} = ? WHERE key = '{TRIAL.key}'", value)  # noqa: S608
    message = f"runs.db: row 2 of the table trials is damaged: .*{words}.*; delete this row"
    reads: list[Callable[[], object]] = [
        lambda: read_comparison(path),
        lambda: merge(path.with_name("all.db"), path),
        lambda: runs_of(path),
    ]
    for read in reads:
        with pytest.raises(ResultError, match=message):
            read()
    with Store(path.with_name("all.db")) as store:
        assert store.all_runs() == {}
    with Store(path, read_only=True) as store:
        assert list(store.runs([OTHER])) == [OTHER]


def test_text_that_is_not_utf_8_raises_with_its_row(path: Path) -> None:
    execute(path, f"UPDATE trials SET run = CAST(x'ff' AS TEXT) WHERE key = '{TRIAL.key}'")  # noqa: S608
    with pytest.raises(ResultError, match="row 2 of the table trials is damaged"):
        read_comparison(path)


def test_losses_that_inflate_to_gigabytes_take_no_memory(path: Path) -> None:
    packer = zlib.compressobj()
    block = bytes(2**24)
    bomb = b"".join(packer.compress(block) for _ in range(128)) + packer.flush()
    assert len(bomb) < 3 * 10**6
    execute(path, f"UPDATE trials SET losses = ? WHERE key = '{TRIAL.key}'", bomb)  # noqa: S608
    tracemalloc.start()
    try:
        with pytest.raises(ResultError, match=r"row 2 .*losses are not at most 3 numbers"):
            read_comparison(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * 10**7
    finally:
        tracemalloc.stop()


def test_store_without_a_column_raises(path: Path) -> None:
    execute(path, "ALTER TABLE trials RENAME COLUMN losses TO numbers")
    with pytest.raises(ResultError, match="is a damaged store: no such column: losses"):
        read_comparison(path)


def other_program(folder: Path, state: str) -> Path:
    """Write an SQLite file of another program, in a state in which opening it would change it."""
    source, path = folder / "source" / "app.db", folder / "app.db"
    source.parent.mkdir()
    db = sqlite3.connect(source, isolation_level=None)
    if state == "log":  # all of it is still in the write-ahead log
        db.execute("PRAGMA journal_mode=WAL")
    elif state == "marked":
        db.execute("PRAGMA application_id=77")
    elif state == "versioned":
        db.execute("PRAGMA user_version=1")
    if state in ("log", "journal", "plain"):
        db.execute("CREATE TABLE notes (text)")
    if state == "journal":  # a write that was interrupted in the middle
        db.execute("PRAGMA cache_size=1")
        db.execute("BEGIN")
        db.executemany("INSERT INTO notes VALUES (?)", [("x" * 1000,)] * 200)
    for file in source.parent.iterdir():
        shutil.copy(file, folder)
    db.close()
    shutil.rmtree(source.parent)
    return path


@pytest.mark.parametrize("state", ["plain", "log", "journal", "marked", "versioned"])
def test_file_of_another_program_and_its_neighbors_are_not_changed(
    tmp_path: Path, state: str
) -> None:
    path = other_program(tmp_path, state)

    def contents() -> dict[str, tuple[bytes, int]]:
        files = tmp_path.iterdir()
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = contents()
    neighbor = {"log": {"app.db-wal", "app.db-shm"}, "journal": {"app.db-journal"}}
    assert before.keys() == {"app.db"} | neighbor.get(state, set())
    reads: list[Callable[[], object]] = [
        lambda: Store(path),
        lambda: read_comparison(path),
        lambda: merge(path, path),
    ]
    for read in reads:
        with pytest.raises(ResultError, match=r"of another program .*was not changed"):
            read()
    assert contents() == before


@pytest.mark.parametrize("target", ["app.db", "notes.txt", "missing.txt"])
@pytest.mark.parametrize("is_link", [True, False])
def test_lock_file_of_another_program_and_what_it_links_to_are_not_changed(
    tmp_path: Path, target: str, is_link: bool
) -> None:
    other_program(tmp_path, "log")
    (tmp_path / "notes.txt").write_text("precious")
    lock = tmp_path / "runs.db.lock"
    if is_link:
        lock.symlink_to(tmp_path / target)
    elif target == "missing.txt":
        lock.mkdir()
    else:
        shutil.copy(tmp_path / target, lock)
        if target == "app.db":
            shutil.copy(tmp_path / "app.db-wal", f"{lock}-wal")

    def contents() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}

    before = contents()
    with pytest.raises(ResultError, match=r"runs.db.lock is not a lock file .* was not changed"):
        Store(tmp_path / "runs.db")
    assert contents() == before


def test_no_store_is_left_if_its_lock_cannot_be_taken(tmp_path: Path) -> None:
    with Store(tmp_path / "first.db"):
        (tmp_path / "second.db.lock").hardlink_to(tmp_path / "first.db.lock")
        with pytest.raises(RunFailed, match="another comparison is writing to"):
            Store(tmp_path / "second.db")
    assert not (tmp_path / "second.db").exists()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("name", [".", "", "folder"])
def test_folder_is_no_store(tmp_path: Path, monkeypatch, name: str, read_only: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResultError, match=f"^{name or '.'} is a folder; write a file name$"):
        Store(name, read_only=read_only)


def test_store_with_all_its_tables_in_a_log_opens(tmp_path: Path) -> None:
    source, path = tmp_path / "source.db", tmp_path / "runs.db"
    db = sqlite3.connect(source)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(
        "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
        "CREATE TABLE trials"
        "(key TEXT PRIMARY KEY, trial TEXT NOT NULL, run TEXT NOT NULL, losses BLOB NOT NULL);"
        "INSERT INTO about VALUES ('format', '2');"
    )
    shutil.copy(source, path)
    shutil.copy(f"{source}-wal", f"{path}-wal")
    db.close()
    with Store(path) as store:
        store.save(TRIAL, RUN)
        assert store.all_runs() == {TRIAL: RUN}


def test_name_of_a_store_may_hold_characters_of_addresses(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=ro#50%.db"
    for _ in range(2):
        with Store(path) as store:
            store.save(TRIAL, RUN)
    assert read_comparison(path).runs == (RUN,)
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}.lock"]

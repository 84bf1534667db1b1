"""Shards of a comparison and their merge; stores that one driver locks."""

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ratecraft import constant, cosine
from ratecraft.errors import ResultError, RunFailed, SettingError
from ratecraft.experiments import compare, merge
from ratecraft.experiments._store import Store, filesystem
from ratecraft.experiments._trials import Trial

TRIAL = Trial("digits", "ratecraft 0", "cosine(1, 0)", 0.1, None, 0, "30")
SCHEDULES = {"flat": constant(1), "wave": cosine(1, 0)}
SETTINGS = {"lrs": [0.01, 0.003], "seeds": 2, "total_steps": 6, "workers": 0}


def test_merged_shards_equal_the_whole_comparison(tmp_path: Path) -> None:
    whole = compare("digits", SCHEDULES, **SETTINGS)
    runs = 0
    for i in (1, 2, 3):
        part = compare("digits", SCHEDULES, **SETTINGS, shard=(i, 3), store=tmp_path / f"{i}.db")
        runs += len(part.runs)
    assert runs == len(whole.runs) == 8
    stores = [tmp_path / f"{i}.db" for i in (1, 2, 3)]
    assert merge(tmp_path / "all.db", *stores) == 8
    assert merge(tmp_path / "all.db", *stores) == 0
    events = []
    merged = compare(
        "digits", SCHEDULES, **SETTINGS, store=tmp_path / "all.db",
        progress=lambda p: events.append(p.event),
    )  # fmt: skip
    assert set(events) == {"resumed"}
    assert [run.losses for run in merged.runs] == [run.losses for run in whole.runs]
    for shard in ((0, 3), (4, 3)):
        with pytest.raises(SettingError, match="expected i/n"):
            compare("digits", SCHEDULES, **SETTINGS, shard=shard)


def test_invalid_merge_raises(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="there is no store"):
        merge(tmp_path / "all.db", tmp_path / "none.db")
    with Store(tmp_path / "a.db"):
        pass
    with pytest.raises(ResultError, match="into itself"):
        merge(tmp_path / "a.db", tmp_path / "a.db")
    (tmp_path / "b.db").write_bytes(b"no store " * 500)
    with pytest.raises(ResultError, match="is not a store"):
        merge(tmp_path / "a.db", tmp_path / "b.db")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local/fast xfs rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/runs.db", "ext4"),
        ("/home/me/runs.db", "nfs4"),
        ("/homes/runs.db", "ext4"),
        ("/home/local/fast/runs.db", "xfs"),
        ("/mnt/with space/runs.db", "cifs"),
    ],
)
def test_filesystem_is_that_of_the_longest_mount_point(
    tmp_path: Path, path: str, expected: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert filesystem(Path(path), mounts) == expected
    assert filesystem(Path(path), tmp_path / "none") == ""


def test_network_filesystem_gets_one_driver_and_no_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as store:  # with a write-ahead log
        store.add([TRIAL])
    monkeypatch.setattr("ratecraft.experiments._store.filesystem", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING), Store(path) as store:
        assert "is on a network filesystem (nfs4): only one driver at a time" in caplog.text
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        store.add([TRIAL, dataclasses.replace(TRIAL, seed=1)])
        assert store.claim(TRIAL)
        assert sorted(file.name for file in tmp_path.glob("runs.db*"))[0] == "runs.db"
        assert not list(tmp_path.glob("*-wal"))
        code = (
            f"from ratecraft.experiments._store import Store; Store({str(path)!r}, exclusive=True)"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "is in use by another driver, and only one can use it at a time" in other.stderr
    with Store(path, exclusive=True) as store:
        assert store.claim(TRIAL)


def test_locked_store_raises_with_advice(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "runs.db", exclusive=True),
        pytest.raises(RunFailed, match="give each driver its own shard"),
    ):
        Store(tmp_path / "runs.db", exclusive=True)

"""Parts of a comparison, joined again; files that one driver has for itself."""

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
PLANS = {"flat": constant(1), "wave": cosine(1, 0)}
SETTINGS = {"lrs": [0.01, 0.003], "seeds": 2, "total": 6, "workers": 0}


def test_shards_joined_are_the_whole(tmp_path: Path) -> None:
    whole = compare("digits", PLANS, **SETTINGS)
    seen = 0
    for i in (1, 2, 3):
        part = compare("digits", PLANS, **SETTINGS, shard=(i, 3), store=tmp_path / f"{i}.db")
        seen += len(part.runs)
    assert seen == len(whole.runs) == 8
    stores = [tmp_path / f"{i}.db" for i in (1, 2, 3)]
    assert merge(tmp_path / "all.db", *stores) == 8
    assert merge(tmp_path / "all.db", *stores) == 0
    told = []
    joined = compare(
        "digits", PLANS, **SETTINGS, store=tmp_path / "all.db",
        progress=lambda p: told.append(p.what),
    )  # fmt: skip
    assert set(told) == {"kept"}
    assert [run.losses for run in joined.runs] == [run.losses for run in whole.runs]
    for shard in ((0, 3), (4, 3)):
        with pytest.raises(SettingError, match="expected i/n"):
            compare("digits", PLANS, **SETTINGS, shard=shard)


def test_what_cannot_be_merged_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="there is no store"):
        merge(tmp_path / "all.db", tmp_path / "none.db")
    with Store(tmp_path / "a.db"):
        pass
    with pytest.raises(ResultError, match="into itself"):
        merge(tmp_path / "a.db", tmp_path / "a.db")
    (tmp_path / "b.db").write_bytes(b"no store " * 500)
    with pytest.raises(ResultError, match="is no store"):
        merge(tmp_path / "a.db", tmp_path / "b.db")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local/fast xfs rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/runs.db", "ext4"),
        ("/home/me/runs.db", "nfs4"),
        ("/homes/runs.db", "ext4"),
        ("/home/local/fast/runs.db", "xfs"),
        ("/mnt/with space/runs.db", "cifs"),
    ],
)
def test_the_filesystem_of_a_path_is_its_longest_mount(
    tmp_path: Path, path: str, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert filesystem(Path(path), mounts) == kind
    assert filesystem(Path(path), tmp_path / "none") == ""


def test_on_a_network_filesystem_one_driver_writes_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as store:  # one that had a log before
        store.plan([TRIAL])
    monkeypatch.setattr("ratecraft.experiments._store.filesystem", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING), Store(path) as store:
        assert "lies on a network filesystem (nfs4): one driver at a time" in caplog.text
        assert store._base.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        store.plan([TRIAL, dataclasses.replace(TRIAL, seed=1)])
        assert store.claim(TRIAL)
        assert sorted(one.name for one in tmp_path.glob("runs.db*"))[0] == "runs.db"
        assert not list(tmp_path.glob("*-wal"))
        code = f"from ratecraft.experiments._store import Store; Store({str(path)!r}, alone=True)"
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "is in use by another driver, and there can be one at a time" in other.stderr
    with Store(path, alone=True) as store:
        assert store.claim(TRIAL)


def test_a_driver_that_is_locked_out_says_so(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "runs.db", alone=True),
        pytest.raises(RunFailed, match="give each of several a shard"),
    ):
        Store(tmp_path / "runs.db", alone=True)

"""Shards of a comparison and their merge."""

from pathlib import Path

import pytest

from ratecraft import constant, cosine
from ratecraft.errors import ResultError, SettingError
from ratecraft.experiments import compare, merge
from ratecraft.experiments._store import Store

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
    assert not (tmp_path / "all.db").exists()
    with Store(tmp_path / "a.db"):
        pass
    with pytest.raises(ResultError, match="into itself"):
        merge(tmp_path / "a.db", tmp_path / "a.db")
    (tmp_path / "b.db").write_bytes(b"no store " * 500)
    with pytest.raises(ResultError, match="is not a store"):
        merge(tmp_path / "a.db", tmp_path / "b.db")

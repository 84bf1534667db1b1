"""A store's runs as a comparison."""

from dataclasses import replace
from pathlib import Path

import pytest

from ratecraft import constant, wsd
from ratecraft.errors import ResultError, SettingError
from ratecraft.experiments import compare, read_comparison
from ratecraft.experiments._store import Store
from ratecraft.experiments._trials import Trial
from ratecraft.results import Evaluation, Run

TRIAL = Trial("digits", "hash", "constant(1)", 0.1, None, 0, "30")
RUN = Run("constant(1)", 0.1, 0, 30, 10, (1.0,) * 30, (Evaluation(30, {"loss": 0.5}),))


def save(store: Store, run: Run = RUN, **changes: object) -> None:
    store.save(replace(TRIAL, **changes), run)


def test_a_store_gives_the_comparison_that_filled_it(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    options = {"lrs": [0.02, 0.05], "seeds": 2, "total_steps": [5, 10], "workers": 0}
    result = compare("digits", [constant(1), wsd(2)], store=store, **options)
    read = read_comparison(store)
    rows = [replace(row, name="") for row in result.summaries()]
    assert [replace(row, name="") for row in read.summaries()] == rows
    assert "constant(1), 10 steps, lr 0.05" in read.schedules
    assert {run.schedule for run in read.runs} == {repr(constant(1)), repr(wsd(2))}


def test_a_store_is_read_while_a_comparison_writes_to_it(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        with pytest.raises(ResultError, match="no complete run yet"):
            read_comparison(tmp_path / "runs.db")
        for seed in range(3):
            save(store, replace(RUN, seed=seed), seed=seed)
            assert len(read_comparison(tmp_path / "runs.db").runs) == seed + 1


def test_a_store_of_several_tasks_needs_the_name_of_one(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        save(store)
        save(store, task="other.py:task")
    with pytest.raises(SettingError, match=r"several tasks; write one: digits, other\.py:task"):
        read_comparison(tmp_path / "runs.db")
    with pytest.raises(SettingError, match="no run of nothing; expected digits, other"):
        read_comparison(tmp_path / "runs.db", "nothing")
    assert read_comparison(tmp_path / "runs.db", "other.py:task").task == "other.py:task"


def test_runs_of_earlier_code_are_left_out(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        save(store, replace(RUN, seconds=1.0))
        save(store, replace(RUN, seconds=2.0), source_hash="new")
    assert [run.seconds for run in read_comparison(tmp_path / "runs.db").runs] == [2.0]


@pytest.mark.parametrize("halved_first", [False, True])
def test_a_finished_run_replaces_one_that_was_stopped_early(
    tmp_path: Path, halved_first: bool
) -> None:
    halved = replace(RUN, stopped=10), "lrs 0.1"
    with Store(tmp_path / "runs.db") as store:
        for run, group in [halved, (RUN, "")][:: 1 if halved_first else -1]:
            save(store, run, halving_group=group)
    assert [run.stopped for run in read_comparison(tmp_path / "runs.db").runs] == [None]


def test_a_length_that_is_written_in_two_ways_is_one_candidate(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        for length in ("30", "epochs(3)"):
            for seed in range(2):
                save(store, replace(RUN, seed=seed), seed=seed, total_steps=length)
    read = read_comparison(tmp_path / "runs.db")
    assert [(row.name, row.seeds) for row in read.summaries()] == [("constant(1)", 2)]


def test_learning_rates_that_agree_in_6_digits_are_two_candidates(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        for lr in (0.1, 0.100000001):
            for seed in range(2):
                save(store, replace(RUN, seed=seed, lr=lr), seed=seed, lr=lr)
    rows = read_comparison(tmp_path / "runs.db").summaries()
    names = [("constant(1), lr 0.1", 2), ("constant(1), lr 0.100000001", 2)]
    assert [(row.name, row.seeds) for row in rows] == names

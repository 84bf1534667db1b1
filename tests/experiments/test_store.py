"""The store and the engines: no complete run is lost, whichever process is killed."""

import dataclasses
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ratecraft import ScheduleError, constant, cosine, epochs
from ratecraft.errors import ResultError, RunFailed, SettingError
from ratecraft.experiments import compare, merge
from ratecraft.experiments._engines import LocalEngine
from ratecraft.experiments._source import identify
from ratecraft.experiments._store import Store
from ratecraft.experiments._trials import Trial
from ratecraft.results import Evaluation, Run

TRIAL = Trial("digits", "ratecraft 0", "cosine(1, 0)", 0.1, None, 0, "30")
RUN = Run(
    "cosine(1, 0)", 0.1, 0, 30, 2, (0.1 + 0.2, 1e-300, math.pi),
    (Evaluation(2, {"loss": 0.1 + 0.2, "accuracy": 1.0}),), None, 1.5,
)  # fmt: skip

SMALL = """
import os, time, pathlib
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[:, None]

def task():
    if os.environ.get("COUNT"):
        with open(os.environ["COUNT"], "a") as file:
            file.write("x")
    if os.environ.get("BROKEN"):
        raise RuntimeError("broken on purpose")
    loss = lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean()
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)
    time.sleep(float(os.environ.get("SLOW", 0)))
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x], optimizer=sgd)

def failing():
    base = task()
    def loss(model, batch):
        if model.weight.item() > 0:  # as the initial weight of some seeds is
            raise ValueError("positive")
        return ((model(batch) + 2 * batch) ** 2).mean()
    settings = {"train": base.train, "val": base.val, "optimizer": base.optimizer}
    return Task(model=base.model, loss=loss, **settings)
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    (tmp_path / "small.py").write_text(SMALL)
    return f"{tmp_path / 'small.py'}:task"


def test_key_of_a_trial_depends_on_all_that_determines_its_result() -> None:
    assert TRIAL.key == "b96eb3f30794a9b7"
    keys = {
        dataclasses.replace(TRIAL, **{field.name: "other"}).key
        for field in dataclasses.fields(Trial)
    }
    assert len(keys | {TRIAL.key}) == 1 + 8
    relative = dataclasses.replace(TRIAL, task="my.py:task")
    assert relative.key == dataclasses.replace(TRIAL, task="/from/the/root/my.py:task").key


def test_source_hash_changes_with_the_code(small: str, tmp_path: Path) -> None:
    before = identify(small)[1]
    assert identify(small)[1] == before
    (tmp_path / "small.py").write_text(SMALL + "\n# changed\n")
    assert identify(small)[1] != before
    assert identify("digits")[1].startswith("ratecraft ")
    # The hash of an imported module is that of its file.
    assert len(identify("ratecraft.experiments._builtin_tasks:digits")[1]) == 16


def test_stored_run_is_equal_to_the_last_bit(tmp_path: Path) -> None:
    other = dataclasses.replace(TRIAL, optimizer="adamw", total_steps="epochs(2)")
    diverged = dataclasses.replace(
        RUN, optimizer="adamw", losses=(1.0, math.inf), evaluations=(), diverged=1
    )
    with Store(tmp_path / "deep" / "runs.db") as store:
        assert store.runs([TRIAL, other]) == {}
        store.save(TRIAL, RUN)
        store.save(other, diverged)
    with Store(tmp_path / "deep" / "runs.db") as store:
        assert store.runs([TRIAL, other]) == {TRIAL: RUN, other: diverged}
        store.save(TRIAL, diverged)  # a complete run stays as it is
        assert store.runs([TRIAL]) == {TRIAL: RUN}


IN_USE = "another comparison is writing to .*runs.db, and only one can at a time; wait until"
KEEPS_A_STORE_OPEN = """
import os, subprocess, sys, time
from ratecraft.experiments._store import Store
store = Store(sys.argv[1])
child = os.fork() if hasattr(os, "fork") else 0
if child == 0 and hasattr(os, "fork"):
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


def test_second_driver_is_refused_at_once(tmp_path: Path) -> None:
    path, errors = tmp_path / "runs.db", []

    def open_in_thread() -> None:
        try:
            Store(path)
        except RunFailed as error:
            errors.append(str(error))

    with Store(path) as store:
        start = time.monotonic()
        with pytest.raises(RunFailed, match=IN_USE):
            Store(path)
        (tmp_path / "link.db").symlink_to(path)
        with pytest.raises(RunFailed, match="another comparison"):
            Store(tmp_path / "link.db")
        thread = threading.Thread(target=open_in_thread)
        thread.start()
        thread.join()
        assert time.monotonic() - start < 1
        assert len(errors) == 1
        code = f"from ratecraft.experiments._store import Store; Store({str(path)!r})"
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "another comparison is writing to" in other.stderr
        store.save(TRIAL, RUN)  # is not disturbed
    with Store(path) as store:
        assert store.runs([TRIAL]) == {TRIAL: RUN}
    assert {file.name for file in tmp_path.iterdir()} == {"link.db", "runs.db", "runs.db.lock"}


DRIVERS_THAT_START_TOGETHER = """
import multiprocessing, sys
from ratecraft.errors import RunFailed
from ratecraft.experiments._store import Store

def drive(barrier, wins):
    for _ in range(500):
        barrier.wait()
        try:
            store = Store(sys.argv[1])
        except RunFailed:
            store = None
        barrier.wait()  # the winner holds the lock until every driver has tried
        if store:
            store.close()
            wins.put(1)

context = multiprocessing.get_context("fork")
barrier, wins = context.Barrier(2), context.Queue()
drivers = [context.Process(target=drive, args=(barrier, wins)) for _ in range(2)]
for driver in drivers:
    driver.start()
print(sum(wins.get(timeout=60) for _ in range(500)))
for driver in drivers:
    driver.join()
print(wins.empty())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts drivers by fork")
def test_of_drivers_that_start_together_exactly_one_gets_the_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVERS_THAT_START_TOGETHER, str(tmp_path / "runs.db")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert output.stdout.split() == ["500", "True"]


def test_store_of_a_killed_driver_opens_at_once_although_a_child_of_it_lives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_A_STORE_OPEN, str(path)], stdout=subprocess.PIPE, text=True
    ) as driver:
        child = int(driver.stdout.readline())  # forked as the workers of a DataLoader are
        with pytest.raises(RunFailed, match=IN_USE):
            Store(path)
        driver.kill()
        driver.wait()
        Store(path).close()
        if child:
            os.kill(child, signal.SIGKILL)  # was still alive


def test_comparison_on_a_store_in_use_raises_before_training(small: str, tmp_path: Path) -> None:
    path, events = tmp_path / "runs.db", []
    settings = {"lrs": 0.1, "seeds": 1, "total_steps": 8, "workers": 0, "store": path}
    with Store(path), pytest.raises(RunFailed, match=IN_USE):
        compare(small, [constant(1)], **settings, progress=lambda p: events.append(p.event))
    assert not events
    assert compare(small, [constant(1)], **settings).runs


def test_readers_read_a_growing_store(small: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = (
        "from ratecraft import constant\n"
        "from ratecraft.experiments import compare\n"
        "if __name__ == '__main__':\n"
        f"    compare({small!r}, [constant(1)], lrs=0.1, seeds=30, total_steps=8, workers=0,\n"
        f"            store={str(path)!r})\n"
    )
    (tmp_path / "driver.py").write_text(code)
    counts = []
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")], env=os.environ | {"SLOW": "0.05"}
    ) as driver:
        while driver.poll() is None:
            with suppress(ResultError):  # the store does not exist yet, or is empty
                counts.append(merge(tmp_path / "copy.db", path))
        assert driver.returncode == 0
    counts.append(merge(tmp_path / "copy.db", path))
    assert sum(counts) == 30
    assert len([count for count in counts if count]) > 5


def test_reader_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with pytest.raises(ResultError, match="there is no store"):
        Store(path, read_only=True)
    with Store(path) as store:
        store.save(TRIAL, RUN)
    before = path.read_bytes()
    with Store(path, read_only=True) as store, Store(path, read_only=True) as second:
        assert store.runs([TRIAL]) == second.runs([TRIAL]) == {TRIAL: RUN}
        with pytest.raises(RunFailed, match="attempt to write a readonly database"):
            store.save(TRIAL, RUN)
    assert path.read_bytes() == before
    path.write_bytes(b"")
    with pytest.raises(ResultError, match="is empty: its shard has not started"):
        Store(path, read_only=True)
    assert not path.stat().st_size


EARLIER_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    key TEXT PRIMARY KEY, trial TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'planned',
    owner TEXT, heartbeat REAL, run TEXT, losses BLOB, error TEXT
);
INSERT INTO about VALUES ('format', '2');
PRAGMA journal_mode=WAL;
"""


def test_store_with_the_claims_of_an_earlier_version_opens(tmp_path: Path) -> None:
    path, claimed = tmp_path / "runs.db", dataclasses.replace(TRIAL, seed=1)
    db = sqlite3.connect(path)
    db.executescript(EARLIER_TABLES)
    row = "INSERT INTO trials (key, trial, status, owner) VALUES (?, ?, 'running', 'a:1:1')"
    db.execute(row, (claimed.key, json.dumps(dataclasses.asdict(claimed))))
    db.commit()
    db.close()
    with Store(path) as store:
        store.save(TRIAL, RUN)
        assert store.runs([TRIAL, claimed]) == {TRIAL: RUN}
        assert merge(tmp_path / "copy.db", path) == 1
        other_run = dataclasses.replace(RUN, seed=1)
        store.save(claimed, other_run)
    assert merge(tmp_path / "copy.db", path) == 1
    assert merge(path, tmp_path / "copy.db") == 0
    with Store(path, read_only=True) as store:
        assert store.runs([TRIAL, claimed]) == {TRIAL: RUN, claimed: other_run}


def test_file_that_is_not_a_store_raises_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes, " * 300)
    before = path.read_bytes()
    with pytest.raises(ResultError, match="is not a store of runs, or is damaged"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE about SET value = '1'", "format 1"),
        ("UPDATE about SET value = '99'", "format 99"),
        ("DELETE FROM about", "no format number"),
    ],
)
def test_store_of_another_format_raises_and_is_not_changed(
    tmp_path: Path, change: str, words: str
) -> None:
    path = tmp_path / "old.db"
    with Store(path):
        pass
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    before = path.read_bytes()
    message = f"has {words}, but this version of ratecraft reads format 2: train the runs"
    for read_only in (False, True):
        with pytest.raises(ResultError, match=message):
            Store(path, read_only=read_only)
    assert path.read_bytes() == before


def test_full_disk_raises_and_loses_no_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    other = dataclasses.replace(TRIAL, seed=1)
    with Store(path) as store:
        store.save(TRIAL, RUN)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")  # a full disk
        large = dataclasses.replace(RUN, losses=tuple(random.random() for _ in range(50_000)))
        with pytest.raises(RunFailed, match="full; runs that were complete before are still in it"):
            store.save(other, large)
    with Store(path) as store:
        assert store.runs([TRIAL, other]) == {TRIAL: RUN}


def test_merge_onto_a_full_disk_names_the_disk_and_copies_nothing(tmp_path: Path) -> None:
    losses = tuple(random.random() for _ in range(50_000))
    large = dataclasses.replace(RUN, total_steps=50_000, losses=losses)
    long = dataclasses.replace(TRIAL, total_steps="50000")
    with Store(tmp_path / "source.db") as source, Store(tmp_path / "target.db") as target:
        source.save(TRIAL, RUN)
        source.save(long, large)
        pages = target._db.execute("PRAGMA page_count").fetchone()[0]
        target._db.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(RunFailed, match="database or disk is full"):
            target.copy_from(source)
        assert target.runs([TRIAL]) == {}


SCHEDULES = {"flat": constant(1), "wave": cosine(1, 0)}


def test_repeated_call_trains_only_missing_runs(small: str, tmp_path: Path, monkeypatch) -> None:
    count = tmp_path / "count"
    monkeypatch.setenv("COUNT", str(count))
    settings = {"lrs": 0.1, "total_steps": 20, "workers": 0, "store": tmp_path / "runs.db"}
    first = compare(small, {"flat": constant(1)}, seeds=2, **settings)
    calls = len(count.read_text())
    counts = []
    again = compare(
        small, SCHEDULES, seeds=2, **settings, progress=lambda p: p.run and counts.append(p.done)
    )
    assert again.runs_for("flat") == first.runs_for("flat")
    assert counts == [1, 2, 3, 4]
    assert len(count.read_text()) == calls + 1 + 2  # one check and two runs
    done = compare(small, SCHEDULES, seeds=2, **settings)
    assert done.runs == again.runs
    assert len(count.read_text()) == calls + 1 + 2 + 1


def test_lrs_and_optimizers_are_candidates(small: str, tmp_path: Path) -> None:
    result = compare(
        small,
        SCHEDULES,
        lrs=[0.001, 0.1],
        optimizers=["sgd", "adam"],
        seeds=2,
        total_steps=30,
        workers=0,
    )
    assert list(result.schedules)[:3] == [
        "flat, sgd, lr 0.001", "flat, sgd, lr 0.1", "flat, adam, lr 0.001",
    ]  # fmt: skip
    assert len(result.schedules) == 8
    for name in result.schedules:
        runs = result.runs_for(name)
        assert [run.seed for run in runs] == [0, 1]
        assert {(run.lr, run.optimizer) for run in runs} == {result.configs[name][:2]}
    best = result.best_per_schedule()
    assert len(best.schedules) == 4
    for name in best.schedules:
        text, optimizer = result.schedules[name], result.configs[name].optimizer
        rivals = [
            row.mean["loss"]
            for row in result.summaries()
            if row.schedule == text and result.configs[row.name].optimizer == optimizer
        ]
        (lowest,) = [row.mean["loss"] for row in best.summaries() if row.name == name]
        assert lowest == min(rivals)
    from ratecraft.results import load

    assert load(result.save(tmp_path / "c.json")) == result
    with pytest.raises(SettingError, match="the same lr is given twice"):
        compare(small, SCHEDULES, lrs=[0.1, 0.1], total_steps=30, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_run_that_raises_is_listed_and_the_others_continue(small: str, workers: int) -> None:
    failing = small.replace(":task", ":failing")
    result = compare(failing, SCHEDULES, lrs=0.01, seeds=6, total_steps=8, workers=workers)
    assert result.failed
    assert all("ValueError: positive" in error for error in result.failed.values())
    assert all("Traceback" in error for error in result.failed.values())
    assert len(result.runs) + len(result.failed) == 12
    assert result.runs
    result.verdict()


def test_error_is_raised_if_all_runs_fail(small: str) -> None:
    code = SMALL.replace("> 0:", "> -99:")
    Path(small.removesuffix(":task")).write_text(code)
    with pytest.raises(RunFailed, match="ValueError: positive"):
        compare(
            small.replace(":task", ":failing"),
            SCHEDULES,
            lrs=0.01,
            seeds=1,
            total_steps=8,
            workers=0,
        )


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads processes in /proc")
def test_workers_exit_when_their_driver_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "from ratecraft.experiments._engines import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalEngine(1)\n"
        "    print(engine.submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "driver.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")], stdout=subprocess.PIPE, text=True
    ) as driver:
        worker = int(driver.stdout.readline())
        assert is_running(worker)
        driver.kill()
        driver.wait()
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)


def test_trial_of_a_killed_worker_is_tried_again(small: str, tmp_path: Path) -> None:
    plain = compare(small, SCHEDULES, lrs=0.1, seeds=2, total_steps=20, workers=1)
    engine = LocalEngine(1)
    killed = []

    class KillingEngine:
        slots = 1

        def submit(self, function, *arguments):
            future = engine.submit(function, *arguments)
            if len(killed) < 2:
                worker = next(iter(engine._workers[0]._processes.values()))
                killed.append(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            return future

        def close(self):
            engine.close()

    try:
        result = compare(small, SCHEDULES, lrs=0.1, seeds=2, total_steps=20, engine=KillingEngine())
    finally:
        engine.close()
    assert len(killed) == 2
    assert [run.losses for run in result.runs] == [run.losses for run in plain.runs]


@pytest.mark.slow
def test_repeatedly_killed_driver_gives_the_undisturbed_result(small: str, tmp_path: Path) -> None:
    seeds, total_steps = 3, 20
    undisturbed = compare(
        small, SCHEDULES, lrs=0.1, seeds=seeds, total_steps=total_steps, workers=1
    )
    driver = tmp_path / "driver.py"
    driver.write_text(
        "from ratecraft import constant, cosine\n"
        "from ratecraft.experiments import compare\n"
        "if __name__ == '__main__':\n"
        f"    compare({small!r}, {{'flat': constant(1), 'wave': cosine(1, 0)}}, lrs=0.1,\n"
        f"            seeds={seeds}, total_steps={total_steps}, workers=1,\n"
        f"            store={str(tmp_path / 'r.db')!r})\n"
    )
    environment = os.environ | {"SLOW": "0.7"}
    rng = random.Random(0)
    for _ in range(4):
        with subprocess.Popen([sys.executable, str(driver)], env=environment) as process:
            time.sleep(6 + 3 * rng.random())
            process.kill()
    counts = []
    result = compare(
        small, SCHEDULES, lrs=0.1, seeds=seeds, total_steps=total_steps, workers=1,
        store=tmp_path / "r.db", progress=lambda p: p.run and counts.append(p.done),
    )  # fmt: skip
    assert counts == [1, 2, 3, 4, 5, 6]
    assert [run.losses for run in result.runs] == [run.losses for run in undisturbed.runs]
    assert [run.evaluations for run in result.runs] == [r.evaluations for r in undisturbed.runs]


def test_stored_run_survives_a_failure_of_its_job(small: str, tmp_path: Path, monkeypatch) -> None:
    settings = {"lrs": 0.1, "seeds": 1, "workers": 0, "store": tmp_path / "r.db"}
    first = compare(small, [constant(1)], total_steps=[8], branches=True, **settings)
    events = []
    monkeypatch.setattr("ratecraft.experiments._jobs.train_branches", lambda *_, **__: 1 / 0)
    result = compare(
        small, [constant(1)], total_steps=[8, 16], branches=True, **settings,
        progress=lambda p: events.append((p.event, p.running)),
    )  # fmt: skip
    assert events == [("resumed", 0), ("started", 1), ("failed", 0)]
    assert list(result.failed) == ["constant(1), 16 steps, seed 0"]
    assert result.runs == first.runs
    again = compare(small, [constant(1)], total_steps=[8], branches=True, **settings)
    assert again.runs == first.runs


SHARED = (
    SMALL
    + """
generator = torch.Generator().manual_seed(5)
data = torch.utils.data.TensorDataset(x)
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=generator)

def shared():
    base = task()
    loss = lambda model, batch: ((model(batch[0]) - 2 * batch[0]) ** 2).mean()
    return Task(model=base.model, loss=loss, train=loader, val=loader, optimizer=base.optimizer)
"""
)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_at_the_top_level_of_a_file_is_rewound_between_runs(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    task = f"{tmp_path / 'shared.py'}:shared"
    settings = {"lrs": 0.1, "seeds": [0], "total_steps": 20, "workers": workers}
    both = compare(task, SCHEDULES, **settings)
    alone = compare(task, [cosine(1, 0)], **settings)
    assert both.runs_for("wave")[0].losses == alone.runs[0].losses
    assert both.runs_for("wave")[0].evaluations == alone.runs[0].evaluations
    with pytest.raises(RunFailed, match="all of them read one DataLoader"):
        compare(task, SCHEDULES, **settings | {"lrs": [0.1, 0.2]}, halving=True)


def test_numbers_out_of_range_raise(small: str) -> None:
    for wrong, message in [
        ({"workers": -1}, "workers=-1: expected"),
        ({"lrs": -1.0}, "expected numbers >= 0"),
        ({"lrs": "0.1"}, "expected numbers >= 0"),
        ({"total_steps": [8, epochs(1)]}, "the same length is given twice"),
    ]:
        with pytest.raises(SettingError, match=message):
            compare(small, SCHEDULES, **{"lrs": 0.1, "total_steps": 8, "workers": 0} | wrong)
    with pytest.raises(ScheduleError, match="given twice"):
        compare(small, [constant(1), constant(1)], lrs=0.1, workers=0)

"""The store and the engines: nothing that was complete is lost, whatever is killed."""

import dataclasses
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ratecraft import ScheduleError, constant, cosine, epochs
from ratecraft.errors import ResultError, RunFailed, SettingError
from ratecraft.experiments import compare
from ratecraft.experiments._engines import LocalEngine
from ratecraft.experiments._source import source_of
from ratecraft.experiments._store import Store
from ratecraft.experiments._trials import Trial
from ratecraft.results import Evaluation, Run

TRIAL = Trial("digits", "ratecraft 0", "cosine(1, 0)", 0.1, None, 0, "30")
RUN = Run(
    "cosine(1, 0)", 0.1, 0, 3, 2, (0.1 + 0.2, 1e-300, math.pi),
    (Evaluation(2, {"loss": 0.1 + 0.2, "accuracy": 1.0}),), None, 1.5, "adamw",
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

def fussy():
    made = task()
    def loss(model, batch):
        if model.weight.item() > 0:  # one seed's first weight is
            raise ValueError("positive")
        return ((model(batch) + 2 * batch) ** 2).mean()
    settings = {"train": made.train, "val": made.val, "optimizer": made.optimizer}
    return Task(model=made.model, loss=loss, **settings)
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    (tmp_path / "small.py").write_text(SMALL)
    return f"{tmp_path / 'small.py'}:task"


def test_a_trials_identity_is_what_decides_its_result() -> None:
    assert TRIAL.key == "aba498fc1e875a03"
    others = {
        dataclasses.replace(TRIAL, **{field.name: "other"}).key
        for field in dataclasses.fields(Trial)
    }
    assert len(others | {TRIAL.key}) == 1 + 8
    here = dataclasses.replace(TRIAL, task="my.py:task")
    assert here.key == dataclasses.replace(TRIAL, task="/from/the/root/my.py:task").key


def test_code_that_was_changed_is_another_task(small: str, tmp_path: Path) -> None:
    before = source_of(small)
    assert source_of(small) == before
    (tmp_path / "small.py").write_text(SMALL + "\n# changed\n")
    assert source_of(small) != before
    assert source_of("digits").startswith("ratecraft ")
    assert (
        len(source_of("ratecraft.experiments._builtin_tasks:digits")) == 16
    )  # an imported module's file


def test_a_run_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    lost = dataclasses.replace(RUN, losses=(1.0, math.inf), evaluations=(), diverged=1)
    other = dataclasses.replace(TRIAL, seed=1)
    with Store(tmp_path / "deep" / "runs.db") as store:
        store.plan([TRIAL, other])
        assert store.runs([TRIAL, other]) == {}
        store.finish(TRIAL, RUN)
        store.finish(other, lost)
    with Store(tmp_path / "deep" / "runs.db") as store:
        assert store.runs([TRIAL, other]) == {TRIAL: RUN, other: lost}
        store.plan([TRIAL])  # what is done stays done
        assert not store.claim(TRIAL)


def test_two_drivers_do_not_claim_one_trial(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as second:
        with Store(path) as first:
            first.plan([TRIAL])
            second.plan([TRIAL])
            assert first.claim(TRIAL)
            assert not second.claim(TRIAL)
            assert first.claim(TRIAL)  # its worker died: once more
        assert second.claim(TRIAL)  # what a closed store had claimed is free


def test_what_a_dead_driver_claimed_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = (
        "import sys, os; from ratecraft.experiments._store import Store; "
        "from ratecraft.experiments._trials import Trial; "
        f"store = Store({str(path)!r}); trial = {TRIAL!r}; store.plan([trial]); "
        "assert store.claim(trial); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with Store(path) as store:
        assert store.claim(TRIAL)


def test_another_machines_claim_ends_with_its_signs_of_life(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Store(path) as store:
        store.plan([TRIAL])
        base = sqlite3.connect(path)
        base.execute(
            "STEP trials SET status = 'running', owner = 'elsewhere:1:1', beat = ?",
            (time.time(),),
        )
        base.commit()
        assert not store.claim(TRIAL)
        base.execute("STEP trials SET beat = ?", (time.time() - 61,))
        base.commit()
        base.close()
        assert store.claim(TRIAL)


def test_a_failure_is_kept_and_tried_again(tmp_path: Path) -> None:
    with Store(tmp_path / "runs.db") as store:
        store.plan([TRIAL])
        store.fail(TRIAL, "Traceback: it broke")
        assert store.errors([TRIAL]) == {TRIAL: "Traceback: it broke"}
        store.plan([TRIAL])
        assert store.errors([TRIAL]) == {}
        assert store.claim(TRIAL)


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes, " * 300)
    before = path.read_bytes()
    with pytest.raises(ResultError, match="is no store of runs, or a damaged one"):
        Store(path)
    assert path.read_bytes() == before
    other = tmp_path / "old.db"
    with Store(other):
        pass
    base = sqlite3.connect(other)
    base.execute("STEP about SET value = '99'")
    base.commit()
    base.close()
    with pytest.raises(ResultError, match="has format 99, and this version reads 1"):
        Store(other)


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    other = dataclasses.replace(TRIAL, seed=1)
    with Store(path) as store:
        store.plan([TRIAL, other])
        store.finish(TRIAL, RUN)
        pages = store._base.execute("PRAGMA page_count").fetchone()[0]
        store._base.execute(f"PRAGMA max_page_count = {pages}")  # a disk that has no more room
        large = dataclasses.replace(RUN, losses=tuple(random.random() for _ in range(50_000)))
        with pytest.raises(RunFailed, match="full; what was complete before is still in it"):
            store.finish(other, large)
    with Store(path) as store:
        assert store.runs([TRIAL, other]) == {TRIAL: RUN}


PLANS = {"flat": constant(1), "wave": cosine(1, 0)}


def test_the_same_call_does_what_is_missing(small: str, tmp_path: Path, monkeypatch) -> None:
    count = tmp_path / "count"
    monkeypatch.setenv("COUNT", str(count))
    settings = {"lrs": 0.1, "total": 20, "workers": 0, "store": tmp_path / "runs.db"}
    first = compare(small, {"flat": constant(1)}, seeds=2, **settings)
    built = len(count.read_text())
    told = []
    again = compare(
        small, PLANS, seeds=2, **settings, progress=lambda p: p.run and told.append(p.done)
    )
    assert again.runs_for("flat") == first.runs_for("flat")
    assert told == [1, 2, 3, 4]
    assert len(count.read_text()) == built + 1 + 2  # once to look at it, and two runs
    done = compare(small, PLANS, seeds=2, **settings)
    assert done.runs == again.runs
    assert len(count.read_text()) == built + 1 + 2 + 1


def test_lrs_and_optimizers_are_candidates(small: str, tmp_path: Path) -> None:
    result = compare(
        small,
        PLANS,
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
        text, kind = result.schedules[name], result.configs[name].optimizer
        rivals = [
            row.mean["loss"]
            for row in result.summaries()
            if row.schedule == text and result.configs[row.name][1] == kind
        ]
        (mine,) = [row.mean["loss"] for row in best.summaries() if row.name == name]
        assert mine == min(rivals)
    from ratecraft.results import load

    assert load(result.save(tmp_path / "c.json")) == result
    with pytest.raises(SettingError, match="the same lr is given twice"):
        compare(small, PLANS, lrs=[0.1, 0.1], total_steps=30, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_raises_is_told_and_the_others_go_on(small: str, workers: int) -> None:
    fussy = small.replace(":task", ":fussy")
    result = compare(fussy, PLANS, lrs=0.01, seeds=6, total_steps=8, workers=workers)
    assert result.failed
    assert all("ValueError: positive" in error for error in result.failed.values())
    assert all("Traceback" in error for error in result.failed.values())
    assert len(result.runs) + len(result.failed) == 12
    assert result.runs
    result.verdict()


def test_where_nothing_works_the_error_is_told(small: str) -> None:
    code = SMALL.replace("> 0:", "> -99:")
    Path(small.removesuffix(":task")).write_text(code)
    with pytest.raises(RunFailed, match="ValueError: positive"):
        compare(
            small.replace(":task", ":fussy"), PLANS, lrs=0.01, seeds=1, total_steps=8, workers=0
        )


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_workers_end_when_their_driver_is_killed(tmp_path: Path) -> None:
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
        assert alive(worker)
        driver.kill()
        driver.wait()
    end = time.monotonic() + 20
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(worker)


def test_a_killed_workers_trial_is_tried_again(small: str, tmp_path: Path) -> None:
    plain = compare(small, PLANS, lrs=0.1, seeds=2, total_steps=20, workers=1)
    engine = LocalEngine(1)
    killed = []

    class Killing:
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
        found = compare(small, PLANS, lrs=0.1, seeds=2, total_steps=20, engine=Killing())
    finally:
        engine.close()
    assert len(killed) == 2
    assert [run.losses for run in found.runs] == [run.losses for run in plain.runs]


@pytest.mark.slow
def test_a_driver_killed_again_and_again_ends_as_one_that_was_not(
    small: str, tmp_path: Path
) -> None:
    seeds, total = 3, 20
    undisturbed = compare(small, PLANS, lrs=0.1, seeds=seeds, total_steps=total, workers=1)
    driver = tmp_path / "driver.py"
    driver.write_text(
        "from ratecraft import constant, cosine\n"
        "from ratecraft.experiments import compare\n"
        "if __name__ == '__main__':\n"
        f"    compare({small!r}, {{'flat': constant(1), 'wave': cosine(1, 0)}}, lrs=0.1,\n"
        f"            seeds={seeds}, total_steps={total}, workers=1, store={str(tmp_path / 'r.db')!r})\n"
    )
    environment = os.environ | {"SLOW": "0.7"}
    rng = random.Random(0)
    for _ in range(4):
        with subprocess.Popen([sys.executable, str(driver)], env=environment) as process:
            time.sleep(6 + 3 * rng.random())
            process.kill()
    told = []
    result = compare(
        small, PLANS, lrs=0.1, seeds=seeds, total_steps=total, workers=1, store=tmp_path / "r.db",
        progress=lambda p: p.run and told.append(p.done),
    )  # fmt: skip
    assert told == [1, 2, 3, 4, 5, 6]
    assert [run.losses for run in result.runs] == [run.losses for run in undisturbed.runs]
    assert [run.evaluations for run in result.runs] == [r.evaluations for r in undisturbed.runs]


def test_a_run_that_is_there_is_not_lost_by_a_failure_of_its_job(
    small: str, tmp_path: Path, monkeypatch
) -> None:
    settings = {"lrs": 0.1, "seeds": 1, "workers": 0, "store": tmp_path / "r.db"}
    first = compare(small, [constant(1)], total_steps=[8], branches=True, **settings)
    seen = []
    monkeypatch.setattr("ratecraft.experiments._jobs.train_branches", lambda *_, **__: 1 / 0)
    told = compare(
        small, [constant(1)], total_steps=[8, 16], branches=True, **settings,
        progress=lambda p: seen.append((p.what, p.running)),
    )  # fmt: skip
    assert seen == [("kept", 0), ("started", 1), ("failed", 0)]
    assert list(told.failed) == ["constant(1), 16 steps, seed 0"]
    assert told.runs == first.runs
    with Store(tmp_path / "r.db") as store:
        rows = store._base.execute("SELECT status FROM trials ORDER BY status").fetchall()
    assert rows == [("done",), ("failed",)]


SHARED = (
    SMALL
    + """
generator = torch.Generator().manual_seed(5)
data = torch.utils.data.TensorDataset(x)
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=generator)

def shared():
    made = task()
    loss = lambda model, batch: ((model(batch[0]) - 2 * batch[0]) ** 2).mean()
    return Task(model=made.model, loss=loss, train=loader, val=loader, optimizer=made.optimizer)
"""
)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_at_the_top_of_a_file_carries_nothing_from_run_to_run(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    task = f"{tmp_path / 'shared.py'}:shared"
    settings = {"lrs": 0.1, "seeds": [0], "total": 20, "workers": workers}
    both = compare(task, PLANS, **settings)
    alone = compare(task, [cosine(1, 0)], **settings)
    assert both.runs_for("wave")[0].losses == alone.runs[0].losses
    assert both.runs_for("wave")[0].evaluations == alone.runs[0].evaluations
    with pytest.raises(RunFailed, match="all of them read one DataLoader"):
        compare(task, PLANS, **settings | {"lrs": [0.1, 0.2]}, halving=True)


def test_numbers_that_cannot_be_are_refused(small: str) -> None:
    for wrong, words in [
        ({"workers": -1}, "workers=-1: expected"),
        ({"lrs": -1.0}, "expected numbers >= 0"),
        ({"lrs": "0.1"}, "expected numbers >= 0"),
        ({"total": [8, epochs(1)]}, "the same length is given twice"),
    ]:
        with pytest.raises(SettingError, match=words):
            compare(small, PLANS, **{"lrs": 0.1, "total": 8, "workers": 0} | wrong)
    with pytest.raises(ScheduleError, match="given twice"):
        compare(small, [constant(1), constant(1)], lrs=0.1, workers=0)


def test_two_drivers_of_jobs_of_several_trials_tell_each_run_once(
    small: str, tmp_path: Path
) -> None:
    settings = {"lrs": 0.1, "seeds": 1, "workers": 0, "store": tmp_path / "r.db"}
    compare(small, [constant(1)], total_steps=[8], **settings)
    with Store(tmp_path / "r.db") as other:
        plan = Trial(small, source_of(small), "constant(1)", 0.1, None, 0, "16")
        other.plan([plan])
        assert other.claim(plan)
        seen = []

        def hear(progress) -> None:
            seen.append(progress.what)

        thread = threading.Timer(3, lambda: None)
        thread.start()
        release = threading.Thread(target=lambda: (thread.join(), give_back(tmp_path / "r.db")))
        release.start()
        compare(small, [constant(1)], total_steps=[8, 16], branches=True, **settings, progress=hear)
        release.join()
    assert seen == ["kept", "started", "done"]


def give_back(path: Path) -> None:
    base = sqlite3.connect(path, timeout=30)
    with base:
        base.execute("STEP trials SET status = 'planned', owner = NULL WHERE status = 'running'")
    base.close()

"""Scripts as trials: their processes, logs and failures, with real scripts."""

import html
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import ratecraft
from ratecraft import compare, cosine, wsd
from ratecraft.errors import RunFailed, ScheduleError, SettingError, TaskError
from ratecraft.experiments import Plateau, Script, merge, read_comparison
from ratecraft.report import write_report
from ratecraft.results import load

TRIAL = """
    import sys
    import ratecraft
    from ratecraft import cosine
    trial = ratecraft.trial(lr=0.1, schedule=cosine(), seed=0)
"""
# No torch: a loss that depends on the values of the trial.
LOGGED = """
    curve = (trial.lr * trial.schedule).resolve(total_steps=20)
    loss = 1.0 + trial.seed / 100
    for step in range(1, 21):
        loss *= 1 - curve(step - 1)
        trial.log(step, loss=loss, val_loss=loss + 0.01, val_accuracy=1 - loss / 2)
"""
SCHEDULES = [wsd(2), cosine(1, 0)]


def write(folder: Path, *parts: str, name: str = "train.py") -> str:
    path = folder / name
    path.write_text("".join(textwrap.dedent(part) for part in parts))
    return str(path)


def failure(folder: Path, *parts: str, **options) -> str:
    """Return why the only trial of a script has no run."""
    script = Script(write(folder, *parts), **options)
    with pytest.raises(RunFailed) as caught:
        compare(script, [cosine(1, 0)], lrs=0.1, seeds=1, workers=0, progress=False)
    return str(caught.value)


def test_a_script_is_run_with_each_schedule_lr_and_seed(tmp_path: Path) -> None:
    file = write(tmp_path, TRIAL, LOGGED)
    result = compare(file, SCHEDULES, lrs=[0.1, 0.2], seeds=2, workers=2, progress=False)
    assert len(result.runs) == 8
    for run in result.runs:
        curve, loss = run.curve(), 1.0 + run.seed / 100
        expected = [loss := loss * (1 - curve(step)) for step in range(20)]
        assert run.losses == tuple(expected)
        assert run.loss_steps == tuple(range(1, 21))
        assert run.total_steps == run.trained_steps == 20
        assert run.final() == expected[-1] + 0.01
        assert run.final("accuracy") == 1 - expected[-1] / 2
    assert load(result.save(tmp_path / "result.json")) == result


def test_a_script_run_by_hand_uses_its_own_values(tmp_path: Path) -> None:
    log = "trial = ratecraft.trial(lr=0.1, schedule='cosine()', seed=3, log='run.jsonl')\n"
    file = write(tmp_path, TRIAL, log, LOGGED, "print(trial.lr, trial.schedule, trial.seed)\n")
    done = subprocess.run(
        [sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.1 cosine(1, 0) 3\n"
    rows = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert list(rows[0]) == ["step", "loss", "val_loss", "val_accuracy"]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["import nothing_of_this_name, ratecraft"],
         "ended with exit code 1 after step 0; its output ends with: "
         "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ([TRIAL, LOGGED, "sys.exit(3)"], "ended with exit code 3 after step 20"),
        ([TRIAL, LOGGED, "import os; os.kill(os.getpid(), 9)"],
         "was killed by SIGKILL (by the system, if memory was short) after step 20"),
        ([TRIAL, "print(trial.lr, trial.schedule, trial.seed)"], "ended without a log: call "
         "trial.log(step, loss=..., val_loss=...); its output ends with: 0.1 cosine(1, 0) 0"),
        ([TRIAL, LOGGED.replace("val_", "dev_")], "logged loss, dev_loss, dev_accuracy, but no "
         "val_loss: log val_loss=..., or name the loss to compare with --metric"),
        ([TRIAL, LOGGED.replace("trial.schedule", "cosine()")],
         "did not use the schedule of its trial: use trial.lr * trial.schedule"),
        ([TRIAL, LOGGED.replace("trial.seed", "0")],
         "did not use the seed of its trial: use trial.seed"),
        ([TRIAL, "input('number: ')"], "EOFError: EOF when reading a line"),
    ],
)  # fmt: skip
def test_a_script_that_gives_no_result_is_described(
    tmp_path: Path, parts: list[str], sentence: str
) -> None:
    message = failure(tmp_path, *parts)
    assert message.startswith("train.py ")
    assert sentence in message


@pytest.mark.slow
def test_a_script_that_hangs_is_stopped_and_the_others_stay(tmp_path: Path) -> None:
    hang = "if trial.seed == 1:\n    import time; time.sleep(600)\n"
    file = write(tmp_path, TRIAL, LOGGED, hang)
    started = time.monotonic()
    result = compare(
        Script(file, timeout=15), [cosine(1, 0)], lrs=0.1, seeds=2, workers=0, progress=False
    )
    assert time.monotonic() - started < 300
    assert [run.seed for run in result.runs] == [0]
    (text,) = result.failed.values()
    assert "was stopped after 15 s (timeout), at step 20" in text


def test_nan_in_the_log_is_a_run_that_diverged(tmp_path: Path) -> None:
    nan = "trial.log(21, loss=float('nan'), val_loss=float('nan'))\nsys.exit(1)\n"
    result = compare(
        write(tmp_path, TRIAL, LOGGED, nan), [cosine(1, 0)], lrs=0.1, seeds=1, workers=0,
        progress=False,
    )  # fmt: skip
    assert result.runs[0].diverged == 21


def test_a_scheduler_with_another_schedule_is_a_failure(tmp_path: Path) -> None:
    scheduler = """
        import torch
        from ratecraft import ScheduleLR, constant
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        ScheduleLR(optimizer, lr=trial.lr * constant(1), total_steps=20)
    """
    assert "its ScheduleLR has another one" in failure(tmp_path, TRIAL, scheduler, LOGGED)


def test_a_script_that_stops_half_way_is_a_failure(tmp_path: Path) -> None:
    scheduler = """
        import torch
        from ratecraft import ScheduleLR
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        ScheduleLR(optimizer, lr=trial.lr * trial.schedule, total_steps=40)
    """
    message = failure(tmp_path, TRIAL, scheduler, LOGGED)
    assert "ended with exit code 0 after step 20 of 40" in message


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
def test_processes_that_a_script_leaves_behind_are_killed(tmp_path: Path) -> None:
    orphan = """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"],
                                 start_new_session=True)
        (trial.directory / "pid").write_text(str(child.pid))
    """
    script = Script(write(tmp_path, TRIAL, LOGGED, orphan), directory=str(tmp_path / "trials"))
    compare(script, [cosine(1, 0)], lrs=0.1, seeds=1, workers=0, progress=False)
    (path,) = (tmp_path / "trials").glob("*/pid")
    assert not Path(f"/proc/{path.read_text()}").exists()


def test_a_very_long_output_is_shortened(tmp_path: Path) -> None:
    output = "for i in range(40000):\n    print('x' * 1000)\nprint('the end')\nsys.exit(1)\n"
    message = failure(tmp_path, TRIAL, LOGGED, output, directory=str(tmp_path / "trials"))
    assert message.endswith("its output ends with: the end")
    (path,) = (tmp_path / "trials").glob("*/output.txt")
    assert path.stat().st_size < 18 << 20
    assert b"bytes of output are left out" in path.read_bytes()


def test_a_changed_script_is_run_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    count = "open(trial.directory / 'starts', 'a').write('x')\n"
    store = tmp_path / "runs.db"
    options = {"lrs": 0.1, "seeds": 1, "store": store, "workers": 0, "progress": False}
    for text, starts in ((LOGGED, 1), (LOGGED, 1), (LOGGED + "    # changed\n", 2)):
        compare(write(tmp_path, TRIAL, count, text), [cosine(1, 0)], **options)
        files = list(Path(f"{store}.trials").glob("*/starts"))
        assert len(files) == starts
        assert all(file.read_text() == "x" for file in files)
    assert len(read_comparison(store).runs) == 1


def test_a_script_that_failed_continues_from_its_checkpoint(tmp_path: Path) -> None:
    resumed = """
        checkpoint = trial.directory / "checkpoint"
        first = int(checkpoint.read_text()) if checkpoint.exists() else 0
        loss, trial.seed, trial.lr, trial.schedule
        for step in range(first, 20):
            trial.log(step, loss=20 - step, val_loss=first)
            if step == 10 and not first:
                checkpoint.write_text("8")
                sys.exit(1)
    """
    file = write(tmp_path, TRIAL, "loss = 1", resumed)
    options = {"lrs": 0.1, "seeds": 1, "store": tmp_path / "runs.db", "workers": 0}
    with pytest.raises(RunFailed):
        compare(file, [cosine(1, 0)], progress=False, **options)
    (run,) = compare(file, [cosine(1, 0)], progress=False, **options).runs
    assert run.loss_steps == tuple(range(20))
    assert [e.metrics["loss"] for e in run.evaluations] == [0] * 8 + [8] * 12


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["driver", "trial"])
def test_a_killed_comparison_of_a_script_is_resumed(tmp_path: Path, killed: str) -> None:
    slow = LOGGED.replace("        trial.log", "        time.sleep(0.05); trial.log")
    write(
        tmp_path,
        TRIAL,
        "import os, time; (trial.directory / 'pid').write_text(str(os.getpid()))\n",
        slow,
    )
    command = [sys.executable, "-m", "ratecraft", "compare", "train.py", "wsd(2)", "cosine(1, 0)"]
    command += ["--lrs", "0.1", "--seeds", "2", "--store", "runs.db", "--save", "result.json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while len(pids := list(tmp_path.glob("runs.db.trials/*/pid"))) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        newest = max(pids, key=lambda path: path.stat().st_mtime)
        pid = int(newest.read_text()) if killed == "trial" else process.pid
        os.kill(pid, signal.SIGKILL)
    if killed == "driver":
        end = time.monotonic() + 10
        while any(Path(f"/proc/{path.read_text()}").exists() for path in pids):
            assert time.monotonic() < end  # they end with the driver
            time.sleep(0.05)
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    expected = compare(
        str(tmp_path / "train.py"), SCHEDULES, lrs=0.1, seeds=2, workers=0, progress=False
    )
    result = load(tmp_path / "result.json")
    assert [run.losses for run in result.runs] == [run.losses for run in expected.runs]


def test_arguments_of_a_script_may_have_the_values_of_the_trial(tmp_path: Path) -> None:
    script = """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float)
        parser.add_argument("--seed", type=int)
        parser.add_argument("--decay")
        parser.add_argument("--out")
        options = parser.parse_args()
        with open(options.out + "/metrics.csv", "w") as file:
            file.write("step,loss,val_loss\\n")
            for step in range(1, 6):
                file.write(f"{step},{step},{options.lr + options.seed + len(options.decay)}\\n")
    """
    arguments = ["--lr", "{lr}", "--seed={seed}", "--decay", "{schedule}", "--out", "{directory}"]
    result = compare(
        Script(write(tmp_path, script), arguments), ["linear", "cosine"], lrs=[0.5, 2], seeds=2,
        workers=0, progress=False,
    )  # fmt: skip
    assert list(result.schedules) == [
        f"{name}, lr {lr}" for name in ("linear", "cosine") for lr in ("0.5", "2")
    ]
    assert [run.final() for run in result.runs] == [6.5, 7.5, 8, 9, 6.5, 7.5, 8, 9]
    assert not result.runs[0].has_curve
    with pytest.raises(ScheduleError, match="the script has its own schedule"):
        result.runs[0].curve()
    write_report(report := tmp_path / "report.html", title="Flags", comparison=result)
    assert "compare(\n        Script(" in html.unescape(report.read_text())


def test_the_output_of_a_script_may_be_its_log(tmp_path: Path) -> None:
    script = """
        import sys
        for step in range(1, 6):
            print(f"step {step}: train loss {step}, val loss {float(sys.argv[1]) + step:.4f}")
    """
    result = compare(
        Script(write(tmp_path, script), ["{lr}", "{seed}"]), lrs=[0.5, 2], seeds=1, workers=0,
        progress=False,
    )  # fmt: skip
    assert [run.final() for run in result.runs] == [5.5, 7]
    assert list(result.schedules) == ["train.py, lr 0.5", "train.py, lr 2"]


@pytest.mark.slow
def test_each_trial_sees_its_own_gpus(tmp_path: Path) -> None:
    devices = """
        import os, time
        (trial.directory / "gpus").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        time.sleep(1)
    """
    write(tmp_path, TRIAL, devices, LOGGED)
    command = [sys.executable, "-m", "ratecraft", "compare", "train.py", "cosine(1, 0)", "--lrs"]
    command += ["0.1", "--seeds", "4", "--workers", "3", "--quiet", "--gpus-per-trial"]
    for gpus, expected in (("2", {"4,5", "6,7"}), ("0.5", {"4", "5"}), ("0", {"-1"})):
        done = subprocess.run(
            [*command, gpus, "--store", f"{gpus}.db"], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {path.read_text() for path in tmp_path.glob(f"{gpus}.db.trials/*/gpus")} == expected
    done = subprocess.run(
        [*command, "5"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "4,5,6,7"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "error: a trial needs 5 GPUs; this machine has 4\n"
    )  # fmt: skip


@pytest.mark.slow
def test_halving_stops_the_worse_learning_rates_of_a_script(tmp_path: Path) -> None:
    scheduler = """
        import torch
        from ratecraft import ScheduleLR
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        ScheduleLR(optimizer, lr=trial.lr * trial.schedule, total_steps=20)
    """
    file = write(tmp_path, TRIAL, scheduler, LOGGED)
    lrs = [0.02, 0.05, 0.1, 0.2]
    result = compare(
        file, [cosine(1, 0)], lrs=lrs, seeds=1, workers=0, halving=True, progress=False
    )
    assert {run.lr: run.stopped for run in result.runs} == {0.02: 5, 0.05: 5, 0.1: 10, 0.2: None}
    assert [run.loss_steps[-1] for run in result.runs] == [5, 5, 10, 20]


def test_without_schedules_a_script_has_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, TRIAL, LOGGED)
    options = {"lrs": 0.1, "seeds": 1, "workers": 0, "progress": False}
    result = compare(file, **options)
    assert result.runs[0].losses == compare(file, [cosine(1, 0)], **options).runs[0].losses


def test_a_changed_import_or_config_file_is_a_changed_script(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "model.py").write_text("import layers")
    (tmp_path / "layers.py").write_text("")
    file = write(tmp_path, "import json, ratecraft, model\n")
    arguments = ["--config", str(tmp_path / "config.yaml")]
    hashes = [Script(file, arguments).source_hash]
    for name in ("config.yaml", "layers.py", "train.py"):
        with (tmp_path / name).open("a") as changed:
            changed.write("\n# changed\n")
        hashes.append(Script(file, arguments).source_hash)
    assert len(set(hashes)) == 4
    write(tmp_path, "this is no Python")
    assert Script(file).source_hash


def test_a_script_is_known_by_its_name_in_any_folder(tmp_path: Path, monkeypatch) -> None:
    file = write(tmp_path, TRIAL, LOGGED)
    options = {"lrs": 0.1, "seeds": 1, "workers": 0, "store": tmp_path / "runs.db"}
    monkeypatch.chdir(tmp_path)
    events = []
    for name in (file, "train.py", "./train.py"):
        compare(name, SCHEDULES, **options, progress=lambda event: events.append(event.event))
    assert events.count("started") == 2


def test_a_script_that_cannot_know_its_values_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "print(1)")
    options = {"lrs": 0.1, "progress": False}
    with pytest.raises(SettingError, match=r"cannot know the lr .* call ratecraft.trial in it"):
        compare(file, seeds=1, **options)
    with pytest.raises(SettingError, match=r"cannot know the seed .* or compare one seed"):
        compare(Script(file, ["--lr={lr}"]), seeds=2, **options)
    with pytest.raises(SettingError, match="cannot know the schedule"):
        compare(Script(file, ["{lr}"]), SCHEDULES, seeds=1, **options)


def test_metrics_of_a_log_in_another_format_are_those_of_the_validation(tmp_path: Path) -> None:
    script = """
        import json, sys
        rows = [{"step": 5, "loss": 3.0, "epoch": 1, "grad_norm": 2},
                {"step": 5, "eval_loss": 2.0, "eval_accuracy": 0.5, "eval_runtime": 0.1,
                 "eval_samples_per_second": 12, "epoch": 1}]
        with open(sys.argv[1] + "/trainer_state.json", "w") as file:
            json.dump({"log_history": rows}, file)
    """
    arguments = ["{directory}", "{lr}"]
    options = {"lrs": 0.1, "seeds": 1, "workers": 0, "progress": False}
    (run,) = compare(Script(write(tmp_path, script), arguments), **options).runs
    assert run.evaluations[0].metrics == {"loss": 2.0, "accuracy": 0.5}
    write(tmp_path, script.replace("eval_loss", "eval_acc"))
    with pytest.raises(RunFailed, match=r"logged no validation loss .*trainer_state.json has loss"):
        compare(Script(str(tmp_path / "train.py"), arguments), **options)


def test_settings_that_do_not_fit_a_script_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, TRIAL, LOGGED)
    options = {"lrs": 0.1, "workers": 0, "progress": False}
    with pytest.raises(SettingError, match=r"train\.py sets its own total_steps: leave out"):
        compare(file, SCHEDULES, total_steps=10, **options)
    with pytest.raises(SettingError, match=r"train\.py sets its own optimizer"):
        compare(file, SCHEDULES, optimizers="sgd", **options)
    with pytest.raises(SettingError, match="leave out branches"):
        compare(file, SCHEDULES, branches=True, **options)
    with pytest.raises(ScheduleError, match="needs a PlateauLR of its own"):
        compare(file, [Plateau()], **options)
    with pytest.raises(TaskError, match=r"there is no file other\.py"):
        compare("other.py", SCHEDULES, **options)
    with pytest.raises(SettingError, match="there is no program 'no-such-program'"):
        compare(Script(file, launch="no-such-program -n 2"), SCHEDULES, **options)
    with pytest.raises(SettingError, match="expected a list"):
        Script(file, "--lr 3")


def test_a_trial_checks_its_values(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="expected a number >= 0"):
        ratecraft.trial(lr=-1, schedule=cosine())
    with pytest.raises(SettingError, match="expected a whole number"):
        ratecraft.trial(lr=1, schedule=cosine(), seed=0.5)
    trial = ratecraft.trial(lr=1, schedule=cosine(), log=tmp_path / "log.jsonl")
    with pytest.raises(SettingError, match=r"write trial.log\(step, loss=loss\)"):
        trial.log(1)
    with pytest.raises(SettingError, match=r"trial.log\(1, loss=...\) is str"):
        trial.log(1, loss="x")
    with pytest.raises(SettingError, match="expected the number of the step"):
        trial.log("1", loss=2)
    trial.log(1, loss=torch.tensor([2.0], requires_grad=True))
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "loss": 2.0}\n'


DISTRIBUTED = """
    import torch
    import torch.distributed as dist
    import ratecraft
    from ratecraft import ScheduleLR, cosine
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    trial = ratecraft.trial(lr=0.1, schedule=cosine(), seed=0)
    torch.manual_seed(trial.seed)
    data = torch.randn(64, 4)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = ScheduleLR(optimizer, lr=trial.lr * trial.schedule, total_steps=30)
    for step in range(1, 31):
        part = data[rank::size]
        loss = (model(part) - part.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(mean := loss.detach() / size)
        trial.log(step, loss=loss, val_loss=mean)
    print("rank", rank, "of", size)
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_the_first_process_of_a_launcher_logs(tmp_path: Path) -> None:
    script = Script(
        write(tmp_path, DISTRIBUTED),
        launch="torchrun --nproc-per-node 2",
        directory=str(tmp_path / "trials"),
    )
    result = compare(script, SCHEDULES, lrs=0.1, seeds=1, workers=2, progress=False)
    assert not result.failed
    assert [run.loss_steps for run in result.runs] == [tuple(range(1, 31))] * 2
    outputs = [path.read_text() for path in (tmp_path / "trials").glob("*/output.txt")]
    assert all("rank 0 of 2" in text and "rank 1 of 2" in text for text in outputs)


@pytest.mark.slow
def test_the_other_processes_of_a_launcher_end_with_the_driver(tmp_path: Path) -> None:
    endless = DISTRIBUTED.replace("range(1, 31)", "range(1, 10**9)")
    pid = '(trial.directory / f"pid-{rank}").write_text(str(__import__("os").getpid()))\n'
    write(tmp_path, endless.replace("    data =", f"    {pid}    data ="))
    command = [sys.executable, "-m", "ratecraft", "compare", "train.py", "cosine(1, 0)", "--lrs"]
    command += ["0.1", "--seeds", "1", "--launch", "torchrun --nproc-per-node 2", "--store", "s.db"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while len(pids := list(tmp_path.glob("s.db.trials/*/pid-*"))) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        process.kill()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{path.read_text()}").exists() for path in pids):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.peers
def test_ray_gives_the_same_runs_of_a_script(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    file = write(tmp_path, TRIAL, LOGGED)
    options = {"lrs": [0.1, 0.2], "seeds": 2, "progress": False}
    here = compare(file, SCHEDULES, **options, workers=0)
    there = compare(file, SCHEDULES, **options, engine="ray", store=tmp_path / "ray.db")
    assert not there.failed
    pairs = zip(here.runs, there.runs, strict=True)
    assert all(a.losses == b.losses and a.evaluations == b.evaluations for a, b in pairs)


def test_shards_of_a_script_are_merged(tmp_path: Path) -> None:
    file = write(tmp_path, TRIAL, LOGGED)
    options = {"lrs": [0.1, 0.2], "seeds": 1, "workers": 0, "progress": False}
    whole = compare(file, SCHEDULES, **options)
    stores = [tmp_path / f"{i}.db" for i in (1, 2)]
    for i, store in enumerate(stores, 1):
        compare(file, SCHEDULES, **options, store=store, shard=(i, 2))
    assert merge(tmp_path / "all.db", *stores) == 4
    merged = compare(file, SCHEDULES, **options, store=tmp_path / "all.db")
    assert [run.losses for run in merged.runs] == [run.losses for run in whole.runs]
    assert list(merged.schedules) == list(whole.schedules)
    assert len(read_comparison(tmp_path / "all.db").runs) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_comparison_of_a_script_ends_its_processes(
    tmp_path: Path, signal_number: int, code: int
) -> None:
    pid = "import os, time; (trial.directory / 'pid').write_text(str(os.getpid()))\n"
    write(tmp_path, TRIAL, pid, "time.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "ratecraft", "compare", "train.py", "cosine(1, 0)", "--lrs", "0.1",
         "--seeds", "2", "--store", "runs.db"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:  # fmt: skip
        while not (pids := list(tmp_path.glob("runs.db.trials/*/pid"))):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal_number)
        errors = process.stderr.read()
    assert process.returncode == code
    assert errors.startswith("0 of 2 runs are saved in runs.db; run the same command again")
    assert len(errors.splitlines()) == 2
    assert not any(Path(f"/proc/{path.read_text()}").exists() for path in pids)

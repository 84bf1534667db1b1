"""Task.from_lightning: runs of a comparison in Lightning's own training loop."""

import importlib.util
import math
import random
import signal
from pathlib import Path

import numpy
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ratecraft import ScheduleLR, constant, cosine, epochs, warmup
from ratecraft.errors import RunFailed, ScheduleError, SettingError, TaskError
from ratecraft.experiments import Plateau, Task, compare, train

L = pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.peers,
    # Lightning 2.6 uses a pytree class that torch 2.13 deprecates.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\):FutureWarning"),
    # A short test needs no data loader workers.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
]
BATCHES = 13  # odd: with two batches per step, the last step has one
SCHEDULE = warmup(2).then(cosine(1, 0.1))


class Digits(L.LightningModule):
    def __init__(self, lrs=None):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(64, 10))
        self.lrs = [] if lrs is None else lrs

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        logits = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1.0)
        optimizer.register_step_pre_hook(lambda o, *_: self.lrs.append(o.param_groups[0]["lr"]))
        return optimizer


def digits_loaders(batch_size=32):
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images[:624]).float() / 16, torch.tensor(labels[:624]))
    train, val = (
        torch.utils.data.Subset(data, range(416)),
        torch.utils.data.Subset(data, range(416, 624)),
    )
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, 104)


class DigitsData(L.LightningDataModule):
    def train_dataloader(self):
        return digits_loaders()[0]

    def val_dataloader(self):
        return digits_loaders()[1]


def make_trainer(**settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"accelerator": "cpu", "devices": 1, "enable_model_summary": False}
    return lambda: L.Trainer(**quiet | settings)


def digits_task(module=Digits, data=digits_loaders, steps_per_epoch=None, **settings):
    return Task.from_lightning(
        module, data, make_trainer(**settings), steps_per_epoch=steps_per_epoch
    )


def train_by_hand(accumulate=1, clip=None, lr=0.05, total_steps=15, seed=3):
    """Train as Lightning does; return the loss of every step."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)
    module = Digits()
    loader = digits_loaders()[0]
    optimizer = torch.optim.AdamW(module.parameters(), lr=1.0)
    ScheduleLR(optimizer, lr=lr * SCHEDULE, total_steps=total_steps)
    losses = []
    while len(losses) < total_steps:
        total, count = 0.0, 0
        for i, (x, y) in enumerate(loader, start=1):
            loss = F.cross_entropy(module.net(x), y) / accumulate
            loss.backward()
            total, count = total + loss.item(), count + 1
            if i % accumulate == 0 or i == len(loader):
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(total * (1 if count == accumulate else accumulate / count))
                total, count = 0.0, 0
            if len(losses) == total_steps:
                break
    return losses


@pytest.mark.parametrize(
    ("settings", "by_hand", "total_steps"),
    [
        ({}, {}, 13),
        (
            {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
            {"accumulate": 2, "clip": 0.1},
            7,
        ),
    ],
)
def test_run_is_bit_for_bit_a_loop_by_hand(settings, by_hand, total_steps) -> None:
    task = digits_task(num_sanity_val_steps=0, **settings)
    run = train(task, SCHEDULE, lr=0.05, seed=3, total_steps=total_steps)
    assert list(run.losses) == train_by_hand(total_steps=total_steps, **by_hand)


@pytest.mark.parametrize("data", [digits_loaders, DigitsData])
def test_steps_have_the_lrs_of_the_schedule(data) -> None:
    lrs: list[float] = []
    task = digits_task(lambda: Digits(lrs), data, accumulate_grad_batches=2)
    assert task.steps_per_epoch == 7
    assert lrs == []  # nothing was trained to count the steps
    schedule = warmup(epochs(1)).then(cosine(1, 0))
    run = train(task, schedule, lr=0.05, total_steps=epochs(3))
    assert lrs == list(run.curve())
    assert (len(run.losses), run.steps_per_epoch) == (21, 7)


def test_run_has_the_validation_metrics_of_the_trainer_and_of_the_end() -> None:
    run = train(digits_task(), SCHEDULE, lr=0.05, total_steps=30)
    assert [evaluation.step for evaluation in run.evaluations] == [13, 26, 30]
    assert [set(evaluation.metrics) for evaluation in run.evaluations] == [{"loss", "accuracy"}] * 3
    last = run.evaluations[-1]
    assert last.lrs == {"0": run.curve()(29)}
    assert run.final("accuracy") > 0.7
    assert run.final() < run.evaluations[0].metrics["loss"]


def test_seed_determines_weights_and_data_order() -> None:
    task = digits_task()
    runs = [train(task, SCHEDULE, lr=0.05, seed=seed, total_steps=14) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].evaluations == runs[1].evaluations
    assert runs[0].losses[0] != runs[2].losses[0]


def test_random_numbers_of_the_caller_are_restored() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    task = digits_task()
    assert task.steps_per_epoch == BATCHES
    train(task, SCHEDULE, lr=0.05, total_steps=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_watch_and_divergence() -> None:
    steps, seen = [], []
    run = train(
        digits_task(),
        constant(1),
        lr=0.05,
        total_steps=14,
        progress=lambda done, total: steps.append((done, total)),
        watch=seen.append,
    )
    assert steps == [(k + 1, 14) for k in range(14)]
    assert tuple(seen) == run.evaluations
    run = train(digits_task(), constant(1), lr=1e30, total_steps=50)
    assert run.diverged is not None
    assert len(run.losses) == run.diverged + 1 < 13
    assert math.isnan(run.final())


def test_plateau_follows_the_validation_of_the_trainer() -> None:
    lrs: list[float] = []
    task = digits_task(lambda: Digits(lrs), val_check_interval=3)
    plateau = Plateau(constant(1), factor=0.5, patience=0, threshold=0.9)
    run = train(task, plateau, lr=0.05, total_steps=12)
    assert lrs == pytest.approx(list(run.curve()))
    assert lrs[0] == 0.05 > lrs[-1]
    with pytest.raises(ScheduleError, match="has no metric 'f1'; it has loss, accuracy"):
        train(task, Plateau(metric="f1"), lr=0.05, total_steps=12)


class Stream(IterableDataset):
    def __iter__(self):
        yield from digits_loaders()[0].dataset


def stream_loaders():
    return DataLoader(Stream(), 32), digits_loaders()[1]


def test_stream_needs_steps_per_epoch() -> None:
    task = digits_task(data=stream_loaders, val_check_interval=5)
    with pytest.raises(TaskError, match="has no length: write steps_per_epoch="):
        train(task, SCHEDULE, lr=0.05, total_steps=9)
    task = digits_task(data=stream_loaders, steps_per_epoch=3)
    run = train(task, SCHEDULE, lr=0.05, total_steps=epochs(5))
    assert len(run.losses) == 15  # more than one pass
    assert len(run.evaluations) == 2


def test_default_trainer_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    task = Task.from_lightning(Digits, digits_loaders)
    run = train(task, SCHEDULE, lr=0.05, total_steps=epochs(1))
    assert len(run.losses) == BATCHES
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_loggers_of_the_trainer_log_runs_only(tmp_path) -> None:
    logger = L.pytorch.loggers.CSVLogger(tmp_path, version=0)
    task = digits_task(logger=logger, log_every_n_steps=1)
    assert task.steps_per_epoch == BATCHES
    assert list(tmp_path.iterdir()) == []
    train(task, SCHEDULE, lr=0.05, total_steps=5)
    (log,) = tmp_path.rglob("metrics.csv")
    assert len(log.read_text().splitlines()) == 1 + 5 + 1  # a header, the steps, the validation


class Scheduling(Digits):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]


class Alternating(Digits):
    def configure_optimizers(self):
        return [super(Alternating, self).configure_optimizers() for _ in range(2)]


class Manual(Digits):
    automatic_optimization = False


class Unmeasured(Digits):
    def validation_step(self, batch, _):
        self.log("score", 1.0)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (digits_task(Scheduling), "return one optimizer and no scheduler"),
        (digits_task(Manual), "uses manual optimization"),
        (
            digits_task(Unmeasured),
            r"no validation loss \(metrics: none\); write",
        ),
        (digits_task(lambda: torch.nn.Linear(1, 1)), r"make_module\(\) returned Linear; expected"),
        (
            digits_task(data=lambda: digits_loaders()[0]),
            r"make_data\(\) returned DataLoader",
        ),
        (digits_task(max_time="00:00:00:00"), "stopped after [01] of 10 steps: leave out"),
        (Task.from_lightning(Digits, digits_loaders, dict), r"make_trainer\(\) returned dict"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(task, message) -> None:
    with pytest.raises(TaskError, match=message) as error:
        train(task, SCHEDULE, lr=0.05, total_steps=10)
    assert "\n" not in str(error.value)


def test_same_module_for_two_runs_is_refused() -> None:
    module = Digits()
    task = digits_task(lambda: module)
    train(task, SCHEDULE, lr=0.05, total_steps=2)
    with pytest.raises(TaskError, match="returned the same module twice"):
        train(task, SCHEDULE, lr=0.05, total_steps=2)
    with pytest.raises(TaskError, match="make_module is a Digits; expected a function"):
        digits_task(module)


def test_several_processes_are_refused() -> None:
    with pytest.raises(TaskError, match="a Trainer of 2 processes; expected one"):
        train(digits_task(devices=2), SCHEDULE, lr=0.05, total_steps=10)


def test_ctrl_c_in_the_loop_stays_a_keyboard_interrupt() -> None:
    class Interrupted(Digits):
        def training_step(self, batch, _):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(digits_task(Interrupted), SCHEDULE, lr=0.05, total_steps=10)
    assert signal.getsignal(signal.SIGINT) == handler


def task():
    return digits_task(accumulate_grad_batches=2)


def broken():
    return Task.from_lightning(lambda: Digits(1 / 0), digits_loaders)


def test_comparison_is_the_same_inline_in_workers_and_from_the_store(tmp_path) -> None:
    options = {"lrs": [0.01, 0.05], "seeds": 2, "total_steps": epochs(2), "progress": False}
    schedules = [constant(1), cosine(1, 0)]
    name, store = f"{Path(__file__)}:task", tmp_path / "runs.db"
    inline = compare(name, schedules, workers=0, **options)
    workers = compare(name, schedules, workers=2, store=store, **options)
    if importlib.util.find_spec("ray"):
        ray = compare(name, schedules[:1], engine="ray", **options)
        assert [run.losses for run in ray.runs] == [run.losses for run in inline.runs[:4]]
    again = compare(name, schedules, workers=2, store=store, **options)
    assert len(inline.runs) == 8
    assert [run.losses for run in inline.runs] == [run.losses for run in workers.runs]
    assert [run.evaluations for run in inline.runs] == [run.evaluations for run in workers.runs]
    assert again.runs == workers.runs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"halving": True}, SettingError, "leave out halving and branches"),
        ({"branches": True}, SettingError, "leave out halving and branches"),
        ({"optimizers": "sgd"}, TaskError, "creates its own optimizer"),
    ],
)
def test_comparison_refuses_what_a_trainer_cannot_do(options, error, message) -> None:
    with pytest.raises(error, match=message):
        compare(task, [constant(1)], lrs=[0.01, 0.05], seeds=1, workers=0, **options)


def test_error_in_a_make_function_is_reported_before_any_training() -> None:
    with pytest.raises(TaskError, match=r"Trainer failed: ZeroDivisionError: .*\.py:"):
        compare(broken, [constant(1)], lrs=0.01, seeds=1, workers=0)


def test_run_that_fails_is_listed_and_the_error_names_the_reason() -> None:
    def unmeasured():
        return digits_task(Unmeasured)

    with pytest.raises(RunFailed, match="there is no validation loss"):
        compare(unmeasured, [constant(1)], lrs=0.01, seeds=1, total_steps=3, workers=0)


def test_commands_train_find_and_compare(tmp_path) -> None:
    from command_line import ratecraft_in_this_process as run  # which workers cannot import

    name = f"{Path(__file__)}:task"
    trained = run(tmp_path, "train", name, "cosine(1, 0)", "--lr", "0.05", "-n", "20")
    assert trained.returncode == 0
    lines = [line.split() for line in trained.stdout.splitlines()]
    assert lines[0] == ["epoch", "step", "val", "loss", "val", "accuracy", "lr"]
    assert [line[1] for line in lines[1:4]] == ["7", "14", "20"]
    search = run(tmp_path, "find", name, "--budget-steps", "60", "-n", "20")
    assert "AdamW: " in search.stdout
    assert "lr: " in search.stdout
    sweep = run(tmp_path, "find", name, "--range-test", "--steps", "30")
    assert "suggested lr: " in sweep.stdout
    arguments = ["constant(1)", "cosine(1, 0)", "--seeds", "1", "-n", "14", "--workers", "0"]
    compared = run(tmp_path, "compare", name, *arguments)
    assert compared.returncode == 0
    assert "cosine(1, 0)" in compared.stdout
    assert list(tmp_path.iterdir()) == []

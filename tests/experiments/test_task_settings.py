"""Clipping, accumulation, GradScaler, device and streams of a Task, against loops by hand."""

import json
from dataclasses import replace

import pytest
import torch
from command_line import ratecraft_in_this_process
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ratecraft import ScheduleLR, constant, cosine, epochs, warmup, wsd
from ratecraft.errors import SettingError, TaskError
from ratecraft.experiments import Task, compare, load_task, train
from ratecraft.experiments._jobs import train_branches
from ratecraft.experiments._train import Training
from ratecraft.finder import find_lr

SCHEDULE = warmup(2).then(cosine(1, 0.1))
BATCHES = torch.linspace(-1, 1, 48)[:, None].split(8)


def line_model() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 2 * batch) ** 2).mean()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1.0)


def line_task(**changes) -> Task:
    fields = {"model": line_model, "loss": squares, "train": BATCHES, "val": BATCHES[:1]}
    return Task(**fields | {"optimizer": adamw} | changes)


def cpu_scaler(**settings):
    return lambda: torch.amp.GradScaler("cpu", **settings)


def train_by_hand(accumulate=1, clip=None, scaler=None, lr=0.1, total_steps=10, seed=3):
    """Train as a user's own loop does; return the model, and the loss of every step."""
    torch.manual_seed(seed)
    model = line_model()
    optimizer = adamw(model)
    scheduler = ScheduleLR(optimizer, lr=lr * SCHEDULE, total_steps=total_steps)
    scaler = torch.amp.GradScaler("cpu", enabled=False) if scaler is None else scaler()
    losses, position = [], 0
    for _ in range(total_steps):
        total = 0.0
        optimizer.zero_grad()
        for _ in range(accumulate):
            loss = squares(model, BATCHES[position % len(BATCHES)]) / accumulate
            scaler.scale(loss).backward()
            total, position = total + loss.detach(), position + 1
        scaler.unscale_(optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(total))
    return model, losses, scheduler


@pytest.mark.parametrize("accumulate", [1, 2, 4])  # 4 batches do not divide an epoch of 6
@pytest.mark.parametrize("clip", [None, 0.05])
def test_task_is_bit_for_bit_a_loop_by_hand(accumulate: int, clip: float | None) -> None:
    model, losses, _ = train_by_hand(accumulate, clip)
    task = line_task(accumulate=accumulate, clip=clip)
    training = Training(task, SCHEDULE, lr=0.1, seed=3, total_steps=10)
    training.advance()
    assert training.losses == losses
    pairs = zip(training.model.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_clip_may_be_a_function() -> None:
    task = line_task(clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05))
    run = train(task, SCHEDULE, lr=0.1, seed=3, total_steps=10)
    assert list(run.losses) == train_by_hand(clip=0.05)[1]


def test_epoch_of_an_accumulating_task_is_in_optimizer_steps() -> None:
    task = line_task(accumulate=4)
    assert task.steps_per_epoch == 1
    task = line_task(accumulate=2)
    assert task.steps_per_epoch == 3
    run = train(task, warmup(epochs(1)).then(cosine(1, 0)), lr=0.1, total_steps=epochs(3))
    assert len(run.losses) == 9
    assert [evaluation.step for evaluation in run.evaluations] == [3, 6, 9]


def test_step_that_a_scaler_skips_has_a_loss_and_does_not_advance_the_schedule() -> None:
    overflowing = cpu_scaler(init_scale=3e38, backoff_factor=1e-19)
    model, losses, scheduler = train_by_hand(scaler=overflowing, clip=0.05)
    assert scheduler.last_epoch == 9  # the first step was skipped
    task = line_task(scaler=overflowing, clip=0.05)
    training = Training(task, SCHEDULE, lr=0.1, seed=3, total_steps=10)
    training.advance()
    assert training.losses == losses
    assert training.diverged is None
    assert training.evaluations[-1].lrs["0"] == pytest.approx(
        0.1 * SCHEDULE.resolve(total_steps=10)(8)
    )
    pairs = zip(training.model.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_branches_of_a_scaled_accumulating_task_are_those_of_train() -> None:
    task = line_task(
        scaler=cpu_scaler(init_scale=3e38, backoff_factor=1e-19), accumulate=2, clip=0.1
    )
    schedules = [wsd(1, n) for n in (3, 6)]
    branches = train_branches(task, [(s, 12) for s in schedules], lr=0.1, seed=0)
    alone = [train(task, s, lr=0.1, seed=0, total_steps=12) for s in schedules]
    assert [run.losses for run in branches] == [run.losses for run in alone]
    assert [run.evaluations for run in branches] == [run.evaluations for run in alone]


def test_model_and_batches_are_moved_to_the_device() -> None:
    class Moved(dict):
        """A batch with its own ``to``, as tokenizers return."""

        def to(self, device):
            moved.append(device)
            return {name: value.to(device) for name, value in self.items()}

    moved: list[object] = []
    task = line_task(
        loss=lambda model, batch: squares(model, batch["x"][0]),
        train=[Moved(x=x) for x in torch.stack(BATCHES)[:, None]],
        val=[{"x": [BATCHES[0]]}],
        device="cpu",
    )
    run = train(task, SCHEDULE, lr=0.1, seed=3, total_steps=6)
    assert moved == ["cpu"] * (6 + 6)  # steps, and the evaluation of the last 16 batches
    assert list(run.losses) == train_by_hand(total_steps=6)[1]


def test_device_has_the_model_before_its_optimizer_exists() -> None:
    devices = []

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        devices.extend(p.device.type for p in model.parameters())
        return adamw(model)

    Training(line_task(device="meta", optimizer=optimizer), SCHEDULE, total_steps=4)
    assert set(devices) == {"meta"}


class Stream(IterableDataset):
    """Batches without a length, of which each iteration gives six."""

    def __iter__(self):
        yield from BATCHES


@pytest.mark.parametrize(
    "stream",
    [
        lambda: iter(BATCHES),
        lambda: (batch for batch in BATCHES),
        DataLoader(Stream(), batch_size=None, generator=torch.Generator()),
        Stream(),
    ],
    ids=["iterator", "generator", "DataLoader", "IterableDataset"],
)
def test_stream_trains_as_a_list_of_its_batches_does(stream) -> None:
    task = line_task(train=stream, val=lambda: iter(BATCHES[:1]), steps_per_epoch=4, accumulate=2)
    run = train(task, SCHEDULE, lr=0.1, seed=3, total_steps=epochs(2.5))
    assert list(run.losses) == train_by_hand(accumulate=2)[1]
    assert [evaluation.step for evaluation in run.evaluations] == [4, 8, 10]
    schedules = [wsd(1, n) for n in (3, 5)]
    branches = train_branches(task, [(s, 10) for s in schedules], lr=0.1, seed=0)
    alone = [train(task, s, lr=0.1, seed=0, total_steps=10) for s in schedules]
    assert [branch.losses for branch in branches] == [run.losses for run in alone]


def test_settings_can_be_changed_with_replace() -> None:
    task = replace(line_task(accumulate=2), name="a line")
    assert (task.name, task.steps_per_epoch) == ("a line", 3)
    with pytest.raises(TaskError, match="train= has 6 batches, which are 2 steps"):
        replace(task, accumulate=3)
    assert replace(task, accumulate=3, steps_per_epoch=0).steps_per_epoch == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 0}, r"Task\(accumulate=0\): expected a whole number >= 1"),
        ({"accumulate": 2.0}, r"Task\(accumulate=2.0\)"),
        ({"steps_per_epoch": -1}, r"Task\(steps_per_epoch=-1\)"),
        ({"steps_per_epoch": 5}, r"which are 6 steps; leave steps_per_epoch= out"),
        ({"scaler": torch.amp.GradScaler("cpu")}, r"write scaler=lambda: torch.amp.GradScaler"),
        ({"scaler": 2.0}, r"Task\(scaler=...\) must be a function, not float"),
        ({"device": "gpu"}, r"Task\(device='gpu'\): expected a device of torch"),
        ({"train": lambda: iter(BATCHES)}, r"has no length: write steps_per_epoch="),
        ({"train": DataLoader(Stream(), batch_size=None)}, r"has no length"),
    ],
)
def test_wrong_setting_raises(changes, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        line_task(**changes)


def test_wrong_clip_raises() -> None:
    with pytest.raises(SettingError, match="clip=0: expected a norm above 0, or a function"):
        line_task(clip=0)


def test_function_that_returns_the_same_stream_again_is_refused() -> None:
    stream = iter(BATCHES)
    task = line_task(train=lambda: stream, steps_per_epoch=4)
    with pytest.raises(TaskError, match="returned the same tuple_iterator twice"):
        train(task, SCHEDULE, lr=0.1, total_steps=10)


def test_closure_and_scaler_are_refused_together() -> None:
    task = line_task(
        scaler=cpu_scaler(), optimizer=lambda model: torch.optim.LBFGS(model.parameters())
    )
    with pytest.raises(TaskError, match="without a GradScaler"):
        train(task, SCHEDULE, lr=0.1, total_steps=4)


TASK_FILE = """
import torch
from command_line import ratecraft_in_this_process
from torch import nn
from ratecraft import Task

def task():
    x = torch.linspace(-1, 1, 64)[:, None]
    return Task(
        model=lambda: nn.Linear(1, 1),
        loss=lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean(),
        train=lambda: iter(x.split(8)),
        val=[x],
        accumulate=2,
        clip=0.5,
        scaler=lambda: torch.amp.GradScaler("cpu"),
        device="cpu",
        steps_per_epoch=4,
    )
"""


def test_workers_branches_and_halving_train_a_task_with_all_settings(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(TASK_FILE)
    name = f"{tmp_path / 'mine.py'}:task"
    options = {"lrs": [0.01, 0.1], "seeds": 2, "total_steps": epochs(3), "progress": False}
    schedules = [constant(1), cosine(1, 0)]
    inline = compare(name, schedules, workers=0, **options)
    assert {len(run.losses) for run in inline.runs} == {12}
    for changes in ({"workers": 2}, {"workers": 0, "branches": True}):
        other = compare(name, schedules, **options | changes)
        assert [run.losses for run in other.runs] == [run.losses for run in inline.runs]
    halved = compare(name, schedules, workers=0, halving=True, **options)
    assert sum(run.stopped is not None for run in halved.runs) == 4


def test_digits_with_all_settings_learns() -> None:
    digits = load_task("digits")
    task = replace(digits, accumulate=3, clip=1.0, device="cpu", steps_per_epoch=0)
    run = train(task, warmup(5).then(cosine(1, 0)), lr=0.01, total_steps=60)
    assert run.final("accuracy") > 0.85


def test_find_command_takes_the_settings_of_a_task(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(TASK_FILE)
    arguments = ["mine.py:task", "--budget-steps", "60", "-n", "12", "--json"]
    printed = ratecraft_in_this_process(tmp_path, "find", *arguments)
    task = load_task(f"{tmp_path / 'mine.py'}:task")
    torch.manual_seed(0)
    model, scaler = task.model(), torch.amp.GradScaler("cpu")
    settings = {"accumulate": 2, "clip": 0.5, "scaler": scaler}
    optimizer = torch.optim.AdamW(model.parameters())
    options = {"budget_steps": 60, "total_steps": 12}
    result = find_lr(model, optimizer, task.train, task.loss, **settings, **options)
    assert json.loads(printed.stdout)["lr"] == result.lr
    assert json.loads(printed.stdout)["batches"] == result.batches

"""Runs with a common beginning: trained once, with the numbers of separate runs."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ratecraft import constant, cooldown, cosine, steps, warmup, wsd
from ratecraft.errors import SettingError, TaskError
from ratecraft.experiments import Plateau, Task, compare, load_task, train
from ratecraft.experiments._jobs import train_branches
from ratecraft.experiments._train import Training
from ratecraft.results import Run

WSD = wsd(10, cooldown=20)


def equal(a: Run, b: Run) -> bool:
    """Return whether two runs agree to the last bit in everything but their time."""
    return dataclasses.replace(a, seconds=0.0) == dataclasses.replace(b, seconds=0.0)


class NoisyRows(Dataset):
    """Rows with noise from every random generator, one of its own, and a counter as state."""

    def __init__(self) -> None:
        self.reads = 0
        self.generator = np.random.default_rng(7)

    def __len__(self) -> int:
        return 48

    def __getitem__(self, i: int) -> torch.Tensor:
        self.reads += 1
        noise = torch.randn(4) + np.random.randn() + random.random() + self.generator.normal()
        return noise + self.reads * 1e-3


def random_task() -> Task:
    """Return a task with shuffling, noise, dropout, batch norm, momentum and a generator."""
    generator = torch.Generator().manual_seed(3)
    return Task(
        model=lambda: nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1)
        ),
        loss=lambda model, batch: ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean(),
        train=DataLoader(NoisyRows(), batch_size=4, shuffle=True, generator=generator),
        val=DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4, collate_fn=lambda rows: (
            torch.stack([row[0] for row in rows]))),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "random"])
def test_branched_runs_equal_separate_runs(name: str) -> None:
    def build() -> Task:
        return load_task("digits") if name == "digits" else random_task()

    branches = [(WSD, 50), (WSD, 100), (WSD, 93), (cosine(1, 0), 60), (constant(1), 60)]
    branches += [(warmup(10).then(constant(1)), 70), (warmup(10).then(cosine(1, 0)), 100)]
    runs = train_branches(build(), branches, lr=0.003, seed=1)
    for (schedule, total_steps), run in zip(branches, runs, strict=True):
        alone = train(build(), schedule, lr=0.003, seed=1, total_steps=total_steps)
        assert equal(run, alone), (name, total_steps)


def test_common_steps_are_trained_once() -> None:
    modes = []
    task = load_task("digits")
    loss = task.loss

    def counting_loss(model: nn.Module, batch: object) -> torch.Tensor:
        modes.append(model.training)
        return loss(model, batch)

    task = dataclasses.replace(task, loss=counting_loss)
    train_branches(task, [(WSD, 60), (WSD, 90), (WSD, 120)], lr=0.01, seed=0)
    # The longest run and two cooldowns of 20 steps; their first step has the full learning rate.
    assert sum(modes) == 120 + 19 + 19


def test_branches_of_a_diverged_trunk_equal_separate_runs() -> None:
    build = random_task
    branches = [(warmup(30).then(constant(1e12)), 60), (warmup(30).then(constant(1e12)), 40)]
    runs = train_branches(build(), branches, lr=1e6, seed=0)
    for (schedule, total_steps), run in zip(branches, runs, strict=True):
        alone = train(build(), schedule, lr=1e6, seed=0, total_steps=total_steps)
        assert run.diverged is not None
        assert (run.diverged, len(run.losses)) == (alone.diverged, len(alone.losses))


def test_plateaus_share_only_the_start_of_the_other_branches() -> None:
    plateau = Plateau(factor=0.5, patience=0, threshold=0.5)
    branches = [(WSD, 60), (plateau, 70), (constant(1), 50), (Plateau(cosine(1, 0)), 40)]
    runs = train_branches(random_task(), branches, lr=0.003, seed=0)
    for (schedule, total_steps), run in zip(branches, runs, strict=True):
        alone = train(random_task(), schedule, lr=0.003, total_steps=total_steps)
        assert equal(run, alone), schedule


def test_model_that_cannot_be_copied_raises() -> None:
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise RuntimeError("no copies")

    task = dataclasses.replace(
        random_task(),
        model=lambda: Uncopyable(4, 1),
        loss=lambda model, batch: ((model(batch) - 1) ** 2).mean(),
    )
    with pytest.raises(TaskError, match=r"Uncopyable cannot be copied .*no copies"):
        train_branches(task, [(WSD, 50), (WSD, 60)], lr=0.01, seed=0)


def test_paused_training_equals_an_uninterrupted_one() -> None:
    whole = train(random_task(), WSD, lr=0.01, seed=2, total_steps=50)
    first, second = (
        Training(random_task(), WSD, lr=0.01, seed=2, total_steps=50) for _ in range(2)
    )
    for step in (1, 7, 12, 13, 50):
        first.advance(step)
        torch.rand(3)
        second.advance(step)  # interleaved with the first
    assert equal(first.result(), whole)
    assert equal(second.result(), whole)


def test_compare_with_branches_equals_compare_without() -> None:
    settings = {"lrs": [0.01, 0.003], "seeds": 1, "total_steps": [40, steps(60)], "workers": 0}
    schedules = {"wsd": WSD, "cosine": cosine(1, 0)}
    plain = compare("digits", schedules, **settings)
    shared = compare("digits", schedules, **settings, branches=True)
    assert list(plain.schedules) == list(shared.schedules)
    assert "wsd, 40 steps, lr 0.01" in plain.schedules
    assert all(map(equal, plain.runs, shared.runs))
    assert len(plain.runs) == 8
    for name, run in zip(plain.schedules, plain.runs, strict=True):
        assert plain.runs_for(name) == (run,)
    assert plain.verdict().startswith("60 steps: ")
    assert " 40 steps: " in plain.verdict()
    assert len(plain.best_per_schedule().schedules) == 4
    with pytest.raises(SettingError, match="cannot be combined"):
        compare("digits", schedules, **settings, branches=True, halving=True)


def test_branches_split_where_cooldowns_start() -> None:
    short = constant(1).then(cooldown(20))
    runs = train_branches(load_task("digits"), [(short, 40), (short, 80)], lr=0.01, seed=0)
    assert runs[0].losses[:20] == runs[1].losses[:20]
    assert runs[0].losses[22:] != runs[1].losses[22:40]

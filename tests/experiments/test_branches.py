"""What runs share at their beginning is trained once, and nothing is different for it."""

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
from ratecraft.experiments._branches import train_branches
from ratecraft.experiments._train import Training
from ratecraft.results import Run

WSD = wsd(10, cooldown=20)


def equal(one: Run, other: Run) -> bool:
    """Whether two runs are one to the last bit; the time they took is not theirs."""
    return dataclasses.replace(one, seconds=0.0) == dataclasses.replace(other, seconds=0.0)


class Noisy(Dataset):
    """Rows that draw from every random number there is, also a little state of its own."""

    def __init__(self) -> None:
        self.seen = 0
        self.own = np.random.default_rng(7)

    def __len__(self) -> int:
        return 48

    def __getitem__(self, i: int) -> torch.Tensor:
        self.seen += 1
        noise = torch.randn(4) + np.random.randn() + random.random() + self.own.normal()
        return noise + self.seen * 1e-3


def drawing() -> Task:
    """A task with shuffling, augmentation, dropout, batch norm, momentum and a generator."""
    generator = torch.Generator().manual_seed(3)
    return Task(
        model=lambda: nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1)
        ),
        loss=lambda model, batch: ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean(),
        train=DataLoader(Noisy(), batch_size=4, shuffle=True, generator=generator),
        val=DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4, collate_fn=lambda rows: (
            torch.stack([row[0] for row in rows]))),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["digits", "drawing"])
def test_a_branch_is_the_run_that_never_branched(name: str) -> None:
    def build() -> Task:
        return load_task("digits") if name == "digits" else drawing()

    branches = [(WSD, 50), (WSD, 100), (WSD, 93), (cosine(1, 0), 60), (constant(1), 60)]
    branches += [(warmup(10).then(constant(1)), 70), (warmup(10).then(cosine(1, 0)), 100)]
    found = train_branches(build(), branches, lr=0.003, seed=1)
    for (schedule, total), run in zip(branches, found, strict=True):
        assert equal(run, train(build(), schedule, lr=0.003, seed=1, total_steps=total)), (
            name,
            total,
        )


def test_what_is_shared_is_trained_once() -> None:
    count = []
    task = load_task("digits")
    loss = task.loss

    def counted(model: nn.Module, batch: object) -> torch.Tensor:
        count.append(model.training)
        return loss(model, batch)

    task = dataclasses.replace(task, loss=counted)
    train_branches(task, [(WSD, 60), (WSD, 90), (WSD, 120)], lr=0.01, seed=0)
    # The longest, and two cooldowns of 20 steps, the first of which is still at the full lr.
    assert sum(count) == 120 + 19 + 19


def test_a_trunk_that_diverges_leaves_the_others_as_they_are() -> None:
    build = drawing
    plans = [(warmup(30).then(constant(1e12)), 60), (warmup(30).then(constant(1e12)), 40)]
    found = train_branches(build(), plans, lr=1e6, seed=0)
    for (schedule, total), run in zip(plans, found, strict=True):
        alone = train(build(), schedule, lr=1e6, seed=0, total_steps=total)
        assert run.diverged is not None
        assert (run.diverged, len(run.losses)) == (alone.diverged, len(alone.losses))


def test_a_plateau_is_trained_alone_beside_branches() -> None:
    task = load_task("digits")
    plateau = Plateau(factor=0.5, patience=0)
    found = train_branches(task, [(WSD, 60), (plateau, 90)], lr=0.01, seed=0)
    assert equal(found[1], train(load_task("digits"), plateau, lr=0.01, total_steps=90))


def test_a_model_that_cannot_be_copied_is_named() -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise RuntimeError("no copies")

    task = dataclasses.replace(
        drawing(),
        model=lambda: Stubborn(4, 1),
        loss=lambda model, batch: ((model(batch) - 1) ** 2).mean(),
    )
    with pytest.raises(TaskError, match=r"Stubborn cannot be copied .*no copies"):
        train_branches(task, [(WSD, 50), (WSD, 60)], lr=0.01, seed=0)


def test_a_training_that_was_held_is_one_that_was_not() -> None:
    whole = train(drawing(), WSD, lr=0.01, seed=2, total_steps=50)
    held, other = (Training(drawing(), WSD, lr=0.01, seed=2, total_steps=50) for _ in range(2))
    for place in (1, 7, 12, 13, 50):
        held.advance(place)
        torch.rand(3)
        other.advance(place)  # one beside the other
    assert equal(held.result(), whole)
    assert equal(other.result(), whole)


def test_compare_with_branches_gives_the_same_for_several_lengths() -> None:
    settings = {"lrs": [0.01, 0.003], "seeds": 1, "total": [40, steps(60)], "workers": 0}
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


def test_cooldowns_branch_where_they_begin() -> None:
    short = constant(1).then(cooldown(20))
    found = train_branches(load_task("digits"), [(short, 40), (short, 80)], lr=0.01, seed=0)
    assert found[0].losses[:20] == found[1].losses[:20]
    assert found[0].losses[22:] != found[1].losses[22:40]

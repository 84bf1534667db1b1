"""Optimizers of the schedulefree and prodigyopt packages, used by name."""

import pytest
import torch
from torch import nn

from ratecraft import constant
from ratecraft.experiments import Task, train
from ratecraft.experiments._task import with_optimizer
from ratecraft.finder import find_lr
from ratecraft.torch._optimizers import OPTIMIZERS

pytest.importorskip("schedulefree")
pytest.importorskip("prodigyopt")
pytestmark = pytest.mark.peers

NAMES = [name for name, (path, _) in OPTIMIZERS.items() if not path.startswith("torch.")]


def line() -> Task:
    x = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    return Task(
        model=lambda: nn.Linear(4, 1),
        loss=lambda model, batch: (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean(),
        train=x.split(16),
        val=[x],
    )


@pytest.mark.parametrize("name", NAMES)
def test_find_lr_and_train(name: str) -> None:
    task = with_optimizer(line(), name)
    torch.manual_seed(0)
    model = task.model()
    optimizer = task.optimizer(model)
    before = [p.clone() for p in model.parameters()]
    modes = [group.get("train_mode") for group in optimizer.param_groups]
    result = find_lr(model, optimizer, task.train, task.loss, total_steps=320)
    assert result.lr is not None, result.reason
    assert all(map(torch.equal, model.parameters(), before))
    assert [group.get("train_mode") for group in optimizer.param_groups] == modes
    run = train(task, constant(1), lr=result.lr, total_steps=320)
    assert run.final() < 0.1 * run.losses[0]


def test_schedulefree_is_validated_at_its_averaged_weights() -> None:
    task = with_optimizer(line(), "schedulefree-sgd")
    run = train(task, constant(1), lr=0.05, seed=3, total_steps=64)
    torch.manual_seed(3)
    model = task.model()
    optimizer = task.optimizer(model)
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.train()
    for k in range(64):
        optimizer.zero_grad()
        task.loss(model, task.train[k % 32]).backward()
        optimizer.step()
    optimizer.eval()
    assert run.final() == pytest.approx(task.loss(model, task.val[0]).item(), rel=1e-5)

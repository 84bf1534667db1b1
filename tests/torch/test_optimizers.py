"""Optimizers by name: build them, find their lr, train with them."""

import math

import pytest
import torch
from torch import nn

from ratecraft import cosine
from ratecraft.errors import SettingError
from ratecraft.experiments import Task, compare, train
from ratecraft.experiments._task import with_optimizer
from ratecraft.finder import find_lr
from ratecraft.torch._optimizers import OPTIMIZERS, optimizer_named

TORCH_NAMES = [name for name, (path, _) in OPTIMIZERS.items() if path.startswith("torch.")]


@pytest.fixture(autouse=True)
def single_thread():
    """Tensors this small gain nothing from more threads, which wait for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plane() -> Task:
    """Return a linear regression whose only parameter is a matrix, as Muon requires."""
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    return Task(
        model=lambda: nn.Linear(4, 2, bias=False),
        loss=lambda model, batch: (model(batch) - batch[:, :2] + batch[:, 2:]).pow(2).mean(),
        train=x.split(16),
        val=[x],
    )


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_every_torch_optimizer_is_built_searched_and_trained(name: str) -> None:
    path, settings = OPTIMIZERS[name]
    if not hasattr(torch.optim, path.rpartition(".")[2]):
        pytest.skip(f"this torch has no {path}")
    task = with_optimizer(plane(), name)
    model = task.model()
    optimizer = task.optimizer(model)
    assert type(optimizer).__name__ == path.rpartition(".")[2]
    assert all(optimizer.defaults[key] == value for key, value in settings.items())
    result = find_lr(model, optimizer, task.train, task.loss, total_steps=64)
    assert result.lr is not None, result.reason
    run = train(task, cosine(1, 0), lr=result.lr, total_steps=64)
    assert run.final() < 0.5 * run.losses[0]


def test_class_by_its_path_and_short_names_in_any_case() -> None:
    assert optimizer_named("torch.optim.ASGD").func is torch.optim.ASGD
    assert optimizer_named("AdamW").func is torch.optim.AdamW


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamx", "'adamx' is not an optimizer class; did you mean adamax?"),
        ("torch.optim.Optimus", "is not an optimizer class"),
        ("torch.nn.Linear", "is not an optimizer class"),
        ("nowhere.Adam", "is not an optimizer class"),
        ("", "is not an optimizer class"),
    ],
)
def test_unknown_optimizer_raises(name: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        optimizer_named(name)


def test_compare_trains_with_the_named_optimizer() -> None:
    schedules = [cosine(1, 0)]
    settings = {"lrs": 0.05, "seeds": 1, "total_steps": 20, "workers": 0}
    default = compare(plane, schedules, **settings)
    named = compare(plane, schedules, optimizers="sgd", **settings)
    assert named.runs[0].losses[0] == default.runs[0].losses[0]
    assert named.runs[0].losses[-1] != default.runs[0].losses[-1]
    with pytest.raises(SettingError, match="is not an optimizer class"):
        compare(plane, schedules, optimizers="sdg", **settings)


def test_lbfgs_gets_its_closure() -> None:
    run = train(with_optimizer(plane(), "lbfgs"), cosine(1, 0), lr=0.5, total_steps=16)
    assert run.final() < 1e-3
    assert not math.isnan(sum(run.losses))

"""Armijo's rule, step by step."""

import math

import pytest
import torch
from restoring import Boom, cross_entropy, failing, trained_after
from torch import nn

from ratecraft.errors import RunFailed, SettingError, TaskError
from ratecraft.finder import line_search


def bowl(kind=torch.optim.SGD, **settings):
    """Return a model whose loss is 5 w^2, so that a step at lr r multiplies w by 1 - 10 r."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    return model, kind(model.parameters(), **{"lr": 1e-3} | settings), [torch.ones(1, 1)] * 3


def height(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return 5 * model(batch).pow(2).mean()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_step_is_the_longest_by_halves_that_keeps_the_promise(share: float) -> None:
    found = line_search(*bowl(), height, steps=8, share=share)
    # loss(w - r g) = 5 w^2 (1 - 10 r)^2 <= 5 w^2 - share r (10 w)^2 where r <= (1 - share) / 5.
    longest = (1 - share) / 5
    assert len(found.runs) > 2
    for run in found.runs:
        assert longest / 2 < run.lr <= longest
        assert run.gain >= share * run.lr * 20 * run.losses[0] * 0.999
    assert found.low <= found.lr <= found.high <= longest
    assert found.steps == 8
    assert found.batches == 8


def test_momentum_lowers_the_lr_by_what_it_adds_up_to() -> None:
    plain = line_search(*bowl(), height)
    for momentum in (0.5, 0.9):
        found = line_search(*bowl(momentum=momentum), height)
        assert found.lr == pytest.approx((1 - momentum) * plain.lr)
    adam = line_search(*bowl(torch.optim.Adam), height)
    assert 0.1 * adam.runs[0].lr < 1.0  # the first step of Adam has length 1 at lr 1


def test_dropout_is_the_same_for_every_length_of_a_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(320, 8)
    found = line_search(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        x.split(32),
        lambda model, x: (model(x) - x.sum(1, keepdim=True)).pow(2).mean(),
    )
    assert found.lr > 1e-3
    assert found.high / found.low < 30


def test_a_loss_of_other_parameters_is_no_way_down() -> None:
    free = torch.zeros(1, requires_grad=True)
    found = line_search(*bowl(), lambda model, batch: (free * 2).sum() + 1)
    assert found.lr is None


def whole(model, optimizer, loader) -> None:
    assert line_search(model, optimizer, loader, cross_entropy).lr is not None


def broken(model, optimizer, loader) -> None:
    with pytest.raises(Boom):
        line_search(model, optimizer, loader, failing(15, Boom()))


@pytest.mark.parametrize("trial", [whole, broken])
def test_it_leaves_no_trace_in_later_training(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert touched[4] == untouched[4]


def test_where_there_is_no_way_down_there_is_no_answer() -> None:
    found = line_search(*bowl(), lambda model, batch: 0 * height(model, batch) + 1)
    assert (found.lr, found.low, found.high) == (None, None, None)
    assert found.reason == "no answer: on 20 batches there was no way down, and a median needs two"


def test_mistakes_are_told() -> None:
    with pytest.raises(SettingError, match="steps=1"):
        line_search(*bowl(), height, steps=1)
    with pytest.raises(SettingError, match="share=1"):
        line_search(*bowl(), height, share=1)
    with pytest.raises(RunFailed, match="nan before any training"):
        line_search(*bowl(), lambda model, batch: height(model, batch) * math.nan)
    with pytest.raises(TaskError, match="line_search makes single steps, and LBFGS makes several"):
        line_search(*bowl(torch.optim.LBFGS), height)


def test_each_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    line_search(*bowl(), height, steps=5, progress=lambda *done: told.append(done))
    assert told == [(k + 1, 5) for k in range(5)]

"""line_search: Armijo's rule on each batch."""

import math

import pytest
import torch
from restoring import Boom, cross_entropy, failing, trained_after
from torch import nn

from ratecraft.errors import RunFailed, SettingError, TaskError
from ratecraft.finder import line_search


def bowl(optimizer_class=torch.optim.SGD, **options):
    """Return a model whose loss is 5 w^2, so that a step at lr r multiplies w by 1 - 10 r."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    return (
        model,
        optimizer_class(model.parameters(), **{"lr": 1e-3} | options),
        [torch.ones(1, 1)] * 3,
    )


def height(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return 5 * model(batch).pow(2).mean()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_lr_is_the_largest_halving_that_meets_the_condition(share: float) -> None:
    result = line_search(*bowl(), height, steps=8, share=share)
    # loss(w - r g) = 5 w^2 (1 - 10 r)^2 <= 5 w^2 - share r (10 w)^2 where r <= (1 - share) / 5.
    longest = (1 - share) / 5
    assert len(result.runs) > 2
    for run in result.runs:
        assert longest / 2 < run.lr <= longest
        assert run.gain >= share * run.lr * 20 * run.losses[0] * 0.999
    assert result.lr_low <= result.lr <= result.lr_high <= longest
    assert result.steps == 8
    assert result.batches == 8


def test_momentum_reduces_the_lr_by_one_minus_momentum() -> None:
    plain = line_search(*bowl(), height)
    for momentum in (0.5, 0.9):
        result = line_search(*bowl(momentum=momentum), height)
        assert result.lr == pytest.approx((1 - momentum) * plain.lr)
    adam = line_search(*bowl(torch.optim.Adam), height)
    assert 0.1 * adam.runs[0].lr < 1.0  # the first step of Adam has length 1 at lr 1


def test_dropout_mask_is_the_same_for_every_lr_on_a_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(320, 8)
    result = line_search(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        x.split(32),
        lambda model, x: (model(x) - x.sum(1, keepdim=True)).pow(2).mean(),
    )
    assert result.lr > 1e-3
    assert result.lr_high / result.lr_low < 30


def test_loss_of_other_parameters_gives_no_lr() -> None:
    free = torch.zeros(1, requires_grad=True)
    result = line_search(*bowl(), lambda model, batch: (free * 2).sum() + 1)
    assert result.lr is None


def whole(model, optimizer, loader) -> None:
    assert line_search(model, optimizer, loader, cross_entropy).lr is not None


def interrupted(model, optimizer, loader) -> None:
    with pytest.raises(Boom):
        line_search(model, optimizer, loader, failing(15, Boom()))


@pytest.mark.parametrize("trial", [whole, interrupted])
def test_later_training_is_bitwise_unchanged(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert touched[4] == untouched[4]


def test_constant_loss_gives_no_lr() -> None:
    result = line_search(*bowl(), lambda model, batch: 0 * height(model, batch) + 1)
    assert (result.lr, result.lr_low, result.lr_high) == (None, None, None)
    assert result.reason == (
        "no answer: of 20 line searches none succeeded, and a median needs two"
    )


def test_invalid_arguments_raise() -> None:
    with pytest.raises(SettingError, match="steps=1"):
        line_search(*bowl(), height, steps=1)
    with pytest.raises(SettingError, match="share=1"):
        line_search(*bowl(), height, share=1)
    with pytest.raises(RunFailed, match="nan before any training"):
        line_search(*bowl(), lambda model, batch: height(model, batch) * math.nan)
    with pytest.raises(TaskError, match="takes one step per call, and LBFGS takes several"):
        line_search(*bowl(torch.optim.LBFGS), height)


def test_progress_is_called_after_each_step() -> None:
    calls: list[tuple[int, int]] = []
    line_search(*bowl(), height, steps=5, progress=lambda *done: calls.append(done))
    assert calls == [(k + 1, 5) for k in range(5)]

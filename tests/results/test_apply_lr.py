"""LRFinderResult.apply writes the learning rate into an optimizer."""

import pytest
import torch
from torch import nn

from ratecraft.errors import BindingError, RunFailed
from ratecraft.results import LRFinderResult


def finder_result(lr: float | None = 0.5) -> LRFinderResult:
    return LRFinderResult(lr, None, None, "none found: all of 3 short runs diverged", 1.0, (), 20)


def sgd(*lrs: float) -> torch.optim.SGD:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=1.0)


def lrs_of(optimizer: torch.optim.Optimizer, key: str = "lr") -> list[float]:
    return [float(group[key]) for group in optimizer.param_groups]


def test_single_group_gets_the_lr() -> None:
    optimizer = sgd(0.1)
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == [0.5]
    assert "initial_lr" not in optimizer.param_groups[0]


def test_groups_keep_their_ratio_to_the_highest_lr() -> None:
    optimizer = sgd(0.02, 0.1, 0.0)
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5, 0.0])


def test_optimizers_keep_their_ratio_to_the_highest_lr() -> None:
    optimizers = sgd(0.02), sgd(0.1, 0.05)
    finder_result().apply(optimizers)
    assert [lrs_of(optimizer) for optimizer in optimizers] == [
        pytest.approx([0.1]),
        pytest.approx([0.5, 0.25]),
    ]


def test_initial_lr_is_set_where_the_group_has_it() -> None:
    optimizer = sgd(0.02, 0.1)
    torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5)
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])
    assert lrs_of(optimizer, "initial_lr") == pytest.approx([0.1, 0.5])


def test_ratios_come_from_initial_lr_when_a_warm_up_starts_at_0() -> None:
    optimizer = sgd(0.02, 0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    assert lrs_of(optimizer) == [0.0, 0.0]
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])


def test_tensor_lr_is_filled_in_place() -> None:
    lr = torch.tensor(0.1)
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=lr)
    optimizer.param_groups[0]["initial_lr"] = initial_lr = torch.tensor(0.2)
    finder_result().apply(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr
    assert optimizer.param_groups[0]["initial_lr"] is initial_lr
    assert (lr.item(), initial_lr.item()) == (0.5, 0.5)


def test_result_without_lr_raises_with_its_reason_and_changes_nothing() -> None:
    optimizer = sgd(0.1)
    with pytest.raises(RunFailed, match="none found: all of 3 short runs diverged"):
        finder_result(None).apply(optimizer)
    assert lrs_of(optimizer) == [0.1]


def test_negative_lr_raises() -> None:
    optimizer = sgd(0.1)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(BindingError, match=r"\[-1.0\], have no ratios"):
        finder_result().apply(optimizer)

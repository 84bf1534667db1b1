"""LRFinderResult.apply writes the learning rate into an optimizer."""

import math

import pytest
import torch
from torch import nn

from ratecraft import cosine
from ratecraft.errors import BindingError, RunFailed
from ratecraft.results import LRFinderResult
from ratecraft.torch import ScheduleLR, drop_in


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


def test_initial_lr_of_a_checkpoint_is_set() -> None:
    optimizer, saved = sgd(0.02, 0.1), sgd(0.02, 0.1)
    torch.optim.lr_scheduler.ConstantLR(saved, factor=0.5)
    optimizer.load_state_dict(saved.state_dict())
    assert lrs_of(optimizer) == pytest.approx([0.01, 0.05])
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])
    assert lrs_of(optimizer, "initial_lr") == pytest.approx([0.1, 0.5])


def test_ratios_come_from_initial_lr_when_a_warm_up_of_a_checkpoint_starts_at_0() -> None:
    optimizer, saved = sgd(0.02, 0.1), sgd(0.02, 0.1)
    torch.optim.lr_scheduler.LambdaLR(saved, lambda k: k / 10)
    optimizer.load_state_dict(saved.state_dict())
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


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("other", [0.0, 0.1])
def test_lr_that_is_negative_or_not_finite_raises_and_nothing_changes(
    wrong: float, other: float
) -> None:
    for lrs in ([wrong], [wrong, other], [other, wrong]):
        optimizer = sgd(*map(abs, lrs))
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group.update(lr=lr, initial_lr=0.1)
        with pytest.raises(BindingError, match=r"have no ratios .* expected finite values >= 0"):
            finder_result().apply(optimizer)
        assert repr(lrs_of(optimizer)) == repr(lrs)  # nan is not equal to itself
        assert lrs_of(optimizer, "initial_lr") == [0.1] * len(lrs)


@pytest.mark.parametrize("key", ["lr", "initial_lr"])
def test_a_tensor_of_integers_is_refused_and_nothing_changes(key: str) -> None:
    optimizer = sgd(0.1, 0.1)
    optimizer.param_groups[1][key] = integer = torch.tensor(1)
    with pytest.raises(BindingError, match=rf"{key}=tensor\(1\).* write {key}=torch.tensor\(1.0\)"):
        finder_result().apply(optimizer)
    assert lrs_of(optimizer)[0] == 0.1
    assert integer.item() == 1


# Schedulers


def schedule_lr(optimizer: torch.optim.Optimizer) -> object:
    return ScheduleLR(optimizer, factor=cosine(), total_steps=10)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (schedule_lr, r"a scheduler of ratecraft already sets .* remove\(\) a ScheduleLR"),
        (lambda optimizer: drop_in.StepLR(optimizer, 3), "a scheduler of ratecraft already sets"),
        (
            lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3),
            "torch's StepLR already sets .* create a new optimizer, then set",
        ),
        (
            lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 10),
            "torch's OneCycleLR already sets",
        ),
    ],
)
def test_optimizer_with_a_scheduler_is_refused_and_unchanged(create, message: str) -> None:
    free, optimizer = sgd(0.1), sgd(0.02, 0.1)
    scheduler = create(optimizer)
    before = lrs_of(optimizer)
    for argument in (optimizer, [free, optimizer]):
        with pytest.raises(BindingError, match=message):
            finder_result().apply(argument)
    assert lrs_of(optimizer) == before
    assert lrs_of(free) == [0.1]
    del scheduler


def test_removed_scheduler_does_not_prevent_it() -> None:
    optimizer = sgd(0.02, 0.1)
    ScheduleLR(optimizer, factor=cosine(), total_steps=10).remove()
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])
    again = ScheduleLR(optimizer, factor=cosine(), total_steps=10)
    assert again.get_last_lr() == pytest.approx([0.1, 0.5])


def test_deleted_scheduler_of_torch_does_not_prevent_it() -> None:
    optimizer = sgd(0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    del scheduler
    finder_result().apply(optimizer)
    assert lrs_of(optimizer) == [0.5]


def test_reduce_on_plateau_of_torch_keeps_the_lr() -> None:
    optimizer = sgd(0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    finder_result().apply(optimizer)
    for metric in (1.0, 2.0):
        scheduler.step(metric)
    assert lrs_of(optimizer) == pytest.approx([0.05])


# Wrappers and wrong types


@pytest.mark.peers
def test_wrapped_optimizers_are_set_and_checked() -> None:
    accelerate = pytest.importorskip("accelerate")
    lightning = pytest.importorskip("lightning.pytorch.core.optimizer")
    for wrap in (
        accelerate.Accelerator(cpu=True).prepare_optimizer,
        lightning.LightningOptimizer,
    ):
        optimizer = sgd(0.02, 0.1)
        wrapped = wrap(optimizer)
        finder_result().apply(wrapped)
        assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        with pytest.raises(BindingError, match="torch's StepLR already sets"):
            finder_result().apply(wrapped)
        del scheduler


@pytest.mark.peers
def test_scheduler_of_a_wrapper_is_detected() -> None:
    accelerate = pytest.importorskip("accelerate")
    wrapped = accelerate.Accelerator(cpu=True).prepare_optimizer(sgd(0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(wrapped, 3)
    with pytest.raises(BindingError, match="torch's StepLR already sets"):
        finder_result().apply(wrapped)
    del scheduler


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
def test_lr_tensor_that_requires_grad_is_filled() -> None:
    optimizer = sgd(0.1)
    optimizer.param_groups[0]["lr"] = lr = torch.tensor(0.1, requires_grad=True)
    finder_result().apply(optimizer)
    assert lr.item() == 0.5


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (nn.Linear(1, 1), r"apply\(\) got Linear: expected a torch.optim.Optimizer, or a sequence"),
        ([], r"apply\(\) got no optimizer"),
        ([0.1], r"apply\(\) got float"),
    ],
)
def test_other_objects_are_refused(optimizer, message: str) -> None:
    with pytest.raises(BindingError, match=message):
        finder_result().apply(optimizer)

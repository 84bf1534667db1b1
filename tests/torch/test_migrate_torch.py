"""tests/torch: a ScheduleLR goes on after a torch scheduler. (For the coordinator's patch.)"""

import pytest
import torch

from ratecraft import constant, linear
from ratecraft.errors import BindingError
from ratecraft.torch import PlateauLR, ScheduleLR

BASE, TOTAL, DONE = 0.1, 16, 8
EXPECTED = [BASE * (1 - k / TOTAL) for k in range(DONE, TOTAL)]


def sgd():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (BASE, BASE / 2)]
    return torch.optim.SGD(groups, momentum=0.9)


def saved_states(scheduler_of):
    """Return the states of an optimizer and a torch scheduler after some steps."""
    optimizer = sgd()
    scheduler = scheduler_of(optimizer)
    for _ in range(DONE):
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict(), scheduler.state_dict()


def linear_lambda(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / TOTAL)


def cosine_to_zero(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL)


def rest(optimizer):
    lrs = []
    for _ in range(DONE, TOTAL):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(first / 2)
        lrs.append(first)
        optimizer.step()
    return lrs


@pytest.mark.parametrize("scheduler_of", [linear_lambda, cosine_to_zero])
@pytest.mark.parametrize("options", [{"initial_step": DONE}, {"on_change": "replan"}])
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "loaded before built"])
def test_transformers_24656_a_run_goes_on_after_a_torch_scheduler(scheduler_of, options, order):
    optimizer_state, state = saved_states(scheduler_of)
    optimizer = sgd()
    if order == "loaded before built":
        optimizer.load_state_dict(optimizer_state)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=TOTAL, **options)
    if order == "optimizer first":
        optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    if order == "scheduler first":
        optimizer.load_state_dict(optimizer_state)
    assert scheduler.last_epoch == DONE
    assert rest(optimizer) == pytest.approx(EXPECTED)


def test_without_a_choice_loading_it_raises_and_changes_nothing():
    _, state = saved_states(linear_lambda)
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=TOTAL)
    before = scheduler.state_dict()
    with pytest.raises(BindingError, match=r'build it with initial_step=8 or on_change="replan"'):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before


def test_calls_that_are_not_steps_need_initial_step():
    optimizer = sgd()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    plateau.step(1.0)
    options = {"factor": constant(1), "total_steps": TOTAL, "on_change": "replan"}
    with pytest.raises(BindingError, match="with initial_step=, the number of optimizer steps"):
        ScheduleLR(sgd(), **options).load_state_dict(plateau.state_dict())
    scheduler = ScheduleLR(sgd(), initial_step=DONE, **options)
    scheduler.load_state_dict(plateau.state_dict())
    assert scheduler.last_epoch == DONE


def test_initial_step_wins_over_calls_once_an_epoch():
    _, state = saved_states(linear_lambda)
    scheduler = ScheduleLR(sgd(), factor=linear(1, 0), total_steps=64, initial_step=48)
    scheduler.load_state_dict(state)
    assert scheduler.last_epoch == 48


def test_a_plateau_lr_goes_on_after_a_torch_scheduler():
    _, state = saved_states(linear_lambda)
    optimizer = sgd()
    schedule = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=TOTAL, initial_step=DONE)
    plateau = PlateauLR(schedule, patience=0)
    plateau.load_state_dict(state)
    assert plateau.current_factors == [1.0, 1.0]
    assert rest(optimizer) == pytest.approx(EXPECTED)

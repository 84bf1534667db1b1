"""log_lrs writes the lr of each param group; tests/peers/test_loggers.py has real loggers."""

import logging

import pytest
import torch
from optimizers import named, sgd
from torch.optim import lr_scheduler

from ratecraft import PlateauLR, ScheduleLR, constant, cosine
from ratecraft.diagnostics import log_lrs
from ratecraft.errors import BindingError, SettingError
from ratecraft.torch import drop_in

Rows = list[tuple[str, float, int]]


def logged(scheduler, **options) -> Rows:
    rows: Rows = []
    log_lrs(scheduler, lambda name, value, step: rows.append((name, value, step)), **options)
    return rows


def test_a_single_group_is_logged_as_lr_at_the_step_that_uses_it() -> None:
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=4)
    rows, used = [], []
    for k in range(4):
        rows += logged(scheduler)
        used.append(("lr", optimizer.param_groups[0]["lr"], k))
        optimizer.step()
    assert rows == used
    assert logged(scheduler) == [("lr", 0.0, 4)]


def test_groups_are_logged_by_name_and_by_index_without_one() -> None:
    optimizer = named(backbone=0.1, head=0.2)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.3})
    scheduler = ScheduleLR(optimizer, factor=constant(1))
    assert logged(scheduler) == [("lr/backbone", 0.1, 0), ("lr/head", 0.2, 0), ("lr/2", 0.3, 0)]


def test_prefix_names_the_optimizer() -> None:
    scheduler = ScheduleLR(sgd(0.1, 0.2), factor=constant(1))
    names = [name for name, _, _ in logged(scheduler, prefix="critic/lr")]
    assert names == ["critic/lr/0", "critic/lr/1"]


@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer: lr_scheduler.StepLR(optimizer, 2),
        lambda optimizer: drop_in.StepLR(optimizer, 2),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.ConstantLR(optimizer, 1.0, 2), lr_scheduler.ConstantLR(optimizer, 0.1)],
            milestones=[2],
        ),
    ],
    ids=["torch", "drop-in", "sequence"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # of SequentialLR
def test_schedulers_with_torchs_names_are_logged_at_their_last_epoch(build) -> None:
    optimizer = sgd(0.1)
    scheduler = build(optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert logged(scheduler) == [("lr", pytest.approx(0.01), 2)]


def test_a_plateau_is_logged_at_the_steps_of_its_schedule() -> None:
    optimizer = sgd(0.1)
    scheduler = PlateauLR(ScheduleLR(optimizer, factor=constant(1)), factor=0.5, patience=0)
    for loss in (1.0, 2.0):
        for _ in range(3):
            optimizer.step()
        scheduler.step(loss)
    assert logged(scheduler) == [("lr", 0.05, 6)]


def test_an_optimizer_is_logged_at_the_given_step() -> None:
    assert logged(sgd(0.1), step=7) == [("lr", 0.1, 7)]
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=constant(1))
    assert logged(scheduler, step=7) == [("lr", 0.1, 7)]


def test_an_lr_in_a_tensor_is_logged_as_a_number() -> None:
    optimizer = sgd(torch.tensor(0.5))
    ((_, value, _),) = logged(ScheduleLR(optimizer, factor=constant(1)))
    assert (type(value), value) == (float, 0.5)


def test_a_missing_step_and_wrong_arguments_raise_with_advice() -> None:
    with pytest.raises(
        SettingError, match=r"SGD does not count steps; write log_lrs\(\.\.\., step"
    ):
        logged(sgd(0.1))
    with pytest.raises(BindingError, match="takes a scheduler or an optimizer, not Linear"):
        logged(torch.nn.Linear(1, 1))
    twins = [{"params": [torch.nn.Parameter(torch.zeros(1))], "name": "head"} for _ in range(2)]
    with pytest.raises(BindingError, match="two param groups have the same name: lr/head, lr/head"):
        logged(torch.optim.SGD(twins, lr=0.1), step=0)


@pytest.mark.parametrize("logger", [3, "lr", torch, logging.getLogger("train")])
def test_what_is_no_logger_of_metrics_raises_with_the_methods_that_are_known(logger) -> None:
    scheduler = ScheduleLR(sgd(0.1), factor=constant(1))
    with pytest.raises(SettingError, match=r"has no add_scalar\(name, value, step\), log_metrics"):
        log_lrs(scheduler, logger)

"""from_torch: the schedule has the lrs of the scheduler at every step."""

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import cosine
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR, drop_in, from_torch

# torch's SequentialLR steps its parts with an epoch, and torch warns about that.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SCHEDULERS = {
    "StepLR": lambda m, o: m.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [30, 3, 3], 0.3),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.2, 0.8, 6),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 12, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 9),
    "CosineAnnealingLR, eta_min": lambda m, o: m.CosineAnnealingLR(o, 9, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4, 2, 0.01),
    "LambdaLR": lambda m, o: m.LambdaLR(o, [lambda k: 0.9**k, lambda k: 0.8**k]),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda k: 0.9),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 3, 5),
    "CyclicLR 2": lambda m, o: m.CyclicLR(o, [0.01, 0.02], 0.2, 3, mode="triangular2"),
    "CyclicLR exp": lambda m, o: m.CyclicLR(o, 0.01, 0.2, 3, mode="exp_range", gamma=0.9),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=60),
    "OneCycleLR three": lambda m, o: m.OneCycleLR(
        o, [0.5, 0.7], total_steps=60, three_phase=True, anneal_strategy="linear"
    ),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, 1.0, 4), m.CosineAnnealingLR(o, 9), m.ExponentialLR(o, 0.9)], [4, 10]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.1, 1.0, 4), m.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("module", [lr_scheduler, drop_in])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("at", [0, 5, 13])
def test_schedule_has_the_same_lrs(module, name, at):
    optimizer = sgd(0.1, 0.3, momentum=0.9)
    scheduler = SCHEDULERS[name](module, optimizer)
    lrs_of(optimizer, at, scheduler)
    schedules = from_torch(scheduler)
    each = (
        [schedules, schedules]
        if not isinstance(schedules, dict)
        else [schedules["0"], schedules["1"]]
    )
    curves = [lr.resolve(total_steps=60) for lr in each]
    for k, lrs in enumerate(lrs_of(optimizer, 45, scheduler), at):
        assert lrs == pytest.approx([curve(k) for curve in curves], rel=1e-9, abs=1e-15)


def test_run_continues_with_the_schedule():
    its, mine = sgd(0.1), sgd(0.1)
    theirs = lr_scheduler.CosineAnnealingLR(its, 30)
    lrs_of(its, 11, theirs)
    ScheduleLR(mine, lr=from_torch(theirs), initial_step=theirs.last_epoch)
    assert first_lrs(mine, 15) == pytest.approx(first_lrs(its, 15, theirs), rel=1e-9)


def test_schedules_by_group_name():
    optimizer = named(body=0.1, head=0.5)
    schedules = from_torch(lr_scheduler.ExponentialLR(optimizer, 0.9))
    assert list(schedules) == ["body", "head"]
    assert repr(schedules["head"]) == "0.5 * decay(0.9, every=1)"


class Mine(lr_scheduler.StepLR):
    """A subclass outside torch."""


REFUSED = {
    "metric": (lr_scheduler.ReduceLROnPlateau, "follows a metric"),
    "a subclass": (lambda o: Mine(o, 3), "Mine is not one of torch's classes"),
    "scale_fn": (
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 3, scale_fn=lambda x: 1, cycle_momentum=False),
        "has no notation",
    ),
    "ours": (
        lambda o: ScheduleLR(o, factor=cosine(), total_steps=9),
        "has its schedule already, cosine",
    ),
    "lrs in a chain": (
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.CosineAnnealingLR(o, 9, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]
        ),
        "a CosineAnnealingLR sets the lr itself",
    ),
    "no restart": (
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o), lr_scheduler.MultiplicativeLR(o, lambda k: 0.9)],
            [3],
        ),
        "torch cannot restart a MultiplicativeLR",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_scheduler_without_an_equal_schedule_raises(name):
    make, message = REFUSED[name]
    with pytest.raises(BindingError, match=message):
        from_torch(make(sgd(1.0)))


def test_externally_changed_lr_raises():
    optimizer = sgd(0.1)
    step = lr_scheduler.StepLR(optimizer, 3)
    lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.param_groups[0]["lr"] = 0.03
    with pytest.raises(BindingError, match=r"lr 0.03, but this StepLR alone would have set 0.1"):
        from_torch(step)
    with pytest.raises(TypeError, match="takes a torch scheduler, not int"):
        from_torch(5)
    assert isinstance(optimizer, torch.optim.SGD)

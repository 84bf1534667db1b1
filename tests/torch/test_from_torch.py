"""Schedulers of torch read back: the same lrs at every step."""

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import cosine
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR, from_torch
from ratecraft.torch.drop_in import _schedulers as drop_in

# torch's SequentialLR steps its parts with an epoch, which torch itself warns about.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

KINDS = {
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
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 5, 13])
def test_what_is_read_gives_the_same_lrs(module, kind, at):
    optimizer = sgd(0.1, 0.3, momentum=0.9)
    scheduler = KINDS[kind](module, optimizer)
    lrs_of(optimizer, at, scheduler)
    said = from_torch(scheduler)
    each = [said, said] if not isinstance(said, dict) else [said["0"], said["1"]]
    curves = [lr.resolve(total_steps=60) for lr in each]
    for k, lrs in enumerate(lrs_of(optimizer, 45, scheduler), at):
        assert lrs == pytest.approx([curve(k) for curve in curves], rel=1e-9, abs=1e-15)


def test_a_run_goes_on_under_what_was_read():
    its, mine = sgd(0.1), sgd(0.1)
    theirs = lr_scheduler.CosineAnnealingLR(its, 30)
    lrs_of(its, 11, theirs)
    ScheduleLR(mine, lr=from_torch(theirs), initial_step=theirs.last_epoch)
    assert first_lrs(mine, 15) == pytest.approx(first_lrs(its, 15, theirs), rel=1e-9)


def test_groups_are_called_by_their_names():
    optimizer = named(body=0.1, head=0.5)
    said = from_torch(lr_scheduler.ExponentialLR(optimizer, 0.9))
    assert list(said) == ["body", "head"]
    assert repr(said["head"]) == "0.5 * decay(0.9, every=1)"


class Mine(lr_scheduler.StepLR):
    """Somebody's own."""


REFUSED = {
    "metric": (lr_scheduler.ReduceLROnPlateau, "follows a metric"),
    "a subclass": (lambda o: Mine(o, 3), "Mine is not torch's own class"),
    "scale_fn": (
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 3, scale_fn=lambda x: 1, cycle_momentum=False),
        "has no notation",
    ),
    "ours": (
        lambda o: ScheduleLR(o, factor=cosine(), total_steps=9),
        "has its schedule already: cosine",
    ),
    "lrs in a chain": (
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.CosineAnnealingLR(o, 9, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]
        ),
        "a CosineAnnealingLR writes lrs",
    ),
    "no beginning": (
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o), lr_scheduler.MultiplicativeLR(o, lambda k: 0.9)],
            [3],
        ),
        "no beginning of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_schedule_says_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(BindingError, match=message):
        from_torch(make(sgd(1.0)))


def test_a_lr_that_somebody_else_changes_too_is_refused():
    optimizer = sgd(0.1)
    step = lr_scheduler.StepLR(optimizer, 3)
    lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.param_groups[0]["lr"] = 0.03
    with pytest.raises(BindingError, match=r"lr 0.03, where this StepLR alone would have set 0.1"):
        from_torch(step)
    with pytest.raises(TypeError, match="reads a torch scheduler, not int"):
        from_torch(5)
    assert isinstance(optimizer, torch.optim.SGD)

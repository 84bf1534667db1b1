"""A group that is added late gets the lr of torch's classes under the drop-in names."""

from inspect import getsource

import pytest
import torch
from optimizers import sgd
from torch.optim import lr_scheduler

from ratecraft import PlateauLR, ScheduleLR, constant, cosine, linear, warmup
from ratecraft.torch import drop_in

SCHEDULERS = {
    "StepLR": lambda m, o: m.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 7], 0.1),
    "ConstantLR that goes on": lambda m, o: m.ConstantLR(o, 0.5, 8),
    "ConstantLR that ends": lambda m, o: m.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.1, 1, 12),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 12, 0.9),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 20),
    "CosineAnnealingLR with eta_min": lambda m, o: m.CosineAnnealingLR(o, 20, 1e-3),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=3), m.CosineAnnealingLR(o, 15, 1e-3)], [3]
    ),
    "SequentialLR, before the milestone": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=8), m.StepLR(o, 2, 0.5)], [8]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.1, total_iters=9), m.ExponentialLR(o, 0.9)]
    ),
}


def parameter():
    return torch.nn.Parameter(torch.zeros(1))


def run(module, make, lrs, added_at, steps=15):
    optimizer = sgd(*lrs)
    scheduler = make(module, optimizer)
    seen = []
    for k in range(steps):
        if k == added_at:
            optimizer.add_param_group({"params": [parameter()], "lr": 0.02})
        optimizer.step()
        try:
            scheduler.step()
        except ValueError:
            break
        seen.append([group["lr"] for group in optimizer.param_groups])
    return seen


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("added_at", [0, 2, 6])
@pytest.mark.parametrize("lrs", [(0.1,), (0.1, 0.3)])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_lr_equals_that_of_torch(name, lrs, added_at):
    ours = run(drop_in, SCHEDULERS[name], lrs, added_at)
    theirs = run(lr_scheduler, SCHEDULERS[name], lrs, added_at)
    milestone = {"SequentialLR": 3, "SequentialLR, before the milestone": 8}.get(name, 0)
    if added_at < milestone and "strict=True" not in getsource(lr_scheduler):
        theirs = theirs[: milestone - 1]  # then torch 2.9 and older ignore the new group
    assert len(ours) == 15  # torch's SequentialLR raises at the milestone after the group was added
    for mine, its in zip(ours, theirs, strict=False):
        assert mine == pytest.approx(its, rel=1e-9)


@pytest.mark.parametrize(
    "name", [name for name in SCHEDULERS if not name.startswith(("Seq", "Chain"))]
)
def test_run_resumes_after_a_group_was_added(name):
    make = SCHEDULERS[name]
    optimizer = sgd(0.1)
    scheduler = make(drop_in, optimizer)
    whole = []
    for k in range(12):
        if k == 3:
            optimizer.add_param_group({"params": [parameter()], "lr": 0.02})
        if k == 6:
            states = optimizer.state_dict(), scheduler.state_dict()
        optimizer.step()
        scheduler.step()
        whole.append([group["lr"] for group in optimizer.param_groups])
    resumed = sgd(0.1)
    again = make(drop_in, resumed)
    resumed.add_param_group({"params": [parameter()], "lr": 0.02})
    resumed.load_state_dict(states[0])
    again.load_state_dict(states[1])
    for k in range(6, 12):
        resumed.step()
        again.step()
        assert [group["lr"] for group in resumed.param_groups] == pytest.approx(whole[k], rel=1e-12)


KINDS = {
    "factor": {"factor": warmup(3).then(cosine())},
    "lr": {"lr": 0.1 * warmup(3).then(cosine())},
    "by name": {"factor": {"a": cosine()}},
    "eta_min": {"factor": cosine(), "eta_min": 1e-3},
    "weight decay": {"factor": cosine(), "hyperparam_factors": {"weight_decay": linear(1, 0)}},
    "midpoint": {"factor": cosine(), "midpoint": True},
    "clock=step": {"factor": cosine(), "clock": "step"},
}


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])
@pytest.mark.parametrize("saved_at", [4, 5, 8])
@pytest.mark.parametrize("is_tensor", [False, True])
@pytest.mark.parametrize("variant", KINDS)
def test_schedule_lr_resumes_after_a_group_was_added(variant, is_tensor, saved_at, order):
    def value(lr):
        return torch.tensor(lr) if is_tensor else lr

    def new():
        group = {"params": [parameter()], "name": "a", "lr": value(0.1)}
        optimizer = torch.optim.AdamW([group], lr=0.1, weight_decay=0.1, foreach=False)
        return optimizer, ScheduleLR(optimizer, total_steps=20, **KINDS[variant])

    def add(optimizer):
        optimizer.add_param_group({"params": [parameter()], "name": "b", "lr": value(0.02)})

    def train(optimizer, scheduler, steps):
        seen = []
        for _ in range(steps):
            seen.append([(float(g["lr"]), g["weight_decay"]) for g in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        return seen

    optimizer, scheduler = new()
    train(optimizer, scheduler, 4)
    add(optimizer)
    train(optimizer, scheduler, saved_at - 4)
    states = optimizer.state_dict(), scheduler.state_dict()
    whole = train(optimizer, scheduler, 6)
    resumed, again = new()
    add(resumed)
    loads = [lambda: resumed.load_state_dict(states[0]), lambda: again.load_state_dict(states[1])]
    for load in loads if order == "optimizer first" else loads[::-1]:
        load()
    assert train(resumed, again, 6) == whole


@pytest.mark.parametrize("schedules", [{"a": linear(1, 0), "b": constant(1)}, linear(1, 0)])
@pytest.mark.parametrize("clock", ["optimizer", "step"])
def test_groups_that_are_reordered_keep_their_schedules(schedules, clock):
    groups = [
        {"params": [parameter()], "lr": lr, "name": name} for name, lr in (("a", 1.0), ("b", 2.0))
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = ScheduleLR(optimizer, factor=schedules, total_steps=10, clock=clock)
    for k in range(5):
        if k in (1, 3):
            optimizer.param_groups.reverse()
        optimizer.step()
        scheduler.step()
    lrs = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert lrs == pytest.approx({"a": 0.5, "b": 2.0 if isinstance(schedules, dict) else 1.0})


def test_plateau_resumes_after_a_group_was_added():
    def new():
        optimizer = sgd(0.1)
        schedule = ScheduleLR(optimizer, factor=cosine(), total_steps=40)
        return optimizer, PlateauLR(schedule, factor=0.5, patience=0)

    def train(optimizer, plateau, steps):
        seen = []
        for _ in range(steps):
            optimizer.step()
            plateau.step(1.0)
            seen.append([group["lr"] for group in optimizer.param_groups])
        return seen

    optimizer, plateau = new()
    train(optimizer, plateau, 3)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.02})
    train(optimizer, plateau, 2)
    states = optimizer.state_dict(), plateau.state_dict()
    whole = train(optimizer, plateau, 4)
    resumed, again = new()
    resumed.add_param_group({"params": [parameter()], "lr": 0.02})
    resumed.load_state_dict(states[0])
    again.load_state_dict(states[1])
    assert train(resumed, again, 4) == whole

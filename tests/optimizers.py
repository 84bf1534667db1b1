"""Small optimizers for tests."""

import torch


def sgd(*lrs, **fields):
    """Return an SGD with one param group for each lr."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=1.0, **fields)


def named(**lrs):
    """Return an SGD with named param groups."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr, "name": name}
        for name, lr in lrs.items()
    ]
    return torch.optim.SGD(groups, lr=1.0)


def lrs_of(optimizer, steps, *schedulers):
    """Return each group's lr before every step; the schedulers step after the optimizer."""
    seen = []
    for _ in range(steps):
        seen.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


def first_lrs(optimizer, steps, *schedulers):
    """Return the first group's lr before every step; see `lrs_of`."""
    return [lrs[0] for lrs in lrs_of(optimizer, steps, *schedulers)]

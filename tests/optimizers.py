"""Small optimizers for the tests of this folder."""

import torch


def sgd(*rates, **fields):
    """Return an SGD with one group of one weight for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0, **fields)


def named(**rates):
    """Return an SGD with named groups."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate, "name": name}
        for name, rate in rates.items()
    ]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(optimizer, updates, *schedulers):
    """Return the rates before each update, stepping the schedulers after it."""
    seen = []
    for _ in range(updates):
        seen.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


def first_rates(optimizer, updates, *schedulers):
    """Return the first group's rates; see `rates_of`."""
    return [rates[0] for rates in rates_of(optimizer, updates, *schedulers)]

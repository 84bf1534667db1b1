"""No step reads a tensor, which would wait for an accelerator.

Fake tensors have no values: to read one is an error. tests/gpu/test_synchronization.py lets CUDA
look for waits.
"""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.torch import PlateauLR, ScheduleLR, drop_in

STEPS, SCHEDULE = 100, warmup(20).then(cosine())


class Descent(torch.optim.Optimizer):
    """Gradient descent that never reads a tensor; torch's SGD reads a tensor lr."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad * group["lr"])


def training(lr):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    groups = [{"params": layer.parameters()} for layer in model]
    if lr == "tensor":
        for group in groups:
            group["lr"] = torch.tensor(0.1)
    return model, Descent(groups, 0.1)


def schedule(optimizer):
    factors = {"weight_decay": SCHEDULE}
    return ScheduleLR(
        optimizer, factor=SCHEDULE, total_steps=STEPS, hyperparam_factors=factors, eta_min=0.001
    )


SCHEDULERS = {
    "ScheduleLR": schedule,
    "PlateauLR": lambda optimizer: PlateauLR(schedule(optimizer)),
    "CosineAnnealingLR": lambda optimizer: drop_in.CosineAnnealingLR(optimizer, STEPS),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("lr", ["float", "tensor"])
@pytest.mark.parametrize("probes", [False, True])
def test_a_hundred_steps_read_no_tensor(name, lr, probes):
    with FakeTensorMode():
        model, optimizer = training(lr)
        scheduler = SCHEDULERS[name](optimizer)
        if lr == "tensor":
            for group in optimizer.param_groups:
                group["lr"].constant = None  # what the scheduler has read when it was built
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        with Probe(optimizer, model, every=5) if probes else nullcontext():
            for _ in range(STEPS):
                optimizer.step()
                if name == "PlateauLR":
                    scheduler.step(1.0)
                else:
                    scheduler.step()
                scheduler.get_last_lr()
        if lr == "tensor":
            with pytest.raises(DataDependentOutputException):
                optimizer.param_groups[0]["lr"].item()

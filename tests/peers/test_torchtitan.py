"""torchtitan's LRSchedulersContainer with ScheduleLR; where torchtitan is installed."""

import pytest
import torch

from ratecraft import cosine, warmup
from ratecraft.torch import ScheduleLR

pytestmark = pytest.mark.peers
lr_scheduler = pytest.importorskip(
    "torchtitan.components.optimizer.lr_scheduler",
    reason="torchtitan is not installed",
    exc_type=ImportError,
)

SCHEDULE, TOTAL_STEPS = warmup(2).then(cosine()), 6


class Container(lr_scheduler.LRSchedulersContainer):
    """As torchtitan's, with other schedulers, which its docstring allows."""

    def __init__(self, optimizers):
        self.schedulers = [
            ScheduleLR(optimizer, factor=SCHEDULE, total_steps=TOTAL_STEPS, clock="step")
            for optimizer in optimizers
        ]


def training():
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizers = [torch.optim.AdamW([w], lr=lr) for w, lr in zip(weights, (1.0, 0.5), strict=True)]
    return optimizers, Container(optimizers)


def train(optimizers, container, steps):
    used = []
    for _ in range(steps):
        used.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        for optimizer in optimizers:
            optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
            optimizer.step()
        container.step()
    return used


def test_container_follows_the_curve_and_resumes_from_its_state():
    curve = [SCHEDULE.resolve(total_steps=TOTAL_STEPS)(k) for k in range(TOTAL_STEPS)]
    expected = [[value, value / 2] for value in curve]
    whole, resumed = training(), training()
    assert train(*whole, 3) == expected[:3]
    for ours, saved in zip(resumed[0], whole[0], strict=True):
        ours.load_state_dict(saved.state_dict())
    resumed[1].load_state_dict(whole[1].state_dict())
    assert list(resumed[1].get_metrics().values())[-1] == expected[3][1]
    assert train(*resumed, 3) == expected[3:]

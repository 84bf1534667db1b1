"""The warm-ups we share with pytorch_warmup, step by step, and where we differ."""

import pytest
import torch
from parity import agree

from ratecraft import untuned_warmup, warmup

peer = pytest.importorskip("pytorch_warmup")
pytestmark = pytest.mark.peers


def read(make, steps, beta2=0.999):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=1, betas=(0.9, beta2))
    dampener = make(optimizer)
    used = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        with dampener.dampening():
            pass
        used.append(optimizer.param_groups[0]["lr"])
    return used


@pytest.mark.parametrize("length", [1, 2, 10, 99])
def test_linear_is_ours_read_one_step_later(length):
    theirs = read(lambda optimizer: peer.LinearWarmup(optimizer, length), 100)
    agree(warmup(length), theirs, later=1)


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.9, 0.9999])
def test_untuned(beta2):
    length = round(2 / (1 - beta2))
    agree(warmup(untuned_warmup(beta2)), read(peer.UntunedLinearWarmup, length + 2, beta2), later=1)


# Where we differ, on purpose -------------------------------------------------------------------


@pytest.mark.parametrize(("beta2", "steps"), [(0.95, 40), (0.98, 100), (0.99, 200), (0.999, 2000)])
def test_untuned_lengths_are_one_short_there_by_a_rounding(beta2, steps):
    theirs = read(peer.UntunedLinearWarmup, steps, beta2)
    assert theirs.index(1.0) == (steps - 1) - 1  # their step k is at k + 1
    assert warmup(untuned_warmup(beta2)) == warmup(steps)


def test_untuned_lengths_that_are_no_whole_number_are_cut_there_and_rounded_here():
    theirs = read(peer.UntunedLinearWarmup, 700, 0.997)  # 2 / (1 - 0.997) = 666.67
    assert theirs.index(1.0) == 666 - 1
    assert warmup(untuned_warmup(0.997)) == warmup(667)

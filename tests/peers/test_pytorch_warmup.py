"""Shared warmups of pytorch_warmup compared step by step, and the intended differences."""

import pytest
import torch
from parity import agree

from ratecraft import untuned_warmup, warmup

peer = pytest.importorskip("pytorch_warmup")
pytestmark = pytest.mark.peers


def read(make, steps, beta2=0.999):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=1, betas=(0.9, beta2))
    dampener = make(optimizer)
    lrs = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        with dampener.dampening():
            pass
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


@pytest.mark.parametrize("length", [1, 2, 10, 99])
def test_linear_is_one_step_ahead(length):
    theirs = read(lambda optimizer: peer.LinearWarmup(optimizer, length), 100)
    agree(warmup(length), theirs, offset=1)


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.9, 0.9999])
def test_untuned(beta2):
    length = round(2 / (1 - beta2))
    agree(
        warmup(untuned_warmup(beta2)), read(peer.UntunedLinearWarmup, length + 2, beta2), offset=1
    )


# Intended differences --------------------------------------------------------------------------


@pytest.mark.parametrize(("beta2", "steps"), [(0.95, 40), (0.98, 100), (0.99, 200), (0.999, 2000)])
def test_peer_untuned_length_is_one_step_short_by_rounding(beta2, steps):
    theirs = read(peer.UntunedLinearWarmup, steps, beta2)
    assert theirs.index(1.0) == (steps - 1) - 1  # their step k is at k + 1
    assert warmup(untuned_warmup(beta2)) == warmup(steps)


def test_peer_truncates_untuned_lengths_and_ours_rounds():
    theirs = read(peer.UntunedLinearWarmup, 700, 0.997)  # 2 / (1 - 0.997) = 666.67
    assert theirs.index(1.0) == 666 - 1
    assert warmup(untuned_warmup(0.997)) == warmup(667)

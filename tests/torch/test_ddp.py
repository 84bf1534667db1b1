"""ScheduleLR under DistributedDataParallel: two processes over gloo."""

from copy import deepcopy

import pytest
import torch
from spawning import run_in_processes
from torch.nn.parallel import DistributedDataParallel

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.torch import ScheduleLR

BASE, TOTAL_STEPS, SAVE_AT = 0.1, 10, 4
SCHEDULE = warmup(3).then(cosine(1, 0.1))
CURVE = [
    BASE * value for value in map(SCHEDULE.resolve(total_steps=TOTAL_STEPS), range(TOTAL_STEPS + 1))
]


def build(rank):
    torch.manual_seed(rank)  # DDP starts from the weights of rank 0
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    return model, optimizer, ScheduleLR(optimizer, factor=SCHEDULE, total_steps=TOTAL_STEPS)


def step(rank, k, model, optimizer):
    """Train on this rank's data; return the lr that was used."""
    generator = torch.Generator().manual_seed(10 * k + rank)
    lr = optimizer.param_groups[0]["lr"]
    optimizer.zero_grad()
    model(torch.randn(4, 3, generator=generator)).pow(2).mean().backward()
    optimizer.step()
    return lr


def weights(model):
    return [weight.tolist() for weight in model.parameters()]


def run_and_resume(rank):
    """Train, and resume a second run from the state at SAVE_AT; return lrs and weights of both."""
    whole, resumed = build(rank), build(rank)
    lrs, later = [], []
    for k in range(TOTAL_STEPS):
        if k == SAVE_AT:
            for ours, theirs in zip(resumed, whole, strict=True):
                ours.load_state_dict(deepcopy(theirs.state_dict()))  # as after saving to a file
        lrs.append(step(rank, k, *whole[:2]))
        if k >= SAVE_AT:
            later.append(step(rank, k, *resumed[:2]))
    lrs += whole[2].get_last_lr()
    return {
        "lrs": lrs,
        "steps": whole[2].last_epoch,
        "weights": weights(whole[0]),
        "resumed lrs": later,
        "resumed weights": weights(resumed[0]),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_in_processes(run_and_resume, tmp_path_factory.mktemp("ddp"))


def test_both_ranks_follow_the_curve(ranks):
    for rank in ranks:
        assert rank["lrs"] == CURVE
        assert rank["steps"] == TOTAL_STEPS


def test_both_ranks_have_the_same_weights(ranks):
    assert ranks[0]["weights"] == ranks[1]["weights"]


def test_both_ranks_resume_bit_for_bit(ranks):
    for rank in ranks:
        assert rank["resumed lrs"] == CURVE[SAVE_AT:TOTAL_STEPS]
        assert rank["resumed weights"] == rank["weights"]


def probed(rank):
    """Train with a Probe; return the gradient norms that it recorded."""
    model, optimizer, _ = build(rank)
    with Probe(optimizer, model.module, every=3) as probe:
        for k in range(TOTAL_STEPS):
            step(rank, k, model, optimizer)
    return [[row.unclipped_norm, row.gradient_norm] for row in probe.rows()]


def test_probe_records_the_reduced_gradients_before_clipping(tmp_path):
    first, second = run_in_processes(probed, tmp_path)
    assert first == second
    assert len(first) == 4 * 2
    assert all(unclipped == used for unclipped, used in first)

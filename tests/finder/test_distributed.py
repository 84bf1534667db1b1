"""Tests of two processes over gloo: both see the same, stop together, keep all."""

import math

import pytest
import torch
from spawning import answers_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.finder import find_lr, range_test

# Every attribute that holds a NamedTuple is rebuilt wrongly, and each DDP model has one.
BATCHES = (130, 110)  # of rank 0 and of rank 1


def squares(model, batch):
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def spoiled(rank, at, what):
    """From a step on, only rank 1's loss is spoiled, by a number that has no gradient."""
    calls = iter(range(10**9))

    def loss(model, batch):
        spoils = next(calls) >= at and rank == 1
        return squares(model, batch) + (what if spoils else 0.0)

    return loss


def tried(rank, loss, *, parallel=True, batches=BATCHES, **settings):
    torch.manual_seed(rank)  # DDP begins from the weights of rank 0
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model = DistributedDataParallel(model) if parallel else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(10 + rank)  # each rank has its own data
    loader = [torch.randn(64, 1, generator=generator) for _ in range(batches[rank])]
    held = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in held]
    result = range_test(model, optimizer, loader, loss, **settings)
    after = [*model.parameters(), *model.buffers()]
    return {
        "lrs": result.lrs,
        "losses": result.losses,
        "smoothed": result.smoothed,
        "stopped": result.stopped,
        "suggestion": result.suggestion,
        "planned": result.planned,
        "batches": result.batches,
        "same": all(map(torch.equal, after, before)) and all(map(object.__eq__, after, held)),
        "clean": not optimizer.state and all(p.grad is None for p in model.parameters()),
        "weights": [p.tolist() for p in model.parameters()],
    }


def searched(rank, loss):
    torch.manual_seed(rank)
    model = DistributedDataParallel(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(10 + rank)
    loader = [torch.randn(8, 1, generator=generator) for _ in range(40 + 10 * rank)]
    weights = [p.tolist() for p in model.parameters()]
    result = find_lr(model, optimizer, loader, loss, total_steps=1000)
    return {
        "answer": (result.lr, result.low, result.high, result.reason),
        "runs": repr(result.runs),
        "same": weights == [p.tolist() for p in model.parameters()],
    }


def work(rank):
    return {
        "found": searched(rank, squares),
        "found, nan": searched(rank, spoiled(rank, 100, math.nan)),
        "whole": tried(rank, squares),
        "short": tried(rank, squares, high=1e-3),
        "swapped": tried(rank, squares, high=1e-3, batches=BATCHES[::-1]),
        "told": tried(rank, squares, steps=20),
        "accumulated": tried(rank, squares, steps=20, accumulate=2),
        "nan": tried(rank, spoiled(rank, 30, math.nan)),
        "nan, seldom checked": tried(rank, spoiled(rank, 30, math.nan), check_every=8),
        "exploded": tried(rank, spoiled(rank, 40, 1e4)),
        "alone": tried(rank, spoiled(rank, 40, 1e4), parallel=False),
        "not parallel, reduced": tried(rank, spoiled(rank, 40, 1e4), parallel=False, reduce=True),
    }


TOGETHER = ["whole", "short", "swapped", "told", "accumulated", "nan", "exploded"]
TOGETHER += ["nan, seldom checked", "not parallel, reduced"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return answers_of(work, tmp_path_factory.mktemp("range_test"))


@pytest.mark.parametrize("case", TOGETHER)
def test_both_ranks_have_the_same_lrs_losses_and_stop(ranks, case: str) -> None:
    names = ("lrs", "losses", "smoothed", "stopped", "suggestion", "planned", "batches")
    for name in names:
        assert ranks[0][case][name] == ranks[1][case][name], name


@pytest.mark.parametrize("case", [*TOGETHER, "alone"])
def test_both_ranks_are_bitwise_as_they_were(ranks, case: str) -> None:
    for rank in ranks:
        assert rank[case]["same"]
        assert rank[case]["clean"]


@pytest.mark.parametrize("case", ["whole", "nan", "exploded"])
def test_both_ranks_still_have_the_weights_of_rank_0(ranks, case: str) -> None:
    assert ranks[0][case]["weights"] == ranks[1][case]["weights"]


@pytest.mark.parametrize("case", ["found", "found, nan"])
def test_both_ranks_find_the_same_lr_by_the_same_runs(ranks, case: str) -> None:
    assert ("nan" in ranks[0][case]["runs"]) == (case == "found, nan")
    assert ranks[0][case]["answer"] == ranks[1][case]["answer"]
    assert ranks[0][case]["runs"] == ranks[1][case]["runs"]
    assert all(rank[case]["same"] for rank in ranks)


def test_the_smaller_loader_is_planned(ranks) -> None:
    for case in ("short", "swapped"):
        assert [rank[case]["planned"] for rank in ranks] == [110, 110]
        assert [len(rank[case]["lrs"]) for rank in ranks] == [110, 110]
        assert ranks[0][case]["stopped"] == "all 110 steps were made"


def test_losses_are_the_mean_of_both_ranks(ranks) -> None:
    # The first loss of each rank, computed here from the same seeds.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    first = []
    for rank in range(2):
        batch = torch.randn(64, 1, generator=torch.Generator().manual_seed(10 + rank))
        first.append(squares(model, batch).item())
    assert first[0] != pytest.approx(first[1], rel=1e-3)
    assert ranks[0]["whole"]["losses"][0] == pytest.approx(sum(first) / 2)


def test_a_loss_that_is_nan_on_rank_1_alone_stops_both(ranks) -> None:
    for case in ("nan", "nan, seldom checked"):
        for rank in ranks:
            assert len(rank[case]["losses"]) == 30
            assert rank[case]["stopped"].startswith("the loss was nan at lr ")


def test_a_loss_that_explodes_on_rank_1_alone_stops_both(ranks) -> None:
    for case in ("exploded", "not parallel, reduced"):
        for rank in ranks:
            assert "exceeded 4 times its minimum" in rank[case]["stopped"]
            assert len(rank[case]["losses"]) == 41


def test_without_reduction_each_rank_sees_its_own_losses(ranks) -> None:
    zero, one = (rank["alone"] for rank in ranks)
    assert len(one["losses"]) == 41
    assert len(zero["losses"]) > 41
    assert zero["losses"][0] != one["losses"][0]
    assert (zero["planned"], one["planned"]) == BATCHES

"""Searches in two gloo processes: same values, same end, restored state."""

import dataclasses
import math

import pytest
import torch
from spawning import run_in_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.finder import find_lr, range_test

BATCHES = (130, 110)  # of rank 0 and rank 1


def squares(model, batch):
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def spoiled(rank, at, offset):
    """Return a loss to which rank 1 adds a constant from a step on."""
    calls = iter(range(10**9))

    def loss(model, batch):
        spoils = next(calls) >= at and rank == 1
        return squares(model, batch) + (offset if spoils else 0.0)

    return loss


def tried(rank, loss, *, parallel=True, batches=BATCHES, **options):
    torch.manual_seed(rank)  # DDP begins from the weights of rank 0
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model = DistributedDataParallel(model) if parallel else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(10 + rank)  # each rank has its own data
    loader = [torch.randn(64, 1, generator=generator) for _ in range(batches[rank])]
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    result = range_test(model, optimizer, loader, loss, **options)
    after = [*model.parameters(), *model.buffers()]
    return {
        "lrs": result.lrs,
        "losses": result.losses,
        "smoothed": result.smoothed,
        "stopped": result.stop_reason,
        "suggestion": result.suggestion,
        "planned": result.planned_steps,
        "batches": result.batches,
        "same": all(map(torch.equal, after, before)) and all(map(object.__eq__, after, tensors)),
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
        "result": (result.lr, result.lr_low, result.lr_high, result.reason),
        "runs": repr([dataclasses.astuple(run) for run in result.runs]),
        "same": weights == [p.tolist() for p in model.parameters()],
    }


def run_cases(rank):
    return {
        "find_lr": searched(rank, squares),
        "find_lr, nan": searched(rank, spoiled(rank, 100, math.nan)),
        "whole": tried(rank, squares),
        "short": tried(rank, squares, high=1e-3),
        "swapped": tried(rank, squares, high=1e-3, batches=BATCHES[::-1]),
        "explicit steps": tried(rank, squares, steps=20),
        "accumulated": tried(rank, squares, steps=20, accumulate=2),
        "nan": tried(rank, spoiled(rank, 30, math.nan)),
        "nan, check_every=8": tried(rank, spoiled(rank, 30, math.nan), check_every=8),
        "diverged": tried(rank, spoiled(rank, 40, 1e4)),
        "not reduced": tried(rank, spoiled(rank, 40, 1e4), parallel=False),
        "not parallel, reduced": tried(rank, spoiled(rank, 40, 1e4), parallel=False, reduce=True),
    }


REDUCED = ["whole", "short", "swapped", "explicit steps", "accumulated", "nan", "diverged"]
REDUCED += ["nan, check_every=8", "not parallel, reduced"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_in_processes(run_cases, tmp_path_factory.mktemp("range_test"))


@pytest.mark.parametrize("case", REDUCED)
def test_ranks_have_the_same_lrs_losses_and_end(ranks, case: str) -> None:
    names = ("lrs", "losses", "smoothed", "stopped", "suggestion", "planned", "batches")
    for name in names:
        assert ranks[0][case][name] == ranks[1][case][name], name


@pytest.mark.parametrize("case", [*REDUCED, "not reduced"])
def test_ranks_are_restored_bitwise(ranks, case: str) -> None:
    for rank in ranks:
        assert rank[case]["same"]
        assert rank[case]["clean"]


@pytest.mark.parametrize("case", ["whole", "nan", "diverged"])
def test_ranks_keep_the_weights_of_rank_0(ranks, case: str) -> None:
    assert ranks[0][case]["weights"] == ranks[1][case]["weights"]


@pytest.mark.parametrize("case", ["find_lr", "find_lr, nan"])
def test_ranks_find_the_same_lr_with_the_same_runs(ranks, case: str) -> None:
    assert ("nan" in ranks[0][case]["runs"]) == (case == "find_lr, nan")
    assert ranks[0][case]["result"] == ranks[1][case]["result"]
    assert ranks[0][case]["runs"] == ranks[1][case]["runs"]
    assert all(rank[case]["same"] for rank in ranks)


def test_default_steps_are_those_of_the_shortest_loader(ranks) -> None:
    for case in ("short", "swapped"):
        assert [rank[case]["planned"] for rank in ranks] == [110, 110]
        assert [len(rank[case]["lrs"]) for rank in ranks] == [110, 110]
        assert ranks[0][case]["stopped"] == "all 110 steps were taken"


def test_losses_are_means_over_the_ranks(ranks) -> None:
    # The expected first loss of each rank, from the same seeds.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    first = []
    for rank in range(2):
        batch = torch.randn(64, 1, generator=torch.Generator().manual_seed(10 + rank))
        first.append(squares(model, batch).item())
    assert first[0] != pytest.approx(first[1], rel=1e-3)
    assert ranks[0]["whole"]["losses"][0] == pytest.approx(sum(first) / 2)


def test_nan_loss_on_one_rank_ends_both(ranks) -> None:
    for case in ("nan", "nan, check_every=8"):
        for rank in ranks:
            assert len(rank[case]["losses"]) == 30
            assert rank[case]["stopped"].startswith("the loss was nan at lr ")


def test_divergence_on_one_rank_ends_both(ranks) -> None:
    for case in ("diverged", "not parallel, reduced"):
        for rank in ranks:
            assert "exceeded 4 times its minimum" in rank[case]["stopped"]
            assert len(rank[case]["losses"]) == 41


def test_without_reduction_each_rank_has_its_own_losses(ranks) -> None:
    first, second = (rank["not reduced"] for rank in ranks)
    assert len(second["losses"]) == 41
    assert len(first["losses"]) > 41
    assert first["losses"][0] != second["losses"][0]
    assert (first["planned"], second["planned"]) == BATCHES

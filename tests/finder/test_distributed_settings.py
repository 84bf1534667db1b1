"""Distributed searches: every process gets the same learning rate, or the same clear error."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from spawning import run_in_processes
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import RunFailed, SettingError, TaskError
from ratecraft.finder import find_lr, range_test

pytestmark = pytest.mark.slow  # the basics are in test_distributed.py

DIFFERENT = "the processes of a distributed search have different settings "


def squares(model, batch):
    return (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean()


class ClipToOne:
    def __call__(self, parameters):
        nn.utils.clip_grad_norm_(parameters, 1.0)


def clip_values(largest):
    return partial(nn.utils.clip_grad_value_, clip_value=largest)


def adam(model, **options):
    return torch.optim.Adam(model.parameters(), **{"lr": 0.01} | options)


def batches(rank, count=20):
    generator = torch.Generator().manual_seed(10 + rank)  # each rank has its own data
    return [torch.randn(8, 4, generator=generator) for _ in range(count)]


def layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.01} | options)


def answered(
    rank, *, search=find_lr, model=None, optimizer=sgd, loader=None, loss=squares, **options
):
    """Return a search's exact result as text, or its error, and whether it restored the weights."""
    model = DistributedDataParallel(layer()) if model is None else model
    optimizer = optimizer(model)
    before = [p.detach().clone() for p in model.parameters()]
    options = {"budget_steps": 60} | options if search is find_lr else options
    try:
        result = search(
            model, optimizer, batches(rank) if loader is None else loader, loss, **options
        )
        if search is find_lr:
            text = repr((result.lr, result.lr_low, result.lr_high, result.reason, result.runs))
        else:
            text = repr((result.lrs, result.losses, result.suggestion))
    except (SettingError, TaskError, RunFailed) as error:
        text = f"{type(error).__name__}: {error}"
    return text, all(map(torch.equal, before, model.parameters()))


def changed_after_wrapping(rank):
    model = DistributedDataParallel(layer())
    with torch.no_grad():
        model.module[0].bias[1] += rank
    return model


def frozen_on_rank_1(rank):
    model = DistributedDataParallel(layer())
    model.module[0].bias.requires_grad_(rank == 0)
    return model


def other_optimizer(rank):
    return lambda model: (torch.optim.Adam if rank else sgd)(model.parameters() if rank else model)


def two_groups(rank):
    def build(model):
        groups = [{"params": [p]} for p in model.parameters()]
        return torch.optim.SGD(groups[:-1] if rank else groups, lr=0.01)

    return build


def scaler(rank):
    return torch.amp.GradScaler("cpu", init_scale=[1024.0, 512.0][rank])


def differing(rank):
    """Searches whose settings differ by rank."""
    differ = {
        name: answered(rank, **{name.split(" (")[0]: values[rank]})
        for name, values in {
            "total_steps": (4000, 3600),
            "budget_steps": (60, 70),
            "accumulate": (1, 2),
            "clip": (1.0, None),
            "clip (rank 0), a partial function": (clip_values(1.0), clip_values(2.0)),
            "clip (rank 0), an object": (ClipToOne(), nn.utils.clip_grad_norm_),
            "check_every": (1, 2),
        }.items()
    }
    differ |= {
        name: answered(rank, search=range_test, **{name: values[rank]})
        for name, values in {
            "low": (1e-8, 1e-7),
            "high": (1.0, 2.0),
            "steps": (20, 30),
            "spacing": ("geometric", "linear"),
            "beta": (0.9, 0.98),
            "stop": (4.0, 5.0),
            "momentum": (None, (0.9, 0.8)),
        }.items()
    }
    lr, decay = [0.01, 0.1][rank], [0.0, 0.1][rank]
    betas = [(0.9, 0.99), (0.5, 0.99)][rank]
    return differ | {
        "lr of param group 0": answered(rank, optimizer=lambda m: sgd(m, lr=lr)),
        "lr of param group 0 (rank 0), range test": answered(
            rank, search=range_test, optimizer=lambda m: sgd(m, lr=lr)
        ),
        "weight_decay of param group 0": answered(
            rank, optimizer=lambda m: sgd(m, weight_decay=decay)
        ),
        "lr of param group 0 (rank 0), numpy": answered(
            rank, optimizer=lambda m: sgd(m, lr=np.float32(lr))
        ),
        "lr of param group 0 (rank 0), tensor": answered(
            rank, optimizer=lambda m: sgd(m, lr=torch.tensor(lr))
        ),
        "betas of param group 0 (rank 0), list": answered(
            rank, optimizer=lambda m: adam(m, betas=list(betas))
        ),
        "betas of param group 0 (rank 0), tensors": answered(
            rank, optimizer=lambda m: adam(m, betas=tuple(map(torch.tensor, betas)))
        ),
        "optimizer": answered(rank, optimizer=other_optimizer(rank)),
        "number of param groups": answered(rank, optimizer=two_groups(rank)),
        "scale of the GradScaler": answered(rank, scaler=scaler(rank)),
        "digest of the weights": answered(rank, model=changed_after_wrapping(rank)),
        "digest of the parameters' names and shapes": answered(rank, model=frozen_on_rank_1(rank)),
    }


class Unreadable(list):
    def __len__(self):
        raise TaskError("no length today")


def failing(rank):
    """Searches that fail on rank 1 only."""
    empty_loader = [batches(0), []][rank]
    return {
        "total_steps=0": answered(rank, total_steps=[100, 0][rank]),
        "clip=-1": answered(rank, clip=[1.0, -1.0][rank]),
        "beta=2": answered(rank, search=range_test, beta=[0.9, 2.0][rank]),
        "the loader is empty": answered(rank, loader=empty_loader),
        "the loader is empty, range test": answered(rank, search=range_test, loader=empty_loader),
        "no length today": answered(
            rank, total_steps=100, loader=Unreadable(batches(1)) if rank else batches(0)
        ),
        "can be iterated only once": answered(
            rank, loader=iter(batches(1)) if rank else batches(0)
        ),
    }


def spoiled(rank, at):
    calls = iter(range(10**9))
    return lambda model, batch: (
        squares(model, batch) * (math.nan if rank and next(calls) >= at else 1.0)
    )


def different_losses(model, batch):
    return squares(model, batch) * (1 + distributed.get_rank())


class Rotation(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.complex64))

    def forward(self, batch):
        return (batch * self.weight).sum(1, keepdim=True).real


def embedding():
    torch.manual_seed(0)
    return nn.Embedding(4, 2, sparse=True)


def agreeing(rank):
    """Searches that succeed, with data and losses of each rank."""
    uneven, scaled = batches(rank, 20 + rank), torch.amp.GradScaler("cpu", init_scale=8.0)
    lbfgs = {"optimizer": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=4)}
    wrapped = nn.Sequential(DistributedDataParallel(layer()))
    words = [batch[:, 0].gt(0).long() + rank for batch in batches(rank)]
    return {
        "losses of each rank": answered(rank, loss=different_losses, total_steps=5000),
        "loader of unknown length": answered(
            rank, loader=(lambda: batches(1)) if rank else uneven, total_steps=5000
        ),
        "uneven loaders": answered(rank, loader=uneven, total_steps=5000),
        "nan on one rank": answered(rank, loss=spoiled(rank, 60)),
        "nan from the start": answered(rank, loss=spoiled(rank, 0)),
        "accumulate and GradScaler": answered(rank, accumulate=2, scaler=scaled, clip=1.0),
        "LBFGS": answered(rank, loss=different_losses, budget_steps=50, **lbfgs),
        "inside another module": answered(rank, model=wrapped),
        "complex weights": answered(rank, model=DistributedDataParallel(Rotation())),
        "sparse gradients": answered(
            rank,
            model=DistributedDataParallel(embedding()),
            loader=words,
            loss=lambda model, batch: (model(batch) - 1).pow(2).mean(),
        ),
        "a partial function as clip": answered(rank, clip=clip_values(1.0)),
        "an object as clip": answered(rank, clip=ClipToOne()),
        "a number and a tensor": answered(
            rank, optimizer=lambda m: sgd(m, lr=torch.tensor(0.5) if rank else 0.5)
        ),
        "progress on one rank": answered(rank, progress=(lambda *_: None) if rank else False),
    }


def run_two(rank):
    return {
        "differing": differing(rank),
        "failing": failing(rank),
        "agreeing": agreeing(rank),
        "reduce=False": answered(rank, reduce=False),
    }


def run_three(rank):
    results = {
        "same": answered(rank, loss=different_losses, total_steps=5000),
        "different": answered(rank, total_steps=[4000, 3600, 4000][rank]),
    }
    pair = distributed.new_group([0, 2])
    if rank != 1:
        model = DistributedDataParallel(layer(), process_group=pair)
        results["pair"] = answered(rank, model=model, loss=different_losses)
        model = DistributedDataParallel(layer(), process_group=pair)
        results["pair, different"] = answered(rank, model=model, total_steps=100 + rank)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_in_processes(run_two, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory):
    return run_in_processes(run_three, tmp_path_factory.mktemp("three"), count=3)


def test_each_setting_that_differs_is_refused_with_its_name_and_values(ranks) -> None:
    for case, (text, is_restored) in ranks[0]["differing"].items():
        assert text.startswith(f"SettingError: {DIFFERENT}"), case
        assert f"{case.split(' (')[0]}: " in text
        assert "(rank 0), " in text
        assert is_restored
        assert ranks[1]["differing"][case] == [text, True], case
    assert "(total_steps: 4000 (rank 0), 3600 (rank 1))" in ranks[0]["differing"]["total_steps"][0]


def test_an_error_in_one_process_ends_the_others_too(ranks) -> None:
    for case, (text, is_restored) in ranks[1]["failing"].items():
        assert case.split(",")[0] in text
        assert is_restored
        message = f"TaskError: the process of rank 1 failed with {text}"
        assert ranks[0]["failing"][case] == [message, True]


def test_all_processes_get_the_same_answer_bit_for_bit(ranks) -> None:
    for case, (text, is_restored) in ranks[0]["agreeing"].items():
        assert "Error" not in text, case
        assert text.startswith("RunFailed") == (case == "nan from the start"), case
        assert is_restored, case
        assert ranks[1]["agreeing"][case] == [text, True], case


def test_reduce_false_is_refused_where_processes_wait_for_each_other(ranks) -> None:
    for text, _ in (rank["reduce=False"] for rank in ranks):
        assert text.startswith("SettingError: reduce=False: processes with different losses")


def test_three_processes_get_the_same_answer_or_error(three_ranks) -> None:
    first = three_ranks[0]
    assert first["same"][0].startswith("(0.")
    assert "(total_steps: 4000 (ranks 0, 2), 3600 (rank 1))" in first["different"][0]
    for case in ("same", "different"):
        assert [rank[case] for rank in three_ranks] == [first[case]] * 3


def test_a_model_of_some_processes_searches_with_those_only(three_ranks) -> None:
    first, _, last = three_ranks
    assert first["pair"][0].startswith("(0.")
    assert first["pair"] == last["pair"]
    assert "total_steps: 100 (rank 0), 102 (rank 2)" in first["pair, different"][0]


def test_reduce_without_a_process_group_is_refused() -> None:
    model = layer()
    with pytest.raises(SettingError, match=r"reduce=True: there are no other processes"):
        find_lr(model, sgd(model), batches(0), squares, reduce=True)

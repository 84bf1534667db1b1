"""Sharded training in two processes over gloo: fully_shard (FSDP2) and ZeroRedundancyOptimizer."""

from copy import deepcopy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from spawning import run_in_processes
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.finder import find_lr, range_test
from ratecraft.torch import PlateauLR, ScheduleLR, drop_in, param_groups

pytestmark = pytest.mark.slow  # about 20 s

SHARDINGS = ("fully_shard", "zero")
TOTAL_STEPS, SAVE_AT = 10, 4
SCHEDULE = warmup(3).then(cosine(1, 0.1))
CURVE = [0.1 * value for value in map(SCHEDULE.resolve(total_steps=TOTAL_STEPS), range(10))]

SCHEDULERS = {
    "ScheduleLR": lambda o: ScheduleLR(o, factor=SCHEDULE, total_steps=TOTAL_STEPS),
    "PlateauLR": lambda o: PlateauLR(
        ScheduleLR(o, factor=SCHEDULE, total_steps=TOTAL_STEPS), factor=0.5, patience=1
    ),
    "CosineAnnealingLR": lambda o: drop_in.CosineAnnealingLR(o, TOTAL_STEPS),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1))


def training(sharding):
    """Return a model and an optimizer; every process has half of the weights, or of the state."""
    model = network()
    if sharding == "fully_shard":
        for layer in (model[0], model[2]):
            fully_shard(layer)
        fully_shard(model)  # the last layer
        return model, torch.optim.AdamW(param_groups(model, lr=0.1, rules={"4": 0.05}))
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns when it is imported

    model = DistributedDataParallel(model)
    groups = param_groups(model, lr=0.1, rules={"4": 0.05})
    return model, ZeroRedundancyOptimizer(groups, torch.optim.AdamW)


def squares(model, x):
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def batch(rank, k):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * k + rank))


def train(rank, model, optimizer, numbers, scheduler=None):
    used = []
    for k in numbers:
        used.append([group["lr"] for group in optimizer.param_groups])
        squares(model, batch(rank, k)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(scheduler, PlateauLR):
            scheduler.step(1.0)
        elif scheduler is not None:
            scheduler.step()
    return used


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).tolist()


def content(model, optimizer):
    """Return weights and optimizer state, as this process has them."""
    state = getattr(optimizer, "optim", optimizer).state
    entries = [[name, whole(v)] for values in state.values() for name, v in values.items()]
    return [list(map(whole, model.parameters())), sorted(entries, key=repr)]


def resumed(rank, sharding, name, folder):
    """Train, and resume a second run from the state at SAVE_AT; return lrs and state of both."""
    model, optimizer = training(sharding)
    scheduler = SCHEDULERS[name](optimizer)
    lrs = train(rank, model, optimizer, range(SAVE_AT), scheduler)
    saved = {"scheduler": scheduler}
    if sharding == "zero":
        optimizer.consolidate_state_dict(to=0)
        states = [None]
        if rank == 0:
            states = [deepcopy([model.state_dict(), optimizer.state_dict()])]
        distributed.broadcast_object_list(states)
    else:
        saved["model"], saved["optimizer"] = get_state_dict(model, optimizer)
    dcp.save(saved, checkpoint_id=folder)
    lrs += train(rank, model, optimizer, range(SAVE_AT, TOTAL_STEPS), scheduler)

    second, second_optimizer = training(sharding)
    second_scheduler = SCHEDULERS[name](second_optimizer)
    target = {"scheduler": second_scheduler}
    if sharding == "zero":
        second.load_state_dict(states[0][0])
        second_optimizer.load_state_dict(states[0][1])
        dcp.load(target, checkpoint_id=folder)
    else:
        target["model"], target["optimizer"] = get_state_dict(second, second_optimizer)
        dcp.load(target, checkpoint_id=folder)
        set_state_dict(
            second, second_optimizer,
            model_state_dict=target["model"], optim_state_dict=target["optimizer"],
        )  # fmt: skip
    rest = range(SAVE_AT, TOTAL_STEPS)
    later = train(rank, second, second_optimizer, rest, second_scheduler)
    return {
        "lrs": lrs,
        "resumed lrs": later,
        "same": content(model, optimizer) == content(second, second_optimizer),
        "steps": second_scheduler.last_epoch,
    }


def searched(rank, sharding, search):
    """Search in the middle of a run, and go on; compare with a run without a search."""
    model, optimizer = training(sharding)
    train(rank, model, optimizer, range(3))
    before, parameters = content(model, optimizer), list(model.parameters())
    loader = [batch(rank, k) for k in range(40)]
    if search == "find_lr":
        result = find_lr(model, optimizer, loader, squares, total_steps=100, clip=1.0)
    else:
        result = range_test(model, optimizer, loader, squares, steps=30)
    same = content(model, optimizer) == before
    same &= all(map(object.__eq__, model.parameters(), parameters))
    train(rank, model, optimizer, range(3, 6))
    plain, plain_optimizer = training(sharding)
    train(rank, plain, plain_optimizer, range(6))
    return {
        "result": repr(result.runs if search == "find_lr" else result.losses),
        "same": same,
        "same later": content(model, optimizer) == content(plain, plain_optimizer),
    }


def probed(rank, sharding):
    """Return what a Probe measures, without the lrs of coordinates, which are of one process."""
    if sharding == "plain":
        model = DistributedDataParallel(network())
        optimizer = torch.optim.AdamW(param_groups(model, lr=0.1, rules={"4": 0.05}))
    else:
        model, optimizer = training(sharding)
    with Probe(optimizer, model, every=2) as probe:
        train(rank, model, optimizer, range(5))
    names = ("step", "group", "layer", "lr", "weight_norm", "step_norm", "gradient_norm")
    names += ("gradient_l1", "unclipped_norm", "decay")
    return [[getattr(row, name) for name in names] for row in probe.rows()]


def run_cases(rank, folder):
    cases = {}
    for sharding in SHARDINGS:
        for name in SCHEDULERS:
            cases[f"{sharding} {name}"] = resumed(
                rank, sharding, name, str(folder / f"{sharding} {name}")
            )
        for search in ("find_lr", "range_test"):
            cases[f"{sharding} {search}"] = searched(rank, sharding, search)
    return cases | {
        f"{sharding} probe": probed(rank, sharding) for sharding in (*SHARDINGS, "plain")
    }


class Run:
    """``run_cases`` with its folder, as a function of the rank that can be pickled."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, rank):
        return run_cases(rank, self.folder)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    return run_in_processes(Run(folder), folder)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_schedule_sets_the_lr_of_every_group(ranks, sharding):
    expected = [[lr, lr / 2] for lr in CURVE]
    for rank in ranks:
        assert rank[f"{sharding} ScheduleLR"]["lrs"] == expected


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_run_resumes_bit_for_bit_from_a_distributed_checkpoint(ranks, sharding, name):
    for rank in ranks:
        case = rank[f"{sharding} {name}"]
        assert case["resumed lrs"] == case["lrs"][SAVE_AT:]
        assert case["same"]
        assert case["steps"] == TOTAL_STEPS


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("search", ["find_lr", "range_test"])
def test_search_is_the_same_in_all_processes_and_leaves_no_trace(ranks, sharding, search):
    for rank in ranks:
        assert rank[f"{sharding} {search}"]["same"]
        assert rank[f"{sharding} {search}"]["same later"]
    assert ranks[0][f"{sharding} {search}"] == ranks[1][f"{sharding} {search}"]


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_probe_measures_whole_parameters(ranks, sharding):
    expected = ranks[0]["plain probe"]
    for rank in ranks:
        assert len(rank[f"{sharding} probe"]) == len(expected) == 3 * 3
        for row, whole_row in zip(rank[f"{sharding} probe"], expected, strict=True):
            assert row[:3] == whole_row[:3]
            assert row[3:] == pytest.approx(whole_row[3:], rel=1e-5)

"""Schedulers with torch.distributed.checkpoint (DCP).

DCP makes optimizer steps to create the state of an optimizer, splits state dicts into their
entries, and loads only the entries that the new state dict has.
"""

from copy import deepcopy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from ratecraft import cosine, steps, warmup
from ratecraft.diagnostics import Probe
from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.torch import PlateauLR, ScheduleLR, drop_in

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

SCHEDULE, TOTAL_STEPS, SAVE_AT, LAST = warmup(3).then(cosine(1, 0.1)), 20, 8, 14


def schedule_lr(optimizer, **options):
    return ScheduleLR(optimizer, **{"factor": SCHEDULE, "total_steps": TOTAL_STEPS} | options)


def sequence(optimizer):
    parts = [drop_in.LinearLR(optimizer, 0.1, total_iters=4), drop_in.ExponentialLR(optimizer, 0.9)]
    return drop_in.SequentialLR(optimizer, parts, [4])


SCHEDULERS = {
    "ScheduleLR": schedule_lr,
    "ScheduleLR with weight decay": lambda optimizer: schedule_lr(
        optimizer, hyperparam_factors={"weight_decay": cosine(1, 0.5)}
    ),
    "PlateauLR": lambda optimizer: PlateauLR(schedule_lr(optimizer), factor=0.5, patience=1),
    "ReduceLROnPlateau": lambda optimizer: drop_in.ReduceLROnPlateau(optimizer, patience=1),
    "SequentialLR": sequence,
    "CosineAnnealingLR": lambda optimizer: drop_in.CosineAnnealingLR(optimizer, TOTAL_STEPS),
    "OneCycleLR": lambda optimizer: drop_in.OneCycleLR(optimizer, 0.1, total_steps=TOTAL_STEPS),
}


def training(build=schedule_lr, optimizer_class=torch.optim.AdamW):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    return model, optimizer, build(optimizer)


def train(model, optimizer, scheduler, numbers):
    """Train; return the lr and the weight decay of each step."""
    used = []
    for k in numbers:
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["weight_decay"]))
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        takes_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        scheduler.step(1.0) if takes_metric else scheduler.step()
    return used


def save(folder, model, optimizer, scheduler):
    weights, state = get_state_dict(model, optimizer)
    dcp.save(
        {"model": weights, "optimizer": state, "scheduler": scheduler},
        checkpoint_id=folder,
    )


def load(folder, model, optimizer, scheduler):
    weights, state = get_state_dict(model, optimizer)
    content = {"model": weights, "optimizer": state, "scheduler": scheduler}
    dcp.load(content, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.SGD])
def test_run_resumes_bit_for_bit(tmp_path, name, optimizer_class):
    whole = training(SCHEDULERS[name], optimizer_class)
    train(*whole, range(2))
    whole[1].param_groups[0]["lr"] *= 0.7  # other code: an external factor
    train(*whole, range(2, SAVE_AT))
    save(tmp_path, *whole)
    rest = train(*whole, range(SAVE_AT, LAST))
    resumed = training(SCHEDULERS[name], optimizer_class)
    load(tmp_path, *resumed)
    assert train(*resumed, range(SAVE_AT, LAST)) == rest
    assert all(map(torch.equal, resumed[0].parameters(), whole[0].parameters()))


@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_a_step_that_creates_the_state_is_not_counted(optimizer_class, tensor_lr):
    def run(saves):
        model = torch.nn.Linear(3, 2)
        lr = torch.tensor(0.1) if tensor_lr else 0.1
        optimizer = optimizer_class(model.parameters(), lr=lr)
        scheduler, lrs = schedule_lr(optimizer), []
        with Probe(optimizer, model, every=1) as probe:
            for k in range(4):
                if saves:
                    get_state_dict(model, optimizer)
                assert scheduler.last_epoch == k
                lrs += deepcopy(scheduler.get_last_lr())
                train(model, optimizer, scheduler, [k])
        assert {row.step for row in probe.rows()} == {0, 1, 2, 3}
        return lrs, scheduler.state_dict()

    assert run(saves=True) == run(saves=False)


def test_saved_option_that_the_new_scheduler_lacks_is_a_change(tmp_path):
    whole = training(lambda optimizer: schedule_lr(optimizer, midpoint=True))
    train(*whole, range(3))
    save(tmp_path, *whole)
    with pytest.raises(ScheduleChanged, match="midpoint: saved True"):
        load(tmp_path, *training())


def test_saved_hyperparameter_that_the_new_scheduler_lacks_is_refused(tmp_path):
    whole = training(SCHEDULERS["ScheduleLR with weight decay"])
    train(*whole, range(3))
    save(tmp_path, *whole)
    with pytest.raises(BindingError, match="it schedules weight_decay, and this one does not"):
        load(tmp_path, *training())


def test_run_that_was_made_longer_resumes_a_second_time(tmp_path):
    def longer(optimizer):
        return schedule_lr(optimizer, total_steps=steps(40), on_change="continue")

    whole = training()
    train(*whole, range(SAVE_AT))
    save(tmp_path / "first", *whole)
    continued = training(longer)
    load(tmp_path / "first", *continued)
    train(*continued, range(SAVE_AT, LAST))
    save(tmp_path / "second", *continued)
    again = training(longer)
    load(tmp_path / "second", *again)
    numbers = range(LAST, LAST + 6)
    assert train(*again, numbers) == train(*continued, numbers)

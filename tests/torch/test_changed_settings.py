"""Other settings in the script than in the checkpoint: an error with the choice, or no guess."""

import copy
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.swa_utils import SWALR

from ratecraft import PlateauLR, ScheduleLR, constant, cosine, linear, warmup
from ratecraft.errors import RatecraftError, ScheduleChanged
from ratecraft.torch import drop_in


def adamw(*lrs, weight_decay=0.1):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs or (0.1,)]
    return torch.optim.AdamW(groups, lr=1.0, weight_decay=weight_decay)


def saved(optimizer, scheduler, steps=5):
    for _ in range(steps):
        optimizer.step()
    return copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))


def load(optimizer, scheduler, states, order):
    loads = [
        lambda: optimizer.load_state_dict(states[0]),
        lambda: scheduler.load_state_dict(states[1]),
    ]
    for each in loads if order == "optimizer first" else loads[::-1]:
        each()


ORDERS = pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])


@ORDERS
@pytest.mark.parametrize("lrs", [(0.01,), (0.01, 0.2)])
@pytest.mark.parametrize("on_change", ["raise", "keep", "replan", "continue"])
def test_changed_base_lr_is_followed_or_refused(on_change, lrs, order):
    optimizer = adamw(*[0.1, 0.2][: len(lrs)])
    states = saved(optimizer, ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10))
    other = adamw(*lrs)
    scheduler = ScheduleLR(other, factor=linear(1, 0), total_steps=10, on_change=on_change)
    if on_change in ("raise", "continue"):
        with pytest.raises(ScheduleChanged, match="base lr") as raised:
            load(other, scheduler, states, "scheduler first")
        assert on_change == "continue" or 'on_change="keep"' in str(raised.value)
        assert scheduler.last_epoch == 0
        return
    load(other, scheduler, states, order)
    expected = 0.1 if on_change == "keep" else 0.01
    assert scheduler.last_epoch == 5
    assert other.param_groups[0]["lr"] == pytest.approx(expected / 2)
    assert other.param_groups[0]["initial_lr"] == pytest.approx(expected)
    other.step()
    assert other.param_groups[0]["lr"] == pytest.approx(expected * 0.4)


def test_changed_base_of_another_hyperparameter_is_refused():
    def new(weight_decay, **options):
        optimizer = adamw(weight_decay=weight_decay)
        schedules = {"weight_decay": linear(1, 0)}
        return optimizer, ScheduleLR(
            optimizer, factor=linear(1, 0), hyperparam_factors=schedules, total_steps=10, **options
        )

    states = saved(*new(0.1))
    with pytest.raises(ScheduleChanged, match=r"base weight_decay of group 0: saved 0\.1"):
        new(0.01)[1].load_state_dict(states[1])
    optimizer, scheduler = new(0.01, on_change="replan")
    load(optimizer, scheduler, states, "optimizer first")
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.005)


def test_base_lr_of_an_unfrozen_group_is_taken_from_the_checkpoint():
    optimizer = adamw(0.1, 0.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    optimizer.step()
    optimizer.param_groups[1]["lr"] = 0.02
    states = saved(optimizer, scheduler, 2)
    other = adamw(0.1, 0.0)
    again = ScheduleLR(other, factor=linear(1, 0), total_steps=10)
    load(other, again, states, "optimizer first")
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


@ORDERS
@pytest.mark.parametrize("on_change", ["raise", "keep", "replan"])
def test_changed_base_lr_under_a_plateau_is_followed_or_refused(on_change, order):
    def new(lr, on_change="raise"):
        optimizer = adamw(lr)
        schedule = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10, on_change=on_change)
        return optimizer, PlateauLR(schedule, patience=0, factor=0.5)

    optimizer, plateau = new(0.1)
    plateau.step(1.0)
    plateau.step(1.0)  # halves the lr
    states = saved(optimizer, plateau)
    other, again = new(0.01, on_change)
    if on_change == "raise":
        with pytest.raises(ScheduleChanged, match="base lr"):
            again.load_state_dict(states[1])
        assert (again.current_factors, again.scheduler.last_epoch) == ([1.0], 0)
        return
    load(other, again, states, order)
    base = 0.1 if on_change == "keep" else 0.01
    assert other.param_groups[0]["lr"] == pytest.approx(base * 0.5 * 0.5)
    other.step()
    assert other.param_groups[0]["lr"] == pytest.approx(base * 0.4 * 0.5)


CHANGES = {"patience": 1, "factor": 0.1, "mode": "max", "min_lr": 0.01, "cooldown": 3}


@pytest.mark.parametrize("on_change", ["raise", "keep", "replan"])
@pytest.mark.parametrize("setting", CHANGES)
def test_changed_settings_of_a_plateau_are_followed_or_refused(setting, on_change):
    def new(on_change="raise", **changed):
        optimizer = adamw()
        schedule = ScheduleLR(optimizer, factor=constant(1), total_steps=100, on_change=on_change)
        return optimizer, PlateauLR(schedule, **{"patience": 5, "factor": 0.5} | changed)

    optimizer, plateau = new()
    plateau.step(1.0)
    states = saved(optimizer, plateau)
    other, again = new(on_change, **{setting: CHANGES[setting]})
    attribute = "min_lrs" if setting == "min_lr" else setting
    given_value, saved_value = getattr(again, attribute), getattr(plateau, attribute)
    if on_change == "raise":
        with pytest.raises(ScheduleChanged, match=attribute):
            load(other, again, states, "optimizer first")
        assert getattr(again, attribute) == given_value
        return
    load(other, again, states, "optimizer first")
    expected = saved_value if on_change == "keep" else given_value
    assert getattr(again, attribute) == expected
    again.step(1.0)


def test_run_that_goes_on_past_its_end_warns_at_the_first_step(caplog):
    optimizer = adamw()
    states = saved(optimizer, ScheduleLR(optimizer, factor=linear(1, 0), total_steps=5), 5)
    other = adamw()
    scheduler = ScheduleLR(other, factor=linear(1, 0), total_steps=5)
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        load(other, scheduler, states, "optimizer first")
        assert not caplog.text  # evaluation alone is fine
        other.step()
    assert "this run ended at 5 steps" in caplog.text
    caplog.clear()
    beyond = adamw()
    ScheduleLR(beyond, factor=linear(1, 0), total_steps=5, initial_step=7)
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        beyond.step()
    assert "this run ended at 5 steps" in caplog.text


# Other code that drives ------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ScheduleLR", "PlateauLR", "drop-in"])
@pytest.mark.parametrize("anneal_epochs", [0, 1, 3])
@pytest.mark.parametrize("lrs", [(0.1,), (0.1, 0.2)])
def test_under_swalr_the_lr_is_that_of_torchs_recipe(lrs, anneal_epochs, variant):
    def run(is_ours):
        optimizer = adamw(*lrs)
        if not is_ours or variant == "drop-in":
            module = drop_in if is_ours else torch.optim.lr_scheduler
            scheduler = module.ConstantLR(optimizer, 1.0)
        else:
            scheduler = ScheduleLR(optimizer, factor=constant(1), total_steps=100)
        if is_ours and variant == "PlateauLR":
            scheduler = PlateauLR(scheduler)
        swa = SWALR(optimizer, swa_lr=0.05, anneal_epochs=anneal_epochs)
        seen = []
        for epoch in range(10):
            for _ in range(3):
                seen.append([group["lr"] for group in optimizer.param_groups])
                optimizer.step()
            if epoch >= 4:
                swa.step()
            else:
                scheduler.step(*[1.0] * (is_ours and variant == "PlateauLR"))
        return seen

    assert run(True) == [pytest.approx(row, rel=1e-12) for row in run(False)]


def test_run_under_swalr_resumes(caplog):
    def new():
        optimizer = adamw()
        scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=20)
        return optimizer, scheduler, SWALR(optimizer, swa_lr=0.05, anneal_epochs=1)

    optimizer, scheduler, swa = new()
    for _ in range(10):
        optimizer.step()
    swa.step()
    with caplog.at_level(logging.INFO, "ratecraft.torch"):
        optimizer.step()
    assert "SWALR sets the lr from now on" in caplog.text
    states = copy.deepcopy([part.state_dict() for part in (optimizer, scheduler, swa)])
    parts = new()
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)
    for _ in range(3):
        parts[0].step()
        assert parts[0].param_groups[0]["lr"] == pytest.approx(0.05)


def test_second_scheduler_warns_once_unless_it_multiplies_on_purpose(caplog):
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        optimizer = adamw()
        ScheduleLR(optimizer, factor=cosine(), total_steps=10)
        ScheduleLR(optimizer, factor=warmup(3), total_steps=10, multiply=True)
        assert not caplog.text
        ScheduleLR(optimizer, factor=linear(1, 0.5), total_steps=10)
        for _ in range(5):
            optimizer.step()
    assert caplog.text.count("another ScheduleLR already schedules this optimizer") == 1


@pytest.mark.parametrize("before", ["torch's cosine", "lr set by hand", "removed ScheduleLR"])
def test_lr_is_the_lr_in_a_second_stage(before):
    optimizer = adamw()
    if before == "torch's cosine":
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        for _ in range(40):
            optimizer.step()
            theirs.step()
    else:
        first = ScheduleLR(optimizer, factor=cosine(), total_steps=100)
        for _ in range(40):
            optimizer.step()
        first.remove()
        if before == "lr set by hand":
            optimizer.param_groups[0]["lr"] = 0.01
    ScheduleLR(optimizer, lr=0.01 * linear(1, 0), total_steps=50)
    seen = []
    for _ in range(3):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    assert seen == pytest.approx([0.01, 0.0098, 0.0096])


# Damaged states --------------------------------------------------------------------------------

GARBAGE = st.sampled_from(
    [math.nan, math.inf, -math.inf, -1, -0.5, True, None, "", "x", [], {}, [[]], 10**400, 1e308,
     [math.nan], {"a": 1}, b"x", 3, 0, 0.5, (1, 2)]
)  # fmt: skip


def paths(value, prefix=()):
    """Return the path of every entry in nested dicts and lists."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        items = ()
    return [p for key, item in items for p in ((*prefix, key), *paths(item, (*prefix, key)))]


def schedulers():
    optimizer = adamw(0.1, 0.2)
    yield optimizer, ScheduleLR(
        optimizer, factor=warmup(2).then(cosine()), eta_min=1e-3, total_steps=20,
        hyperparam_factors={"weight_decay": linear(1, 0)},
    )  # fmt: skip
    optimizer = adamw(0.1)
    yield optimizer, ScheduleLR(optimizer, lr=0.1 * cosine(), total_steps=20, clock="step")
    optimizer = adamw(0.1, 0.2)
    schedule = ScheduleLR(optimizer, factor=cosine(), total_steps=20)
    yield optimizer, PlateauLR(schedule, patience=0, factor=0.5)
    for make in (
        lambda o: drop_in.StepLR(o, 3),
        lambda o: drop_in.CosineAnnealingLR(o, 20, 1e-3),
        lambda o: drop_in.MultiStepLR(o, [3, 5]),
        lambda o: drop_in.OneCycleLR(o, 0.1, 20),
        lambda o: drop_in.ReduceLROnPlateau(o, patience=0),
        lambda o: drop_in.CyclicLR(o, 0.01, 0.1, 3),
        lambda o: drop_in.ExponentialLR(o, 0.9),
        lambda o: drop_in.LinearLR(o, total_iters=9),
        lambda o: drop_in.PolynomialLR(o, 20),
        lambda o: drop_in.CosineAnnealingWarmRestarts(o, 2, 2),
        lambda o: drop_in.SequentialLR(o, [drop_in.LinearLR(o), drop_in.StepLR(o, 3)], [2]),
        lambda o: drop_in.ChainedScheduler([drop_in.LinearLR(o), drop_in.StepLR(o, 3)]),
    ):
        optimizer = adamw(0.1, 0.2)
        yield optimizer, make(optimizer)


COUNT = 15


@pytest.mark.parametrize("variant", range(COUNT))
@settings(deadline=None)
@given(data=st.data())
def test_damaged_state_raises_our_error_and_changes_nothing(variant, data):
    optimizer, scheduler = list(schedulers())[variant]
    is_plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    for metric in (1.0, 1.0, 2.0):
        optimizer.step()
        scheduler.step(*[metric] * is_plateau)
    state = copy.deepcopy(scheduler.state_dict())
    for _ in range(data.draw(st.integers(1, 2))):
        all_paths = paths(state)
        *parents, last = data.draw(st.sampled_from(all_paths))
        target = state
        for key in parents:
            target = target[key]
        if isinstance(target, dict) and data.draw(st.booleans()):
            del target[last]
        else:
            target[last] = copy.deepcopy(data.draw(GARBAGE))

    def snapshot():
        groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        return repr(groups), repr(scheduler.state_dict())

    before = snapshot()
    try:
        scheduler.load_state_dict(state)
    except RatecraftError:
        assert snapshot() == before
        return
    for group in optimizer.param_groups:  # accepted: it must be possible to train on
        assert math.isfinite(group["lr"])
        assert all(map(math.isfinite, group["betas"]))

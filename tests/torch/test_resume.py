"""Saving and resuming: every order of building and loading, and every on_change= option."""

import io
import itertools
import json

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import (
    constant,
    cosine,
    custom,
    epochs,
    linear,
    multiplicative,
    percent,
    restarts,
    staircase,
    tokens,
    warmup,
    wsd,
)
from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.torch import ScheduleLR

SCHEDULE = warmup(5).then(cosine(1, 0))


def half(t):
    return 0.5


def saved(state):
    """Return a state after saving it to a file and loading it with weights_only=True."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed_lrs(scheduler_state, optimizer_state, order):
    """Return the lrs after these steps: o (load optimizer), s (build scheduler), l (load it)."""
    optimizer = sgd(0.1, 0.2)
    scheduler = None
    for action in order:
        if action == "o":
            optimizer.load_state_dict(optimizer_state)
        elif action == "s":
            scheduler = ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30)
        else:
            scheduler.load_state_dict(scheduler_state)
    return lrs_of(optimizer, 20)


ORDERS = ["".join(p) for p in itertools.permutations("osl") if p.index("s") < p.index("l")]


@pytest.mark.parametrize("order", [*ORDERS, "sl"])
@pytest.mark.parametrize("at", [0, 1, 7, 29, 30, 40])
def test_resumes_in_any_order_of_building_and_loading(order, at):
    optimizer = sgd(0.1, 0.2)
    scheduler = ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30)
    lrs_of(optimizer, at)
    states = saved(scheduler.state_dict()), saved(optimizer.state_dict())
    assert resumed_lrs(*states, order) == lrs_of(optimizer, 20)


@pytest.mark.parametrize("at", [0, 7, 29])
def test_initial_step_is_the_number_of_steps_done(at):
    whole = sgd(0.1, 0.2)
    ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    lrs_of(whole, at)
    state = saved(whole.state_dict())
    expected = lrs_of(whole, 10)
    for loaded in (False, True):
        optimizer = sgd(0.1, 0.2)
        if loaded:
            optimizer.load_state_dict(state)
        scheduler = ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30, initial_step=at)
        assert scheduler.last_epoch == at
        assert lrs_of(optimizer, 10) == expected


def test_state_is_plain_readable_data():
    optimizer = named(body=0.1, head=0.2)
    scheduler = ScheduleLR(
        optimizer, factor={"body": SCHEDULE, "head": constant(1)}, total_steps=30, eta_min=0.01
    )
    lrs_of(optimizer, 3)
    state = scheduler.state_dict()
    assert json.loads(json.dumps(state)) == state == saved(state)
    assert state == {
        "format": 2,
        "steps": 3,
        "position": 3.0,
        "config": {
            "factor": {"body": "warmup(5).then(cosine(1, 0))", "head": "constant(1)"},
            "hyperparam_factors": {},
            "total_steps": "30",
            "steps_per_epoch": None,
            "samples_per_step": None,
            "tokens_per_step": None,
            "eta_min": 0.01,
            "midpoint": False,
            "clock": "optimizer",
        },
        "initial_group_count": 2,
        "hyperparam_names": ["lr"],
        "hyperparams": {
            "lr": {
                "base": [0.1, 0.2],
                "external_factor": [1.0, 1.0],
                "value": [group["lr"] for group in optimizer.param_groups],
                "released": False,
            }
        },
        "time_map": {"config": state["config"], "knots": []},
    }


def test_external_factor_resumes_bit_for_bit():
    def build():
        optimizer = sgd(0.1)
        return (
            optimizer,
            ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30),
            lr_scheduler.ExponentialLR(optimizer, 0.93),
        )

    optimizer, ours, theirs = build()
    lrs_of(optimizer, 11, theirs)
    states = [saved(part.state_dict()) for part in (optimizer, ours, theirs)]
    expected = first_lrs(optimizer, 19, theirs)
    for order in itertools.permutations(range(3)):
        parts = build()
        for i in order:
            parts[i].load_state_dict(states[i])
        assert first_lrs(parts[0], 19, parts[2]) == expected


def test_several_schedule_lrs_resume_in_any_order():
    def build():
        optimizer = sgd(0.1)
        return (
            optimizer,
            ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30),
            ScheduleLR(optimizer, factor=cosine(1, 0.5), total_steps=30),
        )

    parts = build()
    lrs_of(parts[0], 11)
    states = [saved(part.state_dict()) for part in parts]
    expected = first_lrs(parts[0], 19)
    for order in itertools.permutations(range(3)):
        again = build()
        for i in order:
            again[i].load_state_dict(states[i])
        assert first_lrs(again[0], 19) == expected


def test_hyperparam_factors_resume():
    def build():
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        factors = {"weight_decay": linear(1, 0), "betas[0]": linear(1, 0.5)}
        return optimizer, ScheduleLR(
            optimizer, factor=constant(1), hyperparam_factors=factors, total_steps=10
        )

    def hyperparams(optimizer):
        return [(g["weight_decay"], g["betas"]) for g in optimizer.param_groups]

    optimizer, scheduler = build()
    for _ in range(4):
        optimizer.step()
    again, resumed = build()
    again.load_state_dict(saved(optimizer.state_dict()))
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert hyperparams(again) == hyperparams(optimizer)
    optimizer.step()
    again.step()
    assert hyperparams(again) == hyperparams(optimizer)


# A changed config ---------------------------------------------------------------------------------


def stopped(at, factor, total_steps, **options):
    """Return the state of a run at a step, and the lrs of its next 500 steps."""
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=factor, total_steps=total_steps, **options)
    lrs_of(optimizer, at)
    return saved(scheduler.state_dict()), first_lrs(optimizer, 500)


def loaded(state, factor, total_steps, on_change, **options):
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(
        optimizer, factor=factor, total_steps=total_steps, on_change=on_change, **options
    )
    scheduler.load_state_dict(state)
    return optimizer, scheduler


def after(state, factor, total_steps, on_change, **options):
    """Return the lrs by step after resuming with ``on_change``."""
    optimizer, scheduler = loaded(state, factor, total_steps, on_change, **options)
    at = scheduler.last_epoch
    return {at + i: lr for i, lr in enumerate(first_lrs(optimizer, 300))}


def test_changed_config_raises_with_both_configs_and_lrs():
    state, _ = stopped(50, cosine(), 100)
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=200)
    with pytest.raises(ScheduleChanged) as refusal:
        scheduler.load_state_dict(state)
    assert str(refusal.value) == (
        "the state was saved at step 50 with a different config\n"
        "  total_steps: saved 100\n"
        "               now   200\n"
        "next lr of group 0 with the saved config: 0.5\n"
        "next lr of group 0 with this config: 0.853553\n"
        'pass on_change="keep" to keep the saved config, "replan" to use this config from here '
        'on, or "continue" to stretch the rest of the saved schedule to the new total_steps'
    )
    # Nothing was changed.
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (0, 1.0)
    assert first_lrs(optimizer, 3)[2] == cosine().resolve(total_steps=200)(2)


def test_keep_replan_and_continue():
    # The numbers of docs/semantics.md.
    state, _ = stopped(50, cosine(), 100)
    as_saved = after(state, cosine(), 200, "keep")
    assert as_saved[50] == pytest.approx(0.5)
    assert as_saved[100] == as_saved[150] == 0
    replanned = after(state, cosine(), 200, "replan")
    assert replanned[50] == pytest.approx(0.853553, abs=1e-6)
    assert replanned[200] == 0
    continued = after(state, cosine(), 200, "continue")
    numbers = {50: 0.5, 51: 0.494764, 125: 0.146447, 199: 2.7e-5, 200: 0}
    for k, lr in numbers.items():
        assert continued[k] == pytest.approx(lr, abs=1e-6)


def test_continue_stretches_the_rest_of_every_schedule():
    state, _ = stopped(50, wsd(10, percent(20), "linear"), 100)
    lrs = after(state, wsd(10, percent(20), "linear"), 200, "continue")
    assert [lrs[k] for k in (50, 139, 140, 170, 200)] == pytest.approx([1, 1, 1, 0.5, 0])
    state, _ = stopped(60, linear(1, 0).repeat(4), 100)
    lrs = after(state, linear(1, 0).repeat(4), 260, "continue")
    assert lrs[60] == pytest.approx(0.6)
    assert lrs[134] < 0.02
    assert lrs[135] == pytest.approx(1)
    assert lrs[259] == pytest.approx(0.008)


@pytest.mark.parametrize(
    "factor",
    [cosine(), SCHEDULE, wsd(10), restarts(n=3), staircase([1, 0.5, 0.1], every=percent(30))],
)
@pytest.mark.parametrize("at", [0, 1, 33, 99])
def test_continue_to_the_same_end_changes_no_bit(factor, at):
    state, expected = stopped(at, factor, 100)
    # The same length in epochs, so the config differs but the schedule does not.
    lrs = after(state, factor, epochs(1), "continue", steps_per_epoch=100)
    assert [lrs[at + i] for i in range(200)] == expected[:200]


@pytest.mark.parametrize("factor", [cosine(), SCHEDULE, restarts(n=3)])
def test_continue_twice_equals_continue_once(factor):
    state, expected = stopped(40, factor, 100)
    once = loaded(state, factor, 300, "continue")[1]
    assert once.get_lr()[0] == expected[0]
    twice = loaded(saved(once.state_dict()), factor, 200, "continue")[1]
    directly = loaded(state, factor, 200, "continue")[1]
    assert twice.state_dict()["time_map"] == directly.state_dict()["time_map"]
    assert twice.get_lr() == directly.get_lr()


def test_continued_run_resumes():
    state, _ = stopped(50, cosine(), 100)
    optimizer, scheduler = loaded(state, cosine(), 200, "continue")
    lrs_of(optimizer, 30)
    state = saved(scheduler.state_dict())
    lr = optimizer.param_groups[0]["lr"]
    again, _ = loaded(state, cosine(), 200, "raise")
    assert first_lrs(again, 100) == first_lrs(optimizer, 100)
    # It can be continued once more; the first knot stays.
    further, continued = loaded(state, cosine(), 400, "continue")
    assert [knot[0] for knot in continued.state_dict()["time_map"]["knots"]] == [0, 50, 80, 400]
    assert first_lrs(further, 1) == [lr]


def test_invalid_continue_raises():
    state, _ = stopped(50, cosine(), 100)
    with pytest.raises(ScheduleChanged, match="changed as well: factor"):
        loaded(state, cosine(1, 0.1), 200, "continue")
    with pytest.raises(BindingError, match="nothing is left to stretch"):
        loaded(state, cosine(), 50, "continue")
    ended, _ = stopped(100, cosine(), 100)
    with pytest.raises(BindingError, match="nothing is left to stretch"):
        loaded(ended, cosine(), 200, "continue")
    endless, _ = stopped(5, warmup(10), None)
    with pytest.raises(BindingError, match="needs total_steps= in both configs"):
        loaded(endless, warmup(10), 200, "continue")


def test_changed_schedule_or_eta_min_raises():
    state, _ = stopped(50, cosine(), 100)
    with pytest.raises(ScheduleChanged, match=r"saved cosine\(1, 0\)\n +now   cosine\(1, 0.1\)"):
        loaded(state, cosine(1, 0.1), 100, "raise")
    with pytest.raises(ScheduleChanged, match=r"eta_min: saved None\n +now   0.2"):
        loaded(state, cosine(), 100, "raise", eta_min=0.2)
    assert after(state, cosine(1, 0.1), 100, "keep")[99] == pytest.approx(0.000247, abs=1e-6)


def test_functions_are_compared_by_name_and_lambdas_raise():
    state, _ = stopped(5, custom(half), 10)
    assert after(state, custom(half), 10, "raise")[5] == 0.5
    lambda_state, _ = stopped(5, custom(lambda t: 0.5), 10)
    with pytest.raises(ScheduleChanged, match="lambda"):
        after(lambda_state, custom(lambda t: 0.5), 10, "raise")
    assert after(lambda_state, custom(lambda t: 0.25), 10, "replan")[5] == 0.25
    with pytest.raises(BindingError, match="cannot read the saved config"):
        loaded(state, constant(1), 10, "replan")
    product, _ = stopped(5, multiplicative(half), 10)
    assert after(product, multiplicative(half), 10, "raise")[6] == 0.5**6


def test_clock_with_another_unit_raises():
    state, _ = stopped(5, linear(1, 0), 10)
    with pytest.raises(BindingError, match="saved config counts steps and this one tokens"):
        loaded(state, linear(1, 0), tokens(1e6), "replan")


def test_different_hyperparameters_raise():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(
        optimizer,
        factor=linear(1, 0),
        hyperparam_factors={"weight_decay": linear(1, 0)},
        total_steps=10,
        on_change="replan",
    )
    with pytest.raises(BindingError, match="schedules lr, and this one lr, weight_decay"):
        scheduler.load_state_dict(state)
    state = state_with_momentum()
    with pytest.raises(BindingError, match="schedules lr, momentum, and this one lr; build"):
        loaded(state, linear(1, 0), 10, "keep")


def state_with_momentum():
    optimizer = sgd(1.0, momentum=0.9)
    factors = {"momentum": linear(1, 0.5)}
    return ScheduleLR(
        optimizer, factor=linear(1, 0), hyperparam_factors=factors, total_steps=10
    ).state_dict()


DAMAGED = {"format": 2, "steps": 1, "position": 1, "hyperparams": {}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "this is not the state of a ScheduleLR$"),
        (None, "this is not the state"),
        ({"last_epoch": 7, "_step_count": 8}, "of a torch scheduler: .* with initial_step=7"),
        ({"format": 2}, "this is not the state"),
        ({"format": 2, "config": {}}, "cannot read the state"),
        (DAMAGED | {"config": {"factor": "cosin()"}}, "cosin"),
        (DAMAGED | {"config": {"factor": 5}}, "cannot read the saved config"),
        ({"format": 3, "config": {}}, "has format 3, and this version of ratecraft reads format 2"),
    ],
)
def test_invalid_state_raises_and_changes_nothing(state, message):
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 2)
    with pytest.raises(BindingError, match=message):
        scheduler.load_state_dict(state)
    assert first_lrs(optimizer, 1) == [0.8]


# A state of ScheduleLR(sgd(1.0), factor=linear(1, 0), total=10) as ratecraft wrote it before.
FORMAT_1 = {
    "updates": 5,
    "position": 5.0,
    "plan": {"factor": "linear(1, 0)", "total": "10"},
    "groups": 1,
    "fields": {"lr": {"base": [1.0], "carried": [1.0], "now": [0.5]}},
}


def test_state_of_format_1_raises_and_changes_nothing():
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    message = (
        "the state of this ScheduleLR has format 1, and this version of ratecraft reads format 2 "
        "only; it cannot be converted: start from the model weights with initial_step="
    )
    for refuse in (scheduler.load_state_dict, scheduler.differences):
        with pytest.raises(BindingError) as refusal:
            refuse(FORMAT_1)
        assert str(refusal.value) == message
    assert first_lrs(optimizer, 2) == [1.0, 0.9]


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state["config"].update(eta_min="x"),
        lambda state: state.update(time_map={"config": state["config"], "knots": [[0, 0]]}),
        lambda state: state.update(time_map={"config": state["config"], "knots": [[5, 0], [5, 1]]}),
        lambda state: state["hyperparams"]["lr"].update(value=["x"]),
        lambda state: state["hyperparams"].pop("lr"),
    ],
)
def test_edited_state_raises(edit):
    state, _ = stopped(5, linear(1, 0), 10)
    edit(state)
    optimizer, scheduler = sgd(1.0), None
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    with pytest.raises(BindingError):
        scheduler.load_state_dict(state)
    assert first_lrs(optimizer, 2)[1] == 0.9


def test_keep_raises_if_the_saved_config_uses_factor_instead_of_lr():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, lr=linear(1, 0), total_steps=10, on_change="keep")
    with pytest.raises(BindingError, match="saved config uses factor= and this scheduler lr="):
        scheduler.load_state_dict(state)


def test_continue_with_midpoint_has_no_step_at_zero():
    state, _ = stopped(50, linear(1, 0), 100, midpoint=True)
    lrs = after(state, linear(1, 0), 250, "continue", midpoint=True)
    assert min(lrs[k] for k in range(50, 250)) > 0
    assert lrs[249] == pytest.approx(0.00125)


def test_order_of_hyperparam_factors_does_not_matter():
    def build(*names, **options):
        optimizer = sgd(1.0, momentum=0.9, weight_decay=0.1)
        factors = {name: linear(1, 0.5) for name in names}
        return optimizer, ScheduleLR(
            optimizer, factor=linear(1, 0), hyperparam_factors=factors, **options
        )

    optimizer, scheduler = build("momentum", "weight_decay", total_steps=10)
    lrs_of(optimizer, 3)
    again, resumed = build("weight_decay", "momentum", total_steps=20, on_change="keep")
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert first_lrs(again, 5) == first_lrs(optimizer, 5)
    assert again.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]


LATE = {
    "factor for all groups": lambda o: [ScheduleLR(o, factor=linear(1, 0), total_steps=20)],
    "lr": lambda o: [ScheduleLR(o, lr=linear(1, 0), total_steps=20)],
    "factor by group": lambda o: [ScheduleLR(o, factor={"0": linear(1, 0)}, total_steps=20)],
    "eta_min": lambda o: [ScheduleLR(o, factor=linear(1, 0), eta_min=0.01, total_steps=20)],
    "two, one with eta_min": lambda o: [
        ScheduleLR(o, factor=linear(1, 0), eta_min=0.01, total_steps=20),
        ScheduleLR(o, factor=linear(1, 0.5), total_steps=20),
    ],
}


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("stepped", [False, True])
def test_run_with_a_late_group_resumes(name, stepped):
    def build():
        optimizer = sgd(0.1)
        return optimizer, LATE[name](optimizer)

    def add(optimizer):
        new_group = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.005}
        optimizer.add_param_group(new_group)

    optimizer, schedulers = build()
    lrs_of(optimizer, 5)
    add(optimizer)
    if stepped:
        lrs_of(optimizer, 2)
    states = [saved(scheduler.state_dict()) for scheduler in schedulers]
    optimizer_state = saved(optimizer.state_dict())
    lrs_of(optimizer, 1)
    expected = lrs_of(optimizer, 10)
    for optimizer_first in (False, True):
        again, resumed = build()
        add(again)
        if optimizer_first:
            again.load_state_dict(optimizer_state)
        for scheduler, state in zip(resumed, states, strict=True):
            scheduler.load_state_dict(state)
        if not optimizer_first:
            again.load_state_dict(optimizer_state)
        lrs_of(again, 1)
        assert lrs_of(again, 10) == expected


def test_state_of_another_number_of_groups_raises():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(1.0, 2.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    with pytest.raises(BindingError, match="has 1 param groups, and this optimizer has 2"):
        scheduler.load_state_dict(state)


def test_optimizer_state_alone_does_not_move_the_schedule():
    whole = sgd(0.1)
    ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    lrs_of(whole, 10)
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30)
    lrs_of(optimizer, 2)
    optimizer.load_state_dict(saved(whole.state_dict()))
    assert first_lrs(optimizer, 1)[0] == 0.1 * SCHEDULE.resolve(total_steps=30)(2)


@pytest.mark.parametrize("division", ["every", "at", "lengths"])
@pytest.mark.parametrize("on_change", ["raise", "keep"])
def test_staircase_of_5000_levels_resumes(division, on_change):
    divisions = {"every": 3, "at": range(3, 15_000, 3), "lengths": [3] * 5000}
    levels = [1 / (i + 3) for i in range(5000)]
    schedule = staircase(levels, **{division: divisions[division]})
    state, expected = stopped(40, schedule, 15_000)
    another = linear(1, 0) if on_change == "keep" else schedule
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=another, total_steps=15_000, on_change=on_change)
    scheduler.load_state_dict(state)
    assert first_lrs(optimizer, 500) == expected

"""Saving and resuming: every order of building and loading, and every answer to another plan."""

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

PLAN = warmup(5).then(cosine(1, 0))


def half(t):
    return 0.5


def saved(state):
    """Return a state after a trip through a file that loads without unpickling."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed_lrs(scheduler_state, optimizer_state, order, factor=PLAN, total_steps=30, **said):
    """Build and load in an order of o (optimizer state), s (scheduler), l (its state)."""
    optimizer = sgd(0.1, 0.2)
    scheduler = None
    for act in order:
        if act == "o":
            optimizer.load_state_dict(optimizer_state)
        elif act == "s":
            scheduler = ScheduleLR(optimizer, factor=factor, total_steps=total_steps, **said)
        else:
            scheduler.load_state_dict(scheduler_state)
    return lrs_of(optimizer, 20)


ORDERS = ["".join(p) for p in itertools.permutations("osl") if p.index("s") < p.index("l")]


@pytest.mark.parametrize("order", [*ORDERS, "sl"])
@pytest.mark.parametrize("at", [0, 1, 7, 29, 30, 40])
def test_any_order_of_building_and_loading_is_right(order, at):
    optimizer = sgd(0.1, 0.2)
    scheduler = ScheduleLR(optimizer, factor=PLAN, total_steps=30)
    lrs_of(optimizer, at)
    states = saved(scheduler.state_dict()), saved(optimizer.state_dict())
    assert resumed_lrs(*states, order) == lrs_of(optimizer, 20)


@pytest.mark.parametrize("at", [0, 7, 29])
def test_start_says_how_many_steps_are_done(at):
    whole = sgd(0.1, 0.2)
    ScheduleLR(whole, factor=PLAN, total_steps=30)
    lrs_of(whole, at)
    state = saved(whole.state_dict())
    expected = lrs_of(whole, 10)
    for loaded in (False, True):
        optimizer = sgd(0.1, 0.2)
        if loaded:
            optimizer.load_state_dict(state)
        scheduler = ScheduleLR(optimizer, factor=PLAN, total_steps=30, initial_step=at)
        assert scheduler.last_epoch == at
        assert lrs_of(optimizer, 10) == expected


def test_the_state_is_plain_data_and_readable():
    optimizer = named(body=0.1, head=0.2)
    scheduler = ScheduleLR(
        optimizer, factor={"body": PLAN, "head": constant(1)}, total_steps=30, eta_min=0.01
    )
    lrs_of(optimizer, 3)
    state = scheduler.state_dict()
    assert json.loads(json.dumps(state)) == state == saved(state)
    assert state["steps"] == 3
    assert state["plan"] == {
        "factor": {"body": "warmup(5).then(cosine(1, 0))", "head": "constant(1)"},
        "total": "30",
        "floor": 0.01,
    }
    assert state["fields"]["lr"]["base"] == [0.1, 0.2]
    assert state["fields"]["lr"]["external_factor"] == [1.0, 1.0]
    assert state["fields"]["lr"]["now"] == [g["lr"] for g in optimizer.param_groups]


def test_what_others_did_is_saved_and_comes_back_to_the_last_bit():
    def build():
        optimizer = sgd(0.1)
        return (
            optimizer,
            ScheduleLR(optimizer, factor=PLAN, total_steps=30),
            lr_scheduler.ExponentialLR(optimizer, 0.93),
        )

    optimizer, ours, theirs = build()
    lrs_of(optimizer, 11, theirs)
    states = [saved(thing.state_dict()) for thing in (optimizer, ours, theirs)]
    expected = first_lrs(optimizer, 19, theirs)
    for order in itertools.permutations(range(3)):
        things = build()
        for i in order:
            things[i].load_state_dict(states[i])
        assert first_lrs(things[0], 19, things[2]) == expected


def test_several_of_ours_come_back_in_any_order():
    def build():
        optimizer = sgd(0.1)
        return (
            optimizer,
            ScheduleLR(optimizer, factor=PLAN, total_steps=30),
            ScheduleLR(optimizer, factor=cosine(1, 0.5), total_steps=30),
        )

    things = build()
    lrs_of(things[0], 11)
    states = [saved(thing.state_dict()) for thing in things]
    expected = first_lrs(things[0], 19)
    for order in itertools.permutations(range(3)):
        again = build()
        for i in order:
            again[i].load_state_dict(states[i])
        assert first_lrs(again[0], 19) == expected


def test_other_fields_come_back():
    def build():
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        said = {"weight_decay": linear(1, 0), "betas[0]": linear(1, 0.5)}
        return optimizer, ScheduleLR(
            optimizer, factor=constant(1), hyperparam_factors=said, total_steps=10
        )

    def fields(optimizer):
        return [(g["weight_decay"], g["betas"]) for g in optimizer.param_groups]

    optimizer, scheduler = build()
    for _ in range(4):
        optimizer.step()
    again, resumed = build()
    again.load_state_dict(saved(optimizer.state_dict()))
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert fields(again) == fields(optimizer)
    optimizer.step()
    again.step()
    assert fields(again) == fields(optimizer)


# Another plan -------------------------------------------------------------------------------------


def stopped(at, factor, total, **said):
    """Return the state of a run that stopped at a step, and the lrs it would have had."""
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=factor, total_steps=total, **said)
    lrs_of(optimizer, at)
    return saved(scheduler.state_dict()), first_lrs(optimizer, 500)


def loaded(state, factor, total, answer, **said):
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=factor, total_steps=total, on_change=answer, **said)
    scheduler.load_state_dict(state)
    return optimizer, scheduler


def after(state, factor, total, answer, **said):
    """Return the lrs by step after resuming as ``answer`` says."""
    optimizer, scheduler = loaded(state, factor, total, answer, **said)
    at = scheduler.last_epoch
    return {at + i: lr for i, lr in enumerate(first_lrs(optimizer, 300))}


def test_by_default_another_plan_is_refused_with_both_plans_and_lrs():
    state, _ = stopped(50, cosine(), 100)
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=200)
    with pytest.raises(ScheduleChanged) as refusal:
        scheduler.load_state_dict(state)
    assert str(refusal.value) == (
        "the state was saved at step 50 under another plan\n"
        "  total: saved 100\n"
        "         now   200\n"
        "the next lr under the saved plan is 0.5\n"
        "the next lr under this plan is 0.853553\n"
        'say on_change="keep" to go on as saved, "replan" to follow this plan from here, or '
        '"continue" to stretch what is left of the saved plan to the new end'
    )
    # And nothing was changed.
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (0, 1.0)
    assert first_lrs(optimizer, 3)[2] == cosine().resolve(total_steps=200)(2)


def test_keep_replan_and_continue_do_what_they_say():
    # The numbers of docs/semantics.md.
    state, _ = stopped(50, cosine(), 100)
    kept = after(state, cosine(), 200, "keep")
    assert kept[50] == pytest.approx(0.5)
    assert kept[100] == kept[150] == 0
    replanned = after(state, cosine(), 200, "replan")
    assert replanned[50] == pytest.approx(0.853553, abs=1e-6)
    assert replanned[200] == 0
    continued = after(state, cosine(), 200, "continue")
    numbers = {50: 0.5, 51: 0.494764, 125: 0.146447, 199: 2.7e-5, 200: 0}
    for k, lr in numbers.items():
        assert continued[k] == pytest.approx(lr, abs=1e-6)


def test_continue_stretches_what_is_left_of_every_kind():
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
    "factor", [cosine(), PLAN, wsd(10), restarts(n=3), staircase([1, 0.5, 0.1], every=percent(30))]
)
@pytest.mark.parametrize("at", [0, 1, 33, 99])
def test_continuing_to_the_old_end_changes_no_bit(factor, at):
    state, expected = stopped(at, factor, 100)
    # The same plan in other words: another text for the same length.
    lrs = after(state, factor, epochs(1), "continue", steps_per_epoch=100)
    assert [lrs[at + i] for i in range(200)] == expected[:200]


@pytest.mark.parametrize("factor", [cosine(), PLAN, restarts(n=3)])
def test_continuing_jumps_nowhere_and_twice_is_once(factor):
    state, expected = stopped(40, factor, 100)
    once = loaded(state, factor, 300, "continue")[1]
    assert once.get_lr()[0] == expected[0]
    twice = loaded(saved(once.state_dict()), factor, 200, "continue")[1]
    straight = loaded(state, factor, 200, "continue")[1]
    assert twice.state_dict()["bend"] == straight.state_dict()["bend"]
    assert twice.get_lr() == straight.get_lr()


def test_a_bent_plan_resumes_as_itself():
    state, _ = stopped(50, cosine(), 100)
    optimizer, scheduler = loaded(state, cosine(), 200, "continue")
    lrs_of(optimizer, 30)
    state = saved(scheduler.state_dict())
    lr = optimizer.param_groups[0]["lr"]
    again, _ = loaded(state, cosine(), 200, "raise")
    assert first_lrs(again, 100) == first_lrs(optimizer, 100)
    # And it can be bent once more: the first bend stays where it was.
    further, bent = loaded(state, cosine(), 400, "continue")
    assert [knot[0] for knot in bent.state_dict()["bend"]["knots"]] == [0, 50, 80, 400]
    assert first_lrs(further, 1) == [lr]


def test_continue_refuses_what_it_cannot_do():
    state, _ = stopped(50, cosine(), 100)
    with pytest.raises(ScheduleChanged, match="but factor differs, too"):
        loaded(state, cosine(1, 0.1), 200, "continue")
    with pytest.raises(BindingError, match="nothing is left to stretch"):
        loaded(state, cosine(), 50, "continue")
    ended, _ = stopped(100, cosine(), 100)
    with pytest.raises(BindingError, match="nothing is left to stretch"):
        loaded(ended, cosine(), 200, "continue")
    endless, _ = stopped(5, warmup(10), None)
    with pytest.raises(BindingError, match="needs total_steps= in both plans"):
        loaded(endless, warmup(10), 200, "continue")


def test_a_changed_text_asks_too_and_a_changed_floor():
    state, _ = stopped(50, cosine(), 100)
    with pytest.raises(ScheduleChanged, match=r"saved cosine\(1, 0\)\n +now   cosine\(1, 0.1\)"):
        loaded(state, cosine(1, 0.1), 100, "raise")
    with pytest.raises(ScheduleChanged, match=r"floor: saved None\n +now   0.2"):
        loaded(state, cosine(), 100, "raise", floor=0.2)
    assert after(state, cosine(1, 0.1), 100, "keep")[99] == pytest.approx(0.000247, abs=1e-6)


def test_functions_are_known_by_name_and_lambdas_ask():
    state, _ = stopped(5, custom(half), 10)
    assert after(state, custom(half), 10, "raise")[5] == 0.5
    lambda_state, _ = stopped(5, custom(lambda t: 0.5), 10)
    with pytest.raises(ScheduleChanged, match="lambda"):
        after(lambda_state, custom(lambda t: 0.5), 10, "raise")
    assert after(lambda_state, custom(lambda t: 0.25), 10, "replan")[5] == 0.25
    with pytest.raises(BindingError, match="saved plan cannot be read"):
        loaded(state, constant(1), 10, "replan")
    product, _ = stopped(5, multiplicative(half), 10)
    assert after(product, multiplicative(half), 10, "raise")[6] == 0.5**6


def test_clocks_that_count_other_things_do_not_mix():
    state, _ = stopped(5, linear(1, 0), 10)
    with pytest.raises(BindingError, match="saved plan counts steps and this one tokens"):
        loaded(state, linear(1, 0), tokens(1e6), "replan")


def test_other_fields_than_saved_are_refused():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(1.0)
    more = ScheduleLR(
        optimizer,
        factor=linear(1, 0),
        hyperparam_factors={"weight_decay": linear(1, 0)},
        total_steps=10,
        on_change="replan",
    )
    with pytest.raises(BindingError, match="drives lr, and this one lr, weight_decay"):
        more.load_state_dict(state)
    fewer = loaded_fields_state()
    with pytest.raises(BindingError, match="drives lr, momentum, and this one lr; build"):
        loaded(fewer, linear(1, 0), 10, "keep")


def loaded_fields_state():
    optimizer = sgd(1.0, momentum=0.9)
    said = {"momentum": linear(1, 0.5)}
    return ScheduleLR(
        optimizer, factor=linear(1, 0), hyperparam_factors=said, total_steps=10
    ).state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "this is no state of a ScheduleLR$"),
        (None, "this is no state"),
        ({"last_epoch": 7, "_step_count": 8}, "a torch scheduler's: build this one with start=7"),
        ({"plan": {}}, "cannot be read"),
        ({"plan": {"factor": "cosin()"}, "steps": 1, "position": 1, "fields": {}}, "cosin"),
        ({"plan": {"factor": 5}, "steps": 1, "position": 1, "fields": {}}, "cannot be read"),
    ],
)
def test_a_state_that_is_none_is_refused_and_nothing_is_changed(state, message):
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 2)
    with pytest.raises(BindingError, match=message):
        scheduler.load_state_dict(state)
    assert first_lrs(optimizer, 1) == [0.8]


@pytest.mark.parametrize(
    "hand",
    [
        lambda state: state["plan"].update(floor="x"),
        lambda state: state.update(bend={"plan": state["plan"], "knots": [[0, 0]]}),
        lambda state: state.update(bend={"plan": state["plan"], "knots": [[5, 0], [5, 1]]}),
        lambda state: state["fields"]["lr"].update(now=["x"]),
        lambda state: state["fields"].pop("lr"),
    ],
)
def test_a_state_edited_by_hand_is_refused(hand):
    state, _ = stopped(5, linear(1, 0), 10)
    hand(state)
    optimizer, scheduler = sgd(1.0), None
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    with pytest.raises(BindingError):
        scheduler.load_state_dict(state)
    assert first_lrs(optimizer, 2)[1] == 0.9


def test_keeping_a_lr_where_a_factor_was_built_is_refused():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, lr=linear(1, 0), total_steps=10, on_change="keep")
    with pytest.raises(BindingError, match="saved plan is a factor= and this one an lr="):
        scheduler.load_state_dict(state)


def test_mid_continues_without_an_step_at_zero():
    state, _ = stopped(50, linear(1, 0), 100, sample="mid")
    lrs = after(state, linear(1, 0), 250, "continue", sample="mid")
    assert min(lrs[k] for k in range(50, 250)) > 0
    assert lrs[249] == pytest.approx(0.00125)


def test_the_order_of_fields_does_not_matter():
    def build(*names, **said):
        optimizer = sgd(1.0, momentum=0.9, weight_decay=0.1)
        fields = {name: linear(1, 0.5) for name in names}
        return optimizer, ScheduleLR(
            optimizer, factor=linear(1, 0), hyperparam_factors=fields, **said
        )

    optimizer, scheduler = build("momentum", "weight_decay", total_steps=10)
    lrs_of(optimizer, 3)
    again, resumed = build("weight_decay", "momentum", total_steps=20, on_change="keep")
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert first_lrs(again, 5) == first_lrs(optimizer, 5)
    assert again.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]


LATE = {
    "one for all": lambda o: [ScheduleLR(o, factor=linear(1, 0), total_steps=20)],
    "an lr": lambda o: [ScheduleLR(o, lr=linear(1, 0), total_steps=20)],
    "by group": lambda o: [ScheduleLR(o, factor={"0": linear(1, 0)}, total_steps=20)],
    "a floor": lambda o: [ScheduleLR(o, factor=linear(1, 0), eta_min=0.01, total_steps=20)],
    "two, one with a floor": lambda o: [
        ScheduleLR(o, factor=linear(1, 0), eta_min=0.01, total_steps=20),
        ScheduleLR(o, factor=linear(1, 0.5), total_steps=20),
    ],
}


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("stepped", [False, True])
def test_a_run_with_a_late_group_resumes(kind, stepped):
    def build():
        optimizer = sgd(0.1)
        return optimizer, LATE[kind](optimizer)

    def add(optimizer):
        late = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.005}
        optimizer.add_param_group(late)

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


def test_a_state_of_other_groups_is_refused():
    state, _ = stopped(5, linear(1, 0), 10)
    optimizer = sgd(1.0, 2.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    with pytest.raises(BindingError, match="of 1 param groups, and this optimizer has 2"):
        scheduler.load_state_dict(state)


def test_an_optimizer_state_alone_does_not_move_the_plan():
    whole = sgd(0.1)
    ScheduleLR(whole, factor=PLAN, total_steps=30)
    lrs_of(whole, 10)
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=PLAN, total_steps=30)
    lrs_of(optimizer, 2)
    optimizer.load_state_dict(saved(whole.state_dict()))
    assert first_lrs(optimizer, 1)[0] == 0.1 * PLAN.resolve(total_steps=30)(2)

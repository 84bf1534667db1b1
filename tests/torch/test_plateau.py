"""PlateauLR: a schedule times a factor that follows a metric; its decisions replay."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimizers import named, sgd
from torch.optim import lr_scheduler

from ratecraft import Schedule, constant, cosine, linear, staircase, tokens, warmup
from ratecraft.diagnostics import describe, preview
from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.torch import PlateauLR, ScheduleLR
from ratecraft.torch.drop_in import ReduceLROnPlateau

OPEN = warmup(10).then(cosine(1, 0.1))
TOTAL, EVERY = 60, 3  # a metric after every third step

losses = st.floats(-5, 5) | st.sampled_from([0.0, math.nan, math.inf, 1.0, 1.0])
rules = {
    "mode": st.sampled_from(["min", "max"]),
    "factor": st.sampled_from([0.1, 0.5, 0.9]),
    "patience": st.integers(0, 3),
    "threshold": st.sampled_from([1e-4, 0.1, 0.0]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
    "cooldown": st.integers(0, 3),
    "min_lr": st.sampled_from([0, 0.01, [0.01, 0.1]]),
    "eps": st.sampled_from([1e-8, 0.02]),
}


def lrs(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def saved(state):
    """Return a state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run(optimizer, scheduler, metrics, done=0):
    """Train on; return the lrs before each step."""
    seen = []
    for k in range(done, EVERY * len(metrics)):
        seen.append(lrs(optimizer))
        optimizer.step()
        if k % EVERY == EVERY - 1:
            scheduler.step(metrics[k // EVERY])
    return seen


def warm(**said):
    mine = sgd(0.1, 1.0)
    return mine, PlateauLR(ScheduleLR(mine, factor=OPEN, total_steps=TOTAL), **said)


@given(metrics=st.lists(losses, max_size=40), **rules)
def test_decisions_are_torchs_and_the_lr_is_theirs_times_the_schedule(metrics, **said):
    mine, its = sgd(0.1, 1.0), sgd(0.1, 1.0)
    schedule = ScheduleLR(mine, factor=OPEN, total_steps=TOTAL)
    ours, theirs = PlateauLR(schedule, **said), lr_scheduler.ReduceLROnPlateau(its, **said)
    for k, metric in enumerate(metrics):
        mine.step()
        ours.step(metric)
        theirs.step(metric)
        expected = [lr * schedule.curve(k + 1) for lr in lrs(its)]
        assert lrs(mine) == pytest.approx(expected, rel=1e-12)
        assert ours.get_last_lr() == lrs(mine)
        assert ours.num_bad_epochs == theirs.num_bad_epochs
        assert ours.cooldown_counter == theirs.cooldown_counter


@given(metrics=st.lists(losses, min_size=20, max_size=20), **rules)
def test_the_decisions_replay_without_the_metric(metrics, **said):
    mine, plateau = warm(**said)
    seen = run(mine, plateau, metrics)
    again = plateau.as_schedule()
    other = sgd(0.1, 1.0)
    if isinstance(again, Schedule):
        ScheduleLR(other, factor=OPEN * again, total_steps=TOTAL)
    else:
        ScheduleLR(other, factor={name: OPEN * s for name, s in again.items()}, total_steps=TOTAL)
    for row in seen:
        assert lrs(other) == pytest.approx(row, rel=1e-12)
        other.step()


@given(
    metrics=st.lists(losses, min_size=20, max_size=20),
    done=st.integers(0, TOTAL - 1),
    optimizer_first=st.booleans(),
    **rules,
)
def test_resumes_bit_for_bit(metrics, done, optimizer_first, **said):
    mine, plateau = warm(**said)
    whole = []
    for k in range(TOTAL):
        if k == done:
            states = saved(mine.state_dict()), saved(plateau.state_dict())
        whole.append(lrs(mine))
        mine.step()
        if k % EVERY == EVERY - 1:
            plateau.step(metrics[k // EVERY])
    other, resumed = warm(**said)
    things = [(other, states[0]), (resumed, states[1])]
    for thing, state in things if optimizer_first else things[::-1]:
        thing.load_state_dict(state)
    assert run(other, resumed, metrics, done) == whole[done:]
    assert repr(resumed.decisions) == repr(plateau.decisions)  # NaN is no equal of itself


def test_it_is_a_reduce_on_plateau_for_whoever_asks():
    _, plateau = warm()
    assert isinstance(plateau, lr_scheduler.ReduceLROnPlateau)
    assert isinstance(plateau, lr_scheduler.LRScheduler)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_is_no_improvement(mode):
    mine, plateau = warm(mode=mode, patience=1, factor=0.5)
    run(mine, plateau, [1.0, math.nan, math.nan])
    assert plateau.best == 1.0
    assert [d["factors"] for d in plateau.decisions] == [[0.5, 0.5]]
    plateau.step(math.nan)  # the first metrics may be, too
    _, other = warm(mode=mode, patience=0)
    other.step(math.nan)
    assert other.reduced == [0.1, 0.1]


def test_min_lr_bounds_the_highest_lr_of_the_schedule_not_the_present_one():
    mine = sgd(1.0)
    plateau = PlateauLR(
        ScheduleLR(mine, lr=1e-3 * OPEN, total_steps=TOTAL), patience=0, factor=0.1, min_lr=5e-4
    )
    # At step 0 of the warm-up the lr is 0, and still the factor falls, but to a half only.
    plateau.step(1.0)
    plateau.step(1.0)
    assert plateau.reduced == [0.5]
    plateau.step(1.0)
    assert plateau.reduced == [0.5]
    for _ in range(10):
        mine.step()
    assert lrs(mine) == [5e-4]


def test_the_highest_lr_of_a_long_schedule_is_found_to_the_step():
    mine = sgd(1.0)
    schedule = ScheduleLR(mine, lr=warmup(1237).then(linear(1, 0)), total_steps=100_000)
    assert schedule.highest() == [1.0]


def test_tensor_lrs_are_told_as_copies():
    mine = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1))
    plateau = ReduceLROnPlateau(mine, patience=0, factor=0.5)
    plateau.step(1.0)
    before = plateau.get_last_lr()
    plateau.step(1.0)
    assert float(before[0]) == pytest.approx(0.1)
    assert float(plateau.get_last_lr()[0]) == pytest.approx(0.05)


def test_min_lr_under_a_floor():
    mine = sgd(0.1)
    plateau = PlateauLR(
        ScheduleLR(mine, factor=cosine(0.5, 0), eta_min=0.02, total_steps=10),
        patience=0,
        min_lr=0.03,
    )
    assert plateau.scheduler.highest() == pytest.approx([0.02 + 0.08 * 0.5])
    plateau.step(1.0)
    plateau.step(1.0)
    assert plateau.reduced == pytest.approx([0.5])


def test_the_result_says_what_led_to_what():
    mine, plateau = warm(patience=1, factor=0.5)
    run(mine, plateau, [3.0, 2.0, 2.5, 2.5, 1.0, 1.0, 1.0])
    assert plateau.decisions == [
        {"at": 12, "metric": 2.5, "best": 2.0, "factors": [0.5, 0.5]},
        {"at": 21, "metric": 1.0, "best": 1.0, "factors": [0.25, 0.25]},
    ]
    assert [plateau.factors(k) for k in (11, 12, 20, 21)] == [
        [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25],
    ]  # fmt: skip
    assert plateau.factors() == [0.25, 0.25]
    assert plateau.as_schedule() == staircase([1, 0.5, 0.25], at=[12, 21])


def test_no_decision_is_a_constant():
    assert warm()[1].as_schedule() == constant(1)


def test_decisions_between_two_steps_are_one_level():
    mine, plateau = warm(patience=0, factor=0.5)
    for _ in range(3):
        plateau.step(1.0)
    assert plateau.as_schedule() == staircase([1, 0.25], at=[0])
    mine.step()
    assert lrs(mine) == pytest.approx([0.1 * 0.1 * 0.25, 0.1 * 0.25])


def test_groups_that_reach_their_own_bound_replay_each_by_name():
    mine = named(body=0.1, head=1.0)
    plateau = PlateauLR(
        ScheduleLR(mine, factor=constant(1), total_steps=9),
        factor=0.1,
        patience=0,
        min_lr=[0.05, 0],
    )
    run(mine, plateau, [1.0, 1.0])
    assert plateau.as_schedule() == {
        "body": staircase([1, 0.5], at=[6]), "head": staircase([1, 0.1], at=[6]),
    }  # fmt: skip


def test_the_drop_in_replays_over_its_calls():
    plateau = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    for metric in [1.0, 1.0, 0.5, 0.5]:
        plateau.step(metric)
    assert plateau.as_schedule() == staircase([1, 0.5, 0.25], at=[2, 4])
    again = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    again.load_state_dict(saved(plateau.state_dict()))
    assert again.decisions == plateau.decisions


def test_on_the_token_clock_decisions_are_at_tokens():
    mine = sgd(0.1)
    schedule = ScheduleLR(mine, factor=constant(1), total_steps=tokens(1000))
    plateau = PlateauLR(schedule, patience=0, factor=0.5)
    for _ in range(2):
        mine.step()
        schedule.step(tokens=128)
        plateau.step(1.0)
    assert plateau.as_schedule() == staircase([1, 0.5], at=[tokens(256)])


def test_a_group_added_late_takes_part():
    mine, plateau = warm(patience=0, factor=0.5)
    run(mine, plateau, [1.0, 1.0])
    mine.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.4})
    mine.step()
    plateau.step(1.0)
    assert plateau.reduced == [0.25, 0.25, 0.5]
    assert plateau.decisions[0]["factors"] == [0.5, 0.5]
    assert plateau.as_schedule()["2"] == staircase([1, 1, 0.5], at=[6, 7])


# States -------------------------------------------------------------------------------------------


def fallen(kind=ReduceLROnPlateau):
    mine = sgd(0.1)
    plateau = kind(mine, patience=0, factor=0.5)
    plateau.step(1.0)
    plateau.step(1.0)
    return mine, plateau


def test_a_state_kept_in_memory_does_not_change_with_the_scheduler():
    mine, plateau = warm(patience=0, factor=0.5)
    drop_in, alone = fallen()
    for optimizer, scheduler in ((mine, plateau), (drop_in, alone)):
        scheduler.step(1.0)
        kept, held = scheduler.state_dict(), lrs(optimizer)
        before = copy.deepcopy(kept)
        for _ in range(3):
            scheduler.step(1.0)
        assert kept == before
        scheduler.load_state_dict(kept)
        assert lrs(optimizer) == held
        scheduler.step(1.0)
        assert kept == before


def loaded_in_order(states, loaded):
    """Return a new optimizer and drop-in; its state is loaded at that point, or not at all."""
    other = sgd(0.1)
    if loaded == "before":
        other.load_state_dict(states[0])
    again = ReduceLROnPlateau(other, patience=0, factor=0.5)
    if loaded == "first":
        other.load_state_dict(states[0])
    again.load_state_dict(states[1])
    if loaded == "last":
        other.load_state_dict(states[0])
    return other, again


@pytest.mark.parametrize("loaded", ["before", "first", "last", "never"])
def test_the_drop_in_resumes_in_every_order(loaded):
    mine, plateau = fallen()
    states = saved(mine.state_dict()), saved(plateau.state_dict())
    other, again = loaded_in_order(states, loaded)
    for optimizer, scheduler in ((mine, plateau), (other, again)):
        assert lrs(optimizer) == [0.05]
        scheduler.step(1.0)
        assert lrs(optimizer) == [0.025]


@pytest.mark.parametrize("loaded", ["before", "first", "last", "never"])
def test_a_state_of_torchs_own_goes_on_where_it_was(loaded):
    its, theirs = fallen(lr_scheduler.ReduceLROnPlateau)
    theirs.step(1.0)
    states = saved(its.state_dict()), saved(theirs.state_dict())
    other, again = loaded_in_order(states, loaded)
    assert lrs(other) == [0.025]
    again.step(1.0)
    assert lrs(other) == [0.0125]


# Mistakes -----------------------------------------------------------------------------------------


def test_takes_a_schedule_lr_only():
    with pytest.raises(TypeError, match=r"a ScheduleLR, not SGD.*drop_in\.ReduceLROnPlateau"):
        PlateauLR(sgd(0.1))


def test_torchs_own_checks_hold():
    with pytest.raises(ValueError, match=r"Factor should be < 1\.0"):
        warm(factor=1.0)
    with pytest.raises(ValueError, match="mode up is unknown"):
        warm(mode="up")


def test_another_plan_is_asked_about_and_nothing_has_changed():
    mine, plateau = warm(patience=0)
    run(mine, plateau, [1.0, 1.0])
    state = saved(plateau.state_dict())
    other = sgd(0.1, 1.0)
    fresh = PlateauLR(ScheduleLR(other, factor=OPEN, total_steps=2 * TOTAL), patience=0)
    with pytest.raises(ScheduleChanged, match="total"):
        fresh.load_state_dict(state)
    assert fresh.reduced == [1.0, 1.0]
    assert fresh.last_epoch == 0
    other.step()
    assert lrs(other) == pytest.approx([0.1 * 0.1, 0.1])


def test_a_state_of_something_else_is_refused():
    _, plateau = warm()
    with pytest.raises(BindingError, match=r"a ScheduleLR's: \.scheduler\.load_state_dict"):
        plateau.load_state_dict(plateau.scheduler.state_dict())
    with pytest.raises(BindingError, match="no state of a PlateauLR"):
        plateau.load_state_dict(ReduceLROnPlateau(sgd(0.1, 1.0)).state_dict())


def test_is_not_copied():
    _, plateau = warm()
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(plateau)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])  # noqa: S301 - our own
def test_a_copy_of_the_drop_in_goes_on(copied):
    plateau = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    for metric in [1.0, 1.0]:
        plateau.step(metric)
    other = copied(plateau)
    assert other.state_dict() == plateau.state_dict()
    for scheduler in (plateau, other):
        scheduler.step(1.0)
        assert lrs(scheduler.optimizer) == [0.025]
    assert other.decisions == plateau.decisions
    assert preview(plateau, 3, metrics=[0.5, 0.5, 0.5]) == {"0": [0.025, 0.025, 0.0125]}


def test_removed_it_leaves_the_lrs_alone():
    mine, plateau = warm(patience=0)
    run(mine, plateau, [1.0, 1.0])
    held = lrs(mine)
    plateau.remove()
    mine.step()
    assert lrs(mine) == held
    assert describe(mine).groups[0].schedules == {}


def test_what_a_hand_multiplied_stays():
    mine, plateau = warm(patience=0, factor=0.5)
    run(mine, plateau, [1.0])
    for group in mine.param_groups:
        group["lr"] *= 3
    run(mine, plateau, [1.0, 1.0], done=3)
    expected = 3 * plateau.scheduler.curve(6) * 0.5
    assert lrs(mine) == pytest.approx([0.1 * expected, expected], rel=1e-12)

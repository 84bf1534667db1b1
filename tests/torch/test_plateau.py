"""PlateauLR: a schedule times a factor that follows a metric; replaying its reductions."""

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

SCHEDULE = warmup(10).then(cosine(1, 0.1))
TOTAL_STEPS, EVERY = 60, 3  # a metric after every third step

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
    """Return a state after saving it to a file and loading it with weights_only=True."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run(optimizer, scheduler, metrics, done=0):
    """Train from step ``done`` on; return the lrs before each step."""
    seen = []
    for k in range(done, EVERY * len(metrics)):
        seen.append(lrs(optimizer))
        optimizer.step()
        if k % EVERY == EVERY - 1:
            scheduler.step(metrics[k // EVERY])
    return seen


def warm(**options):
    mine = sgd(0.1, 1.0)
    return mine, PlateauLR(ScheduleLR(mine, factor=SCHEDULE, total_steps=TOTAL_STEPS), **options)


@given(metrics=st.lists(losses, max_size=40), **rules)
def test_reductions_equal_torch_and_lr_is_torchs_times_the_schedule(metrics, **options):
    mine, its = sgd(0.1, 1.0), sgd(0.1, 1.0)
    schedule = ScheduleLR(mine, factor=SCHEDULE, total_steps=TOTAL_STEPS)
    ours, theirs = PlateauLR(schedule, **options), lr_scheduler.ReduceLROnPlateau(its, **options)
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
def test_reductions_replay_without_the_metric(metrics, **options):
    mine, plateau = warm(**options)
    seen = run(mine, plateau, metrics)
    again = plateau.as_schedule()
    other = sgd(0.1, 1.0)
    if isinstance(again, Schedule):
        ScheduleLR(other, factor=SCHEDULE * again, total_steps=TOTAL_STEPS)
    else:
        ScheduleLR(
            other, factor={name: SCHEDULE * s for name, s in again.items()}, total_steps=TOTAL_STEPS
        )
    for row in seen:
        assert lrs(other) == pytest.approx(row, rel=1e-12)
        other.step()


@given(
    metrics=st.lists(losses, min_size=20, max_size=20),
    done=st.integers(0, TOTAL_STEPS - 1),
    optimizer_first=st.booleans(),
    **rules,
)
def test_plateau_resumes_bit_for_bit(metrics, done, optimizer_first, **options):
    mine, plateau = warm(**options)
    whole = []
    for k in range(TOTAL_STEPS):
        if k == done:
            states = saved(mine.state_dict()), saved(plateau.state_dict())
        whole.append(lrs(mine))
        mine.step()
        if k % EVERY == EVERY - 1:
            plateau.step(metrics[k // EVERY])
    other, resumed = warm(**options)
    parts = [(other, states[0]), (resumed, states[1])]
    for part, state in parts if optimizer_first else parts[::-1]:
        part.load_state_dict(state)
    assert run(other, resumed, metrics, done) == whole[done:]
    assert repr(resumed.reductions) == repr(plateau.reductions)  # repr, since NaN != NaN


def test_is_a_torch_reduce_lr_on_plateau():
    _, plateau = warm()
    assert isinstance(plateau, lr_scheduler.ReduceLROnPlateau)
    assert isinstance(plateau, lr_scheduler.LRScheduler)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_is_no_improvement(mode):
    mine, plateau = warm(mode=mode, patience=1, factor=0.5)
    run(mine, plateau, [1.0, math.nan, math.nan])
    assert plateau.best == 1.0
    assert [d["factors"] for d in plateau.reductions] == [[0.5, 0.5]]
    plateau.step(math.nan)  # the first metric may be NaN, too
    _, other = warm(mode=mode, patience=0)
    other.step(math.nan)
    assert other.current_factors == [0.1, 0.1]


def test_min_lr_bounds_the_peak_lr_not_the_current_one():
    mine = sgd(1.0)
    plateau = PlateauLR(
        ScheduleLR(mine, lr=1e-3 * SCHEDULE, total_steps=TOTAL_STEPS),
        patience=0,
        factor=0.1,
        min_lr=5e-4,
    )
    # The lr is 0 at step 0 of the warmup, and the factor still falls, but only to 0.5.
    plateau.step(1.0)
    plateau.step(1.0)
    assert plateau.current_factors == [0.5]
    plateau.step(1.0)
    assert plateau.current_factors == [0.5]
    for _ in range(10):
        mine.step()
    assert lrs(mine) == [5e-4]


def test_peak_lr_of_a_long_schedule_is_exact():
    mine = sgd(1.0)
    schedule = ScheduleLR(mine, lr=warmup(1237).then(linear(1, 0)), total_steps=100_000)
    assert schedule.peak_lrs() == [1.0]


def test_get_last_lr_returns_copies_of_tensors():
    mine = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1))
    plateau = ReduceLROnPlateau(mine, patience=0, factor=0.5)
    plateau.step(1.0)
    before = plateau.get_last_lr()
    plateau.step(1.0)
    assert float(before[0]) == pytest.approx(0.1)
    assert float(plateau.get_last_lr()[0]) == pytest.approx(0.05)


def test_min_lr_with_eta_min():
    mine = sgd(0.1)
    plateau = PlateauLR(
        ScheduleLR(mine, factor=cosine(0.5, 0), eta_min=0.02, total_steps=10),
        patience=0,
        min_lr=0.03,
    )
    assert plateau.scheduler.peak_lrs() == pytest.approx([0.02 + 0.08 * 0.5])
    plateau.step(1.0)
    plateau.step(1.0)
    assert plateau.current_factors == pytest.approx([0.5])


def test_reductions_record_position_metric_best_and_factors():
    mine, plateau = warm(patience=1, factor=0.5)
    run(mine, plateau, [3.0, 2.0, 2.5, 2.5, 1.0, 1.0, 1.0])
    assert plateau.reductions == [
        {"at": 12, "metric": 2.5, "best": 2.0, "factors": [0.5, 0.5]},
        {"at": 21, "metric": 1.0, "best": 1.0, "factors": [0.25, 0.25]},
    ]
    assert [plateau.factors(k) for k in (11, 12, 20, 21)] == [
        [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.25],
    ]  # fmt: skip
    assert plateau.factors() == [0.25, 0.25]
    assert plateau.as_schedule() == staircase([1, 0.5, 0.25], at=[12, 21])


def test_schedule_without_reductions_is_constant():
    assert warm()[1].as_schedule() == constant(1)


def test_reductions_between_two_steps_merge():
    mine, plateau = warm(patience=0, factor=0.5)
    for _ in range(3):
        plateau.step(1.0)
    assert plateau.as_schedule() == staircase([1, 0.25], at=[0])
    mine.step()
    assert lrs(mine) == pytest.approx([0.1 * 0.1 * 0.25, 0.1 * 0.25])


def test_groups_with_different_min_lr_have_schedules_by_name():
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


def test_drop_in_schedule_counts_calls():
    plateau = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    for metric in [1.0, 1.0, 0.5, 0.5]:
        plateau.step(metric)
    assert plateau.as_schedule() == staircase([1, 0.5, 0.25], at=[2, 4])
    again = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    again.load_state_dict(saved(plateau.state_dict()))
    assert again.reductions == plateau.reductions


def test_reductions_on_the_token_clock_are_in_tokens():
    mine = sgd(0.1)
    schedule = ScheduleLR(mine, factor=constant(1), total_steps=tokens(1000))
    plateau = PlateauLR(schedule, patience=0, factor=0.5)
    for _ in range(2):
        mine.step()
        schedule.step(tokens=128)
        plateau.step(1.0)
    assert plateau.as_schedule() == staircase([1, 0.5], at=[tokens(256)])


def test_group_added_later_is_reduced():
    mine, plateau = warm(patience=0, factor=0.5)
    run(mine, plateau, [1.0, 1.0])
    mine.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.4})
    mine.step()
    plateau.step(1.0)
    assert plateau.current_factors == [0.25, 0.25, 0.5]
    assert plateau.reductions[0]["factors"] == [0.5, 0.5]
    assert plateau.as_schedule()["2"] == staircase([1, 1, 0.5], at=[6, 7])


# States -------------------------------------------------------------------------------------------


def reduced_once(scheduler_class=ReduceLROnPlateau):
    mine = sgd(0.1)
    plateau = scheduler_class(mine, patience=0, factor=0.5)
    plateau.step(1.0)
    plateau.step(1.0)
    return mine, plateau


def test_state_dict_does_not_change_with_the_scheduler():
    mine, plateau = warm(patience=0, factor=0.5)
    drop_in, alone = reduced_once()
    for optimizer, scheduler in ((mine, plateau), (drop_in, alone)):
        scheduler.step(1.0)
        state, lrs_before = scheduler.state_dict(), lrs(optimizer)
        before = copy.deepcopy(state)
        for _ in range(3):
            scheduler.step(1.0)
        assert state == before
        scheduler.load_state_dict(state)
        assert lrs(optimizer) == lrs_before
        scheduler.step(1.0)
        assert state == before


def loaded_in_order(states, loaded):
    """Return a new optimizer and drop-in; ``loaded``: when the optimizer's state is loaded."""
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
def test_drop_in_resumes_in_every_order(loaded):
    mine, plateau = reduced_once()
    states = saved(mine.state_dict()), saved(plateau.state_dict())
    other, again = loaded_in_order(states, loaded)
    for optimizer, scheduler in ((mine, plateau), (other, again)):
        assert lrs(optimizer) == [0.05]
        scheduler.step(1.0)
        assert lrs(optimizer) == [0.025]


@pytest.mark.parametrize("loaded", ["before", "first", "last", "never"])
def test_state_of_the_torch_class_resumes(loaded):
    its, theirs = reduced_once(lr_scheduler.ReduceLROnPlateau)
    theirs.step(1.0)
    states = saved(its.state_dict()), saved(theirs.state_dict())
    other, again = loaded_in_order(states, loaded)
    assert lrs(other) == [0.025]
    again.step(1.0)
    assert lrs(other) == [0.0125]


# Errors -------------------------------------------------------------------------------------------


def test_other_than_schedule_lr_raises():
    with pytest.raises(TypeError, match=r"a ScheduleLR, not SGD.*drop_in\.ReduceLROnPlateau"):
        PlateauLR(sgd(0.1))


def test_torch_argument_checks_apply():
    with pytest.raises(ValueError, match=r"Factor should be < 1\.0"):
        warm(factor=1.0)
    with pytest.raises(ValueError, match="mode up is unknown"):
        warm(mode="up")


def test_changed_schedule_raises_and_changes_nothing():
    mine, plateau = warm(patience=0)
    run(mine, plateau, [1.0, 1.0])
    state = saved(plateau.state_dict())
    other = sgd(0.1, 1.0)
    fresh = PlateauLR(ScheduleLR(other, factor=SCHEDULE, total_steps=2 * TOTAL_STEPS), patience=0)
    with pytest.raises(ScheduleChanged, match="total"):
        fresh.load_state_dict(state)
    assert fresh.current_factors == [1.0, 1.0]
    assert fresh.last_epoch == 0
    other.step()
    assert lrs(other) == pytest.approx([0.1 * 0.1, 0.1])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([0.5, 0.5, 0.5], "the saved state has 3 param groups, and this optimizer has 2"),
        (["a", "b"], "not the state of a PlateauLR"),
    ],
)
def test_damaged_factors_raise_and_change_nothing(factors, message):
    mine, plateau = warm(patience=0)
    run(mine, plateau, [1.0, 1.0])
    state = saved(plateau.state_dict()) | {"current_factors": factors}
    other, fresh = warm(patience=0)
    before = fresh.state_dict()
    with pytest.raises(BindingError, match=message):
        fresh.load_state_dict(state)
    assert fresh.state_dict() == before
    assert lrs(other) == [0.0, 0.0]


def test_state_of_another_class_raises():
    _, plateau = warm()
    with pytest.raises(BindingError, match=r"of a ScheduleLR call \.scheduler\.load_state_dict"):
        plateau.load_state_dict(plateau.scheduler.state_dict())
    with pytest.raises(BindingError, match="state of a torch scheduler"):
        plateau.load_state_dict(ReduceLROnPlateau(sgd(0.1, 1.0)).state_dict())


def test_state_of_format_1_raises_and_changes_nothing():
    _, plateau = warm(patience=0)
    state = plateau.state_dict()
    assert state["format"] == state["scheduler"]["format"] == 2
    del state["format"]
    mine, fresh = warm(patience=0)
    before = fresh.state_dict()
    with pytest.raises(BindingError) as refusal:
        fresh.load_state_dict(state | {"current_factors": [0.5, 0.5]})
    assert str(refusal.value) == (
        "the state of this PlateauLR has format 1, and this version of ratecraft reads format 2 "
        "only; it cannot be converted: start from the model weights with initial_step="
    )
    with pytest.raises(BindingError, match="this PlateauLR has format 1"):
        fresh.load_state_dict({"reduced": [0.5, 0.5], "decisions": [], "schedule": {}})
    assert fresh.state_dict() == before
    assert lrs(mine) == [0.0, 0.0]


def test_schedule_state_of_format_1_raises_and_changes_nothing():
    mine, plateau = warm(patience=0)
    before = plateau.state_dict()
    schedule = {"updates": 7, "position": 7.0, "plan": {"factor": "constant(1)"}, "groups": 2}
    with pytest.raises(BindingError, match=r"this ScheduleLR has format 1, .* cannot be converted"):
        plateau.load_state_dict(before | {"current_factors": [0.5, 0.5], "scheduler": schedule})
    assert plateau.state_dict() == before
    assert lrs(mine) == [0.0, 0.0]


def test_state_with_a_group_that_was_added_after_the_last_reduction_loads():
    mine, plateau = warm(factor=0.5, patience=0)
    run(mine, plateau, [1.0, 1.0])
    mine.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2})
    mine.step()
    state = saved(plateau.state_dict())
    other = sgd(0.1, 1.0, 0.2)
    schedule = ScheduleLR(other, factor=SCHEDULE, total_steps=TOTAL_STEPS)
    fresh = PlateauLR(schedule, factor=0.5, patience=0)
    fresh.load_state_dict(state)
    assert lrs(other) == lrs(mine)
    assert fresh.factors() == [0.5, 0.5, 1.0]


def test_copy_raises():
    _, plateau = warm()
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(plateau)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])  # noqa: S301 - our own
def test_copy_of_the_drop_in_continues(duplicate):
    plateau = ReduceLROnPlateau(sgd(0.1), patience=0, factor=0.5)
    for metric in [1.0, 1.0]:
        plateau.step(metric)
    other = duplicate(plateau)
    assert other.state_dict() == plateau.state_dict()
    for scheduler in (plateau, other):
        scheduler.step(1.0)
        assert lrs(scheduler.optimizer) == [0.025]
    assert other.reductions == plateau.reductions
    assert preview(plateau, 3, metrics=[0.5, 0.5, 0.5]) == {"0": [0.025, 0.025, 0.0125]}


def test_remove_leaves_the_lrs_unchanged():
    mine, plateau = warm(patience=0)
    run(mine, plateau, [1.0, 1.0])
    before = lrs(mine)
    plateau.remove()
    mine.step()
    assert lrs(mine) == before
    assert describe(mine).groups[0].schedules == {}


def test_manual_change_is_kept():
    mine, plateau = warm(patience=0, factor=0.5)
    run(mine, plateau, [1.0])
    for group in mine.param_groups:
        group["lr"] *= 3
    run(mine, plateau, [1.0, 1.0], done=3)
    expected = 3 * plateau.scheduler.curve(6) * 0.5
    assert lrs(mine) == pytest.approx([0.1 * expected, expected], rel=1e-12)


def test_repr_shows_schedule_step_lr_and_reductions():
    scheduler = PlateauLR(ScheduleLR(sgd(0.1), factor=cosine(1, 0), total_steps=10), patience=0)
    assert repr(scheduler) == "PlateauLR(factor=cosine(1, 0), step 0 of 10, lr 0.1, 0 reductions)"
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert repr(scheduler) == "PlateauLR(factor=cosine(1, 0), step 0 of 10, lr 0.01, 1 reduction)"

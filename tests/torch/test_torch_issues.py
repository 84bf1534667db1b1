"""Problems reported for PyTorch schedulers; each test is named after the report."""

import warnings

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import constant, cosine, epochs, linear, one_cycle, percent, tokens, warmup, wsd
from ratecraft.diagnostics import preview
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

SCHEDULE = warmup(5).then(cosine(1, 0))


def test_29697_scheduler_state_is_enough_to_resume():
    whole = sgd(0.1)
    scheduler = ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    lrs_of(whole, 12)
    fresh = sgd(0.1)
    resumed = ScheduleLR(fresh, factor=SCHEDULE, total_steps=30)
    resumed.load_state_dict(scheduler.state_dict())
    assert first_lrs(fresh, 18) == first_lrs(whole, 18)


def test_65342_loading_writes_the_lr():
    whole = sgd(0.1)
    scheduler = ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    lrs_of(whole, 12)
    fresh = sgd(0.1)
    resumed = ScheduleLR(fresh, factor=SCHEDULE, total_steps=30)
    resumed.load_state_dict(scheduler.state_dict())
    assert fresh.param_groups[0]["lr"] == whole.param_groups[0]["lr"] == resumed.get_last_lr()[0]


def test_162591_scheduler_built_after_loading_the_optimizer():
    # In this order 7 of torch's 15 classes are right.
    whole = sgd(0.1)
    scheduler = ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    lrs_of(whole, 12)
    fresh = sgd(0.1)
    fresh.load_state_dict(whole.state_dict())
    resumed = ScheduleLR(fresh, factor=SCHEDULE, total_steps=30)
    resumed.load_state_dict(scheduler.state_dict())
    assert first_lrs(fresh, 18) == first_lrs(whole, 18)


def test_168044_initial_step_is_the_number_of_steps_done():
    whole = sgd(0.1)
    ScheduleLR(whole, factor=SCHEDULE, total_steps=30)
    expected = first_lrs(whole, 30)
    for at in range(30):
        fresh = sgd(0.1)
        ScheduleLR(fresh, factor=SCHEDULE, total_steps=30, initial_step=at)
        assert fresh.param_groups[0]["lr"] == expected[at]


def skipping(fused):
    """Return an optimizer, its scheduler and a scaled training of 3 steps, one skipped."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=fused)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about the call order
        for gradient in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale((weight * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            seen.append(scheduler.last_epoch)
    return seen


def test_44511_step_skipped_by_amp_does_not_count():
    assert skipping(fused=False) == [1, 1, 2]


def test_67590_step_skipped_by_a_fused_optimizer_does_not_count():
    # A fused optimizer's step is called for skipped steps, too, with found_inf set.
    assert skipping(fused=True) == [1, 1, 2]


def test_steps_per_epoch_is_given_once_and_extra_step_calls_are_harmless():
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(
        optimizer, factor=warmup(epochs(1)), total_steps=epochs(3), steps_per_epoch=4
    )
    for _ in range(2):
        for _ in range(4):
            optimizer.step()
            scheduler.step()  # per batch ...
        scheduler.step()  # ... and per epoch
    assert scheduler.last_epoch == 8
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_67761_schedule_for_one_group_only():
    optimizer = named(body=0.1, head=1.0)
    ScheduleLR(optimizer, factor={"head": linear(1, 0), "body": constant(1)}, total_steps=10)
    assert lrs_of(optimizer, 6)[5] == [0.1, 0.5]


def test_53712_group_added_later_is_scheduled():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    optimizer.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    optimizer.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    "schedule",
    [warmup(0).then(constant(1)), linear(0.1, 1, over=0), wsd(0, 0), one_cycle(percent(0))],
    ids=repr,
)
def test_193682_zero_length_reaches_its_end_at_once(schedule):
    # torch's LinearLR(total_iters=0) stays at its start forever.
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=schedule, total_steps=10)
    assert first_lrs(optimizer, 2)[0] == pytest.approx(0.1)


def test_68332_preview_of_a_torch_scheduler_changes_nothing():
    optimizer = sgd(0.1, momentum=0.9)
    theirs = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=20)
    before = optimizer.state_dict(), theirs.state_dict()
    seen = preview(theirs, 20)["0"]
    assert (optimizer.state_dict(), theirs.state_dict()) == before
    assert first_lrs(optimizer, 19, theirs) == seen[:19]


def test_184517_values_do_not_depend_on_earlier_ones():
    # Evaluated backwards, the lrs are the same.
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=SCHEDULE, total_steps=30, clock="step")
    forwards = [scheduler.preview(30)["0"][k] for k in range(30)]
    backwards = []
    for k in reversed(range(30)):
        scheduler.last_epoch = k
        backwards.append(scheduler.get_lr()[0])
    assert backwards[::-1] == forwards


def test_78003_optimizer_whose_schedule_ended_at_zero_can_be_reused(caplog):
    # A second CosineAnnealingLR, built after the first has ended, stays at 0 forever.
    optimizer = sgd(0.1)
    lrs_of(optimizer, 10, lr_scheduler.CosineAnnealingLR(optimizer, 10))
    assert optimizer.param_groups[0]["lr"] == 0
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert first_lrs(optimizer, 2) == pytest.approx([0.1, 0.09])
    assert "the schedule starts from initial_lr" in caplog.text


def test_22343_weight_decay_follows_a_schedule():
    optimizer = sgd(0.1, weight_decay=0.2)
    ScheduleLR(
        optimizer,
        factor=SCHEDULE,
        hyperparam_factors={"weight_decay": linear(1, 0)},
        total_steps=10,
    )
    lrs_of(optimizer, 5)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # LBFGS, torch 2.8
def test_closure_optimizer_counts_once_per_step():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.LBFGS([weight], lr=0.1, max_iter=5)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = (weight**4).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert len(calls) > 3
    assert scheduler.last_epoch == 3


def test_gradient_accumulation_counts_steps_not_batches():
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    for batch in range(12):
        if batch % 4 == 3:
            optimizer.step()
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_clock_step_counts_calls_as_torch_does():
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10, clock="step")
    for _ in range(4):
        optimizer.step()
    assert scheduler.last_epoch == 0
    for _ in range(3):
        scheduler.step()
    assert scheduler.last_epoch == 3
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.07)


# Tokens -------------------------------------------------------------------------------------------


def test_token_clock_counts_the_given_tokens():
    # The numbers of docs/semantics.md: batches of 300, 300 and 600 tokens.
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=warmup(tokens(1000)), total_steps=tokens(3000))
    lrs = []
    for batch in (300, 300, 600, 600):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(tokens=batch)
    assert lrs == pytest.approx([0, 0.3, 0.6, 1])
    assert scheduler.last_epoch == 4
    again = sgd(1.0)
    resumed = ScheduleLR(again, factor=warmup(tokens(1000)), total_steps=tokens(3000))
    resumed.load_state_dict(scheduler.state_dict())
    resumed.step(tokens=100)
    assert resumed.state_dict()["position"] == 1900
    assert resumed.last_epoch == 5


def test_sizes_that_the_clock_does_not_count_raise():
    by_tokens = ScheduleLR(sgd(1.0), factor=linear(1, 0), total_steps=tokens(100))
    with pytest.raises(TypeError, match=r"write step\(tokens=n\) after each step"):
        by_tokens.step()
    with pytest.raises(
        TypeError, match=r"step\(samples=...\) needs a run whose total_steps is in samp"
    ):
        by_tokens.step(samples=5)
    with pytest.raises(TypeError, match="in tokens"):
        by_tokens.step(samples=5, tokens=5)
    with pytest.raises(BindingError, match=r"step\(tokens=-5\): expected 0 or more"):
        by_tokens.step(tokens=-5)
    assert by_tokens.last_epoch == 0
    by_steps = ScheduleLR(sgd(1.0), factor=linear(1, 0), total_steps=10)
    with pytest.raises(TypeError, match="here it is in steps"):
        by_steps.step(tokens=5)
    with pytest.raises(
        BindingError,
        match="midpoint=True shifts by half a step, and this run is measured in tokens",
    ):
        ScheduleLR(sgd(1.0), factor=linear(1, 0), total_steps=tokens(9), midpoint=True)
    with pytest.raises(BindingError, match="follows the optimizer's steps and cannot be set"):
        by_steps.last_epoch = 3
    with pytest.raises(
        BindingError, match="initial_step= is a number of steps, and this run is measured in tokens"
    ):
        ScheduleLR(sgd(1.0), factor=linear(1, 0), total_steps=tokens(1000), initial_step=50)
    with pytest.raises(
        BindingError, match="needs a clock that counts steps, and this one counts tokens"
    ):
        by_tokens.preview(3)

"""HyperparamWriter: base x factors x changes by other code, in any order."""

import copy
import logging
import math

import pytest
import torch
from optimizers import first_lrs, lrs_of, named, sgd
from torch.optim import lr_scheduler

from ratecraft import (
    constant,
    cosine,
    custom,
    decay,
    linear,
    percent,
    staircase,
    tokens,
    warmup,
    wsd,
)
from ratecraft.diagnostics import describe, preview
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

COSINE = cosine(1, 0.1)


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("clock", ["optimizer", "step"])
def test_product_with_a_multiplying_torch_scheduler(ours_first, clock):
    optimizer = sgd(0.1)
    build = [
        lambda: ScheduleLR(optimizer, factor=COSINE, total_steps=100, clock=clock),
        lambda: lr_scheduler.ExponentialLR(optimizer, 0.9),
    ]
    schedulers = [make() for make in (build if ours_first else build[::-1])]
    curve = COSINE.resolve(total_steps=100)
    for k, lr in enumerate(first_lrs(optimizer, 100, *schedulers)):
        assert lr == pytest.approx(0.1 * curve(k) * 0.9**k, rel=1e-12)


def test_no_drift_over_100_000_steps_with_other_schedulers():
    gammas = [0.99999, 1.00001, 0.999995]
    optimizer = sgd(0.1)
    ours = ScheduleLR(optimizer, factor=COSINE, total_steps=100_000, clock="step")
    theirs = [lr_scheduler.ExponentialLR(optimizer, gamma) for gamma in gammas]
    curve = COSINE.resolve(total_steps=100_000)
    optimizer.step()  # torch warns about the order otherwise
    worst = 0.0
    for k in range(100_000):
        if k % 997 == 0:
            expected = 0.1 * curve(k) * math.prod(gamma**k for gamma in gammas)
            worst = max(worst, abs(optimizer.param_groups[0]["lr"] / expected - 1))
        theirs[0].step()
        ours.step()
        theirs[1].step()
        theirs[2].step()
    assert worst < 1e-10


def test_several_schedule_lrs_multiply():
    optimizer = sgd(0.1, 0.2)
    ScheduleLR(optimizer, factor=COSINE, total_steps=20)
    ScheduleLR(optimizer, factor=warmup(10), total_steps=20)
    ScheduleLR(optimizer, factor=constant(0.5))
    cos, warm = COSINE.resolve(total_steps=20), warmup(10).resolve(total_steps=20)
    for k, lrs in enumerate(lrs_of(optimizer, 20)):
        product = 0.5 * cos(k) * warm(k)
        assert lrs == pytest.approx([0.1 * product, 0.2 * product], rel=1e-15)


def test_lr_and_factor_multiply():
    optimizer = sgd(0.7)
    ScheduleLR(optimizer, factor=warmup(10), total_steps=20)
    ScheduleLR(optimizer, lr=0.3 * COSINE, total_steps=20)
    cos, warm = COSINE.resolve(total_steps=20), warmup(10).resolve(total_steps=20)
    expected = [0.3 * cos(k) * warm(k) for k in range(20)]
    assert first_lrs(optimizer, 20) == pytest.approx(expected, rel=1e-15)


def test_second_lr_raises_and_changes_nothing():
    optimizer = sgd(0.7)
    ScheduleLR(optimizer, lr=0.3 * COSINE, total_steps=20)
    with pytest.raises(BindingError, match="already set by a scheduler that writes lrs"):
        ScheduleLR(optimizer, lr=0.2 * COSINE, total_steps=20)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert first_lrs(optimizer, 3)[2] == 0.3 * COSINE.resolve(total_steps=20)(2)


def test_manual_change_is_kept_as_a_ratio():
    optimizer = sgd(0.1, 0.2)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 4)
    optimizer.param_groups[0]["lr"] /= 2
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5 * 0.5)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.2 * 0.5)
    optimizer.param_groups[1]["lr"] = 0.3  # three times the scheduled lr, from this step on
    optimizer.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.3 / 0.1 * 0.08)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5 * 0.4)


def test_change_at_schedule_zero_warns_once(caplog):
    optimizer = sgd(0.1, 0.1)
    ScheduleLR(optimizer, factor=warmup(5), total_steps=10)
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        optimizer.step()
    assert caplog.text.count("while the schedule is at 0") == 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 5)


def test_external_zero_applies_until_it_is_undone():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0.5), total_steps=10)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0
    optimizer.param_groups[0]["lr"] = 0.1 * linear(1, 0.5).resolve(total_steps=10)(1)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9)


def test_setting_the_lr_of_a_frozen_group_sets_its_base():
    optimizer = sgd(0.1, 0.0)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 5)
    optimizer.param_groups[1]["lr"] = 0.02
    optimizer.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.04 * 0.4)
    assert optimizer.param_groups[1]["initial_lr"] == pytest.approx(0.04)


def test_earlier_torch_linear_warmup_is_kept(caplog):
    optimizer = sgd(0.1)
    theirs = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=5)
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        ScheduleLR(optimizer, factor=COSINE, total_steps=20)
        assert not caplog.text  # not yet: a state may be loaded next
        seen = first_lrs(optimizer, 20, theirs)
    assert caplog.text.count("0.5 of its initial_lr 0.1") == 1
    curve = COSINE.resolve(total_steps=20)
    for k, lr in enumerate(seen):
        assert lr == pytest.approx(0.1 * curve(k) * min(0.5 + 0.1 * k, 1.0), rel=1e-12)


def test_remove_keeps_lrs_and_next_scheduler_starts_from_base():
    optimizer = sgd(0.1)
    first = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 10)
    first.remove()
    assert first_lrs(optimizer, 2) == [0.0, 0.0]
    ScheduleLR(optimizer, factor=linear(1, 0.5), total_steps=10)
    assert first_lrs(optimizer, 3) == pytest.approx([0.1, 0.095, 0.09])


def test_external_change_before_a_second_schedule_lr_is_kept():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=constant(1))
    optimizer.param_groups[0]["lr"] = 0.05
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert first_lrs(optimizer, 2) == pytest.approx([0.05, 0.045])


def test_external_change_before_optimizer_load_is_kept():
    # Accelerate's prepare() reloads the optimizer's state dict.
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=constant(1))
    theirs = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=4)
    optimizer.load_state_dict(optimizer.state_dict())
    assert first_lrs(optimizer, 6, theirs)[4:] == pytest.approx([0.1, 0.1])


def test_removed_scheduler_does_nothing():
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10, clock="step")
    state = scheduler.state_dict()
    for _ in range(5):
        scheduler.step()
    scheduler.remove()
    scheduler.remove()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(BindingError, match="was removed from its optimizer"):
        scheduler.load_state_dict(state)


def test_new_base_lr_after_remove():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=constant(0.5)).remove()
    assert optimizer.param_groups[0]["lr"] == 0.05
    del optimizer.param_groups[0]["initial_lr"]
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert first_lrs(optimizer, 2) == pytest.approx([0.05, 0.045])


def test_same_schedule_twice_warns(caplog):
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert (
        "another ScheduleLR already schedules this optimizer, and the two multiply" in caplog.text
    )


def test_zero_and_small_group_factors_are_accepted():
    schedules = {0: cosine(), "1": constant(0)}  # unnamed groups may be given by int
    optimizer = sgd(0.1, 7.0)
    ScheduleLR(optimizer, factor=schedules, total_steps=10)
    assert lrs_of(optimizer, 1) == [[0.1, 0.0]]
    ScheduleLR(sgd(0.1, 7.0), factor={0: constant(0.01), 1: constant(1)})
    with pytest.raises(BindingError, match=r"constant\(0.01\) multiplies lr=7 by at most"):
        ScheduleLR(sgd(0.1, 7.0), factor={0: constant(0.001), 1: constant(0.01)})


def test_long_run_factors_are_accepted():
    ScheduleLR(sgd(1.0), factor=wsd(percent(5)), total_steps=tokens(3e9))
    ScheduleLR(sgd(1.0), factor=staircase([0, 1], at=[60_000]), total_steps=1_000_000)
    ScheduleLR(sgd(1.0), factor=staircase([0, 1], at=[60_000]))
    with pytest.raises(BindingError, match="did you mean lr="):
        ScheduleLR(sgd(1.0), factor=3e-4 * constant(1))


def test_failing_function_does_not_advance_the_clock():
    broken = []

    def fails(t):
        if broken:
            raise KeyError("mine")
        return 1.0

    scheduler = ScheduleLR(sgd(1.0), factor=custom(fails), clock="step")
    scheduler.step()
    broken.append(True)
    with pytest.raises(KeyError, match="mine"):
        scheduler.step()
    assert scheduler.last_epoch == 1


def test_torch_sequential_lr_raises_and_suggests_then():
    optimizer = sgd(1.0)
    parts = [
        ScheduleLR(optimizer, factor=warmup(3), total_steps=10, clock="step"),
        lr_scheduler.ExponentialLR(optimizer, 0.9),
    ]
    with pytest.raises(BindingError, match=r"write a.then\(b\)"):
        lr_scheduler.SequentialLR(optimizer, parts, [3])
    with pytest.raises(BindingError, match=r"write a.then\(b\)"):
        parts[0]._update_lr(0)
    with pytest.raises(BindingError, match=r"write a.then\(b\)"):
        parts[0]._initial_step()


def test_copy_raises():
    scheduler = ScheduleLR(sgd(1.0), factor=linear(1, 0), total_steps=10)
    with pytest.raises(TypeError, match="belongs to its optimizer and cannot be copied"):
        copy.deepcopy(scheduler)
    with pytest.raises(BindingError, match="base_lrs cannot be set"):
        scheduler.base_lrs = [1.0]


def test_get_last_lr_returns_current_copies():
    optimizer = adam(0.1)
    scheduler = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    seen = [scheduler.get_last_lr()[0] for _ in range(3) if optimizer.step() is None]
    assert [float(lr) for lr in seen] == pytest.approx([0.09, 0.08, 0.07])
    assert isinstance(scheduler.get_lr()[0], torch.Tensor)
    plain = sgd(0.1)
    scheduler = ScheduleLR(plain, factor=linear(1, 0), total_steps=10)
    plain.param_groups[0]["lr"] /= 2
    assert scheduler.get_lr() == [0.05]
    assert preview(scheduler, 2)["0"] == pytest.approx([0.05, 0.045])
    assert describe(plain).groups[0].external_factor == 0.5


# Groups -----------------------------------------------------------------------------------------


def test_schedule_for_each_named_group():
    optimizer = named(body=0.1, head=1.0)
    schedules = {"head": linear(1, 0), "body": warmup(5)}
    ScheduleLR(optimizer, factor=schedules, total_steps=10)
    head, body = linear(1, 0).resolve(total_steps=10), warmup(5).resolve(total_steps=10)
    assert lrs_of(optimizer, 10) == [[0.1 * body(k), 1.0 * head(k)] for k in range(10)]


def test_lr_for_each_group_by_index():
    optimizer = sgd(0.1, 0.2)
    ScheduleLR(optimizer, lr={"0": 3e-4 * COSINE, "1": 0.5 * COSINE}, total_steps=10)
    curve = COSINE.resolve(total_steps=10)
    expected = [[3e-4 * curve(k), 0.5 * curve(k)] for k in range(10)]
    assert lrs_of(optimizer, 10) == expected


def test_group_names_that_do_not_match_raise():
    with pytest.raises(
        BindingError, match="'heat', which is not a param group; the groups are body, head"
    ):
        ScheduleLR(named(body=1, head=1), factor={"body": COSINE, "heat": COSINE}, total_steps=9)
    with pytest.raises(
        BindingError, match=r"no entry for group 'head'; .* pass factor= with constant"
    ):
        ScheduleLR(named(body=1, head=1), factor={"body": COSINE}, total_steps=9)
    twice = named(body=1.0, head=1.0)
    twice.param_groups[1]["name"] = "body"
    with pytest.raises(BindingError, match="two param groups have the same name"):
        ScheduleLR(twice, factor=COSINE, total_steps=9)


def weight(lr, **options):
    return {"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr, **options}


def test_late_group_uses_its_lr_as_base():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 4)
    optimizer.add_param_group(weight(0.5))
    trained = []
    optimizer.register_step_pre_hook(
        lambda o, *_: trained.append([g["lr"] for g in o.param_groups])
    )
    optimizer.step()
    assert trained == [pytest.approx([0.1 * 0.6, 0.5 * 0.6])]  # its first step is scheduled, too
    assert [g["lr"] for g in optimizer.param_groups] == [0.1 * 0.5, 0.5 * 0.5]
    assert optimizer.param_groups[1]["initial_lr"] == 0.5
    optimizer.add_param_group(weight(2.0))
    optimizer.add_param_group(weight(3.0))
    assert lrs_of(optimizer, 2)[1] == pytest.approx([0.04, 0.2, 0.8, 1.2])


def test_late_group_with_shared_lr_keeps_its_ratio(caplog):
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, lr=linear(1, 0), total_steps=10)
    optimizer.add_param_group(weight(0.01))
    with caplog.at_level(logging.WARNING, "ratecraft.torch"):
        optimizer.step()
    assert "it keeps that ratio, 0.1" in caplog.text
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.9, 0.09])


@pytest.mark.parametrize("mode", ["lr", "factor"])
def test_late_group_without_schedule_keeps_its_lr(mode):
    optimizer = named(body=0.1, head=1.0)
    schedules = {"head": linear(1, 0), "body": linear(1, 0)}
    ScheduleLR(optimizer, total_steps=10, **{mode: schedules})
    optimizer.add_param_group(weight(0.7, name="new"))
    assert lrs_of(optimizer, 3)[2][2] == 0.7
    assert lrs_of(optimizer, 2)[1][1] == pytest.approx(0.6)


def test_late_group_with_several_schedule_lrs():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10, eta_min=0.05)
    optimizer.step()
    optimizer.add_param_group(weight(1.0))
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [0.8 * (0.05 + 0.05 * 0.8), 0.8 * (0.05 + 0.95 * 0.8)]
    )


def test_removed_group_raises():
    optimizer = sgd(0.1, 0.2)
    first = ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    del optimizer.param_groups[1]
    with pytest.raises(BindingError, match="has 1 param groups, and had 2"):
        optimizer.step()
    with pytest.raises(BindingError, match=r"remove\(\) the scheduler and build a new one"):
        ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    first.remove()
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert first_lrs(optimizer, 2)[1] == pytest.approx(0.09)


# eta_min, midpoint, hyperparam_factors -----------------------------------------------------------


def test_eta_min_equals_torch():
    optimizer = sgd(1e-3, 1e-4)
    ScheduleLR(optimizer, factor=cosine(1, 0), total_steps=100, eta_min=1e-5)
    theirs = sgd(1e-3, 1e-4)
    peer = lr_scheduler.CosineAnnealingLR(theirs, 100, eta_min=1e-5)
    for ours, expected in zip(lrs_of(optimizer, 101), lrs_of(theirs, 101, peer), strict=True):
        assert ours == pytest.approx(expected, rel=1e-12)
    assert sgd_at(0.5, 1e-3) == pytest.approx(5.05e-4, rel=1e-15)
    assert sgd_at(0.5, 1e-4) == pytest.approx(5.5e-5, rel=1e-15)


def sgd_at(factor, base):
    optimizer = sgd(base)
    ScheduleLR(optimizer, factor=constant(factor), eta_min=1e-5)
    return optimizer.param_groups[0]["lr"]


def test_eta_min_for_each_group():
    optimizer = named(body=0.1, head=1.0)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10, eta_min={"body": 0.1, "head": 0})
    assert lrs_of(optimizer, 6)[5] == pytest.approx([0.1, 0.5])


def test_invalid_eta_min_raises():
    with pytest.raises(BindingError, match=r"eta_min=0.2 of group 0: expected between 0 and"):
        ScheduleLR(sgd(0.1), factor=COSINE, total_steps=9, eta_min=0.2)
    with pytest.raises(BindingError, match="eta_min= goes with factor="):
        ScheduleLR(sgd(0.1), lr=COSINE, total_steps=9, eta_min=0.2)
    with pytest.raises(BindingError, match=r"an entry for 'x', which is not a param group"):
        ScheduleLR(sgd(0.1), factor=COSINE, total_steps=9, eta_min={"x": 0})


def test_midpoint_reads_between_two_steps():
    optimizer = sgd(1.0)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=4, midpoint=True)
    assert first_lrs(optimizer, 5) == [0.875, 0.625, 0.375, 0.125, 0]


def test_hyperparam_factors_multiply_each_groups_value():
    groups = [weight(0.1, weight_decay=0.2), weight(0.1)]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.99), weight_decay=0.1)
    ScheduleLR(
        optimizer,
        factor=constant(1),
        hyperparam_factors={"weight_decay": linear(1, 0), "betas[0]": linear(1, 0.5)},
        total_steps=10,
    )
    for _ in range(5):
        optimizer.step()
    first, second = optimizer.param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (0.2 * 0.5, 0.1 * 0.5)
    assert first["betas"] == second["betas"] == (0.8 * 0.75, 0.99)
    assert first["lr"] == 0.1
    assert "initial_lr" in first
    assert "initial_weight_decay" not in first


def test_missing_field_raises_before_anything_is_written():
    optimizer = sgd(0.1)
    with pytest.raises(BindingError, match=r"has no number 'betas\[0\]' to schedule; it has lr, m"):
        ScheduleLR(
            optimizer, factor=linear(0.5, 0), hyperparam_factors={"betas[0]": COSINE}, total_steps=9
        )
    with pytest.raises(BindingError, match=r"no number 'nesterov'"):
        ScheduleLR(
            optimizer, factor=linear(0.5, 0), hyperparam_factors={"nesterov": COSINE}, total_steps=9
        )
    with pytest.raises(TypeError, match="pass lr= or factor= for lr"):
        ScheduleLR(
            optimizer, factor=linear(0.5, 0), hyperparam_factors={"lr": COSINE}, total_steps=9
        )
    assert optimizer.param_groups[0]["lr"] == 0.1
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(BindingError, match=r"it has lr, eps, weight_decay, betas\[0\], betas\[1\]"):
        ScheduleLR(adam, factor=COSINE, hyperparam_factors={"betas[2]": COSINE}, total_steps=9)


# Tensors ------------------------------------------------------------------------------------------


def adam(*lrs):
    groups = [weight(torch.tensor(lr)) for lr in lrs]
    return torch.optim.AdamW(groups, lr=1.0)


def test_tensor_lrs_are_filled_in_place():
    optimizer = adam(0.1, 0.2)
    values = [group["lr"] for group in optimizer.param_groups]
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert lrs_of(optimizer, 3)[2] == pytest.approx([0.08, 0.16], rel=1e-6)
    assert all(a is group["lr"] for a, group in zip(values, optimizer.param_groups, strict=True))


def test_tensor_lr_does_not_drift():
    # Repeated multiplication of a float32 lr drifts by 3 % in 10^6 steps.
    optimizer = adam(0.1)
    ours = ScheduleLR(optimizer, factor=decay(0.9999), clock="step")
    for _ in range(20_000):
        ours.step()
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1 * 0.9999**20_000, rel=1e-6)


def test_tensor_lrs_with_a_multiplying_torch_scheduler():
    optimizer = adam(0.1)
    ScheduleLR(optimizer, factor=COSINE, total_steps=100)
    peer = lr_scheduler.ExponentialLR(optimizer, 0.9)
    curve = COSINE.resolve(total_steps=100)
    for k, lr in enumerate(first_lrs(optimizer, 100, peer)):
        assert lr == pytest.approx(0.1 * curve(k) * 0.9**k, rel=1e-4)


def test_filling_a_tensor_with_its_value_is_no_external_change():
    optimizer = adam(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    for _ in range(5):
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        lr.fill_(lr.item())  # another version of the same float32
    assert describe(optimizer).groups[0].external_factor == 1


def test_late_group_on_the_default_tensor_uses_the_base_of_the_others():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.1))
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 5)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    optimizer.step()
    assert lrs_of(optimizer, 1)[0] == pytest.approx([0.04, 0.04])
    values = [group["lr"] for group in optimizer.param_groups]
    assert values[0] is not values[1]


def test_equal_tensor_and_number_count_as_equal():
    optimizer = torch.optim.SGD([weight(torch.tensor(0.1)), weight(0.1)])
    ScheduleLR(optimizer, lr=0.3 * linear(1, 0), total_steps=10)
    assert lrs_of(optimizer, 2)[1] == pytest.approx([0.27, 0.27])


def test_groups_sharing_a_tensor_cannot_have_different_schedules():
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW([weight(lr), weight(lr)])
    with pytest.raises(BindingError, match="share one lr tensor"):
        ScheduleLR(optimizer, factor={"0": COSINE, "1": constant(1)}, total_steps=9)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    assert lrs_of(optimizer, 2)[1] == pytest.approx([0.09, 0.09])


def test_number_replaced_by_a_tensor():
    optimizer = sgd(0.1)
    ScheduleLR(optimizer, factor=linear(1, 0), total_steps=10)
    lrs_of(optimizer, 2)
    tensor = torch.tensor(optimizer.param_groups[0]["lr"])
    optimizer.param_groups[0]["lr"] = tensor
    lrs_of(optimizer, 3)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert float(tensor) == pytest.approx(0.05)

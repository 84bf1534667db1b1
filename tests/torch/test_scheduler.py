import io

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from ratecraft import ScheduleError, constant, cosine, epochs, exponential, warmup
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

PLAN = 0.1 * warmup(3).then(cosine(1, 0))


def sgd(*lrs: float) -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=1.0)


def lrs_of(optimizer: torch.optim.Optimizer, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        seen.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
    return seen


def test_it_is_an_lr_scheduler() -> None:
    assert isinstance(ScheduleLR(sgd(1.0), lr=PLAN, total_steps=10), LRScheduler)


def test_it_has_nothing_that_deepspeed_and_accelerate_misread() -> None:
    # DeepSpeed calls what can be called; Accelerate stops at total_steps.
    scheduler = ScheduleLR(sgd(1.0), lr=PLAN, total_steps=10)
    assert not callable(scheduler)
    assert not hasattr(scheduler, "total_steps")


def test_lr_is_the_lr_itself() -> None:
    optimizer = sgd(0.7)
    ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    curve = PLAN.resolve(total_steps=10)
    assert lrs_of(optimizer, 12) == [[curve(k)] for k in range(12)]


def test_factor_multiplies_the_base_lr_of_each_group() -> None:
    optimizer = sgd(1e-3, 1e-4)
    ScheduleLR(optimizer, factor=cosine(1, 0), total_steps=10)
    curve = cosine(1, 0).resolve(total_steps=10)
    assert lrs_of(optimizer, 10) == [[1e-3 * curve(k), 1e-4 * curve(k)] for k in range(10)]


def test_it_works_when_nobody_holds_on_to_it() -> None:
    optimizer = sgd(1.0)
    ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == PLAN.resolve(total_steps=10)(1) > 0


def test_step_is_harmless_and_the_optimizer_is_what_counts() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        scheduler.step()
    assert scheduler.last_epoch == 5
    assert scheduler.get_last_lr() == [PLAN.resolve(total_steps=10)(5)]


def test_an_step_that_amp_skips_does_not_count() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weight = optimizer.param_groups[0]["params"][0]
    for gradient in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scheduler.last_epoch == 2


def test_epochs_are_resolved() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(
        optimizer, lr=warmup(epochs(1)), total_steps=epochs(2), steps_per_epoch=4
    )
    assert len(scheduler.curve) == 8
    assert lrs_of(optimizer, 5)[2:] == [[0.5], [0.75], [1.0]]


def test_a_tensor_lr_is_filled_in_place() -> None:
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)
    ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(PLAN.resolve(total_steps=10)(1))


def test_remove_stops_it() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    scheduler.remove()
    assert lrs_of(optimizer, 3) == [[0.0]] * 3


def test_a_resumed_run_reads_the_same_lrs() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    lrs_of(optimizer, 4)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    expected = lrs_of(optimizer, 6)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = sgd(1.0)
    resumed = ScheduleLR(again, lr=PLAN, total_steps=10)
    resumed.load_state_dict(state["scheduler"])
    again.load_state_dict(state["optimizer"])
    assert lrs_of(again, 6) == expected


def test_a_changed_plan_is_refused_with_both_plans() -> None:
    saved = ScheduleLR(sgd(1.0), lr=PLAN, total_steps=10).state_dict()
    other = ScheduleLR(sgd(1.0), lr=constant(0.1), total_steps=10)
    with pytest.raises(BindingError) as refusal:
        other.load_state_dict(saved)
    assert repr(PLAN) in str(refusal.value)
    assert "constant(0.1)" in str(refusal.value)


def test_exactly_one_of_lr_and_factor() -> None:
    for keywords in ({}, {"lr": PLAN, "factor": PLAN}):
        with pytest.raises(TypeError, match=r"exactly one of lr= .* and factor="):
            ScheduleLR(sgd(1.0), total_steps=10, **keywords)


def test_a_lr_given_as_factor_is_refused() -> None:
    with pytest.raises(BindingError, match=r"trains at 3e-07 or less; did you mean lr="):
        ScheduleLR(sgd(1e-3), factor=3e-4 * cosine(1, 0), total_steps=10)


def test_one_lr_for_different_groups_is_refused_before_anything_is_written() -> None:
    optimizer = sgd(0.1, 0.2)
    with pytest.raises(BindingError, match=r"theirs differ: \[0.1, 0.2\]; write factor="):
        ScheduleLR(optimizer, lr=PLAN, total_steps=10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert "initial_lr" not in optimizer.param_groups[0]


def test_a_schedule_that_does_not_fit_leaves_the_optimizer_alone() -> None:
    optimizer = sgd(0.1)
    with pytest.raises(ScheduleError, match="no room"):
        ScheduleLR(optimizer, factor=warmup(50).then(cosine(1, 0)), total_steps=10)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_wrong_kinds_are_named() -> None:
    with pytest.raises(TypeError, match=r"ratecraft\.parse"):
        ScheduleLR(sgd(1.0), lr="cosine(1, 0)", total_steps=10)
    with pytest.raises(TypeError, match="drives a torch optimizer, not list"):
        ScheduleLR([], lr=PLAN, total_steps=10)
    with pytest.raises(TypeError, match="takes no epoch"):
        ScheduleLR(sgd(1.0), lr=PLAN, total_steps=10).step(3)


def test_an_endless_schedule_needs_no_total() -> None:
    optimizer = sgd(1.0)
    ScheduleLR(optimizer, factor=exponential(1, 0.5, over=2))
    assert lrs_of(optimizer, 4)[2:] == [[0.5], [0.5]]

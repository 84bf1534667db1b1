"""ScheduleLR: binding, counting, and the arguments it takes."""

import io

import pytest
import torch
from optimizers import lrs_of, named, sgd
from torch.optim.lr_scheduler import LRScheduler

from ratecraft import (
    ScheduleError,
    constant,
    cosine,
    epochs,
    exponential,
    linear,
    tokens,
    warmup,
    wsd,
)
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

SCHEDULE = 0.1 * warmup(3).then(cosine(1, 0))


def test_is_an_lr_scheduler() -> None:
    assert isinstance(ScheduleLR(sgd(1.0), lr=SCHEDULE, total_steps=10), LRScheduler)


def test_is_not_callable_and_has_no_total_steps_attribute() -> None:
    # DeepSpeed calls callable schedulers; Accelerate stops stepping at total_steps.
    scheduler = ScheduleLR(sgd(1.0), lr=SCHEDULE, total_steps=10)
    assert not callable(scheduler)
    assert not hasattr(scheduler, "total_steps")


def test_lr_is_set_to_the_schedule() -> None:
    optimizer = sgd(0.7)
    ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    curve = SCHEDULE.resolve(total_steps=10)
    assert lrs_of(optimizer, 12) == [[curve(k)] for k in range(12)]


def test_factor_multiplies_the_base_lr_of_each_group() -> None:
    optimizer = sgd(1e-3, 1e-4)
    ScheduleLR(optimizer, factor=cosine(1, 0), total_steps=10)
    curve = cosine(1, 0).resolve(total_steps=10)
    assert lrs_of(optimizer, 10) == [[1e-3 * curve(k), 1e-4 * curve(k)] for k in range(10)]


def test_works_without_a_reference_to_the_scheduler() -> None:
    optimizer = sgd(1.0)
    ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == SCHEDULE.resolve(total_steps=10)(1) > 0


def test_default_clock_counts_optimizer_steps_not_calls() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        scheduler.step()
    assert scheduler.last_epoch == 5
    assert scheduler.get_last_lr() == [SCHEDULE.resolve(total_steps=10)(5)]


def test_step_skipped_by_amp_does_not_count() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weight = optimizer.param_groups[0]["params"][0]
    for gradient in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scheduler.last_epoch == 2


def test_lengths_in_epochs() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(
        optimizer, lr=warmup(epochs(1)), total_steps=epochs(2), steps_per_epoch=4
    )
    assert len(scheduler.curve) == 8
    assert lrs_of(optimizer, 5)[2:] == [[0.5], [0.75], [1.0]]


def test_tensor_lr_is_filled_in_place() -> None:
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)
    ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(SCHEDULE.resolve(total_steps=10)(1))


def test_remove_stops_the_schedule() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    scheduler.remove()
    assert lrs_of(optimizer, 3) == [[0.0]] * 3


def test_resumed_run_reads_the_same_lrs() -> None:
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    lrs_of(optimizer, 4)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    expected = lrs_of(optimizer, 6)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = sgd(1.0)
    resumed = ScheduleLR(again, lr=SCHEDULE, total_steps=10)
    resumed.load_state_dict(state["scheduler"])
    again.load_state_dict(state["optimizer"])
    assert lrs_of(again, 6) == expected


def test_changed_schedule_raises_with_both_schedules() -> None:
    saved = ScheduleLR(sgd(1.0), lr=SCHEDULE, total_steps=10).state_dict()
    other = ScheduleLR(sgd(1.0), lr=constant(0.1), total_steps=10)
    with pytest.raises(BindingError) as refusal:
        other.load_state_dict(saved)
    assert repr(SCHEDULE) in str(refusal.value)
    assert "constant(0.1)" in str(refusal.value)


def test_neither_or_both_of_lr_and_factor_raises() -> None:
    for keywords in ({}, {"lr": SCHEDULE, "factor": SCHEDULE}):
        with pytest.raises(TypeError, match=r"exactly one of lr= .* and factor="):
            ScheduleLR(sgd(1.0), total_steps=10, **keywords)


def test_lr_given_as_factor_raises() -> None:
    with pytest.raises(BindingError, match=r"the lr never exceeds 3e-07; did you mean lr="):
        ScheduleLR(sgd(1e-3), factor=3e-4 * cosine(1, 0), total_steps=10)


def test_one_lr_for_different_base_lrs_raises_before_anything_is_written() -> None:
    optimizer = sgd(0.1, 0.2)
    with pytest.raises(BindingError, match=r"they have different ones: \[0.1, 0.2\]; pass factor="):
        ScheduleLR(optimizer, lr=SCHEDULE, total_steps=10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert "initial_lr" not in optimizer.param_groups[0]


def test_schedule_that_does_not_fit_leaves_the_optimizer_unchanged() -> None:
    optimizer = sgd(0.1)
    with pytest.raises(ScheduleError, match="no room"):
        ScheduleLR(optimizer, factor=warmup(50).then(cosine(1, 0)), total_steps=10)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_text_is_a_schedule() -> None:
    ours, theirs = sgd(0.7), sgd(0.7)
    ScheduleLR(ours, lr=repr(SCHEDULE), total_steps=10)
    scheduler = ScheduleLR(theirs, lr=SCHEDULE, total_steps=10)
    assert lrs_of(ours, 10) == lrs_of(theirs, 10)
    assert scheduler.curve.schedule == SCHEDULE


def test_text_is_a_schedule_as_factor_by_group_and_for_other_hyperparams() -> None:
    texts, values = (sgd(0.1, 1.0, momentum=0.9) for _ in range(2))
    ScheduleLR(
        texts,
        factor={"0": "cosine(1, 0)", "1": warmup(3)},
        hyperparam_factors={"momentum": "linear(1, 0.5)"},
        total_steps=10,
    )
    ScheduleLR(
        values,
        factor={"0": cosine(1, 0), "1": warmup(3)},
        hyperparam_factors={"momentum": linear(1, 0.5)},
        total_steps=10,
    )
    assert lrs_of(texts, 5) == lrs_of(values, 5)
    assert texts.param_groups[0]["momentum"] == values.param_groups[0]["momentum"] < 0.9


def test_text_is_the_length_of_the_run() -> None:
    for text, length in {"1000": 1000, "epochs(3)": 300, "epochs(3) - 1": 299}.items():
        options = {"total_steps": text, "steps_per_epoch": 100}
        assert ScheduleLR(sgd(1.0), lr="cosine()", **options).end_step == length
    with pytest.raises(ScheduleError, match="did you mean 'epochs'"):
        ScheduleLR(sgd(1.0), lr="cosine()", total_steps="epoch(3)", steps_per_epoch=100)


def test_invalid_text_raises_with_a_suggestion() -> None:
    with pytest.raises(ScheduleError, match="cosine"):
        ScheduleLR(sgd(1.0), lr="cosin(1, 0)", total_steps=10)
    with pytest.raises(ScheduleError, match="cosine"):
        ScheduleLR(sgd(1.0), factor={"0": "cosin(1, 0)"}, total_steps=10)


@pytest.mark.parametrize("factor", [cosine(1, 0), "cosine(1, 0)"])
def test_number_and_factor_raises_with_their_product(factor) -> None:
    with pytest.raises(TypeError, match=r"write lr=0\.0003 \* cosine\(1, 0\)$"):
        ScheduleLR(sgd(1.0), lr=3e-4, factor=factor, total_steps=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"lr": 3e-4},
            r"lr= takes a schedule or a string .*, not 0\.0003; write constant\(0\.0003\)",
        ),
        ({"factor": 1}, r"factor= takes a schedule or a string .*, not 1; write constant\(1\)"),
        ({"factor": {0: 0.5}}, r"factor= of group 0 takes .* write constant\(0\.5\)"),
        ({"lr": [1, 2]}, r"lr= takes a schedule or a string .*, not \[1, 2\]$"),
        (
            {"factor": cosine(), "hyperparam_factors": {"momentum": 0.9}},
            r"hyperparam_factors\['momentum'\] takes .* write constant\(0\.9\)",
        ),
    ],
)
def test_number_alone_raises(arguments, message) -> None:
    with pytest.raises(TypeError, match=message):
        ScheduleLR(sgd(1.0), total_steps=10, **arguments)


def test_wrong_types_raise() -> None:
    with pytest.raises(TypeError, match="schedules a torch optimizer, not list"):
        ScheduleLR([], lr=SCHEDULE, total_steps=10)
    with pytest.raises(TypeError, match="takes no epoch"):
        ScheduleLR(sgd(1.0), lr=SCHEDULE, total_steps=10).step(3)


def test_endless_schedule_needs_no_total_steps() -> None:
    optimizer = sgd(1.0)
    ScheduleLR(optimizer, factor=exponential(1, 0.5, over=2))
    assert lrs_of(optimizer, 4)[2:] == [[0.5], [0.5]]


def test_repr_shows_schedule_step_and_lr():
    optimizer = sgd(1.0)
    scheduler = ScheduleLR(optimizer, lr=0.1 * wsd(20), total_steps=100)
    lrs_of(optimizer, 30)
    assert repr(scheduler) == "ScheduleLR(lr=0.1 * wsd(20), step 30 of 100, lr 0.1)"
    scheduler.remove()
    assert repr(scheduler) == "ScheduleLR(lr=0.1 * wsd(20), step 30 of 100, lr 0.1, removed)"


def test_repr_without_an_end_and_in_tokens():
    endless = ScheduleLR(sgd(0.1), factor=constant(0.5))
    assert repr(endless) == "ScheduleLR(factor=constant(0.5), step 0, lr 0.05)"
    in_tokens = ScheduleLR(sgd(0.1), factor=cosine(1, 0), total_steps=tokens(4e9))
    in_tokens.step(tokens=1e9)
    assert repr(in_tokens) == "ScheduleLR(factor=cosine(1, 0), 1e9 of 4e9 tokens, lr 0.08536)"


def test_repr_of_several_groups_is_short():
    same = ScheduleLR(sgd(*[0.1] * 9), factor=constant(1))
    assert repr(same) == "ScheduleLR(factor=constant(1), step 0, lr 0.1)"
    many = ScheduleLR(sgd(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), factor=constant(1))
    assert repr(many) == "ScheduleLR(factor=constant(1), step 0, lrs 0.1, 0.2, 0.3, ..., 0.6)"
    by_group = ScheduleLR(
        named(body=0.1, head=0.2),
        factor={"body": cosine(1, 0), "head": "constant(1)"},
        total_steps=9,
    )
    assert repr(by_group) == (
        "ScheduleLR(factor={body: cosine(1, 0), head: constant(1)}, step 0 of 9, lrs 0.1, 0.2)"
    )


def test_repr_shortens_a_long_schedule():
    schedule = warmup(1).then(*[cosine(1, 0.5, over=k) for k in range(2, 30)])
    text = repr(ScheduleLR(sgd(0.1), factor=schedule, total_steps=435))
    assert len(text) == 120
    assert text.startswith("ScheduleLR(factor=warmup(1).then(cosine(1, 0.5, over=2)).then(")
    assert text.endswith("..., step 0 of 435, lr 0)")

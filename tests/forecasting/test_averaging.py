"""Averaging by AdamW, compared with published numbers and with AdamW itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ratecraft import constant, cooldown, cosine, linear, percent
from ratecraft.errors import ScheduleError, SettingError
from ratecraft.forecasting import averaging

TOTAL = 1000


@pytest.mark.parametrize(
    ("schedule", "effective_steps", "initial_fraction"),
    [
        (constant(1), 394, 0.007),
        (constant(1).then(cooldown(percent(20))), 523, 0.011),
        (cosine(1, 0), 761, 0.081),
        (linear(1, 0), 867, 0.082),
    ],
    ids=["constant", "wsd", "cosine", "linear"],
)
def test_published_numbers(schedule, effective_steps: int, initial_fraction: float) -> None:
    result = averaging((0.05 * schedule).resolve(total_steps=TOTAL), 0.1)
    assert result.effective_steps == pytest.approx(effective_steps, abs=1)
    assert result.initial_fraction == pytest.approx(initial_fraction, abs=6e-4)
    assert result.timescales[0] == pytest.approx(200)
    assert f"the last {result.effective_steps:,.0f} steps" in str(result)


def test_initial_fraction_is_that_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.3)
    curve = (0.1 * cosine(1, 0)).resolve(total_steps=50)
    for k in range(50):
        optimizer.param_groups[0]["lr"] = curve(k)
        weight.grad = torch.zeros(1, dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(averaging(curve, 0.3).initial_fraction)


def test_decay_proportional_to_lr_averages_over_more_steps() -> None:
    lr = (0.05 * cosine(1, 0)).resolve(total_steps=TOTAL)
    coupled = averaging(lr, (0.1 * cosine(1, 0)).resolve(total_steps=TOTAL))
    assert coupled.timescales[500] == pytest.approx(2 * averaging(lr, 0.1).timescales[500])
    assert coupled.initial_fraction > averaging(lr, 0.1).initial_fraction


@given(
    lr=st.floats(0, 1), decay=st.floats(0, 1), total_steps=st.integers(1, 50), end=st.floats(0, 1)
)
def test_result_is_an_average(lr: float, decay: float, total_steps: int, end: float) -> None:
    result = averaging((lr * linear(1, end)).resolve(total_steps=total_steps), decay)
    assert 0 <= result.initial_fraction <= 1
    assert 0 <= result.effective_steps <= total_steps + 1e-6
    assert len(result.timescales) == total_steps


def test_zero_decay_averages_no_steps() -> None:
    result = averaging(constant(0.1).resolve(total_steps=10), 0)
    assert (result.effective_steps, result.initial_fraction, result.timescales[3]) == (
        0.0,
        1.0,
        math.inf,
    )


def test_invalid_arguments_raise() -> None:
    with pytest.raises(SettingError, match=r"lr \* weight_decay is 2 at step 0"):
        averaging(constant(2).resolve(total_steps=10), 1)
    with pytest.raises(SettingError, match=r"is -0\.1 at step 0"):
        averaging(constant(1).resolve(total_steps=10), -0.1)
    with pytest.raises(ScheduleError):
        averaging(constant(1).resolve(), 0.1)
    with pytest.raises(TypeError, match=r"lr is a schedule without a length; pass the curve"):
        averaging(constant(1), 0.1)

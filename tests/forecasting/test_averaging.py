"""AdamW as an average, beside numbers worked out elsewhere and beside AdamW itself."""

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
    ("schedule", "effective", "initial"),
    [
        (constant(1), 394, 0.007),
        (constant(1).then(cooldown(percent(20))), 523, 0.011),
        (cosine(1, 0), 761, 0.081),
        (linear(1, 0), 867, 0.082),
    ],
    ids=["constant", "wsd", "cosine", "linear"],
)
def test_known_numbers(schedule, effective: int, initial: float) -> None:
    found = averaging((0.05 * schedule).resolve(total_steps=TOTAL), 0.1)
    assert found.effective == pytest.approx(effective, abs=1)
    assert found.initial == pytest.approx(initial, abs=6e-4)
    assert found.timescales[0] == pytest.approx(200)
    assert f"the last {found.effective:,.0f} steps" in str(found)


def test_what_is_left_of_the_weights_is_what_adamw_leaves() -> None:
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.3)
    curve = (0.1 * cosine(1, 0)).resolve(total_steps=50)
    for k in range(50):
        optimizer.param_groups[0]["lr"] = curve(k)
        weight.grad = torch.zeros(1, dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(averaging(curve, 0.3).initial)


def test_decay_that_follows_the_lr_averages_over_more() -> None:
    lr = (0.05 * cosine(1, 0)).resolve(total_steps=TOTAL)
    coupled = averaging(lr, (0.1 * cosine(1, 0)).resolve(total_steps=TOTAL))
    assert coupled.timescales[500] == pytest.approx(2 * averaging(lr, 0.1).timescales[500])
    assert coupled.initial > averaging(lr, 0.1).initial


@given(
    lr=st.floats(0, 1), decay=st.floats(0, 1), total_steps=st.integers(1, 50), end=st.floats(0, 1)
)
def test_the_shares_are_an_average(lr: float, decay: float, total: int, end: float) -> None:
    found = averaging((lr * linear(1, end)).resolve(total_steps=total), decay)
    assert 0 <= found.initial <= 1
    assert 0 <= found.effective <= total + 1e-6
    assert len(found.timescales) == total


def test_without_decay_nothing_is_averaged() -> None:
    found = averaging(constant(0.1).resolve(total_steps=10), 0)
    assert (found.effective, found.initial, found.timescales[3]) == (0.0, 1.0, math.inf)


def test_mistakes_are_told() -> None:
    with pytest.raises(SettingError, match="lr x weight decay is 2 at step 0"):
        averaging(constant(2).resolve(total_steps=10), 1)
    with pytest.raises(SettingError, match=r"is -0\.1 at step 0"):
        averaging(constant(1).resolve(total_steps=10), -0.1)
    with pytest.raises(ScheduleError):
        averaging(constant(1).resolve(), 0.1)

"""refine: known shapes, and the bound that it minimizes."""

import numpy as np
import pytest

from ratecraft import linear, warmup
from ratecraft.errors import SettingError
from ratecraft.forecasting import bound, refine

T = 1000
X = np.arange(T) / T


def values(schedule):
    return schedule.resolve(total_steps=T).values()


def test_constant_norms_give_a_linear_decay() -> None:
    assert values(refine([3.0] * T)) == pytest.approx(values(linear(1, 0)), abs=2e-3)
    assert values(refine([7.0] * T)) == pytest.approx(values(refine([3.0] * T)))


@pytest.mark.parametrize(("power", "adaptive"), [(0.25, False), (0.5, True)])
def test_norms_that_grow_as_a_power_give_a_polynomial(power: float, adaptive: bool) -> None:
    # w = (1 - x)^a with a = .5 gives (1 - x)^2.
    norms = np.maximum(1 - X, 1e-3) ** -power
    lrs = values(refine(norms, adaptive=adaptive, pieces=50))
    assert lrs == pytest.approx((1 - X) ** 2, abs=0.02)


def test_high_initial_norms_give_a_warmup_and_a_lower_bound() -> None:
    norms = 1 + 9 * np.exp(-X / 0.05)
    shape = refine(norms)
    lrs = values(shape)
    assert lrs[0] < 0.2
    assert 50 < lrs.argmax() <= 300
    best = [
        bound(each.resolve(total_steps=T), gradient=norms.tolist()).best
        for each in (shape, linear(1, 0), warmup(100).then(linear(1, 0)))
    ]
    assert best[0] == min(best)


def test_invalid_norms_raise() -> None:
    with pytest.raises(SettingError, match="5 norms and pieces=20"):
        refine([1.0] * 5)
    with pytest.raises(SettingError, match="finite numbers above 0"):
        refine([1.0] * 50 + [0.0])

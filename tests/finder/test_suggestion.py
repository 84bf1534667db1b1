import random

import pytest

from ratecraft.finder._range_test import suggest_lr

LRS = [10 ** (-8 + 9 * i / 99) for i in range(100)]


def smooth(losses: list[float], beta: float = 0.98) -> list[float]:
    average, smoothed = 0.0, []
    for k, loss in enumerate(losses):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta ** (k + 1)))
    return smoothed


def test_the_suggestion_is_a_tenth_of_the_lr_at_the_minimum() -> None:
    losses = [2.0] * 60 + [2.0 - 0.05 * i for i in range(30)] + [float(i) for i in range(1, 11)]
    suggestion, reason = suggest_lr(LRS, losses, losses)
    assert suggestion == LRS[89] / 10
    assert "a tenth of the lr at the minimum" in reason


def test_low_loss_of_the_first_batch_is_not_the_minimum() -> None:
    losses = [0.1] + [2.0] * 60 + [1.0] * 38 + [9.0]
    suggestion, _ = suggest_lr(LRS, losses, losses)
    assert suggestion == LRS[61] / 10


@pytest.mark.parametrize("seed", range(20))
def test_noise_without_a_descent_gives_no_suggestion(seed: int) -> None:
    rng = random.Random(seed)
    losses = [2.3 + rng.gauss(0, 0.05) for _ in LRS]
    suggestion, reason = suggest_lr(LRS, losses, smooth(losses))
    assert suggestion is None
    assert "never fell clearly" in reason
    assert "test with more steps" in reason


def test_rising_curve_gives_no_suggestion() -> None:
    losses = [1.0 + i / 50 for i in range(100)]
    assert suggest_lr(LRS, losses, losses)[0] is None


def test_too_short_a_curve_gives_no_suggestion() -> None:
    assert suggest_lr([1e-3, 1e-2], [2.0, 1.0], [2.0, 1.0]) == (
        None,
        "no suggestion: the curve has only 2 steps",
    )


def test_losses_below_zero_get_a_suggestion() -> None:
    losses = [-2.0] * 60 + [-3.0] * 30 + [5.0] * 10
    assert suggest_lr(LRS, losses, losses)[0] == LRS[60] / 10

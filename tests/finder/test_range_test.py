import math

import pytest
import torch
from restoring import (
    Boom,
    Net,
    cross_entropy,
    failing,
    seed_everything,
    trained_after,
    training_setup,
)
from torch import nn

from ratecraft import cosine
from ratecraft.errors import BindingError, RunFailed, SettingError, TaskError
from ratecraft.experiments import load_task
from ratecraft.experiments._train import create_model_and_optimizer
from ratecraft.finder import range_test
from ratecraft.torch import ScheduleLR


def whole(model, optimizer, loader) -> None:
    result = range_test(model, optimizer, loader, cross_entropy)
    assert len(result.lrs) > 50


def interrupted(error: BaseException):
    def trial(model, optimizer, loader) -> None:
        with pytest.raises(type(error)):
            range_test(model, optimizer, loader, failing(60, error))

    return trial


@pytest.mark.parametrize(
    "trial",
    [whole, interrupted(Boom()), interrupted(KeyboardInterrupt())],
    ids=["end", "error", "ctrl-c"],
)
def test_later_training_is_bitwise_unchanged(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert torch.equal(untouched[2], touched[2])
    assert touched[4] == untouched[4]


def test_scheduler_of_the_optimizer_does_not_advance() -> None:
    model, optimizer, loader = training_setup()
    scheduler = ScheduleLR(optimizer, factor=cosine(1, 0), total_steps=500)
    range_test(model, optimizer, loader, cross_entropy)
    assert scheduler.last_epoch == 0
    optimizer.step()
    assert scheduler.last_epoch == 1


def test_digits_suggestion_is_reasonable_and_reproducible() -> None:
    task = load_task("digits")
    suggestions = []
    for _ in range(2):
        seed_everything(0)
        model, optimizer = create_model_and_optimizer(task)
        suggestions.append(range_test(model, optimizer, task.train, task.loss).suggestion)
    assert suggestions[0] == suggestions[1]
    assert 1e-3 < suggestions[0] < 0.05


def line(lr: float = 0.1):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 64)[:, None]
    return model, torch.optim.SGD(model.parameters(), lr=lr), list(x.split(8))


def squares(model, batch) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def test_lrs_are_geometric_and_losses_smoothed_with_bias_correction() -> None:
    model, optimizer, loader = line()
    result = range_test(model, optimizer, loader, squares, low=1e-4, high=1e-1, steps=4)
    assert result.lrs == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    average = 0.0
    for k, (loss, smooth) in enumerate(zip(result.losses, result.smoothed, strict=True)):
        average = 0.98 * average + 0.02 * loss
        assert smooth == pytest.approx(average / (1 - 0.98 ** (k + 1)))


def test_default_is_one_epoch_but_at_least_100_steps() -> None:
    model, optimizer, loader = line()
    assert len(range_test(model, optimizer, loader, squares, high=1e-4).lrs) == 100
    assert len(range_test(model, optimizer, loader * 20, squares, high=1e-4).lrs) == 160


def test_divergence_ends_the_test() -> None:
    model, optimizer, loader = line()
    result = range_test(model, optimizer, loader, squares, high=1e3)
    assert "exceeded 4 times its minimum" in result.stop_reason
    assert result.smoothed[-1] > 4 * min(result.smoothed)
    assert max(result.smoothed[:-1]) <= 4 * min(result.smoothed)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_non_finite_loss_ends_the_test_and_keeps_the_curve(odd: float) -> None:
    model, optimizer, loader = line()
    calls = iter(range(1000))

    def loss(model, batch) -> torch.Tensor:
        return squares(model, batch) * (odd if next(calls) >= 40 else 1.0)

    result = range_test(model, optimizer, loader, loss)
    assert len(result.losses) == 40
    assert f"the loss was {odd}" in result.stop_reason


def test_non_finite_first_loss_raises() -> None:
    model, optimizer, loader = line()
    with pytest.raises(RunFailed, match="nan at the first step, before any training"):
        range_test(model, optimizer, loader, lambda m, b: squares(m, b) * math.nan)


def test_losses_below_zero_do_not_end_the_test_early() -> None:
    model, optimizer, loader = line()
    result = range_test(model, optimizer, loader, lambda m, b: squares(m, b) - 5, high=1e3)
    assert len(result.losses) > 60
    assert "rose too far above its minimum" in result.stop_reason


def test_param_groups_keep_the_ratios_of_their_lrs() -> None:
    model = Net()
    seen = []
    optimizer = torch.optim.SGD(
        [{"params": model.body.parameters(), "lr": 0.01}, {"params": model.head.parameters()}],
        lr=0.1,
    )

    def loss(model, batch) -> torch.Tensor:
        seen.append([group["lr"] for group in optimizer.param_groups])
        return cross_entropy(model, batch)

    batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
    result = range_test(model, optimizer, batches, loss, steps=5)
    assert [pair[1] for pair in seen] == pytest.approx(list(result.lrs))
    assert [pair[0] / pair[1] for pair in seen] == pytest.approx([0.1] * 5)


def test_model_in_evaluation_mode_is_tested_in_training_mode() -> None:
    model, optimizer, loader = training_setup()
    model.eval()
    seen = []

    def loss(model, batch) -> torch.Tensor:
        seen.append(model.training)
        return cross_entropy(model, batch)

    range_test(model, optimizer, loader, loss, steps=3)
    assert seen == [True] * 3
    assert not model.training


def test_invalid_input_raises() -> None:
    model, optimizer, loader = line()
    with pytest.raises(TaskError, match=r"returned float; expected a tensor of numbers"):
        range_test(model, optimizer, loader, lambda m, b: 3.0)
    with pytest.raises(TaskError, match="returned a tensor that does not require grad"):
        range_test(model, optimizer, loader, lambda m, b: squares(m, b).detach())
    with pytest.raises(TaskError, match="the loader is empty"):
        range_test(model, optimizer, [], squares)
    with pytest.raises(SettingError, match="0 < low < high"):
        range_test(model, optimizer, loader, squares, low=1, high=0.1)
    with pytest.raises(SettingError, match="at least 2"):
        range_test(model, optimizer, loader, squares, steps=1)
    with pytest.raises(SettingError, match="0 <= beta < 1"):
        range_test(model, optimizer, loader, squares, beta=1.0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": -1.0})
    with pytest.raises(BindingError, match="no ratios"):
        range_test(model, optimizer, loader, squares)


def test_progress_is_called_after_each_step() -> None:
    model, optimizer, loader = line()
    calls = []
    range_test(model, optimizer, loader, squares, steps=5, progress=lambda *p: calls.append(p))
    assert calls == [(k, 5) for k in range(1, 6)]

"""coordinate_lrs compared with each published formula, implemented again in float64."""

import inspect
import math

import pytest
import torch

from ratecraft.diagnostics._coordinate import coordinate_lrs, decoupled_decay

LR = 0.02


def adam(gradients, amsgrad=False, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba 2014, algorithm 1: the multiplier of the corrected first moment."""
    v, largest, lrs = 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        v = b2 * v + (1 - b2) * g * g
        largest = max(largest, v)
        corrected = (largest if amsgrad else v) / (1 - b2**t)
        lrs.append(LR / (math.sqrt(corrected) + eps))
    return lrs


def radam(gradients, b2=0.999, eps=1e-8):
    """Liu et al. 2019, arXiv 1908.03265, algorithm 2."""
    v, lrs, longest = 0.0, [], 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, 1):
        v = b2 * v + (1 - b2) * g * g
        length = longest - 2 * t * b2**t / (1 - b2**t)
        if length <= 5:
            lrs.append(LR)
            continue
        top = (length - 4) * (length - 2) * longest
        r = math.sqrt(top / ((longest - 4) * (longest - 2) * length))
        lrs.append(LR * r * math.sqrt(1 - b2**t) / (math.sqrt(v) + eps))
    return lrs


def adamax(gradients, b2=0.999, eps=1e-8):
    """Kingma & Ba 2014, algorithm 2, with torch's eps inside the maximum."""
    u, lrs = 0.0, []
    for g in gradients:
        u = max(b2 * u, abs(g) + eps)
        lrs.append(LR / u)
    return lrs


def adagrad(gradients, decay=0.0, eps=1e-10):
    """Duchi et al. 2011, the diagonal version."""
    squares, lrs = 0.0, []
    for t, g in enumerate(gradients):
        squares += g * g
        lrs.append(LR / (1 + t * decay) / (math.sqrt(squares) + eps))
    return lrs


def rmsprop(gradients, centered=False, alpha=0.99, eps=1e-8):
    """Hinton 2012, lecture 6e; centered: Graves 2013, arXiv 1308.0850."""
    v, mean, lrs = 0.0, 0.0, []
    for g in gradients:
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        lrs.append(LR / (math.sqrt(v - mean * mean if centered else v) + eps))
    return lrs


def adadelta(gradients, rho=0.9, eps=1e-6):
    """Zeiler 2012, arXiv 1212.5701, algorithm 1: the average of squared steps before this one."""
    v, steps, lrs = 0.0, 0.0, []
    for g in gradients:
        v = rho * v + (1 - rho) * g * g
        scale = math.sqrt(steps + eps) / math.sqrt(v + eps)
        steps = rho * steps + (1 - rho) * (scale * g) ** 2
        lrs.append(LR * scale)
    return lrs


CASES = {
    "adam": (torch.optim.Adam, {}, adam),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.3}, adam),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}, lambda g: adam(g, amsgrad=True)),
    "nadam": (torch.optim.NAdam, {}, adam),
    "radam": (torch.optim.RAdam, {}, radam),
    "adamax": (torch.optim.Adamax, {}, adamax),
    "adagrad": (torch.optim.Adagrad, {}, adagrad),
    "adagrad, decayed": (torch.optim.Adagrad, {"lr_decay": 0.1}, lambda g: adagrad(g, 0.1)),
    "rmsprop": (torch.optim.RMSprop, {}, rmsprop),
    "rmsprop, centered": (
        torch.optim.RMSprop,
        {"centered": True, "momentum": 0.9},
        lambda g: rmsprop(g, centered=True),
    ),
    "adadelta": (torch.optim.Adadelta, {}, adadelta),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("foreach", [False, True])
def test_fifty_steps_match_the_published_formula(name: str, foreach: bool) -> None:
    optimizer_class, settings, formula = CASES[name]
    generator = torch.Generator().manual_seed(4)
    gradients = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    gradients *= torch.logspace(-4, 2, 7, dtype=torch.float64)
    weight = torch.nn.Parameter(torch.ones(7, dtype=torch.float64))
    optimizer = optimizer_class([weight], lr=LR, foreach=foreach, **settings)
    (group,) = optimizer.param_groups
    if not optimizer.state:  # Adagrad creates its state at construction
        assert coordinate_lrs(optimizer, weight, group) is None
    expected = [formula(column.tolist()) for column in gradients.T]
    for t, gradient in enumerate(gradients):
        state = optimizer.state.get(weight, {})
        acc_delta = state["acc_delta"].clone() if "acc_delta" in state else None
        weight.grad = gradient.clone()
        optimizer.step()
        lrs = coordinate_lrs(optimizer, weight, group, acc_delta=acc_delta)
        assert lrs.tolist() == pytest.approx([lr[t] for lr in expected], rel=1e-6), t


@pytest.mark.parametrize(
    "optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_step_is_lr_times_first_moment_or_gradient(optimizer_class) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = optimizer_class([weight], lr=LR, weight_decay=0.0)
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad = torch.tensor([1e-3, 1.0, 50.0])
        optimizer.step()
    state = optimizer.state[weight]
    multiplied = weight.grad
    if "exp_avg" in state:
        multiplied = state["exp_avg"] / (1 - 0.9**5)
    lrs = coordinate_lrs(optimizer, weight, optimizer.param_groups[0])
    # The step is a difference of float32 weights near 1, hence the tolerance.
    assert torch.allclose(before - weight.detach(), lrs * multiplied, atol=2e-7)


def test_sgd_has_no_lrs_per_coordinate() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=LR, momentum=0.9)
    weight.grad = torch.ones(3)
    optimizer.step()
    assert coordinate_lrs(optimizer, weight, optimizer.param_groups[0]) is None


@pytest.mark.parametrize(
    ("optimizer_class", "settings", "decay_fraction"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.5}, 0.01),
        (torch.optim.Adam, {"weight_decay": 0.5}, 0.0),
        (torch.optim.Adam, {"weight_decay": 0.5, "decoupled_weight_decay": True}, 0.01),
        (torch.optim.NAdam, {"weight_decay": 0.5, "decoupled_weight_decay": True}, 0.01),
        (torch.optim.SGD, {"weight_decay": 0.5}, 0.0),
        (torch.optim.AdamW, {"weight_decay": 0.0}, 0.0),
    ],
)
def test_decoupled_decay(optimizer_class, settings, decay_fraction: float) -> None:
    if not {*settings} <= {*inspect.signature(optimizer_class).parameters}:
        pytest.skip("torch 2.6 has decoupled_weight_decay in NAdam only")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = optimizer_class([weight], lr=LR, **settings)
    decay = decoupled_decay(optimizer, optimizer.param_groups[0])
    assert decay == pytest.approx(decay_fraction)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert (weight.item() == pytest.approx(1 - decay_fraction)) == (
        decay_fraction > 0 or optimizer_class is torch.optim.AdamW
    )

"""The rate of every single weight under an adaptive method, from the optimizer's own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch.optim import (
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

__all__ = ["coordinate_rates", "decoupled_decay", "sampled_rates", "used_before"]

State = Mapping[str, Any]
Group = Mapping[str, Any]


def _steps(state: State) -> torch.Tensor:
    """Return how many updates there were, in float64: 1 - beta^step loses digits otherwise."""
    return torch.as_tensor(state["step"], dtype=torch.float64)


def _adam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    second: torch.Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    root = (1 - group["betas"][1] ** _steps(state)) ** 0.5
    rates: torch.Tensor = lr / (second.sqrt() / root + group["eps"])
    return rates


def _nadam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    corrected: torch.Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** _steps(state))
    rates: torch.Tensor = lr / (corrected.sqrt() + group["eps"])
    return rates


def _radam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    beta2, step = group["betas"][1], _steps(state)
    power = beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * power / (1 - power)
    top = (length - 4) * (length - 2) * longest
    rectified = (top / ((longest - 4) * (longest - 2) * length)).clamp_min(0).sqrt()
    adaptive = rectified * (1 - power).sqrt() / (state["exp_avg_sq"].sqrt() + group["eps"])
    rates: torch.Tensor = lr * torch.where(length > 5, adaptive, torch.ones_like(adaptive))
    return rates


def _adamax(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    largest: torch.Tensor = state["exp_inf"]
    rates: torch.Tensor = lr / largest
    return rates


def _adagrad(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    decayed = lr / (1 + (_steps(state) - 1) * group["lr_decay"])
    total: torch.Tensor = state["sum"]
    rates: torch.Tensor = decayed / (total.sqrt() + group["eps"])
    return rates


def _rmsprop(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    if group["centered"]:
        second = second - state["grad_avg"] ** 2
    rates: torch.Tensor = lr / (second.sqrt() + group["eps"])
    return rates


def _adadelta(state: State, group: Group, lr: Any, before: torch.Tensor | None) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    steps = torch.zeros_like(second) if before is None else before
    rates: torch.Tensor = lr * (steps + group["eps"]).sqrt() / (second + group["eps"]).sqrt()
    return rates


NEEDED: Final = (
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "sum",
    "square_avg",
    "grad_avg",
    "acc_delta",
)
"""State with a number for each coordinate that some formula reads."""

RATES: Final[dict[type[Optimizer], Callable[..., torch.Tensor]]] = {
    Adam: _adam,
    AdamW: _adam,
    NAdam: _nadam,
    RAdam: _radam,
    Adamax: _adamax,
    Adagrad: _adagrad,
    RMSprop: _rmsprop,
    Adadelta: _adadelta,
}


def used_before(optimizer: Optimizer) -> str | None:
    """Return the name of the state that an update uses as it was before, or None."""
    return "acc_delta" if isinstance(optimizer, Adadelta) else None


def coordinate_rates(
    optimizer: Optimizer,
    parameter: torch.Tensor,
    group: Group,
    *,
    lr: Any = None,
    before: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return what multiplied each coordinate of a parameter in the update that was just made.

    Of the corrected first moment: lr / (sqrt(v) + eps) for Adam, AdamW and NAdam, where v is the
    corrected second moment; that times the rectification for RAdam; lr / u for Adamax. Of the
    gradient: lr_t / (sqrt(sum of g^2) + eps) for Adagrad, lr / (sqrt(v) + eps) for RMSprop,
    lr sqrt(D + eps) / sqrt(v + eps) for Adadelta, where D is the average of squared steps before
    the update. All else is as it is after the update, which used it so. Decay is not in it.

    Args:
        optimizer: an optimizer of torch's.
        parameter: one of its parameters.
        group: its param group.
        lr: the rate of the update; default the group's present one.
        before: for Adadelta its ``acc_delta`` before the update; default zero, as at first.

    Returns:
        A tensor like the parameter; None for methods that have one rate for all, and where the
        optimizer has no state of the parameter yet.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = torch.optim.Adagrad([weight], lr=0.5)
    >>> weight.grad = torch.tensor([1.0, 2.0])
    >>> optimizer.step()
    >>> rates = coordinate_rates(optimizer, weight, optimizer.param_groups[0])
    >>> [round(x, 6) for x in rates.tolist()]
    [0.5, 0.25]
    """
    state = optimizer.state.get(parameter)
    found = next((rate for kind, rate in RATES.items() if isinstance(optimizer, kind)), None)
    if found is None or not state:
        return None
    with torch.no_grad():
        return found(state, group, group["lr"] if lr is None else lr, before)


@torch.no_grad()
def sampled_rates(
    optimizer: Optimizer,
    parameters: Sequence[torch.Tensor],
    group: Group,
    strides: Sequence[int],
    *,
    lr: Any,
    before: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor, list[int]] | None:
    """Return `coordinate_rates` of every so manieth coordinate of some parameters, in one go.

    Returns:
        The rates, one parameter's after the other's, and how many each has; or None as there.
    """
    found = next((rate for kind, rate in RATES.items() if isinstance(optimizer, kind)), None)
    states: list[State] = [optimizer.state.get(parameter, {}) for parameter in parameters]
    if found is None or not all(states):
        return None
    pieces: dict[str, list[torch.Tensor]] = {}
    for state, stride in zip(states, strides, strict=True):
        for name in NEEDED:
            if name in state:
                pieces.setdefault(name, []).append(state[name].view(-1)[::stride])
    joined = {name: torch.cat(some) for name, some in pieces.items()}
    counts = [len(piece) for piece in next(iter(pieces.values()))]
    if "step" in states[0]:
        joined["step"] = _joined_steps(states, counts, next(iter(joined.values())).device)
    early = None
    if any(one is not None for one in before):
        # Where there was no state yet, the first update found zeros.
        early = torch.cat([
            piece.new_zeros(piece.shape) if one is None else one.flatten()[::stride]
            for one, stride, piece in zip(before, strides, pieces["acc_delta"], strict=True)
        ])  # fmt: skip
    return found(joined, group, lr, early), counts


def _joined_steps(
    states: Sequence[State], counts: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Return how many updates each coordinate had; one number where all had as many."""
    steps = [_steps(state) for state in states]
    if all(step.device.type == "cpu" for step in steps) and len(set(map(float, steps))) == 1:
        return steps[0]
    repeats = torch.tensor(counts, device=steps[0].device)
    every = torch.stack(steps).repeat_interleave(repeats, output_size=sum(counts))
    return every.to(device)


def decoupled_decay(optimizer: Optimizer, group: Group, lr: Any) -> Any:
    """Return by what share of itself an update shrinks a weight beside the step: lr x decay.

    0 where weight decay is part of the gradient, as in SGD, Adam, Adagrad and others.
    """
    decay = group.get("weight_decay", 0)
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    if type(optimizer).__name__ in ("Muon", "Adafactor"):
        decoupled = True
    return lr * decay if decay and decoupled else 0.0

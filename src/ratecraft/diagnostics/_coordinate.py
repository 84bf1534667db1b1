"""The lr of every single weight under an adaptive method, from the optimizer's own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

State = Mapping[str, Any]
Group = Mapping[str, Any]


def _steps(state: State) -> torch.Tensor:
    """Return how many steps there were, in float64: 1 - beta^step loses digits otherwise."""
    return torch.as_tensor(state["step"], dtype=torch.float64)


def _adam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    second: torch.Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    root = (1 - group["betas"][1] ** _steps(state)) ** 0.5
    lrs: torch.Tensor = lr / (second.sqrt() / root + group["eps"])
    return lrs


def _nadam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    corrected: torch.Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** _steps(state))
    lrs: torch.Tensor = lr / (corrected.sqrt() + group["eps"])
    return lrs


def _radam(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    beta2, step = group["betas"][1], _steps(state)
    power = beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * power / (1 - power)
    top = (length - 4) * (length - 2) * longest
    rectified = (top / ((longest - 4) * (longest - 2) * length)).clamp_min(0).sqrt()
    adaptive = rectified * (1 - power).sqrt() / (state["exp_avg_sq"].sqrt() + group["eps"])
    lrs: torch.Tensor = lr * torch.where(length > 5, adaptive, torch.ones_like(adaptive))
    return lrs


def _adamax(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    largest: torch.Tensor = state["exp_inf"]
    lrs: torch.Tensor = lr / largest
    return lrs


def _adagrad(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    decayed = lr / (1 + (_steps(state) - 1) * group["lr_decay"])
    total_steps: torch.Tensor = state["sum"]
    lrs: torch.Tensor = decayed / (total_steps.sqrt() + group["eps"])
    return lrs


def _rmsprop(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    if group["centered"]:
        second = second - state["grad_avg"] ** 2
    lrs: torch.Tensor = lr / (second.sqrt() + group["eps"])
    return lrs


def _adadelta(state: State, group: Group, lr: Any, before: torch.Tensor | None) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    steps = torch.zeros_like(second) if before is None else before
    lrs: torch.Tensor = lr * (steps + group["eps"]).sqrt() / (second + group["eps"]).sqrt()
    return lrs


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

LRS: Final[dict[type[Optimizer], tuple[Callable[..., torch.Tensor], str]]] = {
    Adam: (_adam, "exp_avg_sq"),
    AdamW: (_adam, "exp_avg_sq"),
    NAdam: (_nadam, "exp_avg_sq"),
    RAdam: (_radam, "exp_avg_sq"),
    Adamax: (_adamax, "exp_inf"),
    Adagrad: (_adagrad, "sum"),
    RMSprop: (_rmsprop, "square_avg"),
    Adadelta: (_adadelta, "square_avg"),
}
"""Formulas, and the state that they cannot do without."""


def _formula(optimizer: Optimizer, states: Sequence[State]) -> Callable[..., torch.Tensor] | None:
    """Return the formula of a method that has one, and has its state."""
    for kind, (formula, needed) in LRS.items():
        if isinstance(optimizer, kind):
            return formula if all(needed in state for state in states) else None
    return None


def used_before(optimizer: Optimizer) -> str | None:
    """Return the name of the state that a step uses as it was before, or None."""
    return "acc_delta" if isinstance(optimizer, Adadelta) else None


def coordinate_lrs(
    optimizer: Optimizer,
    parameter: torch.Tensor,
    group: Group,
    *,
    lr: Any = None,
    before: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return what multiplied each coordinate of a parameter in the step that was just made.

    Of the corrected first moment: lr / (sqrt(v) + eps) for Adam, AdamW and NAdam, where v is the
    corrected second moment; that times the rectification for RAdam; lr / u for Adamax. Of the
    gradient: lr_t / (sqrt(sum of g^2) + eps) for Adagrad, lr / (sqrt(v) + eps) for RMSprop,
    lr sqrt(D + eps) / sqrt(v + eps) for Adadelta, where D is the average of squared steps before
    the step. All else is as it is after the step, which used it so. Decay is not in it.

    Args:
        optimizer: an optimizer of torch's.
        parameter: one of its parameters.
        group: its param group.
        lr: the lr of the step; default the group's present one.
        before: for Adadelta its ``acc_delta`` before the step; default zero, as at first.

    Returns:
        A tensor like the parameter, of a complex one with its two parts last; None for methods
        that have one lr for all, and where the optimizer has no state of the parameter yet.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = torch.optim.Adagrad([weight], lr=0.5)
    >>> weight.grad = torch.tensor([1.0, 2.0])
    >>> optimizer.step()
    >>> lrs = coordinate_lrs(optimizer, weight, optimizer.param_groups[0])
    >>> [round(x, 6) for x in lrs.tolist()]
    [0.5, 0.25]
    """
    state: State = optimizer.state.get(parameter, {})
    formula = _formula(optimizer, [state])
    if formula is None:
        return None
    with torch.no_grad():
        told = {name: _real(value) for name, value in state.items()}
        early = None if before is None else _real(before)
        return formula(told, group, group["lr"] if lr is None else lr, early)


@dataclass(frozen=True, slots=True)
class Sample:
    """The state behind the lrs of every so manieth coordinate of some parameters.

    Attributes:
        formula: one of `LRS`.
        state: the state's parts, one parameter's coordinates after the other's.
        steps: how many steps each parameter had.
        counts: how many coordinates each has here.
        group: what the param group said.
        lr: the lr of the step.
        before: what `used_before` names, if anything.
    """

    formula: Callable[..., torch.Tensor]
    state: dict[str, torch.Tensor]
    steps: torch.Tensor | None
    counts: list[int]
    group: Group
    lr: Any
    before: torch.Tensor | None

    @torch.no_grad()
    def lrs(self) -> list[torch.Tensor]:
        """Return what `coordinate_lrs` says of these coordinates, parameter by parameter."""
        state: dict[str, Any] = {name: piece.cpu() for name, piece in self.state.items()}
        if self.steps is not None:
            steps = self.steps.to("cpu", torch.float64)
            state["step"] = steps.repeat_interleave(torch.tensor(self.counts))
        lr = float(self.lr)
        before = None if self.before is None else self.before.cpu()
        return list(torch.split(self.formula(state, self.group, lr, before), self.counts))


@torch.no_grad()
def sample(
    optimizer: Optimizer,
    parameters: Sequence[torch.Tensor],
    group: Group,
    strides: Sequence[int],
    *,
    lr: Any,
    before: Sequence[torch.Tensor | None] | None,
) -> Sample | None:
    """Keep what `coordinate_lrs` needs for every so manieth coordinate of some parameters.

    The formulas wait until somebody asks for their results: what a measurement costs is mostly
    the number of calls of torch.

    Args:
        optimizer: an optimizer of torch's.
        parameters: some of its parameters, on one device.
        group: their param group.
        strides: of each, how many coordinates to go from one to the next.
        lr: the lr of the step.
        before: of each, what `used_before` names, or None where there was no state yet.

    Returns:
        What was kept; None where `coordinate_lrs` returns it.
    """
    states: list[State] = [optimizer.state.get(parameter, {}) for parameter in parameters]
    formula = _formula(optimizer, states)
    if formula is None:
        return None
    joined = {
        name: torch.cat([_every(state[name], n) for state, n in zip(states, strides, strict=True)])
        for name in NEEDED
        if name in states[0]
    }
    counts = [
        -(-p.numel() * (1 + p.is_complex()) // stride)
        for p, stride in zip(parameters, strides, strict=True)
    ]
    steps = None
    if "step" in states[0]:
        steps = torch.stack([_tensor(state["step"]) for state in states])
    early = None
    if before is not None:
        # Where there was no state yet, the first step found zeros.
        early = torch.cat([
            _every(torch.zeros_like(p) if one is None else one, stride)
            for p, one, stride in zip(parameters, before, strides, strict=True)
        ])  # fmt: skip
    told = {name: value for name, value in group.items() if name != "params"}
    return Sample(formula, joined, steps, counts, told, lr, early)


def _every(tensor: torch.Tensor, stride: int) -> torch.Tensor:
    """Return every so manieth number, in the order of indices whatever that in memory is."""
    flat: torch.Tensor = _real(tensor).reshape(-1)
    return flat if stride == 1 else flat[::stride]


def _real(value: Any) -> Any:
    """Return a complex tensor's two parts, which every method takes for two coordinates."""
    complex_one = isinstance(value, torch.Tensor) and value.is_complex()
    return torch.view_as_real(value) if complex_one else value


def _tensor(step: Any) -> torch.Tensor:
    return step if isinstance(step, torch.Tensor) else torch.tensor(step)


def decoupled_decay(optimizer: Optimizer, group: Group, lr: Any) -> Any:
    """Return by what share of itself a step shrinks a weight beside the step: lr x decay.

    0 where weight decay is part of the gradient, as in SGD, Adam, Adagrad and others.
    """
    decay = group.get("weight_decay", 0)
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    if type(optimizer).__name__ in ("Muon", "Adafactor"):
        decoupled = True
    return lr * decay if decay and decoupled else 0.0

"""Learning rates of single coordinates under adaptive methods, from the optimizer's state."""

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
    """Return the number of steps in float64: 1 - beta^steps loses digits in float32."""
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
    sum_of_squares: torch.Tensor = state["sum"]
    lrs: torch.Tensor = decayed / (sum_of_squares.sqrt() + group["eps"])
    return lrs


def _rmsprop(state: State, group: Group, lr: Any, _: Any) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    if group["centered"]:
        second = second - state["grad_avg"] ** 2
    lrs: torch.Tensor = lr / (second.sqrt() + group["eps"])
    return lrs


def _adadelta(state: State, group: Group, lr: Any, acc_delta: torch.Tensor | None) -> torch.Tensor:
    second: torch.Tensor = state["square_avg"]
    steps = torch.zeros_like(second) if acc_delta is None else acc_delta
    lrs: torch.Tensor = lr * (steps + group["eps"]).sqrt() / (second + group["eps"]).sqrt()
    return lrs


COORDINATE_STATES: Final = (
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "sum",
    "square_avg",
    "grad_avg",
    "acc_delta",
)
"""Optimizer states that hold a number per coordinate and that a formula reads."""

FORMULAS: Final[dict[type[Optimizer], tuple[Callable[..., torch.Tensor], str]]] = {
    Adam: (_adam, "exp_avg_sq"),
    AdamW: (_adam, "exp_avg_sq"),
    NAdam: (_nadam, "exp_avg_sq"),
    RAdam: (_radam, "exp_avg_sq"),
    Adamax: (_adamax, "exp_inf"),
    Adagrad: (_adagrad, "sum"),
    RMSprop: (_rmsprop, "square_avg"),
    Adadelta: (_adadelta, "square_avg"),
}
"""The formula of each optimizer class, and the state that it requires."""


def _formula(optimizer: Optimizer, states: Sequence[State]) -> Callable[..., torch.Tensor] | None:
    """Return the optimizer's formula, or None if it has none or its state does not exist yet."""
    for optimizer_class, (formula, required) in FORMULAS.items():
        if isinstance(optimizer, optimizer_class):
            return formula if all(required in state for state in states) else None
    return None


def pre_step_state(optimizer: Optimizer) -> str | None:
    """Return the name of the state that the formula reads as it is before the step, or None."""
    return "acc_delta" if isinstance(optimizer, Adadelta) else None


def coordinate_lrs(
    optimizer: Optimizer,
    parameter: torch.Tensor,
    group: Group,
    *,
    lr: Any = None,
    acc_delta: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return the learning rate of each coordinate of a parameter in the step just taken.

    It is the multiplier of the bias-corrected first moment: lr / (sqrt(v) + eps) for Adam, AdamW
    and NAdam, with v the bias-corrected second moment; the same times the rectification for
    RAdam; lr / u for Adamax. Or it is the multiplier of the gradient:
    lr_t / (sqrt(sum of g^2) + eps) for Adagrad, lr / (sqrt(v) + eps) for RMSprop, and
    lr sqrt(D + eps) / sqrt(v + eps) for Adadelta, with D the average of squared steps before this
    step. Weight decay is not included.

    Args:
        optimizer: a torch optimizer.
        parameter: one of its parameters.
        group: the parameter's param group.
        lr: the lr of the step; default: the group's current lr.
        acc_delta: for Adadelta, the state ``acc_delta`` before the step; default 0, as at the
            first step.

    Returns:
        A tensor of the parameter's shape; for a complex parameter with a last dimension of 2
        (real, imaginary). None if the method has one lr for all coordinates, or the optimizer has
        no state for the parameter yet.

    >>> import torch
    >>> from ratecraft.diagnostics import coordinate_lrs
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
        real_state = {name: _real(value) for name, value in state.items()}
        averaged = None if acc_delta is None else _real(acc_delta)
        return formula(real_state, group, group["lr"] if lr is None else lr, averaged)


@dataclass(frozen=True, slots=True)
class CoordinateSample:
    """Optimizer state of a sample of coordinates, from which `lrs` computes their lrs.

    Attributes:
        formula: one of `FORMULAS`.
        state: the states by name, concatenated over the parameters.
        steps: the number of steps of each parameter; None if the optimizer does not count them.
        counts: the number of sampled coordinates of each parameter.
        group: the settings of the param group at the step.
        lr: the lr of the step.
        acc_delta: the state named by `pre_step_state` before the step, concatenated; or None.
    """

    formula: Callable[..., torch.Tensor]
    state: dict[str, torch.Tensor]
    steps: torch.Tensor | None
    counts: list[int]
    group: Group
    lr: Any
    acc_delta: torch.Tensor | None

    @torch.no_grad()
    def lrs(self) -> list[torch.Tensor]:
        """Return the lrs of the sampled coordinates, a tensor per parameter."""
        state: dict[str, Any] = {name: values.cpu() for name, values in self.state.items()}
        if self.steps is not None:
            steps = self.steps.to("cpu", torch.float64)
            state["step"] = steps.repeat_interleave(torch.tensor(self.counts))
        lr = float(self.lr)
        acc_delta = None if self.acc_delta is None else self.acc_delta.cpu()
        return list(torch.split(self.formula(state, self.group, lr, acc_delta), self.counts))


@torch.no_grad()
def sample_coordinates(
    optimizer: Optimizer,
    parameters: Sequence[torch.Tensor],
    group: Group,
    strides: Sequence[int],
    *,
    lr: Any,
    acc_deltas: Sequence[torch.Tensor | None] | None,
) -> CoordinateSample | None:
    """Copy the optimizer state of every n-th coordinate of each parameter.

    The lrs are computed later, by `CoordinateSample.lrs`: the cost of a measurement is mostly the
    number of torch calls.

    Args:
        optimizer: a torch optimizer.
        parameters: parameters of one group, on one device.
        group: their param group.
        strides: n of each parameter.
        lr: the lr of the step.
        acc_deltas: the state named by `pre_step_state` of each parameter before the step, or None
            for a parameter that had no state yet.

    Returns:
        The sample, or None where `coordinate_lrs` returns None.
    """
    states: list[State] = [optimizer.state.get(parameter, {}) for parameter in parameters]
    formula = _formula(optimizer, states)
    if formula is None:
        return None
    joined = {
        name: torch.cat(
            [_strided(state[name], stride) for state, stride in zip(states, strides, strict=True)]
        )
        for name in COORDINATE_STATES
        if name in states[0]
    }
    counts = [
        -(-p.numel() * (1 + p.is_complex()) // stride)
        for p, stride in zip(parameters, strides, strict=True)
    ]
    steps = None
    if "step" in states[0]:
        steps = torch.stack([_tensor(state["step"]) for state in states])
    joined_deltas = None
    if acc_deltas is not None:
        # At a parameter's first step there is no state yet; the optimizer starts from zeros.
        joined_deltas = torch.cat([
            _strided(torch.zeros_like(p) if acc_delta is None else acc_delta, stride)
            for p, acc_delta, stride in zip(parameters, acc_deltas, strides, strict=True)
        ])  # fmt: skip
    settings = {name: value for name, value in group.items() if name != "params"}
    return CoordinateSample(formula, joined, steps, counts, settings, lr, joined_deltas)


def _strided(tensor: torch.Tensor, stride: int) -> torch.Tensor:
    """Return every ``stride``-th number in index order, whatever the memory layout."""
    flat: torch.Tensor = _real(tensor).reshape(-1)
    return flat if stride == 1 else flat[::stride]


def _real(value: Any) -> Any:
    """Return a complex tensor as real and imaginary parts, which optimizers treat separately."""
    is_complex = isinstance(value, torch.Tensor) and value.is_complex()
    return torch.view_as_real(value) if is_complex else value


def _tensor(step: Any) -> torch.Tensor:
    return step if isinstance(step, torch.Tensor) else torch.tensor(step)


def decoupled_decay(optimizer: Optimizer, group: Group, lr: Any) -> Any:
    """Return lr x weight decay if weight decay is decoupled from the gradient, otherwise 0.

    It is decoupled in AdamW, Muon and Adafactor, and with ``decoupled_weight_decay=True``. SGD,
    Adam and Adagrad add it to the gradient.
    """
    decay = group.get("weight_decay", 0)
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    if type(optimizer).__name__ in ("Muon", "Adafactor"):
        decoupled = True
    return lr * decay if decay and decoupled else 0.0

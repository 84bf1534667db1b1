"""Learning rates of single coordinates under adaptive methods, from the optimizer's state."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import optim
from torch.optim import Optimizer

State = Mapping[str, torch.Tensor]
Group = Mapping[str, Any]
Formula = Callable[[State, Group, Any], Any]
CoordinateLRs = Callable[[], list[torch.Tensor]]  # returns the lrs of each parameter


def _steps(state: State) -> torch.Tensor:
    """Return the number of steps in float64: 1 - beta^steps loses digits in float32."""
    return torch.as_tensor(state["step"], dtype=torch.float64)


def _adam(state: State, group: Group, lr: Any) -> Any:
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    root = (1 - group["betas"][1] ** _steps(state)) ** 0.5
    return lr / (second.sqrt() / root + group["eps"])


def _nadam(state: State, group: Group, lr: Any) -> Any:
    corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** _steps(state))
    return lr / (corrected.sqrt() + group["eps"])


def _radam(state: State, group: Group, lr: Any) -> Any:
    beta2, step = group["betas"][1], _steps(state)
    power = beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * power / (1 - power)
    top = (length - 4) * (length - 2) * longest
    rectified = (top / ((longest - 4) * (longest - 2) * length)).clamp_min(0).sqrt()
    adaptive = rectified * (1 - power).sqrt() / (state["exp_avg_sq"].sqrt() + group["eps"])
    return lr * torch.where(length > 5, adaptive, torch.ones_like(adaptive))


def _adamax(state: State, _: Group, lr: Any) -> Any:
    return lr / state["exp_inf"]


def _adagrad(state: State, group: Group, lr: Any) -> Any:
    decayed = lr / (1 + (_steps(state) - 1) * group["lr_decay"])
    return decayed / (state["sum"].sqrt() + group["eps"])


def _rmsprop(state: State, group: Group, lr: Any) -> Any:
    second = state["square_avg"]
    if group["centered"]:
        second = second - state["grad_avg"] ** 2
    return lr / (second.sqrt() + group["eps"])


def _adadelta(state: State, group: Group, lr: Any) -> Any:
    averaged = (state["acc_delta"] + group["eps"]).sqrt()
    return lr * averaged / (state["square_avg"] + group["eps"]).sqrt()


FORMULAS: Final[dict[type[Optimizer], tuple[Formula, tuple[str, ...]]]] = {
    optim.Adam: (_adam, ("exp_avg_sq", "max_exp_avg_sq")),
    optim.AdamW: (_adam, ("exp_avg_sq", "max_exp_avg_sq")),
    optim.NAdam: (_nadam, ("exp_avg_sq",)),
    optim.RAdam: (_radam, ("exp_avg_sq",)),
    optim.Adamax: (_adamax, ("exp_inf",)),
    optim.Adagrad: (_adagrad, ("sum",)),
    optim.RMSprop: (_rmsprop, ("square_avg", "grad_avg")),
    optim.Adadelta: (_adadelta, ("square_avg", "acc_delta")),
}
"""The formula of each optimizer class, and the states that it reads: the first is always there,
and ``acc_delta`` is as it was before the step."""


@torch.no_grad()
def coordinate_lrs(
    optimizer: Optimizer,
    parameter: torch.Tensor,
    group: Group,
    *,
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
        group: the parameter's param group, with the lr of the step.
        acc_delta: for Adadelta, the state ``acc_delta`` before the step; default 0, as at the
            first step.

    Returns:
        A tensor of the parameter's shape (complex: and a last dimension of 2). None if the method
        has one lr for all coordinates, or the optimizer has no state for the parameter yet.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizer = torch.optim.Adagrad([weight], lr=0.5)
    >>> weight.grad = torch.tensor([1.0, 2.0])
    >>> optimizer.step()
    >>> lrs = coordinate_lrs(optimizer, weight, optimizer.param_groups[0])
    >>> [round(x, 6) for x in lrs.tolist()]
    [0.5, 0.25]
    """
    sample = sample_coordinates(optimizer, [parameter], group, [1], [acc_delta])
    if sample is None:
        return None
    (lrs,), real = sample(), _real(parameter)
    return lrs.reshape(real.shape).to(real.device, real.dtype)


@torch.no_grad()
def sample_coordinates(
    optimizer: Optimizer,
    parameters: Sequence[torch.Tensor],
    group: Group,
    strides: Sequence[int],
    acc_deltas: Sequence[torch.Tensor | None],
) -> CoordinateLRs | None:
    """Copy the state of every n-th coordinate of each parameter; return what computes the lrs.

    The parameters are on one device; the result is None where that of `coordinate_lrs` is.
    """
    formulas = [entry for cls, entry in FORMULAS.items() if isinstance(optimizer, cls)]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    if not formulas or not all(formulas[0][1][0] in state for state in states):
        return None
    formula, names = formulas[0]
    if "acc_delta" in names:
        # At a parameter's first step there is no state yet; the optimizer starts from zeros.
        states = [
            {**state, "acc_delta": torch.zeros_like(p) if before is None else before}
            for state, p, before in zip(states, parameters, acc_deltas, strict=True)
        ]
    pairs = list(zip(states, strides, strict=True))
    samples = {
        name: [_real(state[name]).reshape(-1)[::stride] for state, stride in pairs]
        for name in names
        if name in states[0]
    }
    counts = [len(sample) for sample in samples[names[0]]]
    joined = {name: torch.cat(several) for name, several in samples.items()}
    joined["step"] = torch.stack([torch.as_tensor(state.get("step", 0)) for state in states])

    # Computing the lrs now would cost more: mostly the number of torch calls costs.
    def lrs() -> list[torch.Tensor]:
        state = {name: values.cpu() for name, values in joined.items()}
        state["step"] = _steps(state).repeat_interleave(torch.tensor(counts))
        return list(torch.split(formula(state, group, float(group["lr"])), counts))

    return lrs


def _real(value: Any) -> torch.Tensor:
    """Return this process's part of a tensor, and real and imaginary parts of complex elements.

    Optimizers treat these separately.
    """
    local: torch.Tensor = value.to_local() if hasattr(value, "to_local") else value
    return torch.view_as_real(local) if local.is_complex() else local


def decoupled_decay(optimizer: Optimizer, group: Group) -> Any:
    """Return lr x weight decay if weight decay is decoupled from the gradient, otherwise 0."""
    decay = group.get("weight_decay", 0)
    known = type(optimizer).__name__ in ("Muon", "Adafactor")
    decoupled = group.get("decoupled_weight_decay", known or isinstance(optimizer, optim.AdamW))
    return group["lr"] * decay if decay and decoupled else 0.0

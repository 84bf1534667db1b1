"""A measured step of a Probe, as tensors on their device, and the rows made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.optim import Optimizer

from ratecraft.results import LayerStats

from ._coordinate import CoordinateLRs, decoupled_decay, sample_coordinates

Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]
LR_QUANTILES: Final = (0.05, 0.5, 0.95)  # of a layer's coordinates: lr_low, lr_median, lr_high


@dataclass(slots=True)
class Measurement:
    """A step of one group's parameters on one device: copies of what it changes, then its norms."""

    step: int  # the number of optimizer calls before this one, skipped ones included
    group: str
    settings: dict[str, Any]  # a copy of the group's hyperparameters
    parameters: Tensors  # those with a dense gradient
    layers: list[str]  # of each parameter
    strides: list[int]  # n of each parameter, of which every n-th coordinate is sampled
    weights: Tensors  # copies of the parameters
    acc_deltas: Sequence[torch.Tensor | None]  # copies of Adadelta's state of each
    # L2 norms of the gradients, then their L1 norms, then the L2 norms before clipping of those
    # parameters whose gradient was captured; their indices. Once finished, the norms of steps and
    # weights come first.
    norms: torch.Tensor
    captured: list[int]
    scale: Any  # the GradScaler's, of the gradients before clipping, or None
    grad_scale: Any  # of the current gradients (fused optimizers), or None
    decay: Any = 0.0  # lr x decoupled weight decay
    coordinate_lrs: CoordinateLRs | None = None  # None if all coordinates have one lr

    @torch.no_grad()
    def finish(self, optimizer: Optimizer) -> None:
        """Measure what the step changed, without waiting for the device, and drop the copies."""
        self.decay = decay = decoupled_decay(optimizer, self.settings)
        if isinstance(decay, torch.Tensor):  # because the lr is a tensor
            decayed = torch._foreach_mul(self.weights, 1 - decay)
            changes = torch._foreach_sub(self.parameters, decayed)
        else:
            changes = torch._foreach_sub(self.parameters, self.weights, alpha=1 - decay)
        norms = torch.stack([*norms_of(changes), *norms_of(self.weights)])
        self.norms = torch.cat([norms, self.norms])
        self.coordinate_lrs = sample_coordinates(
            optimizer, self.parameters, self.settings, self.strides, self.acc_deltas
        )
        self.parameters = self.weights = self.acc_deltas = ()

    def rows(self, skipped: list[int]) -> Iterator[LayerStats]:
        """Yield a row per layer; ``skipped`` are the optimizer calls that made no step."""
        if self.step in skipped:
            return
        n, norms, lr = len(self.layers), self.norms.tolist(), float(self.settings["lr"])
        steps, weights, gradients, l1 = (norms[i * n : (i + 1) * n] for i in range(4))
        unclipped = dict(zip(self.captured, norms[4 * n :], strict=True))
        scale = 1.0 if self.scale is None else float(self.scale)
        grad_scale = 1.0 if self.grad_scale is None else float(self.grad_scale)
        lrs = [] if self.coordinate_lrs is None else self.coordinate_lrs()
        for layer in dict.fromkeys(self.layers):
            indices = [i for i, name in enumerate(self.layers) if name == layer]
            gradient_norm = math.hypot(*(gradients[i] for i in indices)) / grad_scale
            weight_norm = math.hypot(*(weights[i] for i in indices))
            step_norm = math.hypot(*(steps[i] for i in indices))
            layer_lrs = torch.cat([lrs[i].float() for i in indices]) if lrs else torch.empty(0)
            quantiles = [lr] * len(LR_QUANTILES)
            if len(layer_lrs):
                quantiles = torch.quantile(layer_lrs, torch.tensor(LR_QUANTILES)).tolist()
            yield LayerStats(
                step=self.step - sum(call < self.step for call in skipped),
                group=self.group,
                layer=layer,
                lr=lr,
                weight_norm=weight_norm,
                step_norm=step_norm,
                gradient_norm=gradient_norm,
                gradient_l1=math.fsum(l1[i] for i in indices) / grad_scale,
                unclipped_norm=math.hypot(*(unclipped.get(i, 0.0) for i in indices)) / scale,
                effective_lr=step_norm / gradient_norm if gradient_norm else 0.0,
                relative_step=step_norm / weight_norm if weight_norm else 0.0,
                decay=float(self.decay),
                lr_low=quantiles[0],
                lr_median=quantiles[1],
                lr_high=quantiles[2],
            )


def norms_of(tensors: Tensors, order: int = 2) -> tuple[torch.Tensor, ...]:
    """Return each tensor's norm, in float32 if a tensor is in half precision, which overflows."""
    if not tensors:
        return ()
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)
    return torch._foreach_norm(tensors, order, dtype=torch.float32 if half else None)

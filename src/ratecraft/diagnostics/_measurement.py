"""A measured step of a Probe, as tensors on their device, and the rows made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from ratecraft.results import LayerStats

from ._coordinate import CoordinateSample

LR_QUANTILES: Final = (0.05, 0.5, 0.95)  # of a layer's coordinates: lr_low, lr_median, lr_high


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """The parameters of one group on one device before a step.

    Attributes:
        group: the param group.
        settings: a copy of its hyperparameters.
        parameters: those with a dense gradient.
        weights: copies of them.
        norms: L2 norms of the gradients, then their L1 norms, then the L2 norms before clipping
            of the parameters in ``captured``.
        captured: indices of the parameters whose gradient was captured before clipping.
        scale: the GradScaler's scale of gradients before clipping, or None.
        grad_scale: the scale of the current gradients (fused optimizers), or None.
        acc_deltas: the state named by `pre_step_state`, for each parameter; or None.
    """

    group: dict[str, Any]
    settings: dict[str, Any]
    parameters: list[torch.Tensor]
    weights: tuple[torch.Tensor, ...]
    norms: list[torch.Tensor]
    captured: Sequence[int]
    scale: Any
    grad_scale: Any
    acc_deltas: Sequence[torch.Tensor | None] | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured step of a `GroupSnapshot`, with tensors on their device.

    Its size does not depend on the size of the model.

    Attributes:
        step: the number of optimizer calls before this one, skipped ones included.
        group: the group's name.
        layers: the layer of each parameter.
        norms: for each parameter the norms of steps, weights, gradients and the L1 norms of
            gradients; then the norms before clipping of the ``captured`` ones.
        captured: as in `GroupSnapshot`.
        scale: as in `GroupSnapshot`.
        grad_scale: as in `GroupSnapshot`.
        lr: the lr of the step.
        decay: lr x decoupled weight decay.
        sample: the sample from which the lrs of coordinates are computed, or None.
    """

    step: int
    group: str
    layers: list[str]
    norms: torch.Tensor
    captured: Sequence[int]
    scale: Any
    grad_scale: Any
    lr: Any
    decay: Any
    sample: CoordinateSample | None

    def rows(self, skipped: int) -> Iterator[LayerStats]:
        """Yield a row per layer; ``skipped`` is the number of earlier calls without a step."""
        n, norms = len(self.layers), self.norms.tolist()
        steps, weights, gradients, l1 = (norms[i * n : (i + 1) * n] for i in range(4))
        unclipped = dict(zip(self.captured, norms[4 * n :], strict=True))
        lr, decay = float(self.lr), float(self.decay)
        scale = 1.0 if self.scale is None else float(self.scale)
        grad_scale = 1.0 if self.grad_scale is None else float(self.grad_scale)
        lrs = [] if self.sample is None else [values.float() for values in self.sample.lrs()]
        for layer in dict.fromkeys(self.layers):
            indices = [i for i, name in enumerate(self.layers) if name == layer]
            gradient_norm = math.hypot(*(gradients[i] for i in indices)) / grad_scale
            weight_norm = math.hypot(*(weights[i] for i in indices))
            step_norm = math.hypot(*(steps[i] for i in indices))
            quantiles = [lr] * len(LR_QUANTILES)
            if lrs:
                layer_lrs = torch.cat([lrs[i] for i in indices])
                if len(layer_lrs):
                    quantiles = torch.quantile(layer_lrs, torch.tensor(LR_QUANTILES)).tolist()
            yield LayerStats(
                step=self.step - skipped,
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
                decay=decay,
                lr_low=quantiles[0],
                lr_median=quantiles[1],
                lr_high=quantiles[2],
            )

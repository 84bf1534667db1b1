"""What an update really did to each layer: measured beside training, which it leaves alone."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft.errors import BindingError, SettingError
from ratecraft.torch.coordinate import decoupled_decay, sampled_rates, used_before

__all__ = ["Measured", "Probe"]

QUANTILES: Final = (0.05, 0.5, 0.95)
SAMPLE: Final = 512  # coordinates of a layer whose rates are looked at, about


@dataclass(frozen=True, slots=True)
class Measured:
    """What one update did to one layer.

    Attributes:
        update: which update, from 0 on.
        group: the param group's name or number.
        layer: the path of the module whose parameters these are.
        rate: the group's rate in this update.
        weight: L2 norm of the layer's weights before the update.
        step: L2 norm of what the update added, without decoupled weight decay.
        gradient: L2 norm of the gradient that the update used.
        gradient_l1: its L1 norm.
        unclipped: L2 norm of the gradient as backward left it, before clipping; 0 where it was
            not seen.
        effective: step / gradient: the rate that plain gradient descent would have needed.
        relative: step / weight: by what share of themselves the weights moved.
        decay: the share by which decoupled weight decay shrank them, rate x weight decay.
        low: 5 % of the layer's coordinates had a lower rate, by the method's own formula.
        median: half of them had.
        high: 95 % of them had.
    """

    update: int
    group: str
    layer: str
    rate: float
    weight: float
    step: float
    gradient: float
    gradient_l1: float
    unclipped: float
    effective: float
    relative: float
    decay: float
    low: float
    median: float
    high: float


class Probe:
    """Measures every so many updates of an optimizer, from hooks, while it trains.

    Nothing is read back from a device before the rows are asked for. Training is bit for bit
    what it would be without.

    Args:
        optimizer: any torch optimizer.
        model: the model, for the layers' names.
        every: updates from one measurement to the next.
        scaler: a GradScaler, if there is one, to tell gradients before clipping in their own
            scale.

    Raises:
        SettingError: ``every`` is below 1.
        BindingError: the model has none of the optimizer's parameters.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    >>> with Probe(optimizer, net, every=5) as probe:
    ...     for _ in range(10):
    ...         net(torch.ones(2, 4)).mean().backward()
    ...         optimizer.step()
    >>> [(row.update, row.layer) for row in probe.rows()]
    [(0, '0'), (0, '2'), (5, '0'), (5, '2')]
    >>> probe.rows()[0].rate
    0.01
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, *, every: int = 10, scaler: Any = None
    ) -> None:
        if every < 1:
            raise SettingError(f"every={every}: expected a number of updates, at least 1")
        self._optimizer, self._every, self._scaler = optimizer, every, scaler
        self._layers: dict[int, str] = {}
        self._sizes: dict[str, int] = {}
        for name, parameter in model.named_parameters():
            layer = name.rpartition(".")[0] or name
            self._layers[id(parameter)] = layer
            self._sizes[layer] = self._sizes.get(layer, 0) + parameter.numel()
        if not any(id(p) in self._layers for g in optimizer.param_groups for p in g["params"]):
            raise BindingError(
                "none of the optimizer's parameters are this model's; give the model that it trains"
            )
        self._count = 0
        self._handles: list[Any] = []
        self._listening: list[Any] = []
        self._unclipped: dict[torch.Tensor, torch.Tensor] = {}
        self._before: list[_Held] = []
        self._raw: list[_Raw] = []
        self._rows: list[Measured] = []

    def __enter__(self) -> Self:
        if self._handles:
            raise BindingError("this Probe is already measuring")
        self._handles = [
            self._optimizer.register_step_pre_hook(self._look),
            self._optimizer.register_step_post_hook(self._measure),
        ]
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off; what was measured stays."""
        for handle in [*self._handles, *self._listening]:
            handle.remove()
        self._handles, self._listening = [], []

    def rows(self) -> list[Measured]:
        """Return what was measured: a row for each layer of each measured update."""
        for raw in self._raw:
            self._rows += raw.rows()
        self._raw = []
        return list(self._rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows to a ``.csv`` or a ``.jsonl`` file and return its path.

        Raises:
            SettingError: a file of another kind.
        """
        target = Path(path)
        if target.suffix not in (".csv", ".jsonl"):
            raise SettingError(f"{target}: expected a name ending in .csv or .jsonl")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", encoding="utf-8", newline="") as file:
            if target.suffix == ".csv":
                writer = csv.DictWriter(file, [field.name for field in fields(Measured)])
                writer.writeheader()
                writer.writerows(map(asdict, self.rows()))
            else:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in self.rows())
        return target

    def log(self, logger: Any) -> None:
        """Hand the rows to a logger: ``add_scalar(name, value, update)``, or a function of these.

        Names are ``column/layer``, as in ``effective/blocks.0``.

        Raises:
            SettingError: a logger that is neither.
        """
        add: Callable[[str, float, int], object] | None = getattr(logger, "add_scalar", None)
        if add is None and callable(logger):
            add = logger
        if add is None:
            raise SettingError(
                f"{type(logger).__name__} has no add_scalar and is no function of "
                "(name, value, update)"
            )
        for row in self.rows():
            for column, value in asdict(row).items():
                if column not in ("update", "group", "layer"):
                    add(f"{column}/{row.layer}", value, row.update)

    def _listen(self) -> None:
        """If the next update is to be measured, see its gradients as backward leaves them."""
        if self._count % self._every:
            return
        for _, parameter in self._parameters():
            listen: Any = parameter.register_post_accumulate_grad_hook
            self._listening.append(listen(self._see))

    def _see(self, parameter: torch.Tensor) -> None:
        # A copy now and one norm of them all later take less time than a norm of each.
        if parameter.grad is not None and not parameter.grad.is_sparse:
            self._unclipped[parameter] = parameter.grad.clone()

    def _parameters(self) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and id(parameter) in self._layers:
                    yield group, parameter

    def _look(self, *_: object) -> None:
        """Before the update: keep what it is about to change."""
        for handle in self._listening:
            handle.remove()
        self._listening = []
        if self._count % self._every == 0:
            self._before = [held for g in self._optimizer.param_groups if (held := self._keep(g))]
        self._unclipped = {}

    @torch.no_grad()
    def _keep(self, group: dict[str, Any]) -> _Held | None:
        """Return a group's weights, gradients' norms and rate before the update."""
        chosen = [
            p
            for p in group["params"]
            if p.grad is not None and not p.grad.is_sparse and id(p) in self._layers
        ]
        if not chosen:
            return None
        gradients = [p.grad for p in chosen]
        lr = group["lr"].clone() if isinstance(group["lr"], torch.Tensor) else group["lr"]
        early, state = used_before(self._optimizer), self._optimizer.state
        used = [state[p][early].clone() if early in state.get(p, ()) else None for p in chosen]
        heard = [p for p in chosen if p in self._unclipped]
        norms = torch._foreach_norm([self._unclipped[p] for p in heard]) if heard else ()
        unclipped = dict(zip(heard, norms, strict=True))
        # get_scale() would wait for the device.
        scale = None
        if self._scaler is not None and self._scaler.is_enabled():
            scale = getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)()
        # One call of torch's for all tensors, as its own gradient clipping does: most of what a
        # measurement costs is the number of calls.
        return _Held(
            group,
            chosen,
            [p.detach().clone() for p in chosen],
            torch._foreach_norm(gradients),
            torch._foreach_norm(gradients, 1),
            [unclipped.get(p) for p in chosen],
            scale,
            lr,
            used,
        )

    @torch.no_grad()
    def _measure(self, *_: object) -> None:
        """After the update: measure what it did; nothing leaves the device."""
        for held in self._before:
            decay = decoupled_decay(self._optimizer, held.group, held.lr)
            if isinstance(decay, torch.Tensor):  # as a rate in a tensor makes it
                still = torch._foreach_mul(held.weights, 1 - decay)
                changes = torch._foreach_sub(held.parameters, still)
            else:
                changes = torch._foreach_sub(held.parameters, held.weights, alpha=1 - decay)
            steps = torch._foreach_norm(changes)
            layers = [self._layers[id(p)] for p in held.parameters]
            self._raw.append(
                _Raw(
                    self._count,
                    self._group_name(held.group),
                    layers,
                    held,
                    decay,
                    torch._foreach_norm(held.weights),
                    steps,
                    self._sampled(held, layers),
                )
            )
        self._before = []
        self._count += 1
        self._listen()

    def _sampled(self, held: _Held, layers: list[str]) -> tuple[torch.Tensor, list[int]] | None:
        """Return rates of some coordinates of each parameter, one after the other."""
        strides = [max(1, self._sizes[layer] // SAMPLE) for layer in layers]
        return sampled_rates(
            self._optimizer, held.parameters, held.group, strides, lr=held.lr, before=held.used
        )

    def _group_name(self, group: dict[str, Any]) -> str:
        places = [i for i, one in enumerate(self._optimizer.param_groups) if one is group]
        return str(group.get("name", places[0]))


@dataclass(frozen=True, slots=True)
class _Held:
    """A param group before its update."""

    group: dict[str, Any]
    parameters: list[torch.Tensor]
    weights: list[torch.Tensor]
    norms: Sequence[torch.Tensor]
    norms_l1: Sequence[torch.Tensor]
    unclipped: list[torch.Tensor | None]
    scale: Any
    lr: Any
    used: list[torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class _Raw:
    """One measured update of one group, as tensors on their device."""

    update: int
    group: str
    layers: list[str]
    held: _Held
    decay: Any
    weights: Sequence[torch.Tensor]
    steps: Sequence[torch.Tensor]
    sample: tuple[torch.Tensor, list[int]] | None

    def rows(self) -> Iterator[Measured]:
        """Yield the layers' rows, read back from the device."""
        held, rate, decay = self.held, float(self.held.lr), float(self.decay)
        scale = 1.0 if held.scale is None else float(held.scale)
        parts: list[torch.Tensor] = []
        if self.sample is not None:
            parts = list(torch.split(self.sample[0].float().cpu(), self.sample[1]))
        for layer in dict.fromkeys(self.layers):
            places = [i for i, one in enumerate(self.layers) if one == layer]
            gradient = math.hypot(*(float(held.norms[i]) for i in places))
            weight = math.hypot(*(float(self.weights[i]) for i in places))
            step = math.hypot(*(float(self.steps[i]) for i in places))
            raw = [held.unclipped[i] for i in places]
            quantiles = [rate] * len(QUANTILES)
            if parts:
                rates = torch.cat([parts[i] for i in places])
                quantiles = torch.quantile(rates, torch.tensor(QUANTILES)).tolist()
            yield Measured(
                update=self.update,
                group=self.group,
                layer=layer,
                rate=rate,
                weight=weight,
                step=step,
                gradient=gradient,
                gradient_l1=math.fsum(float(held.norms_l1[i]) for i in places),
                unclipped=math.hypot(*(0.0 if one is None else float(one) for one in raw)) / scale,
                effective=step / gradient if gradient else 0.0,
                relative=step / weight if weight else 0.0,
                decay=decay,
                low=quantiles[0],
                median=quantiles[1],
                high=quantiles[2],
            )

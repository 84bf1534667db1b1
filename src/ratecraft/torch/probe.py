"""What an update really did to each layer: measured beside training, which it leaves alone."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft.errors import BindingError, SettingError
from ratecraft.torch.coordinate import coordinate_rates, decoupled_decay, used_before

__all__ = ["Measured", "Probe"]

QUANTILES: Final = (0.05, 0.5, 0.95)
SAMPLE: Final = 2048  # coordinates of a layer whose rates are looked at, about


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
        names = {id(p): name for name, p in model.named_parameters()}
        self._optimizer, self._names, self._every, self._scaler = optimizer, names, every, scaler
        if not any(id(p) in names for g in optimizer.param_groups for p in g["params"]):
            raise BindingError(
                "none of the optimizer's parameters are this model's; give the model that it trains"
            )
        self._count = 0
        self._handles: list[Any] = []
        self._listening: list[Any] = []
        self._unclipped: dict[int, torch.Tensor] = {}
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
        if parameter.grad is not None and not parameter.grad.is_sparse:
            self._unclipped[id(parameter)] = torch.linalg.vector_norm(parameter.grad.detach())

    def _parameters(self) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and id(parameter) in self._names:
                    yield group, parameter

    def _look(self, *_: object) -> None:
        """Before the update: keep what it is about to change."""
        for handle in self._listening:
            handle.remove()
        self._listening = []
        if self._count % self._every:
            return
        early = used_before(self._optimizer)
        self._before = []
        for group, parameter in self._parameters():
            gradient = parameter.grad
            if gradient is None or gradient.is_sparse:
                continue
            state = self._optimizer.state.get(parameter, {})
            used = state[early].clone() if early and early in state else None
            lr = group["lr"].clone() if isinstance(group["lr"], torch.Tensor) else group["lr"]
            norms = torch.stack((
                torch.linalg.vector_norm(gradient),
                torch.linalg.vector_norm(gradient, 1),
                self._seen(parameter),
            )).detach()  # fmt: skip
            weight = parameter.detach().clone()
            self._before.append(_Held(group, parameter, weight, norms, lr, used))
        self._unclipped = {}

    def _seen(self, parameter: torch.Tensor) -> torch.Tensor:
        norm = self._unclipped.get(id(parameter))
        if norm is None:
            return torch.zeros((), device=parameter.device, dtype=parameter.dtype)
        if self._scaler is not None and self._scaler.is_enabled():
            # get_scale() would wait for the device.
            scale = getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)()
            norm = norm if scale is None else norm / scale
        return norm

    @torch.no_grad()
    def _measure(self, *_: object) -> None:
        """After the update: measure what it did; nothing leaves the device."""
        if self._before:
            raw = _Raw(self._count)
            sizes: dict[str, int] = {}
            for held in self._before:
                layer = self._layer(held.parameter)
                sizes[layer] = sizes.get(layer, 0) + held.parameter.numel()
            for held in self._before:
                layer = self._layer(held.parameter)
                decay = decoupled_decay(self._optimizer, held.group, held.lr)
                step = held.parameter - held.weight * (1 - decay)
                rates = coordinate_rates(
                    self._optimizer, held.parameter, held.group, lr=held.lr, before=held.used
                )
                sample = None
                if rates is not None:
                    sample = rates.flatten()[:: max(1, sizes[layer] // SAMPLE)].float()
                two = torch.stack(
                    (torch.linalg.vector_norm(held.weight), torch.linalg.vector_norm(step))
                )
                raw.add(self._group_name(held.group), layer, held, decay, two, sample)
            self._raw.append(raw)
            self._before = []
        self._count += 1
        self._listen()

    def _layer(self, parameter: torch.Tensor) -> str:
        name = self._names[id(parameter)]
        return name.rpartition(".")[0] or name

    def _group_name(self, group: dict[str, Any]) -> str:
        places = [i for i, one in enumerate(self._optimizer.param_groups) if one is group]
        return str(group.get("name", places[0]))


@dataclass(frozen=True, slots=True)
class _Held:
    """A parameter before its update."""

    group: dict[str, Any]
    parameter: torch.Tensor
    weight: torch.Tensor
    norms: torch.Tensor
    lr: Any
    used: torch.Tensor | None


class _Raw:
    """One measured update, as tensors on their device."""

    def __init__(self, update: int) -> None:
        self._update = update
        self._layers: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def add(self, group: str, layer: str, held: _Held, decay: Any, *tensors: Any) -> None:
        self._layers.setdefault((group, layer), []).append((held.lr, decay, held.norms, *tensors))

    def rows(self) -> Iterator[Measured]:
        """Yield the layers' rows, read back from the device."""
        for (group, layer), parts in self._layers.items():
            rate, decay = float(parts[0][0]), float(parts[0][1])
            gradient = math.hypot(*(float(norms[0]) for _, _, norms, _, _ in parts))
            l1 = math.fsum(float(norms[1]) for _, _, norms, _, _ in parts)
            unclipped = math.hypot(*(float(norms[2]) for _, _, norms, _, _ in parts))
            weight = math.hypot(*(float(two[0]) for _, _, _, two, _ in parts))
            step = math.hypot(*(float(two[1]) for _, _, _, two, _ in parts))
            samples = [sample for *_, sample in parts if sample is not None]
            quantiles = [rate] * len(QUANTILES)
            if samples:
                places = torch.tensor(QUANTILES)
                quantiles = torch.quantile(torch.cat(samples).cpu(), places).tolist()
            yield Measured(
                self._update, group, layer, rate, weight, step, gradient, l1, unclipped,
                step / gradient if gradient else 0.0, step / weight if weight else 0.0, decay,
                *quantiles,
            )  # fmt: skip

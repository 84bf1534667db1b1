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
from ratecraft.records import Measured
from ratecraft.torch.coordinate import Sample, decoupled_decay, sample, used_before

__all__ = ["Probe"]

QUANTILES: Final = (0.05, 0.5, 0.95)
SAMPLE: Final = 512  # coordinates of a layer whose rates are looked at, about


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
        sizes: dict[str, int] = {}
        for name, parameter in model.named_parameters():
            layer = name.rpartition(".")[0] or name
            self._layers[id(parameter)] = layer
            sizes[layer] = sizes.get(layer, 0) + parameter.numel()
        self._strides = {i: max(1, sizes[layer] // SAMPLE) for i, layer in self._layers.items()}
        if not any(id(p) in self._layers for g in optimizer.param_groups for p in g["params"]):
            raise BindingError(
                "none of the optimizer's parameters are this model's; give the model that it trains"
            )
        self._count = 0
        self._handles: list[Any] = []
        self._listening: list[Any] = []
        self._unclipped: dict[int, torch.Tensor] = {}
        self._queued = False
        self._speakers: list[torch.Tensor] | None = None
        self._steady = True
        self._before: list[_Held] = []
        self._raw: list[_Raw] = []
        self._rows: list[Measured] = []

    def __enter__(self) -> Self:
        if self._handles:
            raise BindingError("this Probe is already measuring")
        self._handles = [
            self._optimizer.register_step_pre_hook(self._look),
            self._optimizer.register_step_post_hook(self._after),
        ]
        if self._count % self._every == 0:
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
        """Learn when backward has left the gradients of the next update.

        A hook on two parameters is enough where the same ones get gradients every time; which
        these are nobody knows before the first time, and where it is wrong once all have a hook.
        """
        speakers = self._speakers
        if speakers is None:
            speakers = [p for g in self._optimizer.param_groups for p in g["params"]]
        for parameter in speakers:
            if parameter.requires_grad:
                listen: Any = parameter.register_post_accumulate_grad_hook
                self._listening.append(listen(self._queue))

    def _queue(self, *_: object) -> None:
        # Queued from the end of backward again, to come after DDP's own, which waits there for the
        # other processes' gradients.
        if not self._queued:
            queue = torch.autograd.Variable._execution_engine.queue_callback
            queue(lambda: queue(self._see))
            self._queued = True

    @torch.no_grad()
    def _see(self) -> None:
        """Take the norms of all gradients at the end of a backward pass."""
        self._queued = False
        seen: dict[int, torch.Tensor] = {}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None and not gradient.is_sparse:
                    seen[id(parameter)] = gradient
        self._unclipped = dict(zip(seen, torch._foreach_norm([*seen.values()]), strict=True))

    def _look(self, *_: object) -> None:
        """Before the update: keep what it is about to change."""
        for handle in self._listening:
            handle.remove()
        self._listening = []
        if self._count % self._every == 0:
            self._before = [held for g in self._optimizer.param_groups for held in self._keep(g)]
            changed = [p for held in self._before for p in held.parameters]
            heard = all(id(p) in self._unclipped for p in changed)
            self._steady = self._steady and heard
            self._speakers = [changed[0], changed[-1]] if changed and self._steady else None
        self._unclipped, self._queued = {}, False

    def _keep(self, group: dict[str, Any]) -> Iterator[_Held]:
        """Yield a group's weights, gradients' norms and rate before the update, by device."""
        found: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and id(parameter) in self._layers and not gradient.is_sparse:
                chosen, gradients = found.setdefault(gradient.device, ([], []))
                chosen.append(parameter)
                gradients.append(gradient)
        for chosen, gradients in found.values():
            yield self._held(group, chosen, gradients)

    @torch.no_grad()
    def _held(
        self, group: dict[str, Any], chosen: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> _Held:
        early, state = used_before(self._optimizer), self._optimizer.state
        heard = [i for i, p in enumerate(chosen) if id(p) in self._unclipped]
        unclipped = [self._unclipped[id(chosen[i])] for i in heard]
        # get_scale() would wait for the device.
        scale = None
        if self._scaler is not None and self._scaler.is_enabled():
            scale = getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)()
        # One call of torch's for all tensors, as its own gradient clipping does: most of what a
        # measurement costs is the number of calls.
        return _Held(
            group,
            chosen,
            torch._foreach_clone(chosen),
            [
                *torch._foreach_norm(gradients),
                *torch._foreach_norm(gradients, 1),
                *unclipped,
            ],
            heard,
            scale,
            group["lr"].clone() if isinstance(group["lr"], torch.Tensor) else group["lr"],
            [state[p][early].clone() if early in state.get(p, ()) else None for p in chosen]
            if early
            else None,
        )

    def _after(self, *_: object) -> None:
        """After the update: measure it, if it is one of those, and get ready for the next."""
        if self._before:
            self._measure()
        self._before = []
        self._count += 1
        if self._count % self._every == 0:
            self._listen()

    @torch.no_grad()
    def _measure(self) -> None:
        """Measure what the update did; nothing leaves the device."""
        for held in self._before:
            decay = decoupled_decay(self._optimizer, held.group, held.lr)
            if isinstance(decay, torch.Tensor):  # as a rate in a tensor makes it
                still = torch._foreach_mul(held.weights, 1 - decay)
                changes = torch._foreach_sub(held.parameters, still)
            else:
                changes = torch._foreach_sub(held.parameters, held.weights, alpha=1 - decay)
            steps, weights = torch._foreach_norm(changes), torch._foreach_norm(held.weights)
            known = [id(p) for p in held.parameters]
            self._raw.append(
                _Raw(
                    self._count,
                    self._group_name(held.group),
                    [self._layers[i] for i in known],
                    torch.stack([*steps, *weights, *held.norms]),
                    held.heard,
                    held.scale,
                    held.lr,
                    decay,
                    sample(
                        self._optimizer,
                        held.parameters,
                        held.group,
                        [self._strides[i] for i in known],
                        lr=held.lr,
                        before=held.used,
                    ),
                )
            )

    def _group_name(self, group: dict[str, Any]) -> str:
        places = [i for i, one in enumerate(self._optimizer.param_groups) if one is group]
        return str(group.get("name", places[0]))


@dataclass(frozen=True, slots=True)
class _Held:
    """Parameters of one group on one device before their update."""

    group: dict[str, Any]
    parameters: list[torch.Tensor]
    weights: tuple[torch.Tensor, ...]
    norms: list[torch.Tensor]
    heard: Sequence[int]
    scale: Any
    lr: Any
    used: Sequence[torch.Tensor | None] | None


@dataclass(frozen=True, slots=True)
class _Raw:
    """One of these measured, as tensors on their device; the size of the model is not in it."""

    update: int
    group: str
    layers: list[str]
    norms: torch.Tensor
    heard: Sequence[int]
    scale: Any
    lr: Any
    decay: Any
    sample: Sample | None

    def rows(self) -> Iterator[Measured]:
        """Yield the layers' rows, read back from the device."""
        n, norms = len(self.layers), self.norms.tolist()
        steps, weights, gradients, l1 = (norms[i * n : (i + 1) * n] for i in range(4))
        unclipped = dict(zip(self.heard, norms[4 * n :], strict=True))
        rate, decay = float(self.lr), float(self.decay)
        scale = 1.0 if self.scale is None else float(self.scale)
        rates = [] if self.sample is None else [one.float() for one in self.sample.rates()]
        for layer in dict.fromkeys(self.layers):
            places = [i for i, one in enumerate(self.layers) if one == layer]
            gradient = math.hypot(*(gradients[i] for i in places))
            weight = math.hypot(*(weights[i] for i in places))
            step = math.hypot(*(steps[i] for i in places))
            quantiles = [rate] * len(QUANTILES)
            if rates:
                some = torch.cat([rates[i] for i in places])
                quantiles = torch.quantile(some, torch.tensor(QUANTILES)).tolist()
            yield Measured(
                update=self.update,
                group=self.group,
                layer=layer,
                rate=rate,
                weight=weight,
                step=step,
                gradient=gradient,
                gradient_l1=math.fsum(l1[i] for i in places),
                unclipped=math.hypot(*(unclipped.get(i, 0.0) for i in places)) / scale,
                effective=step / gradient if gradient else 0.0,
                relative=step / weight if weight else 0.0,
                decay=decay,
                low=quantiles[0],
                median=quantiles[1],
                high=quantiles[2],
            )

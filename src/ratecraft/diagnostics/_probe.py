"""What a step really did to each layer: measured beside training, which it leaves alone."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft.errors import BindingError, SettingError
from ratecraft.results import LayerStats, layer_names
from ratecraft.torch._writer import innermost_optimizer

from ._coordinate import Sample, decoupled_decay, sample, used_before

QUANTILES: Final = (0.05, 0.5, 0.95)
SAMPLE: Final = 512  # coordinates of a layer whose lrs are looked at, about


class Probe:
    """Measures every so many steps of an optimizer, from hooks, while it trains.

    Nothing is read back from a device before the rows are asked for. Training is bit for bit
    what it would be without.

    Args:
        optimizer: any torch optimizer.
        model: the model, for the layers' names.
        every: steps from one measurement to the next.
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
    >>> [(row.step, row.layer) for row in probe.rows()]
    [(0, '0'), (0, '2'), (5, '0'), (5, '2')]
    >>> probe.rows()[0].lr
    0.01
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, *, every: int = 10, scaler: Any = None
    ) -> None:
        if every < 1:
            raise SettingError(f"every={every}: expected a number of steps, at least 1")
        self._optimizer = innermost_optimizer(optimizer, counted=True)
        self._model, self._every, self._scaler = model, every, scaler
        self._layers: dict[int, str | None] = {}  # None: of another model
        self._strides: dict[int, int] = {}
        self._name_layers()
        if not any(id(p) in self._layers for g in optimizer.param_groups for p in g["params"]):
            raise BindingError(
                "none of the optimizer's parameters are this model's; give the model that it trains"
            )
        self._count = 0
        self._skipped: list[tuple[int, torch.Tensor]] = []
        self._handles: list[Any] = []
        self._listening: list[Any] = []
        self._unclipped: dict[int, torch.Tensor] = {}
        self._pass, self._passes = -1, 0
        self._speakers: list[torch.Tensor] | None = None
        self._steady = True
        self._before: list[_Held] = []
        self._raw: list[_Raw] = []
        self._rows: list[LayerStats] = []

    def _name_layers(self) -> None:
        """Learn the model's layers, and which of their coordinates to look at."""
        sizes: dict[str, int] = {}
        shapes: dict[int, tuple[str, torch.Size]] = {}
        for name, parameter in self._model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise BindingError(
                    f"the model's {name} has no shape yet; run a batch through the model first"
                )
            # What torch.compile and DDP put around a model is none of its layers.
            plain = name.replace("_orig_mod.", "")
            if isinstance(self._model, nn.parallel.DistributedDataParallel | nn.DataParallel):
                plain = plain.removeprefix("module.")
            layer = plain.rpartition(".")[0] or plain
            shapes[id(parameter)] = layer, parameter.shape
            sizes[layer] = sizes.get(layer, 0) + parameter.numel()
        self._layers |= {i: layer for i, (layer, _) in shapes.items()}
        self._strides |= {
            i: _stride(sizes[layer] // SAMPLE, shape) for i, (layer, shape) in shapes.items()
        }

    def __enter__(self) -> Self:
        if self._handles:
            raise BindingError("this Probe is already measuring")
        look, after = self._look, self._after
        if "torch._dynamo" in sys.modules:  # a compiled step would trace these for ever anew
            disable: Any = torch.compiler.disable
            look, after = disable(look), disable(after)
        self._handles = [
            self._optimizer.register_step_pre_hook(look),
            self._optimizer.register_step_post_hook(after),
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
        self._handles, self._listening, self._before, self._unclipped = [], [], [], {}

    def rows(self) -> list[LayerStats]:
        """Return what was measured: a row for each layer of each measured step."""
        waiting, self._raw = self._raw, []
        skipped = [step for step, found in self._skipped if float(found)]
        for raw in waiting:
            if raw.step not in skipped:
                self._rows += raw.rows(sum(step < raw.step for step in skipped))
        return list(self._rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows to a ``.csv`` or a ``.jsonl`` file and return its path.

        Args:
            path: the file to write; its suffix says which of the two.

        Raises:
            SettingError: a file of another kind.
        """
        target = Path(path)
        if target.suffix not in (".csv", ".jsonl"):
            raise SettingError(f"{target}: expected a name ending in .csv or .jsonl")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", encoding="utf-8", newline="") as file:
            if target.suffix == ".csv":
                writer = csv.DictWriter(file, [field.name for field in fields(LayerStats)])
                writer.writeheader()
                writer.writerows(map(asdict, self.rows()))
            else:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in self.rows())
        return target

    def log(self, logger: Any) -> None:
        """Hand the rows to a logger: ``add_scalar(name, value, step)``, or a function of these.

        Names are ``column/layer``, as in ``effective/blocks.0``. Each call sends all rows again:
        call it once, after training.

        Args:
            logger: an object with ``add_scalar``, such as TensorBoard's ``SummaryWriter``, or a
                function of (name, value, step).

        Raises:
            SettingError: a logger that is neither.
        """
        add: Callable[[str, float, int], object] | None = getattr(logger, "add_scalar", None)
        if add is None and callable(logger):
            add = logger
        if add is None:
            raise SettingError(
                f"{type(logger).__name__} has no add_scalar and is no function of "
                "(name, value, step)"
            )
        rows = self.rows()
        names = layer_names(rows)
        for row in rows:
            for column, value in asdict(row).items():
                if column not in ("step", "group", "layer"):
                    add(f"{column}/{names[row.group, row.layer]}", value, row.step)

    def _listen(self) -> None:
        """Learn when backward has left the gradients of the next step.

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
        # other processes' gradients. One that raised never gets there: each pass has a number.
        number: int = torch._C._current_graph_task_id()
        if number != self._pass:
            queue = torch.autograd.Variable._execution_engine.queue_callback
            queue(lambda: queue(self._see))
            self._pass = number

    @torch.no_grad()
    def _see(self) -> None:
        """Take the norms of all gradients at the end of a backward pass."""
        self._passes += 1
        seen: dict[int, torch.Tensor] = {}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None and not gradient.is_sparse:
                    seen[id(parameter)] = gradient
        self._unclipped = dict(zip(seen, _norms([*seen.values()]), strict=True))

    def _look(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the step: keep what it is about to change."""
        found = getattr(optimizer, "found_inf", None)
        if found is not None:  # an optimizer that leaves out steps by itself, as fused ones do
            self._skipped.append((self._count, found.clone()))
        if self._count % self._every:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._keep()
            return None

        def seen() -> Any:
            loss = closure()
            if not self._before:  # the first of several: its gradients are those of the weights
                self._keep()
            return loss

        if len(args) > 1:
            return (args[0], seen, *args[2:]), kwargs
        return args, {**kwargs, "closure": seen}

    def _keep(self) -> None:
        """Keep weights, norms of gradients, and lrs."""
        for handle in self._listening:
            handle.remove()
        self._listening = []
        self._before = [held for g in self._optimizer.param_groups for held in self._kept(g)]
        changed = [p for held in self._before for p in held.parameters]
        heard = all(id(p) in self._unclipped for p in changed)
        self._steady = self._steady and heard and self._passes <= 1
        self._speakers = [changed[0], changed[-1]] if changed and self._steady else None
        self._unclipped, self._passes = {}, 0

    def _kept(self, group: dict[str, Any]) -> Iterator[_Held]:
        """Yield a group's weights, gradients' norms and settings before the step, by device."""
        found: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None or gradient.is_sparse:
                continue
            if id(parameter) not in self._layers:  # the model has grown, or it is not its own
                self._name_layers()
                self._layers.setdefault(id(parameter), None)
            if self._layers[id(parameter)] is not None:
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
        # get_scale() would wait for the device. Of a fused optimizer the gradients are scaled yet.
        scale, still = None, getattr(self._optimizer, "grad_scale", None)
        if self._scaler is not None and self._scaler.is_enabled():
            scale = _copy(getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)())
        # Fields may be on a schedule, which sets the next step's when this one is done.
        settings = {name: _copy(value) for name, value in group.items() if name != "params"}
        settings["lr"] = _scalar(settings.get("lr"))
        # One call of torch's for all tensors, as its own gradient clipping does: most of what a
        # measurement costs is the number of calls.
        return _Held(
            group,
            settings,
            chosen,
            torch._foreach_clone(chosen),
            [
                *_norms(gradients),
                *_norms(gradients, 1),
                *(self._unclipped[id(chosen[i])] for i in heard),
            ],
            heard,
            scale,
            _copy(still),
            [state[p][early].clone() if early in state.get(p, ()) else None for p in chosen]
            if early
            else None,
        )

    def _after(self, *_: object) -> None:
        """After the step: measure it, if it is one of those, and get ready for the next."""
        if self._before:
            self._measure()
        self._before = []
        self._count += 1
        if self._count % self._every == 0 and not self._listening:
            self._passes = 0
            self._listen()

    @torch.no_grad()
    def _measure(self) -> None:
        """Measure what the step did; nothing leaves the device."""
        for held in self._before:
            lr = held.settings["lr"]
            decay = decoupled_decay(self._optimizer, held.settings, lr)
            if isinstance(decay, torch.Tensor):  # as an lr in a tensor makes it
                still = torch._foreach_mul(held.weights, 1 - decay)
                changes = torch._foreach_sub(held.parameters, still)
            else:
                changes = torch._foreach_sub(held.parameters, held.weights, alpha=1 - decay)
            steps, weights = _norms([*changes]), _norms([*held.weights])
            known = [id(p) for p in held.parameters]
            self._raw.append(
                _Raw(
                    self._count,
                    self._group_name(held.group),
                    [str(self._layers[i]) for i in known],
                    torch.stack([*steps, *weights, *held.norms]),
                    held.heard,
                    held.scale,
                    held.still,
                    lr,
                    decay,
                    sample(
                        self._optimizer,
                        held.parameters,
                        held.settings,
                        [self._strides[i] for i in known],
                        lr=lr,
                        before=held.used,
                    ),
                )
            )

    def _group_name(self, group: dict[str, Any]) -> str:
        places = [i for i, one in enumerate(self._optimizer.param_groups) if one is group]
        return str(group.get("name", places[0]))


def _stride(wanted: int, shape: torch.Size) -> int:
    """Return a stride that walks through all rows and columns, not down a single one."""
    stride = max(wanted, 1)
    while stride > 1 and any(math.gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride


def _norms(tensors: list[torch.Tensor], order: int = 2) -> Sequence[torch.Tensor]:
    """Return each tensor's norm; of half precision in full, which sums would not fit into."""
    if not tensors:
        return ()
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors):
        return torch._foreach_norm(tensors, order, dtype=torch.float32)
    return torch._foreach_norm(tensors, order)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _scalar(lr: Any) -> Any:
    """Return an lr as a number or a tensor without dimensions; nan where a group has none."""
    if isinstance(lr, torch.Tensor):
        return lr.reshape(())
    return math.nan if lr is None else lr


@dataclass(frozen=True, slots=True)
class _Held:
    """Parameters of one group on one device before their step."""

    group: dict[str, Any]
    settings: dict[str, Any]
    parameters: list[torch.Tensor]
    weights: tuple[torch.Tensor, ...]
    norms: list[torch.Tensor]
    heard: Sequence[int]
    scale: Any
    still: Any
    used: Sequence[torch.Tensor | None] | None


@dataclass(frozen=True, slots=True)
class _Raw:
    """One of these measured, as tensors on their device; the size of the model is not in it."""

    step: int
    group: str
    layers: list[str]
    norms: torch.Tensor
    heard: Sequence[int]
    scale: Any
    still: Any
    lr: Any
    decay: Any
    sample: Sample | None

    def rows(self, skipped: int) -> Iterator[LayerStats]:
        """Yield the layers' rows, read back from the device; some steps before were left out."""
        n, norms = len(self.layers), self.norms.tolist()
        steps, weights, gradients, l1 = (norms[i * n : (i + 1) * n] for i in range(4))
        unclipped = dict(zip(self.heard, norms[4 * n :], strict=True))
        lr, decay = float(self.lr), float(self.decay)
        scale = 1.0 if self.scale is None else float(self.scale)
        still = 1.0 if self.still is None else float(self.still)
        lrs = [] if self.sample is None else [one.float() for one in self.sample.lrs()]
        for layer in dict.fromkeys(self.layers):
            places = [i for i, one in enumerate(self.layers) if one == layer]
            gradient = math.hypot(*(gradients[i] for i in places)) / still
            weight = math.hypot(*(weights[i] for i in places))
            step = math.hypot(*(steps[i] for i in places))
            quantiles = [lr] * len(QUANTILES)
            if lrs:
                some = torch.cat([lrs[i] for i in places])
                if len(some):
                    quantiles = torch.quantile(some, torch.tensor(QUANTILES)).tolist()
            yield LayerStats(
                step=self.step - skipped,
                group=self.group,
                layer=layer,
                lr=lr,
                weight=weight,
                step_norm=step,
                gradient=gradient,
                gradient_l1=math.fsum(l1[i] for i in places) / still,
                unclipped=math.hypot(*(unclipped.get(i, 0.0) for i in places)) / scale,
                effective=step / gradient if gradient else 0.0,
                relative=step / weight if weight else 0.0,
                decay=decay,
                low=quantiles[0],
                median=quantiles[1],
                high=quantiles[2],
            )

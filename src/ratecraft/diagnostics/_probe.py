"""Probe: measure what optimizer steps change in each layer, without changing training."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft.errors import BindingError, SettingError
from ratecraft.results import LayerStats, layer_names
from ratecraft.torch._writer import innermost_optimizer

from ._coordinate import decoupled_decay, pre_step_state, sample_coordinates
from ._measurement import GroupSnapshot, Measurement

SAMPLED_COORDINATES: Final = 512  # per layer, approximately


class Probe:
    """Measure every n-th step of an optimizer, from hooks, while it trains.

    Results stay on their device until `rows` is called. Training is bit-for-bit the same as
    without a Probe.

    Args:
        optimizer: any torch optimizer.
        model: the model, for the names of its layers.
        every: measure steps 0, every, 2 every, ...
        scaler: the GradScaler, if one is used; gradient norms before clipping are divided by its
            scale.

    Raises:
        SettingError: ``every`` is below 1.
        BindingError: none of the optimizer's parameters are the model's, or a lazy parameter of
            the model has no shape yet.

    >>> import torch
    >>> from torch import nn
    >>> from ratecraft.diagnostics import Probe
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
        self._layers: dict[int, str | None] = {}  # by id; None: a parameter of another model
        self._strides: dict[int, int] = {}
        self._name_layers()
        if not any(id(p) in self._layers for g in optimizer.param_groups for p in g["params"]):
            raise BindingError(
                "none of the optimizer's parameters are this model's; pass the model that the "
                "optimizer trains"
            )
        self._count = 0
        self._skipped: list[tuple[int, torch.Tensor]] = []
        self._step_hooks: list[Any] = []
        self._gradient_hooks: list[Any] = []
        self._unclipped: dict[int, torch.Tensor] = {}
        self._graph_task, self._backward_passes = -1, 0
        self._hooked: list[torch.Tensor] | None = None
        self._two_hooks_suffice = True
        self._snapshots: list[GroupSnapshot] = []
        self._measurements: list[Measurement] = []
        self._rows: list[LayerStats] = []

    def _name_layers(self) -> None:
        """Set the layer and the sampling stride of each parameter of the model."""
        sizes: dict[str, int] = {}
        shapes: dict[int, tuple[str, torch.Size]] = {}
        for name, parameter in self._model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise BindingError(
                    f"the model's {name} has no shape yet; run a batch through the model first"
                )
            # torch.compile and DistributedDataParallel wrap the model in another module.
            plain = name.replace("_orig_mod.", "")
            if isinstance(self._model, nn.parallel.DistributedDataParallel | nn.DataParallel):
                plain = plain.removeprefix("module.")
            layer = plain.rpartition(".")[0] or plain
            shapes[id(parameter)] = layer, parameter.shape
            sizes[layer] = sizes.get(layer, 0) + parameter.numel()
        self._layers |= {i: layer for i, (layer, _) in shapes.items()}
        self._strides |= {
            i: _stride(sizes[layer] // SAMPLED_COORDINATES, shape)
            for i, (layer, shape) in shapes.items()
        }

    def __enter__(self) -> Self:
        if self._step_hooks:
            raise BindingError("this Probe is already measuring")
        before, after = self._before_step, self._after_step
        if "torch._dynamo" in sys.modules:  # a compiled step would retrace them at every call
            disable: Any = torch.compiler.disable
            before, after = disable(before), disable(after)
        self._step_hooks = [
            self._optimizer.register_step_pre_hook(before),
            self._optimizer.register_step_post_hook(after),
        ]
        if self._count % self._every == 0:
            self._add_gradient_hooks()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks. The rows measured so far remain available."""
        for handle in [*self._step_hooks, *self._gradient_hooks]:
            handle.remove()
        self._step_hooks, self._gradient_hooks = [], []
        self._snapshots, self._unclipped = [], {}

    def rows(self) -> list[LayerStats]:
        """Return a row for each layer of each measured step; waits for the device."""
        waiting, self._measurements = self._measurements, []
        skipped = [step for step, found_inf in self._skipped if float(found_inf)]
        for measurement in waiting:
            if measurement.step not in skipped:
                self._rows += measurement.rows(sum(step < measurement.step for step in skipped))
        return list(self._rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows to a file and return its path.

        `ratecraft.results.load_layer_stats` reads it.

        Args:
            path: the file; ``.csv`` or ``.jsonl``.

        Raises:
            SettingError: the name has another suffix.
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
        """Write all rows to a logger, as scalars named ``column/layer``.

        An example name is ``effective_lr/blocks.0``. Each call writes all rows again, so call it
        once, after training.

        Args:
            logger: an object with ``add_scalar(name, value, step)``, such as TensorBoard's
                ``SummaryWriter``, or a function of (name, value, step).

        Raises:
            SettingError: ``logger`` is neither.
        """
        add: Callable[[str, float, int], object] | None = getattr(logger, "add_scalar", None)
        if add is None and callable(logger):
            add = logger
        if add is None:
            raise SettingError(
                f"{type(logger).__name__} has no add_scalar and is not a function of "
                "(name, value, step)"
            )
        rows = self.rows()
        names = layer_names(rows)
        for row in rows:
            for column, value in asdict(row).items():
                if column not in ("step", "group", "layer"):
                    add(f"{column}/{names[row.group, row.layer]}", value, row.step)

    # Gradients before clipping ----------------------------------------------------------------

    def _add_gradient_hooks(self) -> None:
        """Add hooks that capture the gradients of the next step at the end of backward.

        Hooks on the first and last parameter suffice if the same parameters get gradients in
        every step. Before the first measurement, and once that turns out wrong, all get a hook.
        """
        hooked = self._hooked
        if hooked is None:
            hooked = [p for g in self._optimizer.param_groups for p in g["params"]]
        for parameter in hooked:
            if parameter.requires_grad:
                register: Any = parameter.register_post_accumulate_grad_hook
                self._gradient_hooks.append(register(self._queue_norms))

    def _queue_norms(self, *_: object) -> None:
        # The callback queues itself again at the end of backward, to run after DDP's callback,
        # which waits there for the gradients of other processes. The task id tells backward
        # passes apart: one that raised never gets to its callback.
        graph_task: int = torch._C._current_graph_task_id()
        if graph_task != self._graph_task:
            queue = torch.autograd.Variable._execution_engine.queue_callback
            queue(lambda: queue(self._take_norms))
            self._graph_task = graph_task

    @torch.no_grad()
    def _take_norms(self) -> None:
        """Compute the norms of all gradients at the end of a backward pass."""
        self._backward_passes += 1
        gradients: dict[int, torch.Tensor] = {}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None and not gradient.is_sparse:
                    gradients[id(parameter)] = gradient
        self._unclipped = dict(zip(gradients, _norms([*gradients.values()]), strict=True))

    # Before the step --------------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take snapshots of a step to be measured."""
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None:  # set by GradScaler on optimizers that skip steps themselves
            self._skipped.append((self._count, found_inf.clone()))
        if self._count % self._every:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._take_snapshots()
            return None

        def measured_closure() -> Any:
            loss = closure()
            if not self._snapshots:  # only the first call's gradients belong to the old weights
                self._take_snapshots()
            return loss

        if len(args) > 1:
            return (args[0], measured_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": measured_closure}

    def _take_snapshots(self) -> None:
        """Copy weights, gradient norms and settings of all groups."""
        for handle in self._gradient_hooks:
            handle.remove()
        self._gradient_hooks = []
        groups = self._optimizer.param_groups
        self._snapshots = [snapshot for group in groups for snapshot in self._by_device(group)]
        changed = [p for snapshot in self._snapshots for p in snapshot.parameters]
        complete = all(id(p) in self._unclipped for p in changed)
        self._two_hooks_suffice &= complete and self._backward_passes <= 1
        self._hooked = [changed[0], changed[-1]] if changed and self._two_hooks_suffice else None
        self._unclipped, self._backward_passes = {}, 0

    def _by_device(self, group: dict[str, Any]) -> Iterator[GroupSnapshot]:
        """Yield a snapshot of the group's parameters on each device."""
        by_device: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None or gradient.is_sparse:
                continue
            if id(parameter) not in self._layers:  # a new parameter, or one of another model
                self._name_layers()
                self._layers.setdefault(id(parameter), None)
            if self._layers[id(parameter)] is not None:
                parameters, gradients = by_device.setdefault(gradient.device, ([], []))
                parameters.append(parameter)
                gradients.append(gradient)
        for parameters, gradients in by_device.values():
            yield self._snapshot(group, parameters, gradients)

    @torch.no_grad()
    def _snapshot(
        self, group: dict[str, Any], parameters: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> GroupSnapshot:
        name, state = pre_step_state(self._optimizer), self._optimizer.state
        captured = [i for i, p in enumerate(parameters) if id(p) in self._unclipped]
        # get_scale() would wait for the device. With a fused optimizer the gradients are still
        # scaled: the optimizer divides them by its grad_scale.
        scale, grad_scale = None, getattr(self._optimizer, "grad_scale", None)
        if self._scaler is not None and self._scaler.is_enabled():
            scale = _copy(getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)())
        # Settings are copied because a scheduler sets the next step's values after this step.
        settings = {key: _copy(value) for key, value in group.items() if key != "params"}
        settings["lr"] = _scalar(settings.get("lr"))
        # _foreach functions handle all tensors in one call: most of the cost of a measurement is
        # the number of torch calls.
        return GroupSnapshot(
            group=group,
            settings=settings,
            parameters=parameters,
            weights=torch._foreach_clone(parameters),
            norms=[
                *_norms(gradients),
                *_norms(gradients, 1),
                *(self._unclipped[id(parameters[i])] for i in captured),
            ],
            captured=captured,
            scale=scale,
            grad_scale=_copy(grad_scale),
            acc_deltas=[
                state[p][name].clone() if name in state.get(p, ()) else None for p in parameters
            ]
            if name
            else None,
        )

    # After the step ---------------------------------------------------------------------------

    def _after_step(self, *_: object) -> None:
        """Measure the step if snapshots of it were taken, and prepare for the next."""
        if self._snapshots:
            self._measure()
        self._snapshots = []
        self._count += 1
        if self._count % self._every == 0 and not self._gradient_hooks:
            self._backward_passes = 0
            self._add_gradient_hooks()

    @torch.no_grad()
    def _measure(self) -> None:
        """Measure what the step changed; the results stay on their device."""
        for snapshot in self._snapshots:
            lr = snapshot.settings["lr"]
            decay = decoupled_decay(self._optimizer, snapshot.settings, lr)
            if isinstance(decay, torch.Tensor):  # because the lr is a tensor
                decayed = torch._foreach_mul(snapshot.weights, 1 - decay)
                changes = torch._foreach_sub(snapshot.parameters, decayed)
            else:
                changes = torch._foreach_sub(snapshot.parameters, snapshot.weights, alpha=1 - decay)
            steps, weights = _norms([*changes]), _norms([*snapshot.weights])
            ids = [id(p) for p in snapshot.parameters]
            self._measurements.append(
                Measurement(
                    step=self._count,
                    group=self._group_name(snapshot.group),
                    layers=[str(self._layers[i]) for i in ids],
                    norms=torch.stack([*steps, *weights, *snapshot.norms]),
                    captured=snapshot.captured,
                    scale=snapshot.scale,
                    grad_scale=snapshot.grad_scale,
                    lr=lr,
                    decay=decay,
                    sample=sample_coordinates(
                        self._optimizer,
                        snapshot.parameters,
                        snapshot.settings,
                        [self._strides[i] for i in ids],
                        lr=lr,
                        acc_deltas=snapshot.acc_deltas,
                    ),
                )
            )

    def _group_name(self, group: dict[str, Any]) -> str:
        groups = self._optimizer.param_groups
        index = next(i for i, candidate in enumerate(groups) if candidate is group)
        return str(group.get("name", index))


def _stride(wanted: int, shape: torch.Size) -> int:
    """Return the next stride that is coprime to each size, so that it visits all columns."""
    stride = max(wanted, 1)
    while stride > 1 and any(math.gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride


def _norms(tensors: list[torch.Tensor], order: int = 2) -> Sequence[torch.Tensor]:
    """Return each tensor's norm, in float32 if a tensor is in half precision, which overflows."""
    if not tensors:
        return ()
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors):
        return torch._foreach_norm(tensors, order, dtype=torch.float32)
    return torch._foreach_norm(tensors, order)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _scalar(lr: Any) -> Any:
    """Return an lr as a number or a 0-dimensional tensor; nan if the group has no lr."""
    if isinstance(lr, torch.Tensor):
        return lr.reshape(())
    return math.nan if lr is None else lr

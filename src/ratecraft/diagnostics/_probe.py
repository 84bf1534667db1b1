"""Probe: measure what optimizer steps change in each layer, without changing training."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from torch.optim import Optimizer

from ratecraft._files import write_atomically
from ratecraft.errors import BindingError, SettingError
from ratecraft.results import LayerStats, layer_names
from ratecraft.torch._hyperparam import group_names, innermost_optimizer
from ratecraft.torch._step_hooks import add_step_hooks
from ratecraft.torch._versions import clone_tensors

from ._coordinate import CoordinateLRs, decoupled_decay, sample_coordinates
from ._log_lrs import metrics_writer

Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]

SAMPLED_COORDINATES: Final = 512  # per layer, approximately
LR_QUANTILES: Final = (0.05, 0.5, 0.95)  # of a layer's coordinates: lr_low, lr_median, lr_high


@dataclass(slots=True)
class _Measurement:
    """A step of one group's parameters on one device: copies of what it changes, then its norms."""

    step: int  # the number of optimizer calls before this one, skipped ones included
    group: str
    settings: dict[str, Any]  # a copy of the group's hyperparameters
    parameters: Tensors  # those with a dense gradient
    layers: list[str]  # of each parameter
    strides: list[int]  # n of each parameter, of which every n-th coordinate is sampled
    weights: Tensors  # copies of the parameters
    acc_deltas: Sequence[torch.Tensor | None]  # copies of Adadelta's state of each
    # L2 norms of the gradients, then their L1 norms, then the L2 norms before clipping. Once
    # finished, the norms of steps and weights come first.
    norms: torch.Tensor
    scale: Any  # the GradScaler's, of the gradients before clipping; else 1
    grad_scale: Any  # of the current gradients (fused optimizers); else 1
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
        norms = [_joined(_norms_of(changes)), _joined(_norms_of(self.weights))]
        self.norms = torch.cat([*norms, self.norms])
        self.coordinate_lrs = sample_coordinates(
            optimizer, self.parameters, self.settings, self.strides, self.acc_deltas
        )
        self.parameters = self.weights = self.acc_deltas = ()

    def rows(self, skipped: list[int]) -> Iterator[LayerStats]:
        """Yield a row per layer; ``skipped`` are the optimizer calls that made no step."""
        if self.step in skipped:
            return
        n, norms, lr = len(self.layers), self.norms.tolist(), float(self.settings["lr"])
        steps, weights, gradients, l1, unclipped = (norms[i * n : (i + 1) * n] for i in range(5))
        scale, grad_scale = float(self.scale), float(self.grad_scale)
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
                unclipped_norm=math.hypot(*(unclipped[i] for i in indices)) / scale,
                effective_lr=step_norm / gradient_norm if gradient_norm else 0.0,
                relative_step=step_norm / weight_norm if weight_norm else 0.0,
                decay=float(self.decay),
                lr_low=quantiles[0],
                lr_median=quantiles[1],
                lr_high=quantiles[2],
            )


class Probe:
    """Measure every n-th step of an optimizer, from hooks, while it trains.

    Results stay on their device until `rows` is called. Training is bit-for-bit the same as
    without a Probe. If the parameters are DTensors, as after ``fully_shard``, every process needs
    a Probe: the norms are those of whole parameters, and the learning rates of single coordinates
    those of this process's part.

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
        self._hooked: list[torch.Tensor] = []
        self._two_hooks_suffice = True
        self._graph_task = -1
        self._unclipped: dict[int, torch.Tensor] = {}
        self._started: list[_Measurement] = []  # of the current step
        self._measurements: list[_Measurement] = []
        self._rows: list[LayerStats] = []

    def _name_layers(self) -> None:
        """Set the layer and the sampling stride of each parameter of the model."""
        sizes: Counter[str] = Counter()
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
            self._layers[id(parameter)] = layer
            sizes[layer] += parameter.numel()
        for parameter in self._model.parameters():
            size = sizes[str(self._layers[id(parameter)])]
            self._strides[id(parameter)] = _stride(size // SAMPLED_COORDINATES, parameter.shape)

    def __enter__(self) -> Self:
        if self._step_hooks:
            raise BindingError("this Probe is already measuring")
        self._step_hooks = add_step_hooks(
            self._optimizer, before=self._before_step, after=self._after_step
        )
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
        self._started, self._unclipped = [], {}

    def rows(self) -> list[LayerStats]:
        """Return a row for each layer of each measured step; waits for the device."""
        waiting, self._measurements = self._measurements, []
        skipped = [call for call, found_inf in self._skipped if float(found_inf)]
        for measurement in waiting:
            self._rows += measurement.rows(skipped)
        return list(self._rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows as CSV, which `ratecraft.results.load_layer_stats` reads.

        Args:
            path: the file; missing folders are created.

        Raises:
            SettingError: the name does not end in ``.csv``.
        """
        target = Path(path)
        if target.suffix != ".csv":
            raise SettingError(f"{target}: expected a name ending in .csv")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [field.name for field in fields(LayerStats)])
        writer.writeheader()
        writer.writerows(map(asdict, self.rows()))
        return write_atomically(target, text.getvalue())

    def log(self, logger: Any) -> None:
        """Write all rows, once after training, as metrics such as ``effective_lr/blocks.0``.

        W&B takes the steps of a run in increasing order, so use another run than for training.

        Args:
            logger: as in `log_lrs`.

        Raises:
            SettingError: ``logger`` has no method that is known, and is not a function.
        """
        write, rows = metrics_writer(logger), self.rows()
        names = layer_names(rows)
        for step, rows_of_step in groupby(rows, key=lambda row: row.step):
            write(
                {
                    f"{column}/{names[row.group, row.layer]}": value
                    for row in rows_of_step
                    for column, value in asdict(row).items()
                    if column not in ("step", "group", "layer")
                },
                step,
            )

    # Gradients before clipping ----------------------------------------------------------------

    def _add_gradient_hooks(self) -> None:
        """Capture the gradients of the next step at the end of each backward pass."""
        # Hooks on the first and last parameter cost less, and suffice if all gradients come from
        # one pass, and if those of the next step are of the same parameters.
        groups = self._optimizer.param_groups
        for parameter in self._hooked or [p for group in groups for p in group["params"]]:
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
        self._two_hooks_suffice &= not self._unclipped  # a second pass of the same step
        gradients = {
            id(parameter): parameter.grad
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and not parameter.grad.is_sparse
        }
        self._unclipped = dict(zip(gradients, _norms_of([*gradients.values()]), strict=True))

    # The step ---------------------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Start the measurements of a step that is due."""
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None:  # set by GradScaler on optimizers that skip steps themselves
            self._skipped.append((self._count, found_inf.clone()))
        if self._count % self._every:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._start_measurements()
            return None

        def measured_closure() -> Any:
            loss = closure()
            if not self._started:  # only the first call's gradients belong to the old weights
                self._start_measurements()
            return loss

        if len(args) > 1:
            return (args[0], measured_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": measured_closure}

    def _after_step(self, *_: object) -> None:
        for measurement in self._started:
            measurement.finish(self._optimizer)
        self._measurements += self._started
        self._started = []
        self._count += 1
        if self._count % self._every == 0 and not self._gradient_hooks:
            self._add_gradient_hooks()

    def _start_measurements(self) -> None:
        """Start a measurement of each group on each device, or mesh of devices."""
        for handle in self._gradient_hooks:
            handle.remove()
        self._gradient_hooks = []
        groups = self._optimizer.param_groups
        for name, group in zip(group_names(groups), groups, strict=True):
            by_device: dict[Any, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None and not parameter.grad.is_sparse:
                    if id(parameter) not in self._layers:  # a new parameter, or another model's
                        self._name_layers()
                        self._layers.setdefault(id(parameter), None)
                    if self._layers[id(parameter)] is not None:
                        placements = getattr(parameter.grad, "placements", None)  # of a DTensor
                        device = parameter.grad.device, placements
                        by_device.setdefault(device, []).append(parameter)
            self._started += [self._start(name, group, ps) for ps in by_device.values()]
        changed = [p for measurement in self._started for p in measurement.parameters]
        self._two_hooks_suffice &= all(id(p) in self._unclipped for p in changed)
        self._hooked = [*changed[:1], *changed[-1:]] if self._two_hooks_suffice else []
        self._unclipped = {}

    @torch.no_grad()
    def _start(
        self, name: str, group: dict[str, Any], parameters: list[torch.Tensor]
    ) -> _Measurement:
        ids = [id(parameter) for parameter in parameters]
        # get_scale() would wait for the device. With a fused optimizer the gradients are still
        # scaled: the optimizer divides them by its grad_scale.
        scale: Any = 1.0
        if self._scaler is not None and self._scaler.is_enabled():
            scale = _copy(getattr(self._scaler, "_get_scale_async", self._scaler.get_scale)())
        # Settings are copied because a scheduler sets the next step's values after this step.
        settings = {key: _copy(value) for key, value in group.items() if key != "params"}
        lr = settings.get("lr")
        if isinstance(lr, torch.Tensor):
            lr = lr.reshape(())
        states = [self._optimizer.state.get(parameter, {}) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norms = _norms_of(gradients)
        not_captured = torch.zeros_like(norms[0])
        unclipped = [self._unclipped.get(key, not_captured) for key in ids]
        joined = [_joined(norms), _joined(_norms_of(gradients, 1)), _joined(unclipped)]
        grad_scale = getattr(self._optimizer, "grad_scale", None)
        # _foreach functions handle all tensors in one call: most of the cost of a measurement is
        # the number of torch calls.
        return _Measurement(
            step=self._count,
            group=name,
            settings={**settings, "lr": math.nan if lr is None else lr},
            parameters=parameters,
            layers=[str(self._layers[key]) for key in ids],
            strides=[self._strides[key] for key in ids],
            weights=clone_tensors(parameters),
            acc_deltas=[_copy(state.get("acc_delta")) for state in states],
            norms=torch.cat(joined),
            scale=scale,
            grad_scale=1.0 if grad_scale is None else _copy(grad_scale),
        )


def _norms_of(tensors: Tensors, order: int = 2) -> tuple[torch.Tensor, ...]:
    """Return each tensor's norm, in float32 if a tensor is in half precision, which overflows."""
    if not tensors:
        return ()
    half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)
    return torch._foreach_norm(tensors, order, dtype=torch.float32 if half else None)


def _joined(norms: Tensors) -> torch.Tensor:
    """Return norms as one tensor; those of DTensors are reduced over the processes."""
    joined: Any = torch.stack(tuple(norms))
    result: torch.Tensor = joined.full_tensor() if hasattr(joined, "full_tensor") else joined
    return result


def _stride(wanted: int, shape: torch.Size) -> int:
    """Return the next stride that is coprime to each size, so that it visits all columns."""
    stride = max(wanted, 1)
    while stride > 1 and any(math.gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value

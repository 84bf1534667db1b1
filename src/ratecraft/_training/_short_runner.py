"""Run training steps and evaluations, then restore the initial state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Literal, TypedDict

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import SettingError, TaskError
from ratecraft.results._lr_search import group_lr_ratios, write_lr

from ._snapshot import Batches, preserve_state

ACCELERATOR_CHECK_STEPS: Final = 8  # steps between two checks of losses that lie on an accelerator

LossFunction = Callable[[Any, Any], torch.Tensor]
Clip = float | Callable[[list[torch.Tensor]], object]


class StepOptions(TypedDict, total=False):
    """Options of a training step that every search takes; `range_test` describes them."""

    accumulate: int
    clip: Clip | None
    scaler: Any
    reduce: bool | None
    check_every: int | None
    on_disk: bool | str


class ShortRunner:
    """A model, its optimizer and its data, with counts of what short runs cost.

    The arguments are those of `range_test`.

    Attributes:
        steps_done: optimizer steps taken so far, over all short runs.
        batches_evaluated: batches whose loss was computed without a step.
        batches_read: batches read.
        optimizer_name: class names of the optimizers, as text.
        on_accelerator: whether reading a loss means waiting for an accelerator.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        loader: Batches,
        loss: LossFunction,
        *,
        accumulate: int = 1,
        clip: Clip | None = None,
        scaler: Any = None,
        reduce: bool | None = None,
        check_every: int | None = None,
        on_disk: bool | str = False,
    ) -> None:
        if accumulate < 1 or (check_every is not None and check_every < 1):
            raise SettingError(f"accumulate={accumulate}, check_every={check_every}: expected >= 1")
        if not callable(clip) and clip is not None and not clip > 0:
            raise SettingError(f"clip={clip}: expected a norm above 0, or a function")
        self.model, self.loss = model, loss
        self.models = [model] if isinstance(model, nn.Module) else list(model)
        single = isinstance(optimizer, torch.optim.Optimizer)
        self.optimizers: list[torch.optim.Optimizer] = [optimizer] if single else list(optimizer)  # type: ignore[list-item, arg-type]
        self.loader, self.accumulate, self.clip, self.scaler = loader, accumulate, clip, scaler
        self.uses_ddp = any(isinstance(module, DistributedDataParallel) for module in self.models)
        self.reduce = self.uses_ddp if reduce is None else reduce
        self.on_disk, self._check_every = on_disk, check_every
        self.optimizer_name = " and ".join(
            type(optimizer).__name__ for optimizer in self.optimizers
        )
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        if not self.parameters:
            raise TaskError("all parameters of the optimizer are frozen: there is nothing to train")
        self.on_accelerator = self.parameters[0].device.type != "cpu"
        self.uses_closure = any(needs_closure(optimizer) for optimizer in self.optimizers)
        if self.uses_closure and (scaler is not None or len(self.optimizers) > 1):
            raise TaskError(
                "an optimizer whose step() needs a closure works only as the single optimizer, "
                "without a GradScaler"
            )
        self.steps_done = self.batches_evaluated = self.batches_read = 0

    @property
    def check_every(self) -> int:
        """Steps between two checks of the losses."""
        return self._check_every or (ACCELERATOR_CHECK_STEPS if self.on_accelerator else 1)

    @contextmanager
    def start(self) -> Iterator[ShortTraining]:
        """Start a short run from the current state, and restore that state at the end.

        Raises:
            TaskError: the loader can be iterated only once.
        """
        with (
            preserve_state(
                self.models, self.optimizers, self.loader, scaler=self.scaler, on_disk=self.on_disk
            ),
            closing(_cycle(self.loader)) as batches,
        ):
            for model in self.models:
                if not model.training:
                    model.train()
            for optimizer in self.optimizers:
                set_optimizer_mode(optimizer, "train")
            yield ShortTraining(self, batches)

    def refuse_closures(self, caller: str) -> None:
        """Raise TaskError if the optimizer needs a closure."""
        if self.uses_closure:
            raise TaskError(
                f"{caller} expects an optimizer that takes one step per call, and "
                f"{self.optimizer_name} takes several; use find_lr or range_test"
            )

    def batches_per_epoch(self) -> int | None:
        """Return the length of the loader, the smallest of all processes; None if it has none."""
        try:
            batches = len(self.loader)  # type: ignore[arg-type]  # the TypeError is the check
        except TypeError:
            return None
        return self.min_over_processes(batches)

    def min_over_processes(self, number: int) -> int:
        """Return the smallest of the processes' numbers."""
        if not self.reduce:
            return number
        tensor = torch.tensor(number, device=self.parameters[0].device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MIN)
        return int(tensor)


class ShortTraining:
    """One short run: each step uses the learning rate that was set last."""

    def __init__(self, runner: ShortRunner, batches: Generator[Any]) -> None:
        self._runner, self._batches = runner, batches
        self._lr_ratios = group_lr_ratios(runner.optimizers)

    def set_lr(self, lr: float, momentum: float | None = None) -> None:
        """Set the lr of the group with the highest one; the other groups keep their ratio to it."""
        for group, ratio in self._lr_ratios:
            write_lr(group, lr * ratio)
            if momentum is not None:
                _set_momentum(group, momentum)

    def next_batches(self) -> list[Any]:
        """Return the batches of the next step."""
        batches = [next(self._batches) for _ in range(self._runner.accumulate)]
        self._runner.batches_read += len(batches)
        return batches

    def step(self, batches: list[Any] | None = None) -> torch.Tensor:
        """Take one optimizer step and return the loss before it.

        Args:
            batches: the batches of the step; default the next ones.
        """
        runner = self._runner
        batches = self.next_batches() if batches is None else batches
        runner.steps_done += 1
        if runner.uses_closure:
            losses: list[torch.Tensor] = []

            def closure() -> torch.Tensor:
                loss = self._backward(batches)
                losses.append(loss)
                return loss

            runner.optimizers[0].step(closure)  # type: ignore[arg-type]  # LBFGS takes a tensor
            return self._mean_over_processes(losses[0])
        loss = self._backward(batches)
        for optimizer in runner.optimizers:
            if runner.scaler is None:
                optimizer.step()
            else:
                runner.scaler.step(optimizer)
        if runner.scaler is not None:
            runner.scaler.update()
        return self._mean_over_processes(loss)

    def evaluate(self, batches: list[Any]) -> torch.Tensor:
        """Return the mean loss of the batches with the current weights."""
        runner = self._runner
        runner.batches_evaluated += len(batches)
        # The loss may compute gradients itself, such as a gradient penalty. A
        # DistributedDataParallel model with gradients enabled would wait for backward().
        losses = []
        with torch.set_grad_enabled(not runner.uses_ddp):
            for batch in batches:
                loss = runner.loss(runner.model, batch)
                check_loss(loss, needs_grad=not runner.uses_ddp)
                losses.append(loss.detach().mean())
        return self._mean_over_processes(torch.stack(losses).mean())

    def directional_derivative(self, directions: list[torch.Tensor]) -> float:
        """Return the dot product of the gradients and the directions, one per parameter."""
        pairs = zip(self._runner.parameters, directions, strict=True)
        products = [(p.grad * direction).sum() for p, direction in pairs if p.grad is not None]
        if not products:
            return 0.0
        return float(self._mean_over_processes(torch.stack(products).sum()))

    def _mean_over_processes(self, value: torch.Tensor) -> torch.Tensor:
        if self._runner.reduce:
            distributed.all_reduce(value)
            value /= distributed.get_world_size()
        return value

    def _backward(self, batches: list[Any]) -> torch.Tensor:
        """Compute and clip the gradients of the batches; return their mean loss."""
        runner = self._runner
        for optimizer in runner.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total = self._backward_batch(batches[0], len(batches))
        for batch in batches[1:]:
            total = total + self._backward_batch(batch, len(batches))
        if runner.clip is not None:
            if runner.scaler is not None:
                for optimizer in runner.optimizers:
                    runner.scaler.unscale_(optimizer)
            if callable(runner.clip):
                runner.clip(runner.parameters)
            else:
                nn.utils.clip_grad_norm_(runner.parameters, runner.clip)
        return total

    def _backward_batch(self, batch: Any, count: int) -> torch.Tensor:
        """Add the gradients of one of ``count`` batches; return its share of the mean loss."""
        runner = self._runner
        loss = runner.loss(runner.model, batch)
        check_loss(loss)
        if loss.dim():
            loss = loss.mean()
        if count > 1:
            loss = loss / count
        scaled = loss if runner.scaler is None else runner.scaler.scale(loss)
        scaled.backward()
        if loss.is_leaf or loss._base is not None:  # it may share its memory with a parameter
            loss = loss.clone()
        return loss.detach()


def set_optimizer_mode(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Switch an optimizer that evaluates at other weights than it trains, as schedulefree does.

    Other optimizers have no such method, and nothing happens.
    """
    change = getattr(optimizer, mode, None)
    if callable(change):
        change()


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether ``optimizer.step`` requires a closure, as that of LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _cycle(loader: Batches) -> Generator[Any]:
    """Yield batches without end, starting over each time the loader is exhausted."""
    is_factory = callable(loader) and not isinstance(loader, Iterable)
    while True:
        empty = True
        for batch in loader() if is_factory else loader:  # type: ignore[operator, union-attr]
            empty = False
            yield batch
        if empty:
            raise TaskError("the loader is empty: expected at least one batch")


def max_momentum(optimizers: list[torch.optim.Optimizer]) -> float | None:
    """Return the largest momentum or first beta; None if a param group has neither."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if not all("momentum" in group or "betas" in group for group in groups):
        return None
    return float(max(group.get("momentum", (group.get("betas") or [0])[0]) for group in groups))


def check_loss(loss: object, *, needs_grad: bool = True) -> None:
    """Raise TaskError unless a loss is a tensor of numbers that requires grad if it must."""
    if not isinstance(loss, torch.Tensor) or not loss.numel():
        value = "an empty tensor" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TaskError(f"loss(model, batch) returned {value}; expected a tensor of numbers")
    if needs_grad and not loss.requires_grad:
        raise TaskError(
            "loss(model, batch) returned a tensor that does not require grad; was it detached, "
            "or computed under no_grad, or of a model whose weights are frozen?"
        )


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "momentum" in group:
        group["momentum"] = value
    elif "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        raise SettingError("momentum=: this optimizer has neither momentum nor betas")

"""Run training steps and evaluations, then restore the initial state."""

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Literal, TypedDict

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import SettingError, TaskError
from ratecraft.results._lr_search import group_lr_ratios, write_lr

from ._snapshot import Batches, as_list, preserve_state

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
    """A model, its optimizer and its data: short runs from the same state, and what they cost.

    The arguments are those of `range_test`. Steps, evaluations and batches need a block of `start`.
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
        self.model, self.loader, self.loss = model, loader, loss
        self.models = as_list(model, nn.Module)
        self.optimizers = as_list(optimizer, torch.optim.Optimizer)
        self.optimizer_name = " and ".join(type(each).__name__ for each in self.optimizers)
        groups = [group for each in self.optimizers for group in each.param_groups]
        self.parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        if not self.parameters:
            raise TaskError("all parameters of the optimizer are frozen: there is nothing to train")
        self.uses_closure = any(map(needs_closure, self.optimizers))
        if self.uses_closure and (scaler is not None or len(self.optimizers) > 1):
            raise TaskError(
                "an optimizer whose step() needs a closure works only as the single optimizer, "
                "without a GradScaler"
            )
        self.accumulate, self.clip, self.scaler, self.on_disk = accumulate, clip, scaler, on_disk
        self.uses_ddp = any(isinstance(module, DistributedDataParallel) for module in self.models)
        self.reduce = self.uses_ddp if reduce is None else reduce
        on_cpu = self.parameters[0].device.type == "cpu"
        self.check_every = check_every or (1 if on_cpu else ACCELERATOR_CHECK_STEPS)
        self.steps_done = self.batches_evaluated = self.batches_read = 0  # over all short runs
        self._lr_ratios = group_lr_ratios(self.optimizers)
        self._batches: Iterator[Any] = iter(())

    @contextmanager
    def start(self) -> Iterator[None]:
        """Start a short run from the current state, and restore that state at the end."""
        with (
            preserve_state(
                self.models, self.optimizers, self.loader, scaler=self.scaler, on_disk=self.on_disk
            ),
            closing(_cycle(self.loader)) as self._batches,
        ):
            for model in self.models:
                if not model.training:
                    model.train()
            set_optimizer_mode(self.optimizers, "train")
            yield

    def batches_per_epoch(self) -> int | None:
        """Return the length of the loader, the smallest of all processes; None if it has none."""
        try:
            batches = len(self.loader)  # type: ignore[arg-type]  # the TypeError is the check
        except TypeError:
            return None
        return self.min_over_processes(batches)

    def min_over_processes(self, number: int) -> int:
        if not self.reduce:
            return number
        tensor = torch.tensor(number, device=self.parameters[0].device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MIN)
        return int(tensor)

    def set_lr(self, lr: float, momentum: float | None = None) -> None:
        """Set the lr of the group with the highest one; the other groups keep their ratio to it."""
        for group, ratio in self._lr_ratios:
            write_lr(group, lr * ratio)
            if momentum is not None:
                _set_momentum(group, momentum)

    def next_batches(self) -> list[Any]:
        batches = [next(self._batches) for _ in range(self.accumulate)]
        self.batches_read += len(batches)
        return batches

    def step(self) -> torch.Tensor:
        """Take one optimizer step on the next batches, and return the loss before it."""
        batches = self.next_batches()
        self.steps_done += 1
        losses: list[torch.Tensor] = []

        def closure() -> torch.Tensor:
            losses.append(self._backward(batches))
            return losses[-1]

        if self.uses_closure:
            self.optimizers[0].step(closure)  # type: ignore[arg-type]  # LBFGS takes a tensor
        else:
            closure()
            for optimizer in self.optimizers:
                if self.scaler is None:
                    optimizer.step()
                else:
                    self.scaler.step(optimizer)
            if self.scaler is not None:
                self.scaler.update()
        return self._mean_over_processes(losses[0])

    def evaluate(self, batches: list[Any]) -> torch.Tensor:
        """Return the mean loss of the batches with the current weights."""
        self.batches_evaluated += len(batches)
        # The loss may compute gradients itself, such as a gradient penalty. A
        # DistributedDataParallel model with gradients enabled would wait for backward().
        losses = []
        with torch.set_grad_enabled(not self.uses_ddp):
            for batch in batches:
                loss = self.loss(self.model, batch)
                check_loss(loss, needs_grad=not self.uses_ddp)
                losses.append(loss.detach().mean())
        return self._mean_over_processes(torch.stack(losses).mean())

    def _mean_over_processes(self, value: torch.Tensor) -> torch.Tensor:
        if self.reduce:
            distributed.all_reduce(value)
            value /= distributed.get_world_size()
        return value

    def _backward(self, batches: list[Any]) -> torch.Tensor:
        """Compute and clip the gradients of the batches; return their mean loss."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            loss = self.loss(self.model, batch)
            check_loss(loss)
            if loss.dim():
                loss = loss.mean()
            if len(batches) > 1:
                loss = loss / len(batches)
            scaled = loss if self.scaler is None else self.scaler.scale(loss)
            scaled.backward()
            if loss.is_leaf or loss._base is not None:  # it may share its memory with a parameter
                loss = loss.clone()
            losses.append(loss.detach())
        if self.clip is not None and self.scaler is not None:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
        if callable(self.clip):
            self.clip(self.parameters)
        elif self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        return sum(losses[1:], losses[0])


def set_optimizer_mode(
    optimizers: Iterable[torch.optim.Optimizer], mode: Literal["train", "eval"]
) -> None:
    """Switch optimizers that evaluate at other weights than they train, as schedulefree does."""
    for optimizer in optimizers:
        change = getattr(optimizer, mode, None)
        if callable(change):  # other optimizers have no such method
            change()


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether ``optimizer.step`` requires a closure, as that of LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _cycle(loader: Batches) -> Generator[Any]:
    is_factory = callable(loader) and not isinstance(loader, Iterable)
    while True:
        empty = True
        for batch in loader() if is_factory else loader:  # type: ignore[operator, union-attr]
            empty = False
            yield batch
        if empty:
            raise TaskError("the loader is empty: expected at least one batch")


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

"""Steps as the run is going to make them, from one start, as often as a test likes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Literal, TypedDict

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import BindingError, SettingError, TaskError

from ._snapshot import Batches, preserve_state

CHECK_EVERY: Final = 8  # steps between two looks at losses that lie on a device

Loss = Callable[[Any, Any], torch.Tensor]
Clip = float | Callable[[list[torch.Tensor]], object]


class StepOptions(TypedDict, total=False):
    """StepOptions steps are made: what every test takes; `range_test` tells what they are."""

    accumulate: int
    clip: Clip | None
    scaler: Any
    reduce: bool | None
    check_every: int | None
    on_disk: bool | str


class ShortRunner:
    """What is tested, and how it makes its steps; the arguments are those of `range_test`.

    Attributes:
        made: steps made so far, of all starts.
        looked: batches whose loss was computed without a step.
        batches: batches that were used up.
        optimizer: the class of the optimizer, or of all of them, in words.
        on_device: whether losses lie where looking at one means waiting for it.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        loader: Batches,
        loss: Loss,
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
        self.given, self.loss = model, loss
        self.models = [model] if isinstance(model, nn.Module) else list(model)
        single = isinstance(optimizer, torch.optim.Optimizer)
        self.optimizers: list[torch.optim.Optimizer] = [optimizer] if single else list(optimizer)  # type: ignore[list-item, arg-type]
        self.loader, self.accumulate, self.clip, self.scaler = loader, accumulate, clip, scaler
        if reduce is None:
            reduce = any(isinstance(one, DistributedDataParallel) for one in self.models)
        self.reduce, self.on_disk, self._check_every = reduce, on_disk, check_every
        self.optimizer = " and ".join(type(one).__name__ for one in self.optimizers)
        groups = [group for one in self.optimizers for group in one.param_groups]
        self.parameters = [p for group in groups for p in group["params"] if p.requires_grad]
        if not self.parameters:
            raise TaskError("all parameters of the optimizer are frozen: there is nothing to train")
        self.on_device = self.parameters[0].device.type != "cpu"
        self.closes = any(wants_closure(one) for one in self.optimizers)
        if self.closes and (scaler is not None or len(self.optimizers) > 1):
            raise TaskError(
                "an optimizer that wants a closure works alone, and without a GradScaler"
            )
        self.made = self.looked = self.batches = 0

    @property
    def check_every(self) -> int:
        """Steps between two looks at their losses."""
        return self._check_every or (CHECK_EVERY if self.on_device else 1)

    @contextmanager
    def fresh(self) -> Iterator[Steps]:
        """Begin anew: weights, optimizer, batches and random numbers as they were, and are after.

        Raises:
            TaskError: the loader is a one-way stream.
        """
        with (
            preserve_state(
                self.models, self.optimizers, self.loader, scaler=self.scaler, on_disk=self.on_disk
            ),
            closing(_cycle(self.loader)) as batches,
        ):
            for one in self.models:
                if not one.training:
                    one.train()
            for optimizer in self.optimizers:
                switch(optimizer, "train")
            yield Steps(self, batches)

    def refuse_closures(self, what: str) -> None:
        """Raise TaskError if the optimizer wants a closure."""
        if self.closes:
            raise TaskError(
                f"{what} makes single steps, and {self.optimizer} makes several at a time; "
                "use find_lr or range_test"
            )

    def epoch(self) -> int | None:
        """Return the batches in a pass over the loader, of all processes the least; or None."""
        try:
            batches = len(self.loader)  # type: ignore[arg-type]  # the TypeError is the check
        except TypeError:
            return None
        return self.least(batches)

    def least(self, number: int) -> int:
        """Return the smallest of the processes' numbers."""
        if not self.reduce:
            return number
        tensor = torch.tensor(number, device=self.parameters[0].device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MIN)
        return int(tensor)


class Steps:
    """One step after the other, each at the lr that was set last."""

    def __init__(self, bed: ShortRunner, batches: Generator[Any]) -> None:
        self._bed, self._batches = bed, batches
        self._ratios = ratios(bed.optimizers)

    def at(self, lr: float, momentum: float | None = None) -> None:
        """Set the lr, of the group with the highest one; the others keep their ratios to it."""
        for group, ratio in self._ratios:
            _set_lr(group, lr * ratio)
            if momentum is not None:
                _set_momentum(group, momentum)

    def take(self) -> list[Any]:
        """Return the batches of the next step."""
        few = [next(self._batches) for _ in range(self._bed.accumulate)]
        self._bed.batches += len(few)
        return few

    def make(self, few: list[Any] | None = None) -> torch.Tensor:
        """Make one step, on the batches given or the next ones; return the loss before it."""
        bed = self._bed
        few = self.take() if few is None else few
        bed.made += 1
        if bed.closes:
            seen: list[torch.Tensor] = []

            def closure() -> torch.Tensor:
                value = self._backward(few)
                seen.append(value)
                return value

            bed.optimizers[0].step(closure)  # type: ignore[arg-type]  # LBFGS takes a tensor
            return self._averaged(seen[0])
        value = self._backward(few)
        for optimizer in bed.optimizers:
            if bed.scaler is None:
                optimizer.step()
            else:
                bed.scaler.step(optimizer)
        if bed.scaler is not None:
            bed.scaler.update()
        return self._averaged(value)

    def look(self, few: list[Any]) -> torch.Tensor:
        """Return the mean loss of some batches as it is now."""
        bed = self._bed
        bed.looked += len(few)
        # A loss may need gradients of its own, a penalty on them for one; but a parallel model
        # that was asked for gradients waits for them.
        parallel = any(isinstance(one, DistributedDataParallel) for one in bed.models)
        losses = []
        with torch.set_grad_enabled(not parallel):
            for batch in few:
                loss = bed.loss(bed.given, batch)
                check_loss(loss, trains=not parallel)
                losses.append(loss.detach().mean())
        return self._averaged(torch.stack(losses).mean())

    def along(self, ways: list[torch.Tensor]) -> float:
        """Return the gradients' product with a way, as many tensors as there are parameters."""
        pairs = zip(self._bed.parameters, ways, strict=True)
        products = [(p.grad * way).sum() for p, way in pairs if p.grad is not None]
        return float(self._averaged(torch.stack(products).sum())) if products else 0.0

    def _averaged(self, value: torch.Tensor) -> torch.Tensor:
        if self._bed.reduce:
            distributed.all_reduce(value)
            value /= distributed.get_world_size()
        return value

    def _backward(self, batches: list[Any]) -> torch.Tensor:
        """Compute the gradients anew, clipped; return the mean loss."""
        bed = self._bed
        for optimizer in bed.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total = self._share(batches[0], len(batches))
        for batch in batches[1:]:
            total = total + self._share(batch, len(batches))
        if bed.clip is not None:
            if bed.scaler is not None:
                for optimizer in bed.optimizers:
                    bed.scaler.unscale_(optimizer)
            if callable(bed.clip):
                bed.clip(bed.parameters)
            else:
                nn.utils.clip_grad_norm_(bed.parameters, bed.clip)
        return total

    def _share(self, batch: Any, count: int) -> torch.Tensor:
        """Add the gradients of one of several batches; return its share in the loss."""
        bed = self._bed
        loss = bed.loss(bed.given, batch)
        check_loss(loss)
        if loss.dim():
            loss = loss.mean()
        if count > 1:
            loss = loss / count
        scaled = loss if bed.scaler is None else bed.scaler.scale(loss)
        scaled.backward()
        if loss.is_leaf or loss._base is not None:  # it may share its memory with a parameter
            loss = loss.clone()
        return loss.detach()


def switch(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Tell an optimizer that trains other weights than it is judged by which ones to show.

    Those of the schedulefree package do so; to others this says nothing.
    """
    change = getattr(optimizer, mode, None)
    if callable(change):
        change()


def wants_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether ``step`` cannot do without a closure, as LBFGS's cannot."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _cycle(loader: Batches) -> Generator[Any]:
    """Yield batches for ever, from the beginning each time they end."""
    opens = callable(loader) and not isinstance(loader, Iterable)
    while True:
        empty = True
        for batch in loader() if opens else loader:  # type: ignore[operator, union-attr]
            empty = False
            yield batch
        if empty:
            raise TaskError("the training data gave no batch; a test needs at least one")


def ratios(optimizers: list[torch.optim.Optimizer]) -> list[tuple[dict[str, Any], float]]:
    """Return every param group with its lr's ratio to the highest one."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    lrs = initial_lrs(optimizers)
    highest = max(lrs)
    if (highest <= 0 and len(set(lrs)) > 1) or min(lrs) < 0:
        raise BindingError(f"the optimizer's lrs {lrs} have no ratios that could be kept")
    return [
        (group, lr / highest if highest > 0 else 1.0) for group, lr in zip(groups, lrs, strict=True)
    ]


def initial_lrs(optimizers: list[torch.optim.Optimizer]) -> list[float]:
    """Return the lr of every param group as it was set, before any schedule."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    # A scheduler that begins at 0, as a warm-up does, has left the lrs in initial_lr.
    lrs = [float(group["lr"]) for group in groups]
    if max(lrs) <= 0:
        lrs = [float(group.get("initial_lr", group["lr"])) for group in groups]
    return lrs


def momentum_of(optimizers: list[torch.optim.Optimizer]) -> float | None:
    """Return the momentum, or the first of the betas, that all param groups share; or None."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if not all("momentum" in group or "betas" in group for group in groups):
        return None
    return float(max(group.get("momentum", (group.get("betas") or [0])[0]) for group in groups))


def check_loss(loss: object, *, trains: bool = True) -> None:
    """Raise TaskError unless a loss is a tensor, and if it trains, one with a gradient."""
    if not isinstance(loss, torch.Tensor) or not loss.numel():
        what = type(loss).__name__ if not isinstance(loss, torch.Tensor) else "an empty tensor"
        raise TaskError(f"loss(model, batch) returned {what}; expected a tensor of numbers")
    if trains and not loss.requires_grad:
        raise TaskError(
            "loss(model, batch) returned a tensor without a gradient; was it detached, or "
            "computed under no_grad, or of a model whose weights are frozen?"
        )


def _set_lr(group: dict[str, Any], lr: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "momentum" in group:
        group["momentum"] = value
    elif "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        raise SettingError("momentum=: this optimizer has neither momentum nor betas")

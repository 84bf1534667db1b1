"""Run training steps and evaluations, then restore the initial state."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import chain
from numbers import Number
from typing import Any, Final, Literal, TypedDict

import torch
from torch import nn

from ratecraft.errors import SettingError, TaskError
from ratecraft.results._lr_search import group_lr_ratios, write_lr

from ._processes import Processes, model_settings, reshard
from ._snapshot import Batches, as_list, preserve_state
from ._steps import (
    Clip,
    check_clip,
    check_loss,
    compute_gradients,
    needs_closure,
    read_endlessly,
    step_optimizers,
    trained_parameters,
)

ACCELERATOR_CHECK_STEPS: Final = 8  # steps between two checks of losses that lie on an accelerator

LossFunction = Callable[[Any, Any], torch.Tensor]


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

    The arguments are those of `range_test`, and the processes that take the steps together.
    Steps, evaluations and batches need a block of `start`.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        loader: Batches,
        loss: LossFunction,
        processes: Processes,
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
        check_clip(clip)
        self.model, self.loader, self.loss = model, loader, loss
        self.models = as_list(model, nn.Module)
        self.optimizers = as_list(optimizer, torch.optim.Optimizer)
        self.optimizer_name = " and ".join(type(each).__name__ for each in self.optimizers)
        self.parameters = trained_parameters(self.optimizers)
        if not self.parameters:
            raise TaskError("all parameters of the optimizer are frozen: there is nothing to train")
        self.uses_closure = needs_closure(self.optimizers, scaler)
        self.accumulate, self.clip, self.scaler, self.on_disk = accumulate, clip, scaler, on_disk
        if processes.size > 1 and reduce is False:
            raise SettingError(
                "reduce=False: processes with different losses would not end their runs together, "
                "and the model would wait for ever; leave reduce= out"
            )
        self.processes = processes
        on_cpu = self.parameters[0].device.type == "cpu"
        self.check_every = check_every or (1 if on_cpu else ACCELERATOR_CHECK_STEPS)
        self.steps_done = self.batches_evaluated = self.batches_read = 0  # over all short runs
        self._lr_ratios = group_lr_ratios(self.optimizers)
        self._batches: Iterator[Any] = iter(())

    def settings(self) -> dict[str, object]:
        """Return what must be the same in all processes, so that all take the same steps."""
        groups = [group for each in self.optimizers for group in each.param_groups]
        return {
            "accumulate": self.accumulate,
            "clip": _clip_setting(self.clip),
            "scale of the GradScaler": self.scaler and self.scaler.get_scale(),
            "reduce": self.processes.reduce,
            "check_every": self.check_every,
            "optimizer": self.optimizer_name,
            "number of param groups": len(groups),
            **{
                f"{name} of param group {i}": plain
                for i, group in enumerate(groups)
                for name, value in group.items()
                if name != "params" and (plain := _plain_hyperparam(value)) is not None
            },
            **(model_settings(self.models) if self.processes.is_parallel else {}),
        }

    @contextmanager
    def start(self) -> Iterator[None]:
        """Start a short run from the current state, and restore that state at the end."""
        with ExitStack() as stack:
            with self.processes.agreement():
                self._open(stack)
            yield

    def _open(self, stack: ExitStack) -> None:
        models, optimizers = self.models, self.optimizers
        stack.enter_context(
            preserve_state(
                models, optimizers, self.loader, scaler=self.scaler, on_disk=self.on_disk
            )
        )
        self._batches = stack.enter_context(closing(read_endlessly(self.loader)))
        for model in models:
            if not model.training:
                model.train()
        set_optimizer_mode(optimizers, "train")
        if self.processes.size > 1:  # without a batch, a process leaves the others waiting
            self._batches = chain([next(self._batches)], self._batches)

    def batches_per_epoch(self) -> int | None:
        """Return the length of the loader, the smallest of all processes; None if it has none."""
        batches: int | None = None
        with self.processes.agreement(), suppress(TypeError):
            batches = len(self.loader)  # type: ignore[arg-type]  # the TypeError is the check
        lengths = self.processes.gather(batches)
        return None if None in lengths else min(lengths)

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
            value = compute_gradients(
                partial(self.loss, self.model),
                batches,
                self.optimizers,
                self.parameters,
                clip=self.clip,
                scaler=self.scaler,
            )
            losses.append(self.processes.mean(value))
            return losses[-1]

        if self.uses_closure:
            self.optimizers[0].step(closure)  # type: ignore[arg-type]  # LBFGS takes a tensor
        else:
            closure()
            step_optimizers(self.optimizers, self.scaler)
        return losses[0]

    def evaluate(self, batches: list[Any]) -> torch.Tensor:
        """Return the mean loss of the batches with the current weights."""
        self.batches_evaluated += len(batches)
        # The loss may compute gradients itself, such as a gradient penalty. A parallel model with
        # gradients enabled would wait for backward().
        losses, needs_grad = [], not self.processes.is_parallel
        with torch.set_grad_enabled(needs_grad):
            for batch in batches:
                loss = self.loss(self.model, batch)
                check_loss(loss, needs_grad=needs_grad)
                losses.append(loss.detach().mean())
        reshard(self.models)
        return self.processes.mean(torch.stack(losses).mean())


def _clip_setting(clip: object) -> object:
    """Return a clip that is equal in all processes, unlike the text of a function."""
    if isinstance(clip, partial):
        return _clip_setting(clip.func), clip.args, clip.keywords
    if callable(clip):
        return getattr(clip, "__qualname__", type(clip).__qualname__)
    return clip


def _plain_hyperparam(value: object) -> int | float | tuple[object, ...] | None:
    """Return a number without its array type and device, a sequence of them, or None."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain_hyperparam, value))
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        return None
    if isinstance(value, torch.Tensor | Number) and hasattr(value, "item"):  # numpy's have it, too
        value = value.item()
    return value if isinstance(value, int | float) else None


def set_optimizer_mode(
    optimizers: Iterable[torch.optim.Optimizer], mode: Literal["train", "eval"]
) -> None:
    """Switch optimizers that evaluate at other weights than they train, as schedulefree does."""
    for optimizer in optimizers:
        change = getattr(optimizer, mode, None)
        if callable(change):  # other optimizers have no such method
            change()


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "momentum" in group:
        group["momentum"] = value
    elif "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        raise SettingError("momentum=: this optimizer has neither momentum nor betas")

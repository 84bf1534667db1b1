"""What a range test leaves behind: ours and three peers, each used as its own docs say.

    pip install torch-lr-finder==0.2.2
    python benchmarks/no_trace.py

A small world that has been trained for a while is photographed, tested for 100 steps at lrs
1e-6 .. 1, and photographed again: "kept" or "changed". After an exception or Ctrl-C nothing more
is called: torch-lr-finder's reset() stands on a line that is not reached. ignite's `to_save` gets
all that has a state_dict; of Lightning update_attr is off, as it is meant to change the lr, and
early_stop_threshold, as it stops here after one lucky batch.
In the last two rows a run is trained on for three epochs: do its losses and its weights agree bit
for bit with those of a run that never tested?
"""

from __future__ import annotations

import copy
import io
import logging
import random
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from ignite.engine import Engine
from ignite.handlers import FastaiLRFinder
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ratecraft.finder import range_test

warnings.simplefilter("ignore")  # the absence of loader workers and of divergence is intended
from torch_lr_finder import LRFinder  # noqa: E402 - warns when imported

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

STEPS, BREAK = 100, 60
LOW, HIGH = 1e-6, 1.0
Batch = tuple[torch.Tensor, torch.Tensor]


class Net(nn.Module):
    """Batch norm, dropout, a frozen weight, a module in evaluation mode, an unsaved buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.frozen_norm = nn.BatchNorm1d(144)
        self.head = nn.Linear(144, 10)
        self.head.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.calls: torch.Tensor
        self.frozen_norm.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        self.calls += 1
        return self.head(self.frozen_norm(self.body(x)))


class Noisy(Dataset[Any]):
    """Draws from torch, numpy and random, as augmentation does."""

    def __init__(self) -> None:
        self.data = torch.rand(88, 1, 8, 8)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(1) + float(np.random.rand()) + random.random()
        return self.data[i] + 0.1 * noise, i % 10


class Stateful(DataLoader[Any]):
    """Goes on where it was left, in the middle of an epoch."""

    served = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            first = self.served % len(self) * 8
            self.served += 1
            yield self.collate_fn([self.dataset[i] for i in range(first, first + 8)])
            if self.served % len(self) == 0:
                return

    def state_dict(self) -> dict[str, int]:
        """Return where it is."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go there."""
        self.served = state["served"]


class TrainerContext:
    """A run that has been going on for a while."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        self.kind, self.model, data = kind, Net(), Noisy()
        first, second = self.model.body, [self.model.frozen_norm, self.model.head]
        rest = [p for module in second for p in module.parameters()]
        self.optimizer = torch.optim.SGD(
            [{"params": first.parameters(), "lr": 0.01}, {"params": rest, "lr": 0.05}], momentum=0.9
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        self.generator = torch.Generator().manual_seed(7)
        own = self.generator if kind == "own generator" else None
        stateful = kind == "stateful"
        self.loader = Stateful(data, 8) if stateful else DataLoader(data, 8, True, generator=own)
        self.calls = 0
        self.error: BaseException | None = None
        self.train(30)

    def update(self, batch: Batch) -> torch.Tensor:
        """Make one step, with the scaler."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model, batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def train(self, steps: int) -> list[float]:
        """Return the losses of some steps."""
        losses: list[float] = []
        while True:
            for batch in self.loader:
                losses.append(float(self.update(batch)))
                if len(losses) == steps:
                    return losses

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.entropy(model(batch[0]), batch[1])

    def entropy(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss, or raise the error that is planned."""
        self.calls += 1
        if self.error and self.calls == BREAK:
            raise self.error
        return nn.functional.cross_entropy(outputs, labels)

    def photograph(self) -> dict[str, Any]:
        """Return a copy of everything by the name of its row."""
        model, optimizer = self.model, self.optimizer
        parameters = list(model.parameters())
        state = [one for p in parameters for one in optimizer.state.get(p, {}).values()]
        groups = [{**group, "params": len(group["params"])} for group in optimizer.param_groups]
        buffers = {name: buffer for name, buffer in model.named_buffers() if name != "calls"}
        tensors = [one for one in state if isinstance(one, torch.Tensor)]
        seen = {
            "parameters": parameters,
            "buffers": buffers,
            "non-persistent buffers": model.calls,
            "train/eval flags of modules": [module.training for module in model.modules()],
            "requires_grad": [p.requires_grad for p in parameters],
            "gradients": [p.grad for p in parameters],
            "optimizer state": state,
            "param groups": groups,
            "GradScaler": self.scaler.state_dict(),
            "torch's random numbers": torch.get_rng_state(),
            "numpy's random numbers": np.random.get_state(),
            "Python's random numbers": random.getstate(),
            "memory of weights, buffers": [t.data_ptr() for t in (*parameters, *buffers.values())],
            "memory of optimizer state": [t.data_ptr() for t in tensors],
        }
        if self.kind == "own generator":
            seen["loader's own generator"] = self.generator.get_state()
        if isinstance(self.loader, Stateful):
            seen["loader's position"] = self.loader.served
        return copy.deepcopy(seen)


def ours(world: TrainerContext) -> None:
    range_test(
        world.model, world.optimizer, world.loader, world.loss,
        low=LOW, high=HIGH, steps=STEPS, scaler=world.scaler,
    )  # fmt: skip


def torch_lr_finder(world: TrainerContext) -> None:
    amp = {"device_type": "cpu", "enabled": False}
    finder = LRFinder(
        world.model, world.optimizer, world.entropy,
        amp_backend="torch", amp_config=amp, grad_scaler=world.scaler,
    )  # fmt: skip
    finder.range_test(world.loader, start_lr=LOW, end_lr=HIGH, num_iter=STEPS)
    finder.reset()


def ignite(world: TrainerContext) -> None:
    trainer = Engine(lambda _, batch: world.update(batch))
    finder = FastaiLRFinder()
    saved = {"model": world.model, "optimizer": world.optimizer, "scaler": world.scaler}
    if isinstance(world.loader, Stateful):
        saved["loader"] = world.loader
    with finder.attach(trainer, saved, start_lr=LOW, end_lr=HIGH) as attached:
        attached.run(world.loader, max_epochs=1, epoch_length=STEPS)


class Lit(pl.LightningModule):
    """The same model and the same step, for Lightning."""

    def __init__(self, world: TrainerContext) -> None:
        super().__init__()
        self.model, self.world = world.model, world

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Return the loss."""
        return self.world.loss(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.world.optimizer


def lightning(world: TrainerContext) -> None:
    interrupt = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            plugins=[MixedPrecision("16-mixed", "cpu", world.scaler)],
            max_epochs=STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            Tuner(trainer).lr_find(
                Lit(world), world.loader,
                min_lr=LOW, max_lr=HIGH, num_training=STEPS,
                early_stop_threshold=None, update_attr=False,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, interrupt)  # which it sets to "ignore" on Ctrl-C


FINDERS: dict[str, Callable[[TrainerContext], None]] = {
    "ratecraft": ours,
    "torch-lr-finder": torch_lr_finder,
    "ignite": ignite,
    "Lightning": lightning,
}


KINDS = {
    "global": "trained on, bitwise the same",
    "own generator": "  with the loader's own generator",
    "stateful": "",
}
BLOCKS: dict[str, BaseException | None] = {
    "after a normal end": None,
    f"after an exception at {BREAK}": ValueError(),
    f"after Ctrl-C at {BREAK}": KeyboardInterrupt(),
}


def tested(
    finder: Callable[[TrainerContext], None], kind: str, error: BaseException | None
) -> tuple[TrainerContext, dict[str, bool]]:
    """Let a finder work on a world until it ends or the error comes; return what was kept."""
    world = TrainerContext(kind)
    world.calls, world.error = 0, error
    before = world.photograph()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            finder(world)
        except BaseException as raised:
            # Lightning makes a SystemExit of a KeyboardInterrupt.
            if error is None or not isinstance(raised, type(error) | SystemExit):
                raise
        else:
            assert error is None
    assert world.calls == BREAK if error else world.calls > BREAK
    world.error = None
    now = world.photograph()
    return world, {row: same(before[row], now[row]) for row in before}


def after(world: TrainerContext) -> tuple[list[float], dict[str, torch.Tensor]]:
    return world.train(3 * len(world.loader)), world.model.state_dict()


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def column(finder: Callable[[TrainerContext], None], error: BaseException | None) -> dict[str, str]:
    """Return a finder's cells by row."""
    cells: dict[str, str] = {}
    ends: dict[str, str] = {}
    for kind, row in KINDS.items():
        world, kept = tested(finder, kind, error)
        for name, well in kept.items():
            # What three worlds share is kept if it is kept in all.
            bad = not well or cells.get(name) == "changed"
            cells[name] = "changed" if bad else "kept"
        if row:
            ends[row] = "yes" if same(after(world), after(TrainerContext(kind))) else "no"
    return cells | ends


def main() -> None:
    torch.set_num_threads(1)
    for title, error in BLOCKS.items():
        columns = {name: column(finder, error) for name, finder in FINDERS.items()}
        print(f"{title:36}" + "".join(f"{name:17}" for name in FINDERS).rstrip())
        for row in columns["ratecraft"]:
            print(f"  {row:34}" + "".join(f"{one[row]:17}" for one in columns.values()).rstrip())
        print()


if __name__ == "__main__":
    main()

"""Compare what a range test changes: ratecraft and three other libraries, used as documented.

    pip install torch-lr-finder==0.2.2
    python benchmarks/no_trace.py

A small run that has trained for a while is captured, tested for 100 steps at learning rates 1e-6
to 1, and captured again: "kept" or "changed". After an exception or Ctrl-C no cleanup is called;
the line with torch-lr-finder's reset() is not reached. `to_save` of ignite gets everything that
has a state_dict. In Lightning, update_attr is off, because it changes the learning rate on purpose,
and so is early_stop_threshold, which would end the test after one batch with a low loss.
The last two rows continue the run for three epochs and compare its losses and weights, bit for
bit, with those of a run without a test.
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
    """A loader that continues in the middle of an epoch."""

    served = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            first = self.served % len(self) * 8
            self.served += 1
            yield self.collate_fn([self.dataset[i] for i in range(first, first + 8)])
            if self.served % len(self) == 0:
                return

    def state_dict(self) -> dict[str, int]:
        """Return the position."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the position."""
        self.served = state["served"]


class WarmRun:
    """A run that has already trained for 30 steps."""

    def __init__(self, loader_type: str) -> None:
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        self.loader_type, self.model, data = loader_type, Net(), Noisy()
        first, second = self.model.body, [self.model.frozen_norm, self.model.head]
        rest = [p for module in second for p in module.parameters()]
        self.optimizer = torch.optim.SGD(
            [{"params": first.parameters(), "lr": 0.01}, {"params": rest, "lr": 0.05}], momentum=0.9
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        self.generator = torch.Generator().manual_seed(7)
        generator = self.generator if loader_type == "own generator" else None
        self.loader: DataLoader[Any] = DataLoader(data, 8, True, generator=generator)
        if loader_type == "stateful":
            self.loader = Stateful(data, 8)
        self.calls = 0
        self.error: BaseException | None = None
        self.train(30)

    def step(self, batch: Batch) -> torch.Tensor:
        """Make one optimizer step, with the scaler."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model, batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def train(self, steps: int) -> list[float]:
        """Train and return the loss of each step."""
        losses: list[float] = []
        while True:
            for batch in self.loader:
                losses.append(float(self.step(batch)))
                if len(losses) == steps:
                    return losses

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.entropy(model(batch[0]), batch[1])

    def entropy(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss, or raise the scheduled error."""
        self.calls += 1
        if self.error and self.calls == BREAK:
            raise self.error
        return nn.functional.cross_entropy(outputs, labels)

    def capture(self) -> dict[str, Any]:
        """Return a copy of the state, by the name of the table row."""
        model, optimizer = self.model, self.optimizer
        parameters = list(model.parameters())
        state = [value for p in parameters for value in optimizer.state.get(p, {}).values()]
        groups = [{**group, "params": len(group["params"])} for group in optimizer.param_groups]
        buffers = {name: buffer for name, buffer in model.named_buffers() if name != "calls"}
        tensors = [value for value in state if isinstance(value, torch.Tensor)]
        captured = {
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
        if self.loader_type == "own generator":
            captured["loader's own generator"] = self.generator.get_state()
        if isinstance(self.loader, Stateful):
            captured["loader's position"] = self.loader.served
        return copy.deepcopy(captured)


def ratecraft(run: WarmRun) -> None:
    range_test(
        run.model, run.optimizer, run.loader, run.loss,
        low=LOW, high=HIGH, steps=STEPS, scaler=run.scaler,
    )  # fmt: skip


def torch_lr_finder(run: WarmRun) -> None:
    amp = {"device_type": "cpu", "enabled": False}
    finder = LRFinder(
        run.model, run.optimizer, run.entropy,
        amp_backend="torch", amp_config=amp, grad_scaler=run.scaler,
    )  # fmt: skip
    finder.range_test(run.loader, start_lr=LOW, end_lr=HIGH, num_iter=STEPS)
    finder.reset()


def ignite(run: WarmRun) -> None:
    trainer = Engine(lambda _, batch: run.step(batch))
    finder = FastaiLRFinder()
    saved = {"model": run.model, "optimizer": run.optimizer, "scaler": run.scaler}
    if isinstance(run.loader, Stateful):
        saved["loader"] = run.loader
    with finder.attach(trainer, saved, start_lr=LOW, end_lr=HIGH) as attached:
        attached.run(run.loader, max_epochs=1, epoch_length=STEPS)


class Lit(pl.LightningModule):
    """The same model and step as a LightningModule."""

    def __init__(self, run: WarmRun) -> None:
        super().__init__()
        self.model, self.run = run.model, run

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Return the loss."""
        return self.run.loss(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.run.optimizer


def lightning(run: WarmRun) -> None:
    interrupt = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            plugins=[MixedPrecision("16-mixed", "cpu", run.scaler)],
            max_epochs=STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            Tuner(trainer).lr_find(
                Lit(run), run.loader,
                min_lr=LOW, max_lr=HIGH, num_training=STEPS,
                early_stop_threshold=None, update_attr=False,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, interrupt)  # Lightning sets it to "ignore" on Ctrl-C


FINDERS: dict[str, Callable[[WarmRun], None]] = {
    "ratecraft": ratecraft,
    "torch-lr-finder": torch_lr_finder,
    "ignite": ignite,
    "Lightning": lightning,
}


LOADER_TYPES = {
    "global": "trained on, bitwise the same",
    "own generator": "  with the loader's own generator",
    "stateful": "",
}
ENDINGS: dict[str, BaseException | None] = {
    "after a normal end": None,
    f"after an exception at {BREAK}": ValueError(),
    f"after Ctrl-C at {BREAK}": KeyboardInterrupt(),
}


def tested(
    finder: Callable[[WarmRun], None], loader_type: str, error: BaseException | None
) -> tuple[WarmRun, dict[str, bool]]:
    """Run a finder until it ends or fails; return the run, and whether each row was kept."""
    run = WarmRun(loader_type)
    run.calls, run.error = 0, error
    before = run.capture()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            finder(run)
        except BaseException as raised:
            # Lightning turns a KeyboardInterrupt into a SystemExit.
            if error is None or not isinstance(raised, type(error) | SystemExit):
                raise
        else:
            assert error is None
    assert run.calls == BREAK if error else run.calls > BREAK
    run.error = None
    restored = run.capture()
    return run, {row: same(before[row], restored[row]) for row in before}


def after(run: WarmRun) -> tuple[list[float], dict[str, torch.Tensor]]:
    return run.train(3 * len(run.loader)), run.model.state_dict()


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b)


def column(finder: Callable[[WarmRun], None], error: BaseException | None) -> dict[str, str]:
    """Return the cells of a finder, by row."""
    cells: dict[str, str] = {}
    continued: dict[str, str] = {}
    for loader_type, row in LOADER_TYPES.items():
        run, rows = tested(finder, loader_type, error)
        for name, is_kept in rows.items():
            # A row that several loader types share is kept if it is kept in all of them.
            changed = not is_kept or cells.get(name) == "changed"
            cells[name] = "changed" if changed else "kept"
        if row:
            tested_run = after(run)  # before WarmRun() seeds the random generators
            untested_run = after(WarmRun(loader_type))
            continued[row] = "yes" if same(tested_run, untested_run) else "no"
    return cells | continued


def main() -> None:
    torch.set_num_threads(1)
    for title, error in ENDINGS.items():
        columns = {name: column(finder, error) for name, finder in FINDERS.items()}
        print(f"{title:36}" + "".join(f"{name:17}" for name in FINDERS).rstrip())
        for row in columns["ratecraft"]:
            print(
                f"  {row:34}" + "".join(f"{cells[row]:17}" for cells in columns.values()).rstrip()
            )
        print()


if __name__ == "__main__":
    main()

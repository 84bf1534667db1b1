"""Measure the cost of a range-test step: ratecraft and three libraries, relative to a bare loop.

    pip install torch-lr-finder==0.2.2
    python benchmarks/range_test_speed.py [rounds]

An MLP 64-128-64-10 with SGD and momentum on scikit-learn's digits, batch 64, one thread; once
with a DataLoader and once with a list of batches. All candidates take turns in one process, in a
rotating order. "step" is the marginal cost: the time per step over the last three of about three
and a half epochs, from loss to loss; "test" is a whole test of 100 steps, with the copies that it
makes and restores, and torch-lr-finder's reset(). Both are ratios to the bare loop, medians over
rounds. Progress bars, which two libraries always draw, go to a buffer. Creating Lightning's
Trainer and ignite's Engine is not timed.
"""

from __future__ import annotations

import gc
import io
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections import UserList
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import lightning.pytorch as pl
import torch
from ignite.engine import Engine
from ignite.handlers import FastaiLRFinder
from lightning.pytorch.tuner import Tuner
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ratecraft.finder import range_test

warnings.simplefilter("ignore")  # the absence of loader workers and of divergence is intended
from torch_lr_finder import LRFinder, TrainDataLoaderIter  # noqa: E402 - warns when imported

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

STEPS, STEPS_PER_EPOCH = 100, 29
LOW, HIGH = 1e-8, 1e-3  # too low for any of them to stop early
Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]
Candidate = Callable[[Loader], Callable[[], int]]
timestamps: list[float] = []


def entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    timestamps.append(time.perf_counter())
    return nn.functional.cross_entropy(outputs, labels)


def training_setup() -> tuple[nn.Module, torch.optim.SGD]:
    torch.manual_seed(0)
    sizes = (64, 128), (128, 64), (64, 10)
    layers = [layer for size in sizes for layer in (nn.Linear(*size), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    return model, torch.optim.SGD(model.parameters(), lr=LOW, momentum=0.9)


def bare_loop(loader: Loader) -> Callable[[], int]:
    model, optimizer = training_setup()

    def run() -> int:
        losses: list[float] = []
        while True:
            for x, y in loader:
                optimizer.zero_grad()
                loss = entropy(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if len(losses) == STEPS:
                    return len(losses)

    return run


def ratecraft(loader: Loader) -> Callable[[], int]:
    model, optimizer = training_setup()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return entropy(model(batch[0]), batch[1])

    def run() -> int:
        result = range_test(model, optimizer, loader, loss, low=LOW, high=HIGH, steps=STEPS)
        return len(result.losses)

    return run


def torch_lr_finder(loader: Loader) -> Callable[[], int]:
    model, optimizer = training_setup()

    def run() -> int:
        finder = LRFinder(model, optimizer, entropy)
        source = loader if isinstance(loader, DataLoader) else TrainDataLoaderIter(loader)
        finder.range_test(source, start_lr=LOW, end_lr=HIGH, num_iter=STEPS)
        finder.reset()
        return len(finder.history["loss"])

    return run


def ignite(loader: Loader) -> Callable[[], int]:
    model, optimizer = training_setup()

    def step(_: Engine, batch: Any) -> float:
        optimizer.zero_grad()
        loss = entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(step)

    def run() -> int:
        finder = FastaiLRFinder()
        saved = {"model": model, "optimizer": optimizer}
        with finder.attach(trainer, saved, start_lr=LOW, end_lr=HIGH) as attached:
            attached.run(loader, max_epochs=1, epoch_length=STEPS)
        return len(finder.get_results()["loss"])

    return run


class Lit(pl.LightningModule):
    """The same model and step as a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.optimizer = training_setup()

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss."""
        return entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.optimizer


def lightning(loader: Loader) -> Callable[[], int]:
    module = Lit()
    # Lightning would treat a list as several loaders.
    source = UserList(loader) if isinstance(loader, list) else loader
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.gettempdir(),
    )

    def run() -> int:
        finder = Tuner(trainer).lr_find(
            module, source, min_lr=LOW, max_lr=HIGH, num_training=STEPS, update_attr=False
        )
        assert finder is not None
        return len(finder.results["loss"])

    return run


CANDIDATES: dict[str, Candidate] = {
    "bare loop": bare_loop,
    "ratecraft": ratecraft,
    "torch-lr-finder": torch_lr_finder,
    "ignite FastaiLRFinder": ignite,
    "Lightning lr_find": lightning,
}


def timed(candidate: Candidate, loader: Loader) -> tuple[float, float]:
    """Return the marginal time of a step and the time of a whole test, in seconds."""
    run = candidate(loader)
    gc.collect()
    timestamps.clear()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        steps = run()
        seconds = time.perf_counter() - start
    assert steps == len(timestamps) == STEPS
    return (timestamps[-1] - timestamps[-1 - 3 * STEPS_PER_EPOCH]) / (3 * STEPS_PER_EPOCH), seconds


def measured(loader: Loader, rounds: int) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CANDIDATES}
    names = list(CANDIDATES)
    for i in range(rounds + 1):
        for name in (*names[i % len(names) :], *names[: i % len(names)]):
            pair = timed(CANDIDATES[name], loader)
            if i:  # the first round is a warm-up
                times[name].append(pair)
    return times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    torch.set_num_threads(1)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(x, y), 64, shuffle=True)
    assert len(loader) == STEPS_PER_EPOCH
    loaders: dict[str, Loader] = {"DataLoader": loader, "list of batches": list(loader)}
    table = {name: f"{name:22}" for name in CANDIDATES}
    for source in loaders.values():
        times = measured(source, rounds)
        for name, rows in times.items():
            pairs = list(zip(rows, times["bare loop"], strict=True))
            step, test = (statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
            cost = statistics.median(seconds for seconds, _ in rows) * 1e6
            table[name] += f"{cost:7.0f} us{step:8.2f}{test:8.2f}    "
    print(f"{'':22}" + "".join(f"{name:29}" for name in loaders).rstrip())
    print(f"{'':22}" + f"{'step':>10}{'ratio':>8}{'test':>8}   " * len(loaders))
    print("\n".join(row.rstrip() for row in table.values()))


if __name__ == "__main__":
    main()

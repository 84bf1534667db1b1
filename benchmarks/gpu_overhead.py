"""Time of training steps with ratecraft over that without, on a GPU if there is one.

    python benchmarks/gpu_overhead.py

Two runs of the same model train in blocks of 50 steps, alternately; each block ends when the GPU
has. The ratio is the median over adjacent pairs of blocks, and the first row compares two runs
without ratecraft. It has not been run on a GPU yet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.finder import range_test
from ratecraft.torch import ScheduleLR

STEPS, PAIRS, WARMUP_PAIRS = 50, 20, 2  # of a block; of blocks
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Setup = Callable[[nn.Module, torch.optim.Optimizer], object]


def training(*, tensor_lr: bool, setup: Setup | None) -> Callable[[], float]:
    """Return a function that trains one block and returns its seconds."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(4)]
    model = nn.Sequential(*layers).to(DEVICE)
    lr = torch.tensor(1e-3, device=DEVICE) if tensor_lr else 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    batch = torch.randn(64, 256, device=DEVICE)
    kept = setup(model, optimizer) if setup else None

    def block() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        wait()
        return time.perf_counter() - start

    block.kept = kept  # type: ignore[attr-defined]  # a Probe that is entered
    return block


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def schedule(_: nn.Module, optimizer: torch.optim.Optimizer) -> object:
    return ScheduleLR(optimizer, factor=warmup(100).then(cosine()), total_steps=100_000)


def probe(model: nn.Module, optimizer: torch.optim.Optimizer) -> object:
    return Probe(optimizer, model, every=10).__enter__()


def search() -> Callable[[], float]:
    """Return a function that makes a range test of one block and returns its seconds."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(4)]
    model = nn.Sequential(*layers).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loader = [torch.randn(64, 256, device=DEVICE)]

    def block() -> float:
        start = time.perf_counter()
        range_test(
            model, optimizer, loader, lambda m, x: m(x).square().mean(),
            low=1e-8, high=1e-6, steps=STEPS, progress=False,
        )  # fmt: skip
        wait()
        return time.perf_counter() - start

    return block


def report(label: str, measured: Callable[[], float], plain: Callable[[], float]) -> None:
    ratios = [measured() / plain() for _ in range(WARMUP_PAIRS + PAIRS)][WARMUP_PAIRS:]
    low, median, high = statistics.quantiles(ratios, n=4)
    spread = f"half of {PAIRS} pairs from {low:.3f} to {high:.3f}"
    print(f"{label:40}{median:7.3f}   {spread}", flush=True)


def main() -> None:
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "the CPU: there is no CUDA device"
    print(f"fused AdamW, {STEPS} steps a block, on {name}, torch {torch.__version__}")
    for tensor_lr in (False, True):
        lr = "tensor lr" if tensor_lr else "float lr"
        plain = training(tensor_lr=tensor_lr, setup=None)
        report(f"without ratecraft, {lr}", training(tensor_lr=tensor_lr, setup=None), plain)
        report(f"ScheduleLR, {lr}", training(tensor_lr=tensor_lr, setup=schedule), plain)
        report(f"Probe every 10 steps, {lr}", training(tensor_lr=tensor_lr, setup=probe), plain)
    report("range test, with save and restore", search(), training(tensor_lr=False, setup=None))


if __name__ == "__main__":
    main()

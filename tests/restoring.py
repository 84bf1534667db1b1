"""A model, optimizer and loader that are hard to restore, and losses that fail."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Net(nn.Module):
    """State that is hard to restore: batch norm, dropout, a frozen weight, unusual buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.frozen_norm = nn.BatchNorm1d(144)
        self.head = nn.Linear(144, 10)
        self.head.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.frozen_norm.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1  # a new tensor each time, not a step in place
        return self.head(self.frozen_norm(self.body(x)))


class Noisy(Dataset):
    """Draws from torch, numpy and random, as augmentation does."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(1) + float(np.random.rand()) + random.random()
        return self.data[i] + 0.1 * noise, i % 10


def training_setup(momentum: float = 0.9):
    """Return a model, an optimizer with two param groups, and a shuffled loader."""
    torch.manual_seed(1)
    model = Net()
    optimizer = torch.optim.SGD(
        [
            {"params": model.body.parameters(), "lr": 0.01},
            {"params": [*model.frozen_norm.parameters(), *model.head.parameters()], "lr": 0.05},
        ],
        momentum=momentum,
    )
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(Noisy(torch.rand(48, 1, 8, 8)), 8, shuffle=True, generator=generator)
    return model, optimizer, loader


def train(model, optimizer, loader, steps: int) -> list[float]:
    losses = []
    while len(losses) < steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def trained_after(trial, *, steps: int = 18):
    """Train three epochs after an optional trial; return losses, tensors and random numbers."""
    seed_everything(3)
    model, optimizer, loader = training_setup()
    train(model, optimizer, loader, 6)  # warm: momentum buffers and batch statistics exist
    if trial:
        trial(model, optimizer, loader)
    losses = train(model, optimizer, loader, steps)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return losses, tensors, torch.rand(3), np.random.rand(3), random.random()


class Boom(Exception):
    pass


def cross_entropy(model, batch) -> torch.Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def failing(after: int, error: BaseException):
    calls = iter(range(10**9))

    def loss(model, batch) -> torch.Tensor:
        if next(calls) == after:
            raise error
        return cross_entropy(model, batch)

    return loss

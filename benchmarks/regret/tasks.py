"""46 real tasks, data x model x optimizer, each small enough to train thousands of times.

The last sixteen, a third, are held out: no rule was tuned on them. Every third of the first thirty
was held out for an earlier version of the rule; they have been used for tuning since.
"""

from __future__ import annotations

import pydoc_data.topics
import sysconfig
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from ratecraft._training._snapshot import preserve_rng, seed_everything
from ratecraft.experiments import Task

CONTEXT = 32
FILES = ("argparse", "ast", "calendar", "configparser", "datetime", "doctest", "inspect",
         "optparse", "tarfile", "typing")  # fmt: skip


class Entry(NamedTuple):
    """A task of the benchmark: the length of its short run in steps, and how to build it."""

    name: str
    steps: int
    build: Callable[[], Task]


# Data: (train x, val x, train y, val y), always with the same split.


def split(x: Any, y: Any, *, stratify: bool = False, scale: bool = False) -> list[torch.Tensor]:
    """Hold out a fifth; standardize the features with the statistics of the rest."""
    parts = train_test_split(x, y, test_size=0.2, stratify=y if stratify else None, random_state=0)
    tensors = [torch.as_tensor(part, dtype=torch.float32) for part in parts]
    if scale:
        mean, std = tensors[0].mean(0), tensors[0].std(0)
        tensors[:2] = [(part - mean) / std for part in tensors[:2]]
    return tensors


@cache
def digits(raw: bool = False) -> list[torch.Tensor]:
    bunch: Any = datasets.load_digits()
    return split(bunch.data / (1 if raw else 16), bunch.target, stratify=True)


@cache
def turned_digits() -> list[torch.Tensor]:
    """Return the digits transposed and inverted, the data of the fine-tuning tasks."""
    parts = digits()
    turned = [1 - x.view(-1, 8, 8).transpose(1, 2).flatten(1) for x in parts[:2]]
    return [*turned, *parts[2:]]


@cache
def cancer(raw: bool = False) -> list[torch.Tensor]:
    bunch: Any = datasets.load_breast_cancer()
    return split(bunch.data, bunch.target, stratify=True, scale=not raw)


@cache
def wine() -> list[torch.Tensor]:
    bunch: Any = datasets.load_wine()
    return split(bunch.data, bunch.target, stratify=True, scale=True)


@cache
def diabetes(raw: bool = False) -> list[torch.Tensor]:
    bunch: Any = datasets.load_diabetes()
    target = bunch.target[:, None]
    return split(bunch.data, target if raw else (target - 152) / 77, scale=True)


@cache
def text(*, topics: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of characters from the standard library or its help topics; a tenth held out."""
    if topics:
        whole = "".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    else:
        folder = Path(sysconfig.get_path("stdlib"))
        whole = "".join((folder / f"{name}.py").read_text("utf-8") for name in FILES)
    codes = torch.tensor([ord(c) for c in whole[:300_000] if ord(c) < 128])
    rows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    cut = len(rows) * 9 // 10
    return rows[:cut], rows[cut:][:192]


# Models


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def deep_tanh(inputs: int, outputs: int) -> nn.Module:
    return mlp(inputs, *[48] * 6, outputs, activation=nn.Tanh)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


class Recurrent(nn.Module):
    """A GRU that predicts each next character."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.output = nn.Linear(width, 128)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.output(self.recurrent(self.embedding(characters))[0])
        return logits


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = mlp(width, 4 * width, width, activation=nn.GELU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output at each position."""
        rows, length, width = x.shape
        shape = (rows, length, 4, width // 4)
        q, k, v = (
            part.view(shape).transpose(1, 2) for part in self.mix(self.norms[0](x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.join(seen.transpose(1, 2).reshape(x.shape))
        fed: torch.Tensor = self.feed(self.norms[1](x))
        return x + fed


class Transformer(nn.Module):
    """Two causal layers that predict each next character."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.characters = nn.Embedding(128, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width, causal=True) for _ in range(2)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128))

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        positions = self.positions(torch.arange(characters.shape[1]))
        logits: torch.Tensor = self.head(self.blocks(self.characters(characters) + positions))
        return logits


class RowTransformer(nn.Module):
    """A transformer that reads the eight rows of a digit."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.rows = nn.Linear(8, width)
        self.positions = nn.Parameter(torch.randn(8, width) * 0.1)
        self.block = Block(width, causal=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        hidden = self.block(self.rows(x.view(-1, 8, 8)) + self.positions)
        logits: torch.Tensor = self.head(hidden.mean(1))
        return logits


class Neighbours(nn.Module):
    """An MLP that reads the last four characters."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, width)
        self.layers = mlp(4 * width, 96, 128)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        hidden = F.pad(self.embedding(characters), (0, 0, 3, 0))
        windows = hidden.unfold(1, 4, 1).flatten(2)
        logits: torch.Tensor = self.layers(windows)
        return logits


# Losses, optimizers, tasks


def classes(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1].long())


def squares(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def itself(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[0])


def next_character(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten())


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def batches(parts: tuple[torch.Tensor, ...], size: int) -> DataLoader[Any]:
    data = TensorDataset(*parts)
    order = BatchSampler(RandomSampler(data), batch_size=size, drop_last=len(data) > 10 * size)
    return DataLoader(data, sampler=order, batch_size=None)


def tabular(
    name: str,
    steps: int,
    data: Callable[[], list[torch.Tensor]],
    model: Callable[[], nn.Module],
    loss: Any = classes,
    size: int = 32,
) -> Entry:
    def build() -> Task:
        x, x_val, y, y_val = data()
        optimizer = OPTIMIZERS[name.rsplit("/", 1)[-1]]
        return Task(
            name=name,
            model=model,
            loss=loss,
            train=batches((x, y), size),
            val=[(x_val, y_val)],
            optimizer=lambda model: optimizer(model.parameters()),
        )

    return Entry(name, steps, build)


def characters(
    name: str, steps: int, model: Callable[[], nn.Module], *, topics: bool = False, size: int = 8
) -> Entry:
    def build() -> Task:
        train, val = text(topics=topics)
        optimizer = OPTIMIZERS[name.rsplit("/", 1)[-1]]
        return Task(
            name=name,
            model=model,
            loss=next_character,
            train=batches((train,), size),
            val=[(val,)],
            optimizer=lambda model: optimizer(model.parameters()),
        )

    return Entry(name, steps, build)


def pretrained(model: Callable[[], nn.Module], data: Any, loss: Any) -> Callable[[], nn.Module]:
    """Return a function that builds a model with the weights of 600 steps on other data."""

    @cache
    def weights() -> dict[str, torch.Tensor]:
        with preserve_rng():
            seed_everything(12345)
            trained, loader = model(), batches(data(), 32)
            optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
            done = 0
            while done < 600:
                for batch in loader:
                    optimizer.zero_grad()
                    loss(trained, batch).backward()
                    optimizer.step()
                    done += 1
                    if done == 600:
                        break
        return trained.state_dict()

    def make() -> nn.Module:
        instance = model()
        instance.load_state_dict(weights())
        return instance

    return make


tuned_cnn = pretrained(cnn, lambda: (digits()[0], digits()[2]), classes)
tuned_text = pretrained(Transformer, lambda: (text()[0],), next_character)
tuned_mlp = pretrained(lambda: mlp(64, 64, 10), lambda: (digits()[0], digits()[2]), classes)

TASKS: tuple[Entry, ...] = (
    tabular("digits/linear/sgd", 100, digits, lambda: mlp(64, 10)),
    tabular("wine/mlp/momentum", 100, wine, lambda: mlp(13, 32, 3), size=16),
    tabular("digits/mlp/adam", 150, digits, lambda: mlp(64, 64, 10)),
    characters("text/gru/momentum", 120, Recurrent),
    tabular("digits/deep-tanh/sgd", 150, digits, lambda: deep_tanh(64, 10)),  # the plateau
    tabular("cancer/linear/sgd", 100, cancer, lambda: mlp(30, 2)),
    tabular("diabetes/mlp/adamw", 150, diabetes, lambda: mlp(10, 64, 1), squares),
    characters("text/transformer/adam", 120, Transformer),
    tabular("digits/cnn/adamw", 150, digits, cnn),
    tabular("digits-raw/mlp/sgd", 150, partial(digits, raw=True), lambda: mlp(64, 64, 10)),
    tabular("turned-digits/fine-tuned-cnn/momentum", 100, turned_digits, tuned_cnn),
    characters("text/mlp/sgd", 120, Neighbours),
    tabular("wine/deep-tanh/adam", 100, wine, lambda: deep_tanh(13, 3), size=16),
    tabular("digits/autoencoder/adamw", 200, digits, lambda: mlp(64, 48, 12, 48, 64), itself),
    tabular("digits/cnn/momentum", 150, digits, cnn),
    tabular("diabetes-raw/mlp/adam", 200, partial(diabetes, raw=True), lambda: mlp(10, 64, 1),
            squares),
    tabular("cancer/mlp/momentum", 100, cancer, lambda: mlp(30, 32, 2)),
    characters("topics/fine-tuned-transformer/adamw", 100, tuned_text, topics=True),
    tabular("digits/row-transformer/adamw", 150, digits, RowTransformer),
    tabular("diabetes/linear/sgd", 100, diabetes, lambda: mlp(10, 1), squares),
    tabular("digits/deep-tanh/momentum", 200, digits, lambda: deep_tanh(64, 10)),
    characters("text/gru/adamw", 120, Recurrent),
    tabular("digits/cnn/sgd", 150, digits, cnn),
    tabular("cancer-raw/mlp/adam", 150, partial(cancer, raw=True), lambda: mlp(30, 32, 2)),
    tabular("wine/linear/adamw", 100, wine, lambda: mlp(13, 3), size=16),
    tabular("turned-digits/fine-tuned-mlp/adam", 100, turned_digits, tuned_mlp),
    tabular("diabetes/deep-tanh/sgd", 200, diabetes, lambda: deep_tanh(10, 1), squares),
    characters("text/transformer/momentum", 120, Transformer),
    tabular("cancer/deep-tanh/adamw", 100, cancer, lambda: deep_tanh(30, 2)),
    characters("text/mlp/adamw", 120, Neighbours),
    # Held out from here on.
    tabular("digits/mlp/momentum", 150, digits, lambda: mlp(64, 64, 10)),
    tabular("digits/linear/adam", 100, digits, lambda: mlp(64, 10)),
    tabular("cancer/linear/adamw", 100, cancer, lambda: mlp(30, 2)),
    tabular("cancer/mlp/sgd", 100, cancer, lambda: mlp(30, 32, 2)),
    tabular("wine/mlp/adam", 100, wine, lambda: mlp(13, 32, 3), size=16),
    tabular("wine/deep-tanh/momentum", 150, wine, lambda: deep_tanh(13, 3), size=16),
    tabular("diabetes/mlp/sgd", 150, diabetes, lambda: mlp(10, 64, 1), squares),
    tabular("diabetes/linear/adam", 100, diabetes, lambda: mlp(10, 1), squares),
    tabular("digits/cnn/adam", 150, digits, cnn),
    tabular("digits/row-transformer/momentum", 150, digits, RowTransformer),
    tabular("digits/autoencoder/momentum", 200, digits, lambda: mlp(64, 48, 12, 48, 64), itself),
    tabular("cancer/deep-tanh/sgd", 150, cancer, lambda: deep_tanh(30, 2)),
    tabular("turned-digits/fine-tuned-cnn/adamw", 100, turned_digits, tuned_cnn),
    characters("text/mlp/momentum", 120, Neighbours),
    characters("text/gru/adam", 100, Recurrent),
    characters("text/transformer/adamw", 100, Transformer),
)  # fmt: skip
HELD_OUT: frozenset[str] = frozenset(entry.name for entry in TASKS[30:])
HELD_OUT_FIRST: frozenset[str] = frozenset(entry.name for entry in TASKS[2:30:3])
PLATEAU = "digits/deep-tanh/sgd"


def entry_named(name: str) -> Entry:
    """Return the task of that name."""
    return next(entry for entry in TASKS if entry.name == name)

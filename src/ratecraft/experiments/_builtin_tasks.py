"""The built-in tasks, on real data that needs no download: digits and stdlib-text."""

import sysconfig
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from ratecraft.errors import TaskError

from ._task import Task

BATCH_SIZE: Final = 32
CONTEXT_CHARACTERS: Final = 64  # input length of the language model
MAX_TEXT_CHARACTERS: Final = 400_000  # of the text of stdlib-text


def digits() -> Task:
    """Return the digits task: a small CNN, AdamW, and 1,797 images of 8 x 8 handwritten digits.

    Data: scikit-learn's ``load_digits``, a copy of the test set of the UCI "Optical Recognition
    of Handwritten Digits" data. A fifth is held out; the split is stratified and always the same.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise TaskError(
            "the digits task needs scikit-learn for its data: pip install scikit-learn"
        ) from None
    bunch: Any = load_digits()
    splits = train_test_split(
        bunch.images, bunch.target, test_size=0.2, stratify=bunch.target, random_state=0
    )
    x_train, x_val = (torch.tensor(p, dtype=torch.float32)[:, None] / 16 for p in splits[:2])
    y_train, y_val = (torch.tensor(p, dtype=torch.int64) for p in splits[2:])
    return Task(
        name="digits: small CNN with batch norm, AdamW, batches of 32",
        model=_small_cnn,
        loss=_cross_entropy,
        train=_shuffled(TensorDataset(x_train, y_train)),
        val=[(x_val, y_val)],
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        metrics={"accuracy": _accuracy},
    )


def stdlib_text() -> Task:
    """Return the stdlib-text task: a character language model of Python's standard library.

    The model is a GRU that reads 64 characters and predicts the character after each of them. The
    last tenth of the text is held out. The loss is in nats per character.
    """
    text = _library_text()
    alphabet = sorted(set(text))
    codes = {character: i for i, character in enumerate(alphabet)}
    data = torch.tensor([codes[character] for character in text])
    width = CONTEXT_CHARACTERS + 1
    rows = data[: len(data) // width * width].view(-1, width)
    cut = len(rows) * 9 // 10
    return Task(
        name=f"stdlib-text: GRU on {len(text):,} characters of Python's standard library, AdamW",
        model=lambda: _CharacterModel(len(alphabet)),
        loss=_next_character,
        train=_shuffled(rows[:cut]),
        val=list(torch.split(rows[cut:], 256)),
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    )


def _shuffled(dataset: Any) -> DataLoader[Any]:
    # The sampler yields whole batches of indices, so that a batch is one indexing operation.
    sampler = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


def _small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def _accuracy(model: nn.Module, batch: Any) -> torch.Tensor:
    images, labels = batch
    correct: torch.Tensor = model(images).argmax(1) == labels
    return correct.float().mean()


class _CharacterModel(nn.Module):
    def __init__(self, alphabet: int, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.output = nn.Linear(width, alphabet)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.embedding(characters))
        logits: torch.Tensor = self.output(hidden)
        return logits


def _next_character(model: nn.Module, rows: Any) -> torch.Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def _library_text() -> str:
    folder, text = Path(sysconfig.get_path("stdlib")), ""
    for path in sorted(folder.glob("*.py")):
        if len(text) < MAX_TEXT_CHARACTERS:
            source = path.read_text(encoding="utf-8", errors="replace")
            text += "".join(c for c in source if c.isascii())
    if not text:
        raise TaskError(f"the stdlib-text task found no Python source in {folder}")
    return text[:MAX_TEXT_CHARACTERS]

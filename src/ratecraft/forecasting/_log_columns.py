"""Columns of a log: their common names, and the steps and values of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, TypeAlias

# Names by which columns are recognized, in order of preference, as `column_key` returns them.
STEP_COLUMNS: Final = (
    "step", "global_step", "trainer_global_step", "train_global_step", "_step", "steps",
    "current_steps", "update", "num_updates", "train_num_updates", "valid_num_updates",
    "iteration", "iter",
)  # fmt: skip
EVALUATION_LOSS_COLUMNS: Final = (
    "eval_loss", "val_loss", "valid_loss", "validation_loss", "test_loss",
    "tel", "lm_loss_value",  # of llm.c and Megatron-LM
)  # fmt: skip
TRAINING_LOSS_COLUMNS: Final = (
    "loss", "train_loss", "training_loss", "train_loss_step", "lm_loss", "loss_train",
    "trl", "train_crossentropyloss", "total_loss",  # of llm.c, OLMo and Detectron2
)  # fmt: skip
LR_COLUMNS: Final = (
    "lr", "learning_rate", "train_learning_rate", "train_lr", "rate", "optimizer_lr",
    "optim_learning_rate_group0",  # of OLMo
)  # fmt: skip
MONITOR_PREFIX: Final = "lr-"  # of the columns of Lightning's LearningRateMonitor
LOSS_COLUMNS: Final = (*EVALUATION_LOSS_COLUMNS, *TRAINING_LOSS_COLUMNS)
ANY_STEP_COLUMN: Final = " or ".join(STEP_COLUMNS[:3])
MAX_LISTED_TITLES: Final = 30


class Column(NamedTuple):
    """A column of a log.

    Attributes:
        steps: step of each row that has a value.
        values: values.
        step_title: title of the column that the steps are from.
    """

    steps: list[float]
    values: list[float]
    step_title: str


Columns: TypeAlias = dict[str, Column]
"""The columns of a log by their lower-case titles."""


def column_key(title: str) -> str:
    """Return the name of a column in the tables above: "Val loss" and "val/loss" are val_loss."""
    return re.sub(r"[\s/.-]+", "_", title.strip().lower())


def is_step(title: str) -> bool:
    return column_key(title) in STEP_COLUMNS


def first_title(columns: Columns, keys: Iterable[str]) -> str | None:
    """Return the title of the first of some columns; of several with one name, the longest."""
    for key in keys:
        titles = [title for title in columns if column_key(title) == key]
        if titles:
            return max(titles, key=lambda title: len(columns[title].steps))
    return None


def listed(titles: Collection[str]) -> str:
    """Return titles as text for a message, without the end of a long list."""
    omitted = len(titles) - MAX_LISTED_TITLES
    more = f" and {omitted} more" if omitted > 0 else ""
    return (", ".join(list(titles)[:MAX_LISTED_TITLES]) or "none") + more

"""TrainingBatches: the training batches of a run, epoch after epoch."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

from ratecraft._training._snapshot import capture_loader_state, capture_random_state
from ratecraft.errors import TaskError

EVALUATED_TRAIN_BATCHES: Final = 16
"""The metrics are also measured on this many of the last training batches."""


class TrainingBatches:
    """Batches of a loader, which is iterated again after each epoch; ``recent``: the last ones."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self.recent: deque[Any] = deque(maxlen=EVALUATED_TRAIN_BATCHES)
        self._mark_epoch()
        self._batches = self._cycle()

    def _mark_epoch(self) -> None:
        """Start to count the batches of an epoch, and remember how it starts."""
        self._position = 0
        self._epoch_start = capture_loader_state(self._loader), capture_random_state()

    def _cycle(self) -> Iterator[Any]:
        while True:
            self._mark_epoch()
            for batch in self._loader:
                self._position += 1
                yield batch
            if not self._position:
                raise TaskError(
                    "the training data gave no batch when it was iterated again; pass a "
                    "DataLoader or a list"
                )

    def __next__(self) -> Any:
        batch = next(self._batches)
        self.recent.append(batch)
        return batch

    def copy(self) -> Self:
        """Return a copy that remembers the position; `rewind` continues from there."""
        twin = copy.copy(self)
        twin.recent, twin._batches = self.recent.copy(), iter(())
        return twin

    def rewind(self) -> None:
        """Continue from the position in the loader that this copy remembers."""
        for restore in self._epoch_start:
            restore()
        position, self._batches = self._position, self._cycle()
        for _ in range(position):  # skip the batches that were trained on
            next(self._batches)

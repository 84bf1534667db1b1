"""What results share: a repr in one line, a table and a picture in notebooks, a JSON file."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from ratecraft._files import write_atomically
from ratecraft._render._chart import Chart
from ratecraft._render._html import table, table_row
from ratecraft._render._svg import svg_chart

MAX_REPR_PART_CHARS: Final = 100  # longer names and reasons are cut in a repr
MAX_TABLE_ROWS: Final = 20  # of the table in a notebook
RESULT_FORMAT: Final = 2  # version of the JSON layout; 1 had other field names
MAX_STEPS: Final = 2 * 10**7  # optimizer steps of a run; more are tokens or samples
MAX_FLOAT: Final = sys.float_info.max


class FieldLimits(NamedTuple):
    """Lowest and highest value of a field in a file; NaN is outside of all limits."""

    low: float
    high: float


Count = Annotated[int, FieldLimits(0, 2**63)]
Steps = Annotated[int, FieldLimits(0, MAX_STEPS)]
PositiveSteps = Annotated[int, FieldLimits(1, MAX_STEPS)]
FiniteFloat = Annotated[float, FieldLimits(-MAX_FLOAT, MAX_FLOAT)]
NonNegativeFloat = Annotated[float, FieldLimits(0, MAX_FLOAT)]
"""Types of fields; `ratecraft.results.load` checks the limits."""


def short_repr(value: object, *parts: str) -> str:
    """Return a repr in one line, such as "<Run: lr 0.1, 20 steps>"; long parts are shortened."""
    texts = [" ".join(part.split()) for part in parts if part]
    limit = MAX_REPR_PART_CHARS
    texts = [text if len(text) <= limit else f"{text[: limit - 1]}…" for text in texts]
    return f"<{type(value).__name__}: {', '.join(texts)}>"


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural: "1 run", "10,000 steps"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class NotebookResult:
    """Base class of the results that notebooks show as a sentence, a table and a picture."""

    __slots__ = ()

    def chart(self) -> Chart:
        """Return the chart of this result; `ratecraft.report` draws it."""
        raise NotImplementedError

    def verdict(self) -> str:
        """Return this result as a sentence."""
        return repr(self).strip("<>")

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Return the column names and the rows, both as text."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        head, cells = self._table()
        rows = [table_row(map(escape, row)) for row in cells[:MAX_TABLE_ROWS]]
        more = len(cells) - len(rows)
        note = f"<p>{more} more rows are left out.</p>" if more else ""
        picture = svg_chart(self.chart(), width=560, height=300)
        return f"<p>{escape(self.verdict())}</p>\n{table(head, rows)}{note}\n{picture}"


class SavedResult(NotebookResult):
    """Base class of the results that have a file of their own."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON, for `ratecraft.results.load`; missing folders are created."""
        header = {"ratecraft": type(self).__name__, "format": RESULT_FORMAT}
        text = json.dumps(header | _plain(self), allow_nan=False)
        return write_atomically(path, text + "\n")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN and no infinity
    return value

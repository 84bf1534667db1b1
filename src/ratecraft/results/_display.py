"""How results look: a repr in one line, and a table with a picture in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ratecraft._render._chart import Chart
from ratecraft._render._html import table, table_row
from ratecraft._render._svg import svg_chart

MAX_REPR_PART_CHARS: Final = 100  # longer names and reasons are cut in a repr
MAX_TABLE_ROWS: Final = 20  # of the table in a notebook


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

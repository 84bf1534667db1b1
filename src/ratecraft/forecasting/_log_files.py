"""Columns of log files: CSV, JSON, JSON lines, text, TensorBoard events."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from ratecraft._files import parse_json, shortened
from ratecraft.errors import LogError, ResultError
from ratecraft.results import Comparison, load

from ._log_columns import (
    ANY_STEP_COLUMN,
    STEP_COLUMNS,
    Column,
    Columns,
    column_key,
    is_step,
    listed,
)
from ._text_logs import text_columns

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
MAX_JSON_DEPTH: Final = 5  # of the tables in a JSON file
TABLE_EXPECTED: Final = "expected a table: a list of rows that map columns to numbers"
FORMATS: Final = (
    "CSV, JSON, JSON lines, TensorBoard events, or lines of text such as "
    '"step 100: loss 3.2, lr 0.001"'
)


TitleFilter: TypeAlias = Callable[[str], bool] | None
Keys: TypeAlias = tuple[str, ...]


class LogFile(NamedTuple):
    """The content of a log file.

    Attributes:
        columns: columns that were read.
        titles: titles of all columns, as they are written.
    """

    columns: Columns
    titles: Sequence[str]


class Table(NamedTuple):
    """The columns of a table in a file.

    Attributes:
        titles: title of each column.
        cells: function that returns the cells of the column with an index, one for each row.
    """

    titles: Sequence[str]
    cells: Callable[[int], Sequence[Any]]


def read_file(source: Path, is_read: TitleFilter) -> LogFile | Comparison:
    """Return the content of a log file, or the comparison that was saved in it.

    Args:
        source: path of the file, or of a folder with event files of TensorBoard.
        is_read: whether the column with a lower-case title is read, and so must have numbers only;
            if ``None``, all columns are read that have.

    Raises:
        LogError: the file or a column is not readable.
    """
    if not os.path.exists(source):
        raise LogError(f"{source}: no such file")
    try:
        if source.is_dir() or "tfevents" in source.name:
            content: Columns | Comparison | list[Table] = _tensorboard(source)
        else:
            content = _read(source)
    except (LogError, ResultError):  # are ValueErrors
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise LogError(f"{source}: {error}; expected {FORMATS}") from None
    if isinstance(content, Comparison):
        return content
    if isinstance(content, dict):
        return LogFile(content, list(content))
    columns: Columns = {}
    for table in content:
        columns |= _columns(table, source, is_read)
    return LogFile(columns, list(dict.fromkeys(x for table in content for x in table.titles)))


def _read(source: Path) -> Columns | Comparison | list[Table]:
    suffix = source.suffix.lower()
    is_text = suffix not in TABLE_SUFFIXES  # such as .txt, .log, .out
    # Spreadsheet programs write a byte order mark.
    text = source.read_text(encoding="utf-8-sig", errors="replace" if is_text else "strict")
    if suffix in (".csv", ".tsv") or (is_text and any(map(is_step, _csv_titles(text)))):
        return [_csv_table(text, source)]
    if suffix in (".jsonl", ".ndjson"):
        return [_table_of_lines(_parsed_lines(text), source)]
    if suffix == ".json":
        return _read_json(parse_json(text), source)
    if text.lstrip()[:1] in ("{", "["):
        data = rows = None
        with suppress(ValueError):
            data = parse_json(text)
        if data is not None:
            return _read_json(data, source)
        with suppress(ValueError):
            rows = _parsed_lines(text)
        if rows is not None:
            return [_table_of_lines(rows, source)]
    columns = text_columns(text)
    if not columns:
        raise LogError(
            f"{source}: no line has a step and another number with a name; expected {FORMATS}. "
            "If the log has epochs in place of steps, as what Keras and the Hugging Face Trainer "
            "print, log the step too, or read the trainer_state.json of a checkpoint"
        )
    return columns


def _csv_titles(text: str) -> list[str]:
    line = text.partition("\n")[0]
    return line.split(_delimiter(line))


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _csv_table(text: str, source: Path) -> Table:
    delimiter = _delimiter(text.partition("\n")[0])
    lines = io.StringIO(text, newline="")
    records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    # Tuples, since a million lists would cost the garbage collector a second.
    titles, *rows = [tuple(row) for row in records if row] or [()]
    width = len(titles)
    for i, row in enumerate(rows):
        if len(row) != width:
            if any(cell.strip() for cell in row[width:]):
                raise LogError(
                    f"{source}: row {i + 1} has {len(row)} cells, the first line {width} titles; "
                    "if commas mark decimals, write points"
                )
            rows[i] = row + ("",) * (width - len(row))
    return Table(titles, lambda i: [row[i] for row in rows])


def _parsed_lines(text: str) -> list[Any]:
    lines = text.split("\n")  # str.splitlines also splits inside of strings
    return [parse_json(line) for line in lines if line.strip()]


def _table_of_lines(rows: list[Any], source: Path) -> Table:
    if not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{source}: {TABLE_EXPECTED}")
    return _table_of_rows(rows)


def _read_json(data: Any, source: Path) -> Comparison | list[Table]:
    if isinstance(data, dict) and "ratecraft" in data:
        result = load(source)
        if not isinstance(result, Comparison):
            raise LogError(f"{source}: a saved {type(result).__name__}; expected a Comparison")
        return result
    tables = list(_tables(data, (), source))
    if not tables:
        raise LogError(f"{source}: {TABLE_EXPECTED}")
    # The others may be lists of files, settings or samples.
    tables = [entry for entry in tables if any(map(is_step, entry[1].titles))] or tables[:1]
    if len(tables) == 1:
        return [tables[0][1]]
    levels = zip(*(path for path, _ in tables), strict=False)
    shared = len(list(takewhile(lambda keys: len(set(keys)) == 1, levels)))
    return [_with_prefix(table, path[shared:]) for path, table in tables]


def _tables(data: Any, path: Keys, source: Path) -> Iterator[tuple[Keys, Table]]:
    """Yield the tables in JSON data with the keys that lead to each."""
    if _has_rows(data):
        yield path, _table_of_rows(data)
    elif isinstance(data, dict) and len(path) < MAX_JSON_DEPTH:
        columns = {
            title: column
            for title, column in data.items()
            if isinstance(column, list) and not _has_rows(column)
        }
        if any(map(is_step, columns)) or (columns and not path):
            yield path, _table_of_columns(columns, source)
        for key, value in data.items():
            yield from _tables(value, (*path, key), source)


def _has_rows(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(row, dict) for row in data)


def _table_of_rows(rows: Sequence[dict[str, Any]]) -> Table:
    rows = [_flat(row) for row in rows]
    titles = list(dict.fromkeys(title for row in rows for title in row))
    return Table(titles, lambda i: [row.get(titles[i]) for row in rows])


def _flat(row: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return a row in which {"train": {"loss": 2}} is {"train/loss": 2}."""
    if depth == MAX_JSON_DEPTH or dict not in map(type, row.values()):
        return row
    flat: dict[str, Any] = {}
    for title, cell in row.items():
        if isinstance(cell, dict):
            flat |= {f"{title}/{key}": value for key, value in _flat(cell, depth + 1).items()}
        else:
            flat[title] = cell
    return flat


def _table_of_columns(columns: dict[str, list[Any]], source: Path) -> Table:
    if len(set(map(len, columns.values()))) > 1:
        lengths = ", ".join(f"{title} has {len(cells)} values" for title, cells in columns.items())
        raise LogError(f"{source}: columns of one length expected; {lengths[:200]}")
    return Table(list(columns), list(columns.values()).__getitem__)


def _with_prefix(table: Table, path: Keys) -> Table:
    titles = [x if is_step(x) else "/".join((*path, x)) for x in table.titles]
    return Table(titles, table.cells)


def _columns(table: Table, source: Path, is_read: TitleFilter) -> Columns:
    """Return the columns of a table that are read, with their steps."""
    indices = _column_indices(table.titles, source, is_read)
    step_titles = sorted(filter(is_step, indices), key=lambda x: STEP_COLUMNS.index(column_key(x)))
    cells = {name: _numbers(table.cells(i)) for name, i in indices.items()}
    steps: list[Any] = [None] * max(map(len, cells.values()), default=0)
    used = []
    for title in step_titles:  # the first one that a row has counts
        if None in steps:
            steps = [
                x if step is None else step for step, x in zip(steps, cells[title], strict=True)
            ]
            used.append(title)
    columns: Columns = {}
    for name, values in cells.items():
        if name in step_titles:
            continue
        try:
            rows = _numeric_rows(steps, values, name, table, source)
        except LogError:
            if is_read is None and step_titles:
                continue  # a column with text
            raise
        if rows[0]:
            columns[name] = Column(*_without_nan(*rows), " or ".join(used))
    if not step_titles:
        raise LogError(
            f"{source}: no column {ANY_STEP_COLUMN}; the columns are {listed(table.titles)}"
        )
    return columns


def _column_indices(titles: Sequence[str], source: Path, is_read: TitleFilter) -> dict[str, int]:
    """Return the indices of the columns of steps and of those to read, by lower-case title."""
    indices: dict[str, int] = {}
    for i, title in enumerate(titles):
        # Weights & Biases writes "run name - train/loss", and columns of its minimum and maximum.
        name = title.rpartition(" - ")[2].strip().lower()
        if title.endswith(("__MIN", "__MAX")) or not name:
            continue
        if not (is_step(name) or is_read is None or is_read(name)):
            continue
        if name in indices:
            raise LogError(
                f"{source}: {titles[indices[name]]!r} and {title!r} are both {name}, so the file "
                "seems to hold several runs; write one file for each run"
            )
        indices[name] = i
    return indices


def _numbers(cells: Sequence[Any]) -> list[Any]:
    """Return the cells of a column: numbers as floats, and None in place of empty ones."""
    types = set(map(type, cells))
    if types <= {int, float} or types == {str}:
        with suppress(ValueError, OverflowError):
            return list(map(float, cells))
    return list(map(_number, cells))


def _number(cell: Any) -> Any:
    if isinstance(cell, str) and not cell.strip():
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return cell
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return cell


def _numeric_rows(
    steps: list[Any], values: list[Any], name: str, table: Table, source: Path
) -> tuple[list[float], list[float]]:
    """Return the rows of a column that are not empty; the others of them must have a number."""
    if set(map(type, values)) | set(map(type, steps)) == {float}:
        return steps, values
    rows = [i for i, value in enumerate(values) if value is not None]
    for i in rows:
        if steps[i] is None:
            raise LogError(
                f"{source}: row {i + 1} has no column {ANY_STEP_COLUMN}; the columns are "
                f"{listed(table.titles)}"
            )
        for column, cell in (("step", steps[i]), (name, values[i])):
            if type(cell) is not float:
                raise LogError(
                    f"{source}: {column} of row {i + 1} is {shortened(cell)}; expected a number"
                )
    return [steps[i] for i in rows], [values[i] for i in rows]


def _without_nan(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Return the rows of a column, without those with NaN if these are most of them."""
    if not any(map(math.isnan, values)):
        return steps, values
    # pandas writes empty cells as NaN.
    rows = [i for i, value in enumerate(values) if not math.isnan(value)]
    if 0 < len(rows) < len(values) / 2:
        return [steps[i] for i in rows], [values[i] for i in rows]
    return steps, values


def _tensorboard(source: Path) -> Columns:
    try:
        from tensorboard.backend.event_processing import event_accumulator
    except ImportError:
        raise LogError(
            f"{source}: event files are read with TensorBoard: pip install tensorboard"
        ) from None
    events: Any = event_accumulator.EventAccumulator(str(source), size_guidance={"scalars": 0})
    try:
        events.Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    except Exception as error:  # TensorBoard raises errors of many types
        raise LogError(f"{source}: damaged TensorBoard events: {str(error)[:200]}") from None
    columns: Columns = {
        tag.strip().lower(): Column(
            [float(event.step) for event in rows], [float(event.value) for event in rows], "step"
        )
        for tag, rows in scalars.items()
    }
    if not columns:
        runs = [folder for folder in source.glob("*/") if any(folder.glob("*tfevents*"))]
        hint = f"; its runs are {', '.join(str(run) for run in runs)}" if runs else ""
        raise LogError(f"{source}: no scalars in it{hint}")
    return columns

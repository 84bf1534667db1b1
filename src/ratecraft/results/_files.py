"""Results that have a JSON file of their own."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ._display import NotebookResult

RESULT_FORMAT: Final = 2
"""Version of the JSON layout. 1 had other field names."""


class SavedResult(NotebookResult):
    """Base class of the results that have a file of their own."""

    __slots__ = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write this result as JSON, for `ratecraft.results.load`; missing folders are created."""
        target = Path(path)
        header = {"ratecraft": type(self).__name__, "format": RESULT_FORMAT}
        text = json.dumps(header | _plain(self), allow_nan=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The rename makes the write atomic: an interrupted save leaves no partial result.
        partial = target.with_name(target.name + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(target)
        return target


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

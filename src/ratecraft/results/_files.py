"""Results saved as JSON files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RESULT_FORMAT: Final = 2
"""Version of the JSON layout. 1 had other field names."""


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a result as JSON and return the path of the file."""
    target = Path(path)
    header = {"ratecraft": type(result).__name__, "format": RESULT_FORMAT}
    text = json.dumps(header | _plain(result), allow_nan=False)
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

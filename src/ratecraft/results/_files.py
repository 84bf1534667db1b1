"""Results as JSON files that are there whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a result as JSON and return its path."""
    target = Path(path)
    head = {"ratecraft": type(result).__name__, "format": FORMAT}
    text = json.dumps(head | _plain(result), allow_nan=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A file is there whole or not at all.
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
        return str(value)  # JSON knows no nan and no inf
    return value

"""Files: atomic writes, and JSON from files that may hold anything."""

import json
import math
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file completely or not at all; missing folders are created.

    The content goes to a new file in the same folder, which then replaces ``path``. So an error,
    such as a full disk, leaves the old file as it was, and of several programs that write one
    path the last one wins. The new file has the permissions of the old one. A symbolic link at
    ``path`` is replaced, not followed: a write changes no file in another folder.

    Args:
        path: the file.
        content: bytes, or text that is written as UTF-8, with escapes for what UTF-8 cannot hold.

    Raises:
        OSError: the file cannot be written or is read-only, or ``path`` is a folder or a device.
    """
    target = Path(path)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        raise OSError(f"{target} is not a regular file; write another file name")
    # The name is random, so writers of one path do not mix and no link can be planted.
    temporary = target.with_name(f".ratecraft-{os.urandom(8).hex()}.tmp")
    try:
        replaced = None if target.is_symlink() else _mode(target)
        if replaced is not None:
            os.close(os.open(target, os.O_WRONLY))  # raises if the file is read-only
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666 if replaced is None else 0o600)
        try:
            with open(descriptor, "wb") as file:
                if replaced is not None:
                    os.chmod(file.fileno() if os.chmod in os.supports_fd else temporary, replaced)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power failure could leave an empty file
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        # The caller does not know the temporary name.
        raise OSError(error.errno, error.strerror, str(target)) from None
    return target


def _mode(path: Path) -> int | None:
    """Return the permissions of a file; ``None`` if it does not exist."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def parse_json(text: str, *, strict: bool = False) -> Any:
    """Return the value of a JSON text; ``strict`` refuses repeated keys and numbers like 1e400.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        if strict:
            return json.loads(text, parse_float=_finite, object_pairs_hook=_unique)
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {shortened(repeated)} twice")
    return values


def shortened(value: object, limit: int = 60) -> str:
    """Return the repr of a value from a file for a message, without the end of a long one."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

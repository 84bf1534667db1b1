"""Load saved results."""

import dataclasses
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ratecraft.errors import ResultError

from ._base import RESULT_FORMAT
from ._comparison import Comparison, RunConfig
from ._forecast import Forecast
from ._lr_search import LRFinderResult, LRRangeTestResult

Result = LRRangeTestResult | LRFinderResult | Comparison | Forecast


def load(path: str | os.PathLike[str]) -> Result:
    """Load a result from a file that its ``save`` method wrote.

    Args:
        path: JSON file of an `LRRangeTestResult`, `LRFinderResult`, `Comparison` or `Forecast`.

    Raises:
        ResultError: the file does not exist, holds no result, or has another format version.

    >>> import tempfile
    >>> losses = (2.0, 1.0)
    >>> result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped", None, "too short")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(result.save(f"{folder}/test.json")) == result
    True
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ResultError(f"{path} is not a result: {error}") from None
    if not isinstance(data, dict) or "ratecraft" not in data:
        raise ResultError(f'{path} is not a result: it has no key "ratecraft"')
    class_name, version = data.pop("ratecraft"), data.pop("format", None)
    if version != RESULT_FORMAT:
        raise ResultError(
            f"{path} has format {version}, but this version of ratecraft reads format "
            f"{RESULT_FORMAT}: create the result again"
        )
    for result_class in get_args(Result):
        if result_class.__name__ == class_name:
            try:
                return _rebuild(result_class, data)  # type: ignore[no-any-return]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ResultError(f"{path} is a damaged {class_name}: {error}") from None
    raise ResultError(f"{path} holds a {class_name}, which this version of ratecraft cannot read")


def _rebuild(annotation: Any, data: Any) -> Any:
    """Return a value of a type from what JSON keeps of it."""
    if annotation is float:
        return float(data)
    if dataclasses.is_dataclass(annotation):
        build: Any = annotation
        types = _field_types(build)
        return build(
            **data | {name: _rebuild(types[name], data[name]) for name in types if name in data}
        )
    if annotation is RunConfig:
        return RunConfig(*_rebuild(tuple[float, str, int], data))  # the types of its fields
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(data)
        return tuple(_rebuild(of, item) for of, item in zip(arguments, data, strict=True))
    if origin is Mapping:
        return {key: _rebuild(arguments[1], value) for key, value in data.items()}
    if origin is UnionType:  # such as float | None
        return None if data is None else _rebuild(arguments[0], data)
    return data


@cache
def _field_types(cls: type) -> dict[str, Any]:
    # The package is the public module of the classes; it has the names of their fields' types.
    return get_type_hints(cls, localns={"Mapping": Mapping})

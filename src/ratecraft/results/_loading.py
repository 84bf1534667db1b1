"""Load saved results; every value has the type and the limits of its field."""

import dataclasses
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, NoReturn, Union, get_args, get_origin, get_type_hints

from ratecraft._files import parse_json, shortened
from ratecraft.errors import ResultError, ScheduleError
from ratecraft.schedule import parse

from ._base import (
    MAX_FLOAT,
    RESULT_FORMAT,
    FieldLimits,
    NonNegativeFloat,
    PositiveSteps,
)
from ._comparison import Comparison, RunConfig
from ._forecast import Forecast, ForecastEntry
from ._lr_search import LRFinderResult, LRRangeTestResult
from ._run import Evaluation, Run

Result = LRRangeTestResult | LRFinderResult | Comparison | Forecast
# What JSON has no number for, as `save` writes it.
NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
INT_LIMITS: Final = FieldLimits(-(2**63), 2**64)  # of an int without limits, such as a seed


def load(path: str | os.PathLike[str]) -> Result:
    """Load a result from a file that its ``save`` method wrote.

    Args:
        path: JSON file of an `LRRangeTestResult`, `LRFinderResult`, `Comparison` or `Forecast`.

    Raises:
        ResultError: the file does not exist, holds no result, has another format version, or a
            field has a wrong type or value.

    >>> import tempfile
    >>> losses = (2.0, 1.0)
    >>> result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped", None, "too short")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(result.save(f"{folder}/test.json")) == result
    True
    """
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8"), strict=True)
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ResultError(f"{path} is not a result: {error}") from None
    if not isinstance(data, dict) or "ratecraft" not in data:
        raise ResultError(f'{path} is not a result: it has no key "ratecraft"')
    class_name, version = data.pop("ratecraft"), data.pop("format", None)
    if version != RESULT_FORMAT:
        raise ResultError(
            f"{path} has format {shortened(version)}, but this version of ratecraft reads format "
            f"{RESULT_FORMAT}: create the result again"
        )
    for result_class in get_args(Result):
        if result_class.__name__ == class_name:
            try:
                return read_value(result_class, data)  # type: ignore[no-any-return]
            except ValueError as error:
                raise ResultError(f"{path} is a damaged {class_name}: {error}") from None
    raise ResultError(
        f"{path} holds a {shortened(class_name)}, which this version of ratecraft cannot read"
    )


def read_value(annotation: Any, data: Any, name: str = "") -> Any:
    """Return a value of a type from what JSON keeps of it.

    Args:
        annotation: type of the value: a dataclass, or the annotation of a field.
        data: what `parse_json` returned.
        name: path of the field, such as ``runs[0].lr``, for messages.

    Raises:
        ValueError: ``data`` or a part of it has another type, or is outside of its limits.
    """
    limits = INT_LIMITS if annotation is int else FieldLimits(-math.inf, math.inf)
    if get_origin(annotation) is Annotated:
        annotation, limits = get_args(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):  # such as float | None
        return None if data is None else read_value(arguments[0], data, name)
    if dataclasses.is_dataclass(annotation):
        return _read_fields(annotation, data, name)
    if annotation is RunConfig:
        return RunConfig(*_read_tuple((NonNegativeFloat, str, PositiveSteps), data, name))
    if origin is tuple:
        return _read_tuple(arguments, data, name)
    if origin is Mapping:
        if not isinstance(data, dict):
            _refuse(name, data, "an object")
        return {
            read_value(str, key, name): read_value(arguments[1], value, f"{name}[{key!r}]")
            for key, value in data.items()
        }
    return _read_scalar(annotation, limits, data, name)


def _read_fields(build: Any, data: Any, name: str) -> Any:
    """Return an instance of a dataclass from an object with its fields."""
    if not isinstance(data, dict):
        _refuse(name, data, "an object")
    types, prefix = _field_types(build), f"{name}." if name else ""
    for key in data:
        if key not in types:
            raise ValueError(f"{prefix}{key} is unknown; expected {', '.join(types)}")
    for field in dataclasses.fields(build):
        defaults = field.default, field.default_factory
        if field.name not in data and defaults == (dataclasses.MISSING, dataclasses.MISSING):
            raise ValueError(f"{prefix}{field.name} is missing")
    value = build(**{key: read_value(types[key], data[key], f"{prefix}{key}") for key in data})
    if problem := _problem(value):
        raise ValueError(f"{prefix}{problem}")
    return value


def _read_tuple(types: tuple[Any, ...], data: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _refuse(name, data, "a list")
    if types[-1] is Ellipsis:
        # One test for all items, since a run may have millions of losses.
        if types[0] is float and set(map(type, data)) <= {float}:
            return tuple(data)
        types = types[:1] * len(data)
    if len(data) != len(types):
        raise ValueError(f"{name} has {len(data)} items; expected {len(types)}")
    return tuple(
        read_value(of, item, f"{name}[{i}]")
        for i, (of, item) in enumerate(zip(types, data, strict=True))
    )


def _read_scalar(annotation: Any, limits: FieldLimits, data: Any, name: str) -> Any:
    value = data
    if annotation is float and isinstance(data, str):
        value = NOT_FINITE.get(data, data)
    elif annotation is float and type(data) is int and abs(data) <= MAX_FLOAT:
        value = float(data)
    # bool is a subclass of int.
    if type(value) is not annotation:
        _refuse(name, data, _expected(annotation, limits))
    if annotation is str:
        _check_text(value, name)
    elif limits != (-math.inf, math.inf) and not limits.low <= value <= limits.high:
        _refuse(name, data, _expected(annotation, limits))
    return value


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(name, text, "text that UTF-8 can hold")


def _refuse(name: str, data: Any, expected: str) -> NoReturn:
    raise ValueError(f"{name or 'it'} is {shortened(data)}; expected {expected}")


def _expected(annotation: type, limits: FieldLimits) -> str:
    if annotation is str:
        return "a string"
    noun = "a whole number" if annotation is int else "a number"
    if annotation is float and limits.high == MAX_FLOAT:
        noun = "a finite number"
    if limits.low > -1:
        noun += f" of at least {limits.low:g}"
    return f"{noun}, at most {limits.high:,}" if 1 < limits.high < 2**62 else noun


def _problem(value: Any) -> str:
    """Return what is wrong between the fields of a result; empty if nothing is."""
    match value:
        case Comparison():
            counted: set[int] = set()
            for name in value.schedules:
                runs = value.runs_for(name)
                if len({run.seed for run in runs}) < len(runs):
                    return f"runs has two runs of {shortened(name)} with the same seed"
                if not counted.isdisjoint(map(id, runs)):
                    return f"the runs of {shortened(name)} are those of another schedule, too"
                counted.update(map(id, runs))
        case Evaluation() if "loss" not in value.metrics:
            return "metrics has no loss"
        case Run():
            # The log of a script may number its steps from 0 to total_steps.
            if len(value.losses) > value.total_steps + bool(value.loss_steps):
                return f"losses has {len(value.losses)} items for {value.total_steps} total_steps"
            if value.loss_steps and len(value.loss_steps) != len(value.losses):
                return f"{len(value.losses)} losses have {len(value.loss_steps)} loss_steps"
            name = "realized_schedule" if value.realized_schedule else "schedule"
            if not value.has_curve:
                return ""
            if problem := _schedule_problem(getattr(value, name)):
                return f"{name} is {shortened(getattr(value, name))}; {problem}"
        case LRRangeTestResult():
            if not 0 < len(value.lrs) == len(value.losses) == len(value.smoothed):
                return "lrs, losses and smoothed must have the same length, at least 1"
            if value.spacing not in ("geometric", "linear"):
                return f"spacing is {shortened(value.spacing)}; expected 'geometric' or 'linear'"
        case LRFinderResult():
            if len({lr is None for lr in (value.lr, value.lr_low, value.lr_high)}) > 1:
                return "lr, lr_low and lr_high must all be null or all be numbers"
        case ForecastEntry() if not 0 < len(value.steps) == len(value.losses):
            return "steps and losses must have the same length, at least 1"
        case Forecast():
            if not value.entries:
                return "entries is empty"
            for name, (steps, losses) in value.logs.items():
                if len(steps) != len(losses):
                    return f"logs[{name!r}] has {len(steps)} steps and {len(losses)} losses"
    return ""


@cache  # the runs of a comparison share few schedules
def _schedule_problem(text: str) -> str:
    """Return what is wrong with the text of a schedule; empty if nothing is."""
    try:
        parse(text)
    except ScheduleError as error:
        return f"expected a schedule: {str(error).splitlines()[0]}"
    return ""


@cache
def _field_types(cls: type) -> dict[str, Any]:
    # The package is the public module of the classes; it has the names of their fields' types.
    return get_type_hints(cls, localns={"Mapping": Mapping}, include_extras=True)

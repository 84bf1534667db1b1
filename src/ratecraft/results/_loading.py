"""Results read back from their files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratecraft.errors import ResultError

from ._comparison import Comparison, Evaluation, Run, Setting
from ._files import FORMAT
from ._forecast import Forecast, ForecastEntry
from ._lr_search import LRFinderResult, LRRangeTestResult, ShortRun

Result = LRRangeTestResult | LRFinderResult | Comparison | Forecast


def load(path: str | os.PathLike[str]) -> Result:
    """Return the result in a file that ``save`` wrote.

    Args:
        path: the JSON file of a `LRRangeTestResult`, `LRFinderResult`, `Comparison` or `Forecast`.

    Raises:
        ResultError: the file is missing, or holds no result of this version.

    >>> import tempfile
    >>> losses = (2.0, 1.0)
    >>> result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped by hand", None, "too short")
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
        raise ResultError(f"{path} is not a result: it does not say what it is")
    kind, version = data.pop("ratecraft"), data.pop("format", None)
    if version != FORMAT:
        raise ResultError(f"{path} has format {version}, and this version reads {FORMAT}")
    try:
        match kind:
            case "LRRangeTestResult":
                return _range_test(data)
            case "LRFinderResult":
                return _lr_finder_result(data)
            case "Comparison":
                return _comparison(data)
            case "Forecast":
                return _forecast(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} is a damaged {kind}: {error}") from None
    raise ResultError(f"{path} holds a {kind}, which this version does not know")


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _range_test(data: dict[str, Any]) -> LRRangeTestResult:
    for name in ("lrs", "losses", "smoothed"):
        data[name] = _floats(data[name])
    return LRRangeTestResult(**data)


def _lr_finder_result(data: dict[str, Any]) -> LRFinderResult:
    data["runs"] = tuple(
        ShortRun(
            float(run["lr"]),
            _floats(run["losses"]),
            float(run["gain"]),
            float(run["noise"]),
            run["lot"],
        )
        for run in data["runs"]
    )
    return LRFinderResult(**data)


def _forecast(data: dict[str, Any]) -> Forecast:
    data["candidates"] = tuple(
        ForecastEntry(**one | {name: tuple(one[name]) for name in ("steps", "losses", "notes")})
        for one in data["candidates"]
    )
    data["tied"] = tuple((first, second) for first, second in data["tied"])
    data["logs"] = {
        name: (tuple(steps), _floats(losses)) for name, (steps, losses) in data["logs"].items()
    }
    data["notes"] = tuple(data["notes"])
    return Forecast(**data)


def _comparison(data: dict[str, Any]) -> Comparison:
    runs = []
    for run in data["runs"]:
        evaluations = tuple(
            Evaluation(
                e["step"],
                *(
                    {k: float(v) for k, v in e[part].items()}
                    for part in ("metrics", "train", "lrs")
                ),
            )
            for e in run.pop("evaluations")
        )
        runs.append(Run(**run | {"losses": _floats(run["losses"]), "evaluations": evaluations}))
    settings = {
        name: Setting(float(lr), str(kind), int(total_steps))
        for name, (lr, kind, total_steps) in data["settings"].items()
    }
    return Comparison(
        data["task"],
        data["schedules"],
        tuple(runs),
        data["environment"],
        settings,
        data["failed"],
    )

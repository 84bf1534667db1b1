"""Load saved results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratecraft.errors import ResultError

from ._comparison import Comparison, RunConfig
from ._files import RESULT_FORMAT
from ._forecast import Forecast, ForecastEntry
from ._lr_search import LRFinderResult, LRRangeTestResult, ShortRun
from ._run import Evaluation, Run

Result = LRRangeTestResult | LRFinderResult | Comparison | Forecast


def load(path: str | os.PathLike[str]) -> Result:
    """Load a result from a file that its ``save`` method wrote.

    Args:
        path: JSON file of an `LRRangeTestResult`, `LRFinderResult`, `Comparison` or `Forecast`.

    Raises:
        ResultError: the file does not exist, holds no result, or has another format version.

    >>> import tempfile
    >>> from ratecraft.results import LRRangeTestResult, load
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
    try:
        match class_name:
            case "LRRangeTestResult":
                return _range_test(data)
            case "LRFinderResult":
                return _lr_finder_result(data)
            case "Comparison":
                return _comparison(data)
            case "Forecast":
                return _forecast(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultError(f"{path} is a damaged {class_name}: {error}") from None
    raise ResultError(f"{path} holds a {class_name}, which this version of ratecraft cannot read")


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
            run["batch_set"],
        )
        for run in data["runs"]
    )
    return LRFinderResult(**data)


def _forecast(data: dict[str, Any]) -> Forecast:
    data["entries"] = tuple(
        ForecastEntry(**entry | {name: tuple(entry[name]) for name in ("steps", "losses", "notes")})
        for entry in data["entries"]
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
    configs = {
        name: RunConfig(float(lr), str(optimizer), int(total_steps))
        for name, (lr, optimizer, total_steps) in data["configs"].items()
    }
    return Comparison(
        data["task"],
        data["schedules"],
        tuple(runs),
        data["environment"],
        configs,
        data["failed"],
    )

"""Records read back from their files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratecraft.errors import RecordError

from ._comparison import Comparison, Evaluation, Run, Setting
from ._files import FORMAT
from ._forecast import Forecast, Foreseen
from ._lr_search import FoundRate, RangeTest, ShortRun

Record = RangeTest | FoundRate | Comparison | Forecast


def load(path: str | os.PathLike[str]) -> Record:
    """Return the record in a file that ``save`` wrote.

    Args:
        path: the JSON file of a `RangeTest`, `FoundRate`, `Comparison` or `Forecast`.

    Raises:
        RecordError: the file is missing, or holds no record of this version.

    >>> import tempfile
    >>> losses = (2.0, 1.0)
    >>> record = RangeTest((0.01, 0.1), losses, losses, "stopped by hand", None, "too short")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(record.save(f"{folder}/test.json")) == record
    True
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise RecordError(f"{path} is not a record: {error}") from None
    if not isinstance(data, dict) or "ratecraft" not in data:
        raise RecordError(f"{path} is not a record: it does not say what it is")
    kind, version = data.pop("ratecraft"), data.pop("format", None)
    if version != FORMAT:
        raise RecordError(f"{path} has format {version}, and this version reads {FORMAT}")
    try:
        match kind:
            case "RangeTest":
                return _range_test(data)
            case "FoundRate":
                return _found_rate(data)
            case "Comparison":
                return _comparison(data)
            case "Forecast":
                return _forecast(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} is a damaged {kind}: {error}") from None
    raise RecordError(f"{path} holds a {kind}, which this version does not know")


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _range_test(data: dict[str, Any]) -> RangeTest:
    for name in ("rates", "losses", "smoothed"):
        data[name] = _floats(data[name])
    return RangeTest(**data)


def _found_rate(data: dict[str, Any]) -> FoundRate:
    data["runs"] = tuple(
        ShortRun(
            float(run["rate"]),
            _floats(run["losses"]),
            float(run["gain"]),
            float(run["noise"]),
            run["lot"],
        )
        for run in data["runs"]
    )
    return FoundRate(**data)


def _forecast(data: dict[str, Any]) -> Forecast:
    data["candidates"] = tuple(
        Foreseen(**one | {name: tuple(one[name]) for name in ("updates", "losses", "notes")})
        for one in data["candidates"]
    )
    data["tied"] = tuple((first, second) for first, second in data["tied"])
    data["logs"] = {
        name: (tuple(updates), _floats(losses)) for name, (updates, losses) in data["logs"].items()
    }
    data["notes"] = tuple(data["notes"])
    return Forecast(**data)


def _comparison(data: dict[str, Any]) -> Comparison:
    runs = []
    for run in data["runs"]:
        evaluations = tuple(
            Evaluation(
                e["update"],
                *(
                    {k: float(v) for k, v in e[part].items()}
                    for part in ("metrics", "train", "rates")
                ),
            )
            for e in run.pop("evaluations")
        )
        runs.append(Run(**run | {"losses": _floats(run["losses"]), "evaluations": evaluations}))
    settings = {
        name: Setting(float(rate), str(kind), int(total))
        for name, (rate, kind, total) in data["settings"].items()
    }
    return Comparison(
        data["task"],
        data["schedules"],
        tuple(runs),
        data["environment"],
        settings,
        data["failed"],
    )

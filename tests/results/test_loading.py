"""Damaged results are refused when they are loaded, with the file and the field."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ratecraft.errors import ResultError
from ratecraft.results import (
    Comparison,
    Evaluation,
    Forecast,
    ForecastEntry,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    RunConfig,
    ShortRun,
    load,
)

RUN = Run(
    "constant(1)", 0.1, 0, 4, 2, (1.0, 0.5), (Evaluation(2, {"loss": 0.5}, {}, {"0": 0.1}),),
    stopped=2, optimizer="adam",
)  # fmt: skip
ENTRY = ForecastEntry("wave", "0.1 * cosine(1, 0)", 2.0, 1.9, 2.1, (10, 20), (2.5, 2.0), ("n",))
RESULTS = {
    "Comparison": Comparison(
        "t", {"a": "constant(1)"}, (RUN,), {"python": "3"}, {"a": RunConfig(0.1, "adam", 4)}
    ),
    "LRFinderResult": LRFinderResult(
        0.1, 0.05, 0.2, "why", 2.0, (ShortRun(0.1, (2.0, 1.0), 1.0, 0.1),), 2
    ),
    "LRRangeTestResult": LRRangeTestResult((0.1, 1.0), (2.0, 1.0), (2.0, 1.5), "end", None, "why"),
    "Forecast": Forecast(
        (ENTRY,), (), 20, None, 0.1, {"run": ((10, 20), (2.4, 2.1))}, {"floor": 1.0}, 0.01
    ),
}
WHOLE = "expected a whole number of at least 1, at most 20,000,000"
CASES = [
    ("Comparison", ["task"], 5, "task is 5; expected a string"),
    ("Comparison", ["runs"], {}, "runs is {}; expected a list"),
    ("Comparison", ["runs", 0], [], "runs[0] is []; expected an object"),
    ("Comparison", ["schedules"], ["a"], "schedules is ['a']; expected an object"),
    ("Comparison", ["schedules", "a"], None, "schedules['a'] is None; expected a string"),
    ("Comparison", ["runs", 0, "total_steps"], "many", f"runs[0].total_steps is 'many'; {WHOLE}"),
    ("Comparison", ["runs", 0, "total_steps"], True, f"runs[0].total_steps is True; {WHOLE}"),
    ("Comparison", ["runs", 0, "total_steps"], 4.0, f"runs[0].total_steps is 4.0; {WHOLE}"),
    ("Comparison", ["runs", 0, "total_steps"], 10**12, f"is 1000000000000; {WHOLE}"),
    ("Comparison", ["runs", 0, "total_steps"], -4, f"runs[0].total_steps is -4; {WHOLE}"),
    ("Comparison", ["runs", 0, "total_steps"], 1, "losses has 2 items for 1 total_steps"),
    (
        "Comparison",
        ["runs", 0, "schedule"],
        "os.abort()",
        "runs[0].schedule is 'os.abort()'; expected a schedule: 'os' is not a word",
    ),
    ("Comparison", ["runs", 0, "schedule"], "plateau(constant(1))", "; expected a schedule: 'pla"),
    (
        "Comparison",
        ["runs", 0, "realized_schedule"],
        "wave",
        "runs[0].realized_schedule is 'wave'; expected a schedule: ",
    ),
    ("Comparison", ["runs", 0, "seed"], "<script>", "runs[0].seed is '<script>'; expected a whole"),
    ("Comparison", ["runs", 0, "seed"], 10**400, "expected a whole number"),
    ("Comparison", ["runs", 0, "lr"], "nan", "runs[0].lr is 'nan'; expected a finite number"),
    ("Comparison", ["runs", 0, "lr"], -0.1, "expected a finite number of at least 0"),
    ("Comparison", ["runs", 0, "losses", 1], None, "losses[1] is None; expected a number"),
    ("Comparison", ["runs", 0, "losses", 1], 10**400, "expected a number"),
    ("Comparison", ["runs", 0, "evaluations", 0, "metrics"], {}, "metrics has no loss"),
    ("Comparison", ["runs", 0, "evaluations", 0, "step"], -1, "evaluations[0].step is -1"),
    ("Comparison", ["configs", "a"], [0.1, "adam"], "configs['a'] has 2 items; expected 3"),
    ("Comparison", ["configs", "a", 2], "inf", "configs['a'][2] is 'inf'; expected a whole"),
    ("Comparison", ["task"], "\ud800", "expected text that UTF-8 can hold"),
    ("Comparison", ["runs", 0, "control"], 0, "runs[0].control is unknown; expected schedule, lr"),
    (
        "Comparison",
        ["runs"],
        [dataclasses.asdict(RUN)] * 2,
        "runs has two runs of 'a' with the same",
    ),
    ("Comparison", ["schedules", "b"], "constant(1)", "the runs of 'b' are those of another"),
    ("LRFinderResult", ["lr_high"], "x", "lr_high is 'x'; expected a finite number"),
    ("LRFinderResult", ["lr_low"], None, "lr, lr_low and lr_high must all be null or all be"),
    ("LRFinderResult", ["initial_loss"], "nan", "initial_loss is 'nan'; expected a finite number"),
    ("LRFinderResult", ["runs", 0, "losses"], "x", "runs[0].losses is 'x'; expected a list"),
    ("LRRangeTestResult", ["lrs"], [0.1], "lrs, losses and smoothed must have the same length"),
    ("LRRangeTestResult", ["spacing"], "odd", "spacing is 'odd'; expected 'geometric' or"),
    ("Forecast", ["entries"], [], "entries is empty"),
    ("Forecast", ["entries", 0, "steps"], [1], "entries[0].steps and losses must have the same"),
    ("Forecast", ["logs", "run", 0], [10], "logs['run'] has 1 steps and 2 losses"),
]


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_loaded_as_saved(tmp_path: Path, name: str) -> None:
    assert load(RESULTS[name].save(tmp_path / "r.json")) == RESULTS[name]


@pytest.mark.parametrize(("name", "keys", "value", "words"), CASES)
def test_wrong_value_is_refused_with_its_field(
    tmp_path: Path, name: str, keys: list[str | int], value: object, words: str
) -> None:
    path = RESULTS[name].save(tmp_path / "r.json")
    data = json.loads(path.read_text())
    part = data
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match=rf"r\.json is a damaged {name}: .*{re.escape(words)}"):
        load(path)


def test_run_of_a_plateau_is_loaded(tmp_path: Path) -> None:
    text = "plateau(constant(1), factor=0.5)"
    run = dataclasses.replace(RUN, schedule=text, realized_schedule="constant(1) * constant(1)")
    result = Comparison("t", {"a": text}, (run,))
    assert load(result.save(tmp_path / "r.json")) == result


@pytest.mark.parametrize("name", RESULTS)
def test_missing_field_is_refused(tmp_path: Path, name: str) -> None:
    path = RESULTS[name].save(tmp_path / "r.json")
    text = json.dumps(dict(list(json.loads(path.read_text()).items())[:2]))
    path.write_text(text)
    with pytest.raises(ResultError, match=f"is a damaged {name}: .* is missing"):
        load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "is not a result: it is nested too deeply"),
        ('{"ratecraft": "Forecast", "format": 2, "error": 1e400}', "the number 1e400 is too large"),
        ('{"ratecraft": "Forecast", "format": 2, "format": 2}', "it has the key 'format' twice"),
        ('{"ratecraft": "Forecast", "format": ' + "9" * 5000 + "}", "is not a result: .*limit"),
        ('{"ratecraft": ["Forecast"], "format": 2}', r"holds a \['Forecast'\]"),
        ('{"ratecraft": "Forecast", "format": "<b>"}', "has format '<b>'"),
    ],
)
def test_damaged_json_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=words):
        load(path)

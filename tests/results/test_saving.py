"""Results written to files and read back."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from ratecraft.errors import ResultError
from ratecraft.results import (
    Comparison,
    Evaluation,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    ShortRun,
    load,
)


def run(schedule: str, seed: int, *losses: float, diverged: int | None = None) -> Run:
    evaluations = tuple(
        Evaluation(i + 1, {"loss": loss, "accuracy": 1 - loss}) for i, loss in enumerate(losses)
    )
    return Run(schedule, 0.1, seed, len(losses), 1, tuple(losses), evaluations, diverged)


def comparison(*runs: Run) -> Comparison:
    return Comparison("t", {r.schedule: r.schedule for r in runs}, runs)


def test_summaries_hold_mean_and_sample_deviation_best_first() -> None:
    rows = comparison(
        run("constant(1)", 0, 0.5, 0.3),
        run("constant(1)", 1, 0.5, 0.5),
        run("cosine(1, 0)", 0, 0.2, 0.1),
        run("cosine(1, 0)", 1, 0.2, 0.1),
    ).summaries()
    assert [row.name for row in rows] == ["cosine(1, 0)", "constant(1)"]
    assert rows[1].mean["loss"] == pytest.approx(0.4)
    assert rows[1].spread["loss"] == pytest.approx(math.sqrt(0.02))
    assert rows[1].mean["accuracy"] == pytest.approx(0.6)
    single_seed = comparison(run("constant(1)", 0, 0.5, 0.3)).summaries()
    assert math.isnan(single_seed[0].spread["loss"])


def test_diverged_seed_makes_the_mean_nan() -> None:
    rows = comparison(
        run("a", 0, 0.01), run("a", 1, 0.01, diverged=0), run("b", 0, 0.9), run("b", 1, 0.9)
    ).summaries()
    assert [(row.name, row.diverged) for row in rows] == [("b", 0), ("a", 1)]
    assert math.isnan(rows[1].mean["loss"])


def test_verdict_pairs_runs_by_seed() -> None:
    clear = comparison(run("a", 0, 0.1), run("a", 1, 0.5), run("b", 0, 0.2), run("b", 1, 1.01))
    assert clear.verdict() == (
        "a has the lowest validation loss; that of b is 2.01 times as high "
        "(95 % interval 1.89 to 2.14)."
    )
    even = comparison(run("a", 0, 0.1), run("a", 1, 0.5), run("b", 0, 0.5), run("b", 1, 0.2))
    assert even.verdict().endswith("). Not significantly worse with 2 seeds: b.")
    assert "one seed" in comparison(run("a", 0, 0.1), run("b", 0, 0.2)).verdict()
    assert "only schedule" in comparison(run("a", 0, 0.1)).verdict()
    assert "Every schedule diverged" in comparison(run("a", 0, 0.1, diverged=0)).verdict()


def test_lr_finder_result_is_loaded_as_saved(tmp_path: Path) -> None:
    runs = (ShortRun(0.1, (2.0, math.inf), -math.inf, math.inf), ShortRun(0.1, (2.0,), 1.0, 0.1, 1))
    result = LRFinderResult(
        0.1, 0.05, 0.2, "r", 2.0, runs, 20, 100, 200, 21, 8, 29, "t", "o", 1.5, 3
    )
    assert load(result.save(tmp_path / "r.json")) == result
    assert all(getattr(result, f.name) != f.default for f in dataclasses.fields(result))


def test_curve_of_lr_finder_result_is_the_mean_of_runs_per_lr() -> None:
    runs = [ShortRun(0.1, (), 1.0, 0.1), ShortRun(0.1, (), 0.5, 0.1, 1)]
    runs += [ShortRun(1.0, (), -math.inf, math.inf), ShortRun(0.5, (), 1.5, 0.1)]
    result = LRFinderResult(None, None, None, "r", 2.0, tuple(runs), 20)
    assert result.curve == ((0.1, 0.5), (1.25, 0.5))


def test_range_test_result_is_loaded_as_saved(tmp_path: Path) -> None:
    result = LRRangeTestResult(
        (1e-8, 1.0), (2.0, math.inf), (2.0, math.nan), "s", None, "r", seconds=1.5
    )
    loaded = load(result.save(tmp_path / "r.json"))
    # As text, since NaN differs from itself.
    assert repr(dataclasses.asdict(loaded)) == repr(dataclasses.asdict(result))
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a result"),
        ("[]", 'has no key "ratecraft"'),
        (
            '{"ratecraft": "LRRangeTestResult", "format": 99}',
            "has format 99, but this version of ratecraft reads format 2: create",
        ),
        ('{"ratecraft": "Comparison", "format": 1}', "has format 1, but this version of ratecraft"),
        ('{"ratecraft": "Poem", "format": 2}', "holds a 'Poem'"),
        ('{"ratecraft": "LRRangeTestResult", "format": 2}', "is a damaged LRRangeTestResult"),
        (
            '{"ratecraft": "LRRangeTestResult", "format": 2, "control": 0}',
            "is a damaged LRRangeTestResult: control is unknown; expected lrs, losses",
        ),
        (
            '{"ratecraft": "LRFinderResult", "format": 2, "runs": [{"x": 1}]}',
            "is a damaged LRFinderResult",
        ),
        ('{"ratecraft": "Comparison", "format": 2, "runs": [{"x": 1}]}', "is a damaged Comparison"),
    ],
)
def test_invalid_file_raises_result_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=words):
        load(path)


def test_missing_file_raises_result_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="No such file"):
        load(tmp_path / "none.json")


def test_saved_file_is_strict_json(tmp_path: Path) -> None:
    result = comparison(run("constant(1)", 0, math.nan, diverged=0))
    text = result.save(tmp_path / "c.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

"""Every result prints in a short line, however large it is."""

import pytest

from ratecraft.results import (
    Breakdown,
    Comparison,
    Evaluation,
    Forecast,
    ForecastEntry,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    RunConfig,
    ShortRun,
)

LONG_TEXT = "warmup(500).then(" + " + ".join(["cosine(1, 0)"] * 100) + ")\n"
MANY = tuple(float(k) for k in range(10_000))


def run(schedule: str = "cosine(1, 0)", loss: float = 0.51234, **ends: int) -> Run:
    evaluations = tuple(Evaluation(step, {"loss": loss}) for step in range(1, 100))
    return Run(schedule, 0.1, 0, 10_000, 100, MANY, evaluations, optimizer="adamw", **ends)


def comparison(schedules: int, **ends: int) -> Comparison:
    names = {f"{k} {LONG_TEXT}": f"constant({k})" for k in range(schedules)}
    runs = tuple(run(text, 0.5 + k, **ends) for k, text in enumerate(names.values()))
    return Comparison("task", names, runs, {"torch": "2.6"}, {}, {"a": LONG_TEXT})


ENTRY = ForecastEntry(LONG_TEXT, LONG_TEXT, 2.31234, 2.2, 2.4, tuple(range(10_000)), MANY)
SHORT_RUN = ShortRun(0.1, MANY, 1.5, 0.1)
LARGE_RESULTS = [
    run(LONG_TEXT),
    comparison(50),
    comparison(50).summaries()[0],
    Forecast((ENTRY,) * 50, (), 10_000, None, 0.1, {"log": (tuple(range(10_000)), MANY)}, {}, 0.1),
    ENTRY,
    LRRangeTestResult(MANY, MANY, MANY, LONG_TEXT, 0.05, LONG_TEXT),
    LRRangeTestResult(MANY, MANY, MANY, LONG_TEXT, None, LONG_TEXT),
    LRFinderResult(0.1, 0.05, 0.2, LONG_TEXT, 2.0, (SHORT_RUN,) * 50, 20, task=LONG_TEXT),
    LRFinderResult(None, None, None, LONG_TEXT, 2.0, (SHORT_RUN,) * 50, 20, task=LONG_TEXT),
    SHORT_RUN,
    Breakdown(LONG_TEXT, 0.1, {"StepLR": MANY, "LambdaLR": MANY}, MANY),
]


@pytest.mark.parametrize("result", LARGE_RESULTS, ids=lambda result: type(result).__name__)
def test_repr_of_a_large_result_is_one_short_line(result: object) -> None:
    assert repr(result).startswith(f"<{type(result).__name__}: ")
    assert len(repr(result)) <= 200
    assert "\n" not in repr(result)


def test_repr_of_a_comparison_names_the_best_candidate() -> None:
    pair = Comparison(
        "t", {"flat": "constant(1)", "wave": "w"}, (run("constant(1)", 0.6), run("w"))
    )
    assert repr(pair) == "<Comparison: 2 schedules, 2 runs, best wave, loss 0.5123>"
    assert repr(comparison(2, diverged=3)) == "<Comparison: 2 schedules, 2 runs, none finished>"
    assert repr(pair.summaries()[1]) == "<Summary: flat, 1 seed, loss 0.6, gap 1.171x>"
    assert repr(Comparison("t", {}, ())) == "<Comparison: 0 schedules, 0 runs, none finished>"


def test_repr_of_a_run_says_how_it_ended() -> None:
    start = "<Run: cosine(1, 0), adamw, lr 0.1, seed 0, 10,000 steps, "
    assert repr(run()) == f"{start}loss 0.5123>"
    assert repr(run(diverged=3)) == f"{start}diverged at step 3>"
    assert repr(run(stopped=7)) == f"{start}stopped after step 7>"


def test_repr_of_a_search_has_the_lr_or_the_reason() -> None:
    result = LRFinderResult(0.03, 0.01, 0.08, "the best", 2.0, (SHORT_RUN,) * 7, 20)
    assert repr(result) == "<LRFinderResult: lr 0.03 (0.01 to 0.08), 7 short runs of 20 steps>"
    missing = LRFinderResult(None, None, None, "none found: it diverged", 2.0, (SHORT_RUN,), 20)
    assert repr(missing) == "<LRFinderResult: none found: it diverged, 1 short run of 20 steps>"
    swept = LRRangeTestResult((1.0,), (1.0,), (1.0,), "all 1 steps were taken", 0.05, "")
    assert repr(swept) == "<LRRangeTestResult: suggestion 0.05, 1 step, all 1 steps were taken>"
    assert repr(SHORT_RUN) == "<ShortRun: lr 0.1, 10,000 steps, gain 1.5 ± 0.1>"


def test_repr_of_a_forecast_names_the_best_schedule() -> None:
    entry = ForecastEntry("wave", "cosine(1, 0)", 2.31234, 2.2, 2.4, (), ())
    assert repr(entry) == "<ForecastEntry: wave, loss 2.312 (2.2 to 2.4)>"
    result = Forecast((entry, ENTRY), (), 2000, None, 0.1, {}, {}, 0.1)
    assert repr(result) == "<Forecast: 2 schedules, 2,000 steps, best wave, loss 2.312>"


def test_repr_of_a_breakdown_counts_the_factors() -> None:
    result = Breakdown("head", 0.1, {"StepLR": (1.0, 0.5)}, (0.1, 0.05))
    assert repr(result) == "<Breakdown: group head, base 0.1, 1 factor over 2 steps>"


def test_repr_of_a_configuration_is_complete() -> None:
    assert repr(RunConfig(0.1, "adamw", 10)) == (
        "RunConfig(lr=0.1, optimizer='adamw', total_steps=10)"
    )


def test_the_chart_of_a_forecast_has_the_8_best_schedules() -> None:
    entries = tuple(
        ForecastEntry(f"schedule {i}", "constant(1)", i, i, i, (1, 2), (i, i)) for i in range(20)
    )
    result = Forecast(entries, (), 2, None, 0.1, {"log": ((1, 2), (3.0, 2.0))}, {}, 0.1)
    names = [line.name for line in result.chart().lines]
    assert names == ["logged: log", *(f"schedule {i}" for i in range(8))]

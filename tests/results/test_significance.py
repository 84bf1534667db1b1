"""Which candidates are significantly worse than the best one, and by how much."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ratecraft.results import Comparison, Evaluation, Run
from ratecraft.results._significance import differences_from_first, studentized_range_quantile
from ratecraft.results._verdict import gap_texts, mean_texts


def compared(losses: dict[str, list[float]], metric: str = "loss") -> Comparison:
    runs = tuple(
        Run(name, 0.1, seed, 1, 1, (loss,), (Evaluation(1, {"loss": loss, metric: loss}),))
        for name, values in losses.items()
        for seed, loss in enumerate(values)
    )
    return Comparison("t", {name: name for name in losses}, runs)


tables = st.integers(2, 6).flatmap(
    lambda count: st.integers(2, 5).flatmap(
        lambda seeds: st.lists(
            st.lists(st.floats(-3, 3), min_size=seeds, max_size=seeds),
            min_size=count,
            max_size=count,
        )
    )
)


@pytest.mark.parametrize("count", [2, 3, 20, 128])
@pytest.mark.parametrize("freedom", [1, 2, 2.3, 8, 40, 1000])
def test_quantile_of_the_studentized_range_is_that_of_scipy(count: int, freedom: float) -> None:
    expected = stats.studentized_range.ppf(0.95, count, freedom)
    assert studentized_range_quantile(count, freedom) == pytest.approx(expected, rel=2e-3)


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(*[st.lists(st.floats(0.1, 9), min_size=n, max_size=n)] * 2)
    )
)
def test_two_candidates_get_the_interval_of_a_paired_t_test(
    pair: tuple[list[float], list[float]],
) -> None:
    logs = np.log(pair)
    if np.std(logs[1] - logs[0]) < 1e-6:  # scipy warns of lost precision
        return
    interval = stats.ttest_rel(logs[1], logs[0]).confidence_interval()
    _, (gap, low, high) = differences_from_first(logs.tolist())
    assert gap == pytest.approx(float(np.mean(logs[1] - logs[0])), abs=1e-9)
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-6)


@given(tables, st.data())
@settings(deadline=None)
def test_an_effect_of_the_seed_on_all_candidates_changes_nothing(
    table: list[list[float]], data: st.DataObject
) -> None:
    effects = data.draw(st.lists(st.floats(-3, 3), min_size=len(table[0]), max_size=len(table[0])))
    shifted = [[a + b for a, b in zip(row, effects, strict=True)] for row in table]
    before, after = differences_from_first(table), differences_from_first(shifted)
    assert np.allclose(before, after, atol=1e-3, rtol=1e-3, equal_nan=True)


@given(tables, st.sampled_from([1e-6, 0.5, 1e6]))
@settings(deadline=None)
def test_other_units_of_the_loss_change_no_ratio(table: list[list[float]], unit: float) -> None:
    losses = {f"c{i}": [math.exp(x) for x in row] for i, row in enumerate(table)}
    scaled = {name: [unit * x for x in row] for name, row in losses.items()}
    for a, b in zip(compared(losses).summaries(), compared(scaled).summaries(), strict=True):
        assert (a.gap, b.gap) == pytest.approx((b.gap, a.gap), rel=1e-6)


def test_a_loss_thousands_of_times_higher_is_significantly_worse() -> None:
    result = compared({"low": [5e-6, 2e-6, 9e-6], "high": [0.2, 0.5, 0.02]})
    best, other = result.summaries()
    assert (best.name, best.is_worse) == ("low", False)
    assert (other.is_ratio, other.is_worse) == (True, True)
    assert other.gap == pytest.approx(28120, rel=0.01)
    assert result.verdict() == (
        "low has the lowest validation loss; that of high is 2.81e+04 times as high "
        "(95 % interval 7.59e+01 to 1.04e+07)."
    )


def test_losses_that_are_not_all_positive_are_compared_as_differences() -> None:
    result = compared({"a": [-1.0, -1.1, -1.2], "b": [-0.9, -1.05, -1.1]})
    assert not result.summaries()[1].is_ratio
    assert result.verdict() == (
        "a has the lowest validation loss; that of b is 0.083 higher "
        "(95 % interval 0.012 to 0.155)."
    )


def test_verdict_names_a_candidate_that_is_worse_on_every_seed_but_not_significantly() -> None:
    result = compared({"cosine(1, 0)": [1.0, 1.1, 1.2], "linear(1, 0)": [1.3, 1.8, 1.25]})
    assert not result.summaries()[1].is_worse
    assert result.verdict().endswith(
        "Not significantly worse with 3 seeds: "
        "linear(1, 0) (worse on all 3 seeds, but not significantly)."
    )
    result = compared({"a": [1.0, 1.1], "b": [1.3, 1.8], "c": [1.2, 1.05]})
    assert result.verdict().endswith(
        "with 2 seeds: c; b (worse on both seeds, but not significantly)."
    )


def test_intervals_are_corrected_for_the_number_of_candidates() -> None:
    pair = {"a": [1.0, 1.02, 1.01], "b": [1.04, 1.05, 1.06]}
    more = pair | {f"c{i}": [1.0 + i, 1.02 + i, 1.01 + i] for i in range(1, 19)}
    two = compared(pair).summaries()[1]
    many = {row.name: row for row in compared(more).summaries()}["b"]
    assert two.is_worse
    assert "corrected" not in compared(pair).verdict()
    assert "corrected for 20 candidates" in compared(more).verdict()
    assert many.gap == pytest.approx(two.gap)


def test_a_candidate_that_nearly_diverges_hides_no_difference_between_the_others() -> None:
    losses = {"a": [1.4, 1.41, 1.39], "b": [1.42, 1.43, 1.40], "c": [1.51, 1.52, 1.50]}
    rows = {row.name: row for row in compared(losses | {"d": [30.0, 40.0, 2.0]}).summaries()}
    assert rows["c"].is_worse
    assert not rows["d"].is_worse  # its seeds differ by a factor of 20
    assert rows["d"].seeds_worse == 3


def test_runs_with_equal_losses_are_not_different() -> None:
    result = compared({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0]})
    assert not any(row.is_worse for row in result.summaries())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_equal_candidates_are_rarely_called_different(count: int) -> None:
    rng = np.random.default_rng(count)
    false = 0
    for _ in range(300):
        losses = np.exp(0.1 * rng.normal(size=(count, 3)) + rng.normal(size=(1, 3)))
        rows = compared({f"c{i}": row for i, row in enumerate(losses.tolist())}).summaries()
        false += any(row.is_worse for row in rows)
    assert false <= 0.08 * 300


def test_numbers_of_a_column_have_the_same_decimals() -> None:
    losses = {"a": [0.512, 0.53, 0.52], "b": [0.6, 0.61, 0.65], "c": [24.0, 20.0, 31.0]}
    rows = compared(losses).summaries()
    assert mean_texts(rows) == ["0.521 ± 0.009", "0.620 ± 0.026", "25.000 ± 5.568"]
    numbers = " ".join(gap_texts(rows)).replace("x", "").replace("(", "").replace(")", "").split()
    assert {len(text.partition(".")[2]) for text in numbers if text != "to"} == {2}
    tiny = compared({"a": [5e-6, 4e-6], "b": [0.2, 0.3]}).summaries()
    assert mean_texts(tiny) == ["4.500e-06 ± 7.1e-07", "2.500e-01 ± 7.1e-02"]


def test_a_metric_that_a_run_lacks_has_no_mean() -> None:
    runs = compared({"a": [1.0, 1.1]}).runs + compared({"b": [1.2, 1.3]}, "accuracy").runs
    result = Comparison("t", {"a": "a", "b": "b"}, runs)
    assert result.metrics() == ("loss", "accuracy")
    assert math.isnan(result.summaries()[0].mean["accuracy"])
    assert result.summaries()[1].mean["accuracy"] == pytest.approx(1.25)
    assert "b" in repr(result.summaries()[1])

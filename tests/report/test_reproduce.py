"""The grid that a report finds in a comparison, and the call that trains it again."""

from dataclasses import replace

import pytest
from quadratic import make_comparison, make_grid_comparison, make_large_comparison, train

from ratecraft import constant, cosine
from ratecraft.report._grid import grid_points
from ratecraft.report._heat_map import loss_heat_map
from ratecraft.report._reproduce import compare_call, reproduce_section
from ratecraft.results import Comparison, RunConfig

AGAIN = "This file trains the comparison again:"
MORE = "This file trains these runs, and the other combinations of their settings:"


def make_candidates(*candidates: tuple[str, object, float, int]) -> Comparison:
    """Return a comparison of candidates: name, schedule, learning rate and number of seeds."""
    texts = {name: repr(schedule) for name, schedule, _, _ in candidates}
    configs = {name: RunConfig(lr, "", 100) for name, _, lr, _ in candidates}
    runs = [train(s, lr, seed) for _, s, lr, seeds in candidates for seed in range(seeds)]
    return Comparison("a quadratic", texts, tuple(runs), {}, configs)


@pytest.mark.parametrize(
    "comparison",
    [
        make_comparison(),
        make_grid_comparison(lrs=(0.01, 0.02), lengths=(40, 100)),
        make_large_comparison(),
    ],
    ids=["schedules", "lrs and lengths", "lrs and optimizers"],
)
def test_the_call_of_a_whole_grid_trains_the_comparison_again(comparison: Comparison) -> None:
    assert AGAIN in reproduce_section(comparison)


@pytest.mark.parametrize(
    "comparison",
    [
        make_candidates(("a, lr 0.1", cosine(1, 0), 0.1, 1), ("b, lr 0.01", constant(1), 0.01, 1)),
        make_candidates(("a", cosine(1, 0), 0.1, 1), ("b", constant(1), 0.1, 2)),
    ],
    ids=["lrs", "seeds"],
)
def test_the_call_of_a_part_of_a_grid_trains_more(comparison: Comparison) -> None:
    assert MORE in reproduce_section(comparison)
    assert AGAIN not in reproduce_section(comparison)


def test_equal_schedules_with_different_names_stay_apart() -> None:
    comparison = make_candidates(
        *((f"{name}, lr {lr}", cosine(1, 0), lr, 2) for name in "ab" for lr in (0.01, 0.1))
    )
    assert {point.schedule for point in grid_points(comparison).values()} == {"a", "b"}
    assert len(loss_heat_map(comparison).cells) == 4
    code = compare_call(comparison)
    assert '"a": cosine(1, 0),' in code
    assert '"b": cosine(1, 0),' in code


def test_candidates_that_differ_in_nothing_but_their_names_stay_apart() -> None:
    comparison = make_candidates(("a", cosine(1, 0), 0.1, 1), ("a, lr 0.1", cosine(1, 0), 0.1, 1))
    assert set(grid_points(comparison)) == {"a", "a, lr 0.1"}
    assert len({point.schedule for point in grid_points(comparison).values()}) == 2


def test_equal_schedules_without_configs_stay_apart() -> None:
    comparison = make_candidates(("a", cosine(1, 0), 0.1, 1), ("b", cosine(1, 0), 0.1, 1))
    comparison = replace(comparison, configs={})
    assert {point.schedule for point in grid_points(comparison).values()} == {"a", "b"}


def test_a_comparison_without_candidates_has_no_grid() -> None:
    assert grid_points(Comparison("t", {}, (), {})) == {}

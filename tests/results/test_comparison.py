"""Conclusions of a comparison, on synthetic losses."""

import math

import pytest

from ratecraft.results import Comparison, Evaluation, Run, RunConfig

NAN = math.nan


def run(lr: float, seed: int, *losses: float, total_steps: int = 10, seconds: float = 2.0) -> Run:
    evaluations = tuple(
        Evaluation(total_steps * (i + 1) // len(losses), {"loss": loss})
        for i, loss in enumerate(losses)
    )
    training_losses = (1.0,) * total_steps
    return Run("constant(1)", lr, seed, total_steps, 5, training_losses, evaluations, None, seconds)


def over_lrs(finals: dict[float, tuple[float, ...]], total_steps: int = 10) -> Comparison:
    runs = [
        run(lr, seed, 2.0, final, total_steps=total_steps)
        for lr, values in finals.items()
        for seed, final in enumerate(values)
    ]
    names = {f"c, lr {lr:g}": "constant(1)" for lr in finals}
    configs = {f"c, lr {lr:g}": RunConfig(lr, "", total_steps) for lr in finals}
    return Comparison("t", names, tuple(runs), {}, configs)


def test_optimal_lr_range_ends_before_a_significantly_worse_lr() -> None:
    ranges = over_lrs(
        {
            0.001: (0.90, 0.91, 0.92),  # worse on every seed
            0.003: (0.51, 0.48, 0.53),
            0.01: (0.50, 0.49, 0.51),
            0.03: (0.55, 0.47, 0.54),
            0.1: (0.49, 0.53, 0.55),
        }
    ).optimal_lr_ranges()
    (optimal,) = ranges.values()
    assert list(ranges) == ["c"]
    assert (optimal.best, optimal.low, optimal.high) == (0.01, 0.003, 0.1)
    assert (optimal.open_low, optimal.open_high) == (False, True)


def test_diverged_lr_ends_the_optimal_lr_range() -> None:
    result = over_lrs({0.01: (0.50, 0.49), 0.1: (0.51, 0.49), 1.0: (NAN, NAN)})
    runs = [
        Run(**{f: getattr(r, f) for f in Run.__slots__} | {"diverged": 3}) if r.lr == 1 else r
        for r in result.runs
    ]
    result = Comparison("t", result.schedules, tuple(runs), {}, result.configs)
    (optimal,) = result.optimal_lr_ranges().values()
    assert (optimal.high, optimal.open_high) == (0.1, False)


def test_optimal_lr_ranges_need_two_lrs_that_finished() -> None:
    assert over_lrs({0.01: (0.5, 0.4)}).optimal_lr_ranges() == {}
    # With one seed no lr is significantly worse.
    (optimal,) = over_lrs({0.01: (0.5,), 0.1: (5.0,)}).optimal_lr_ranges().values()
    assert (optimal.low, optimal.high) == (0.01, 0.1)


def test_time_to_target_is_a_mean_only_if_every_seed_reaches_the_loss() -> None:
    runs = (
        run(0.1, 0, 0.8, 0.4, 0.3, 0.2, total_steps=20, seconds=4.0),
        run(0.1, 1, 0.8, 0.6, 0.3, 0.2, total_steps=20, seconds=2.0),
        run(0.2, 0, 0.9, 0.8, 0.7, 0.5, total_steps=20),
        run(0.2, 1, 0.9, 0.8, 0.7, 0.45, total_steps=20),
    )
    configs = {"a, lr 0.1": RunConfig(0.1, "", 20), "a, lr 0.2": RunConfig(0.2, "", 20)}
    names = dict.fromkeys(configs, "constant(1)")
    result = Comparison("t", names, runs, {}, configs)
    reached = result.time_to_target(0.45)
    assert reached["a, lr 0.1"] == (2, (10 + 15) / 2, (4.0 * 10 / 20 + 2.0 * 15 / 20) / 2)
    assert reached["a, lr 0.2"].seeds == 1
    assert math.isnan(reached["a, lr 0.2"].steps)
    assert result.target() is None  # it has one schedule
    apart = Comparison("t", {"a": "constant(1)", "b": "cosine(1, 0)"}, runs[:2])
    assert apart.target() is None  # b has no run
    two = Comparison(
        "t",
        {"a": "constant(1)", "b": "b"},
        (*runs[:2], *(Run("b", *[getattr(r, f) for f in Run.__slots__[1:]]) for r in runs[2:])),
    )
    assert two.target() == 0.5  # reached by every seed of both


def test_verdict_separates_runs_with_different_total_steps() -> None:
    short, long = over_lrs({0.01: (0.5, 0.6), 0.1: (0.7, 0.81)}), over_lrs(
        {0.01: (0.3, 0.4), 0.1: (0.2, 0.31)}, total_steps=20
    )  # fmt: skip
    names, configs, runs = {}, {}, ()
    for result, total_steps in ((short, 10), (long, 20)):
        for lr in (0.01, 0.1):
            label = f"c, {total_steps} steps, lr {lr:g}"
            names[label], configs[label] = "constant(1)", RunConfig(lr, "", total_steps)
        runs += result.runs
    both = Comparison("t", names, runs, {}, configs)
    assert [(row.total_steps, round(row.gap, 3)) for row in both.summaries()] == [
        (20, 1.0), (20, 1.391), (10, 1.0), (10, 1.375),
    ]  # fmt: skip
    assert both.verdict().startswith("20 steps: c, 20 steps, lr 0.1 has the lowest")
    assert "10 steps: c, 10 steps, lr 0.01 has the lowest" in both.verdict()
    assert list(both.best_per_schedule().schedules) == [
        "c, 10 steps, lr 0.01", "c, 20 steps, lr 0.1",
    ]  # fmt: skip
    assert both.families().keys() == {"c, 10 steps", "c, 20 steps"}


def test_name_containing_lr_does_not_join_a_family() -> None:
    runs = tuple(
        Run(
            "constant(1)",
            0.1,
            0,
            10,
            5,
            (1.0,),
            (Evaluation(10, {"loss": loss}),),
            seconds=1.0,
            optimizer=optimizer,
        )
        for optimizer, loss in (("sgd", 0.5), ("adam", 0.4))
    )
    names = {f"low, lr 3, {optimizer}": "constant(1)" for optimizer in ("sgd", "adam")}
    configs = {
        f"low, lr 3, {optimizer}": RunConfig(0.1, optimizer, 10) for optimizer in ("sgd", "adam")
    }
    result = Comparison("t", names, runs, {}, configs)
    assert list(result.families()) == list(names)
    assert len(result.best_per_schedule().schedules) == 2


@pytest.mark.parametrize("field", ["stopped", "diverged"])
def test_unfinished_run_has_no_final_loss(field: str) -> None:
    finished = run(0.1, 0, 0.5)
    unfinished = Run(**{f: getattr(finished, f) for f in Run.__slots__} | {field: 4})
    assert finished.final() == 0.5
    assert math.isnan(unfinished.final())


def test_candidate_with_a_missing_seed_has_no_mean() -> None:
    runs = [Run("a", 0.1, s, 10, 5, (1.0,), (Evaluation(10, {"loss": s + 1.0}),)) for s in range(3)]
    runs.append(Run("b", 0.1, 0, 10, 5, (1.0,), (Evaluation(10, {"loss": 0.1}),)))
    result = Comparison("t", {"b": "b", "a": "a", "c": "c"}, tuple(runs))
    assert [(row.name, row.missing) for row in result.summaries()] == [
        ("a", 0), ("b", 2), ("c", 0),
    ]  # fmt: skip
    assert math.isnan(result.summaries()[1].mean["loss"])
    assert result.verdict() == (
        "a is the only schedule that finished. Left out because runs are missing: b; c."
    )
    assert result.select(["b", "a"]).verdict().endswith("runs are missing: b.")
    incomplete = Comparison("t", {"b": "b", "d": "d"}, (runs[3], *(
        Run("d", 0.1, s, 10, 5, (1.0,), runs[0].evaluations) for s in (1, 2))))  # fmt: skip
    assert incomplete.verdict() == "No schedule has a finished run for every seed."


def test_nan_evaluation_is_ignored_by_target() -> None:
    runs = (
        run(0.1, 0, NAN, 0.5),
        Run("b", 0.1, 0, 10, 5, (1.0,) * 10, run(0.1, 0, 0.9, 0.4).evaluations),
    )
    assert Comparison("t", {"a": "constant(1)", "b": "b"}, runs).target() == 0.5

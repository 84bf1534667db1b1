"""What a comparison concludes, on numbers that were thought up."""

import math

import pytest

from ratecraft.results import Comparison, Evaluation, Run, Setting

NAN = math.nan


def run(lr: float, seed: int, *losses: float, total: int = 10, seconds: float = 2.0) -> Run:
    seen = tuple(
        Evaluation(total * (i + 1) // len(losses), {"loss": loss}) for i, loss in enumerate(losses)
    )
    return Run("constant(1)", lr, seed, total, 5, (1.0,) * total, seen, None, seconds)


def over_lrs(finals: dict[float, tuple[float, ...]], total: int = 10) -> Comparison:
    runs = [
        run(lr, seed, 2.0, final, total_steps=total)
        for lr, values in finals.items()
        for seed, final in enumerate(values)
    ]
    names = {f"c, lr {lr:g}": "constant(1)" for lr in finals}
    settings = {f"c, lr {lr:g}": Setting(lr, "", total) for lr in finals}
    return Comparison("t", names, tuple(runs), {}, settings)


def test_the_flat_region_ends_where_a_lr_is_told_to_be_worse() -> None:
    found = over_lrs(
        {
            0.001: (0.90, 0.91, 0.92),  # worse on every seed
            0.003: (0.51, 0.48, 0.53),
            0.01: (0.50, 0.49, 0.51),
            0.03: (0.55, 0.47, 0.54),
            0.1: (0.49, 0.53, 0.55),
        }
    ).flat()
    (flat,) = found.values()
    assert list(found) == ["c"]
    assert (flat.best, flat.low, flat.high) == (0.01, 0.003, 0.1)
    assert (flat.open_low, flat.open_high) == (False, True)


def test_a_lr_that_diverged_ends_the_flat_region() -> None:
    result = over_lrs({0.01: (0.50, 0.49), 0.1: (0.51, 0.49), 1.0: (NAN, NAN)})
    lost = [
        Run(**{f: getattr(r, f) for f in Run.__slots__} | {"diverged": 3}) if r.lr == 1 else r
        for r in result.runs
    ]
    result = Comparison("t", result.schedules, tuple(lost), {}, result.settings)
    (flat,) = result.flat().values()
    assert (flat.high, flat.open_high) == (0.1, False)


def test_one_lr_or_none_that_finished_has_no_flat_region() -> None:
    assert over_lrs({0.01: (0.5, 0.4)}).flat() == {}
    # One seed tells nothing: every lr may be as good.
    (flat,) = over_lrs({0.01: (0.5,), 0.1: (5.0,)}).flat().values()
    assert (flat.low, flat.high) == (0.01, 0.1)


def test_time_and_steps_to_a_target_count_where_every_seed_came_there() -> None:
    runs = (
        run(0.1, 0, 0.8, 0.4, 0.3, 0.2, total_steps=20, seconds=4.0),
        run(0.1, 1, 0.8, 0.6, 0.3, 0.2, total_steps=20, seconds=2.0),
        run(0.2, 0, 0.9, 0.8, 0.7, 0.5, total_steps=20),
        run(0.2, 1, 0.9, 0.8, 0.7, 0.45, total_steps=20),
    )
    settings = {"a, lr 0.1": Setting(0.1, "", 20), "a, lr 0.2": Setting(0.2, "", 20)}
    names = dict.fromkeys(settings, "constant(1)")
    result = Comparison("t", names, runs, {}, settings)
    reached = result.time_to_target(0.45)
    assert reached["a, lr 0.1"] == (2, (10 + 15) / 2, (4.0 * 10 / 20 + 2.0 * 15 / 20) / 2)
    assert reached["a, lr 0.2"].seeds == 1
    assert math.isnan(reached["a, lr 0.2"].steps)
    assert result.target() is None  # one schedule, at its best lr
    apart = Comparison("t", {"a": "constant(1)", "b": "cosine(1, 0)"}, runs[:2])
    assert apart.target() is None  # b has no run
    two = Comparison(
        "t",
        {"a": "constant(1)", "b": "b"},
        (*runs[:2], *(Run("b", *[getattr(r, f) for f in Run.__slots__[1:]]) for r in runs[2:])),
    )
    assert two.target() == 0.5  # what the slower one's worse seed came down to


def test_runs_of_different_lengths_are_judged_apart() -> None:
    short, long = over_lrs({0.01: (0.5, 0.6), 0.1: (0.7, 0.81)}), over_lrs(
        {0.01: (0.3, 0.4), 0.1: (0.2, 0.31)}, total_steps=20
    )  # fmt: skip
    names, settings, runs = {}, {}, ()
    for result, total in ((short, 10), (long, 20)):
        for lr in (0.01, 0.1):
            label = f"c, {total} steps, lr {lr:g}"
            names[label], settings[label] = "constant(1)", Setting(lr, "", total)
        runs += result.runs
    both = Comparison("t", names, runs, {}, settings)
    assert [(row.total_steps, round(row.gap, 3)) for row in both.summaries()] == [
        (20, 0.0), (20, 0.095), (10, 0.0), (10, 0.205),
    ]  # fmt: skip
    assert both.verdict().startswith("20 steps: c, 20 steps, lr 0.1 has the lowest")
    assert "10 steps: c, 10 steps, lr 0.01 has the lowest" in both.verdict()
    assert list(both.best_per_schedule().schedules) == [
        "c, 10 steps, lr 0.01", "c, 20 steps, lr 0.1",
    ]  # fmt: skip
    assert both.families().keys() == {"c, 10 steps", "c, 20 steps"}


def test_a_name_that_speaks_of_lrs_is_no_family() -> None:
    runs = tuple(
        Run(
            "constant(1)", 0.1, 0, 10, 5, (1.0,), (Evaluation(10, {"loss": loss}),), None, 1.0, kind
        )
        for kind, loss in (("sgd", 0.5), ("adam", 0.4))
    )
    names = {f"low, lr 3, {kind}": "constant(1)" for kind in ("sgd", "adam")}
    settings = {f"low, lr 3, {kind}": Setting(0.1, kind, 10) for kind in ("sgd", "adam")}
    result = Comparison("t", names, runs, {}, settings)
    assert list(result.families()) == list(names)
    assert len(result.best_per_schedule().schedules) == 2


@pytest.mark.parametrize("field", ["stopped", "diverged"])
def test_what_did_not_finish_has_no_final_loss(field: str) -> None:
    one = run(0.1, 0, 0.5)
    told = Run(**{f: getattr(one, f) for f in Run.__slots__} | {field: 4})
    assert one.final() == 0.5
    assert math.isnan(told.final())


def test_a_candidate_that_lacks_a_seed_is_not_judged_by_the_others() -> None:
    runs = [Run("a", 0.1, s, 10, 5, (1.0,), (Evaluation(10, {"loss": s + 1.0}),)) for s in range(3)]
    runs.append(Run("b", 0.1, 0, 10, 5, (1.0,), (Evaluation(10, {"loss": 0.1}),)))
    result = Comparison("t", {"b": "b", "a": "a", "c": "c"}, tuple(runs))
    assert [(row.name, row.missing) for row in result.summaries()] == [
        ("a", 0), ("b", 2), ("c", 0),
    ]  # fmt: skip
    assert math.isnan(result.summaries()[1].mean["loss"])
    assert result.verdict() == (
        "a is the only schedule that finished. Left out, since runs are missing: b or c."
    )
    assert result.select(["b", "a"]).verdict().endswith("runs are missing: b.")
    lacking = Comparison("t", {"b": "b", "d": "d"}, (runs[3], *(
        Run("d", 0.1, s, 10, 5, (1.0,), runs[0].evaluations) for s in (1, 2))))  # fmt: skip
    assert lacking.verdict() == "No schedule has a run that finished for every seed."


def test_an_evaluation_that_is_nan_is_no_target() -> None:
    runs = (
        run(0.1, 0, NAN, 0.5),
        Run("b", 0.1, 0, 10, 5, (1.0,) * 10, run(0.1, 0, 0.9, 0.4).evaluations),
    )
    assert Comparison("t", {"a": "constant(1)", "b": "b"}, runs).target() == 0.5

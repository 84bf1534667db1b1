"""Evaluations of a run, plateaus, and early stopping of learning rates."""

import dataclasses
import math
import re

import pytest
import torch
from torch import nn

from ratecraft import ScheduleError, constant, cosine, epochs, warmup
from ratecraft.errors import SettingError
from ratecraft.experiments import Plateau, Task, compare, load_task, train
from ratecraft.experiments._jobs import halve
from ratecraft.experiments._plateau import parse_candidate
from ratecraft.experiments._train import Training
from ratecraft.results import load


def test_every_epoch_has_losses_metrics_and_the_lr_of_every_group() -> None:
    task = load_task("digits")
    evaluations = []
    schedule = warmup(45).then(cosine(1, 0))
    run = train(task, schedule, lr=0.01, total_steps=epochs(3), watch=evaluations.append)
    assert tuple(evaluations) == run.evaluations
    assert [evaluation.step for evaluation in evaluations] == [45, 90, 135]
    for evaluation in evaluations:
        assert set(evaluation.metrics) == set(evaluation.train) == {"loss", "accuracy"}
        assert evaluation.lrs == {"0": run.curve()(evaluation.step - 1)}
    assert evaluations[-1].train["accuracy"] > 0.9
    assert evaluations[-1].train["loss"] != evaluations[-1].metrics["loss"]


def test_train_metrics_are_those_of_the_final_weights() -> None:
    models, batches = [], torch.linspace(-1, 1, 64)[:, None].split(2)

    def model() -> nn.Module:
        models.append(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)))
        return models[-1]

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return ((model(batch) - 2 * batch) ** 2).mean()

    task = Task(model=model, loss=loss, train=batches, val=[batches[0]])
    run = train(task, constant(1), lr=0.01, total_steps=32)
    trained = models[-1].eval()
    expected = sum(float(loss(trained, batch).detach()) for batch in batches[-16:]) / 16
    assert run.evaluations[-1].train["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluation_does_not_affect_training() -> None:
    def build(val: list) -> Task:
        task = load_task("digits")
        noisy = dict(task.metrics) | {"noise": lambda model, batch: torch.rand(())}
        return dataclasses.replace(task, val=val * 2, metrics=noisy)

    val = load_task("digits").val
    plain = train(load_task("digits"), constant(1), lr=0.01, total_steps=100)
    noisy = train(build(val), constant(1), lr=0.01, total_steps=100)
    assert plain.losses == noisy.losses


def test_groups_of_different_lrs_keep_their_ratios() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        first, last = model[0], model[-1]
        rest = [p for layer in model[1:-1] for p in layer.parameters()]
        return torch.optim.AdamW(
            [
                {"params": first.parameters(), "lr": 1e-4},
                {"params": rest, "lr": 5e-4},
                {"params": last.parameters(), "lr": 1e-3, "name": "head"},
            ]
        )

    task = dataclasses.replace(load_task("digits"), optimizer=optimizer)
    run = train(task, cosine(1, 0), lr=0.02, total_steps=90)
    first = run.evaluations[0].lrs
    highest = run.curve()(44)
    assert first == pytest.approx({"0": highest / 10, "1": highest / 2, "head": highest})
    assert compare(lambda: task, [cosine(1, 0)], lrs=0.02, seeds=1, total_steps=9, workers=0).runs


def test_plateau_reduces_when_validation_stops_improving() -> None:
    plateau = Plateau(warmup(10).then(constant(1)), factor=0.5, patience=0, threshold=0.5)
    run = train(load_task("digits"), plateau, lr=0.01, total_steps=epochs(6))
    losses = [e.metrics["loss"] for e in run.evaluations]
    factor, best, expected = 1.0, math.inf, []
    for k, loss in enumerate(losses):
        expected.append(0.01 * factor)
        if loss < best * 0.5:
            best = loss
        else:
            factor *= 0.5
        assert run.evaluations[k].lrs["0"] == pytest.approx(expected[k])
    assert factor < 1
    # The curve of the run has the learning rates that were applied.
    assert [run.curve()(45 * k + 44) for k in range(6)] == pytest.approx(expected)
    assert run.schedule == repr(plateau)


def test_plateau_follows_a_metric_that_is_maximized() -> None:
    plateau = Plateau(patience=0, factor=0.5, threshold=0.3, metric="accuracy")
    run = train(load_task("digits"), plateau, lr=0.003, total_steps=epochs(4))
    accuracies = [e.metrics["accuracy"] for e in run.evaluations]
    assert accuracies[1] > accuracies[0]
    assert run.evaluations[1].lrs["0"] == 0.003 or accuracies[0] > 0.3
    plateau = dataclasses.replace(plateau, mode="min")  # as for an error rate
    run = train(load_task("digits"), plateau, lr=0.003, total_steps=epochs(3))
    assert run.evaluations[2].lrs["0"] == 0.0015
    with pytest.raises(ScheduleError, match=r"no metric 'f1'; it has loss, accuracy"):
        train(load_task("digits"), Plateau(metric="f1"), total_steps=5)


@pytest.mark.parametrize(
    "plateau",
    [
        Plateau(),
        Plateau(cosine(1, 0), factor=0.25, patience=3, threshold=0.0, cooldown=2, metric="f1"),
        Plateau(warmup(5).then(constant(1)), patience=2),
        Plateau(metric="error", mode="min"),
    ],
)
def test_parse_candidate_reads_the_repr_of_a_plateau(plateau: Plateau) -> None:
    assert parse_candidate(repr(plateau)) == plateau
    assert parse_candidate("  " + repr(plateau)) == plateau


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plateau(", "cannot be parsed"),
        ("plateau(constant(1), cosine(1, 0))", "is not a plateau"),
        ("plateau(factr=0.5)", "unexpected argument 'factr'"),
        ("plateau(factor=open)", "factor must be a plain value"),
        ("plateau(factor=2)", "factor between 0 and 1"),
        ("plateau(patience=1.5)", "patience=1.5"),
        ("plateau(schedule=cosine(1, 0), factor='x')", "factor='x'"),
        ("plateau(constant(1)).then(cosine(1, 0))", "is not a plateau"),
        ("plateau(open('x'))", "open"),
        ("plateau(metric=3)", "metric=3"),
        ("plateau(mode='up')", "mode='up'"),
        ("plateau(**x)", "unexpected argument '**'"),
    ],
)
def test_invalid_plateau_raises(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=re.escape(message)):
        parse_candidate(text)


def test_plateaus_are_compared_like_schedules() -> None:
    plateau = Plateau(factor=0.5, patience=0)
    result = compare("digits", [plateau, constant(1)], lrs=0.01, seeds=2, total_steps=90, workers=0)
    assert list(result.schedules) == [repr(plateau), "constant(1)"]
    assert len(result.runs_for(repr(plateau))) == 2


def test_halve_stops_the_worse_half_of_lrs_at_a_quarter_and_at_half() -> None:
    lrs = [1e-6, 1e-5, 1e-3, 1e-2]
    trainings = [
        Training(load_task("digits"), constant(1), lr=lr, seed=seed, total_steps=80)
        for lr in lrs
        for seed in (0, 1)
    ]
    stopped = halve(trainings)
    assert stopped[1e-6] == stopped[1e-5] == 20
    assert sorted(map(str, (stopped.get(1e-3), stopped.get(1e-2)))) == ["40", "None"]
    for training in trainings:
        assert len(training.losses) == stopped.get(training.lr, 80)


def test_halving_leaves_stopped_runs_without_final_loss(tmp_path) -> None:
    settings = {"lrs": [1e-6, 1e-5, 1e-3, 1e-2], "seeds": 2, "total_steps": 40}
    result = compare("digits", [constant(1), cosine(1, 0)], **settings, halving=True, workers=0)
    assert len(result.runs) == 16
    assert sum(run.stopped is not None for run in result.runs) == 12
    rows = result.summaries()
    assert [row.stopped for row in rows] == [0, 0] + [2] * 6
    assert all(math.isnan(row.mean["loss"]) for row in rows[2:])
    assert "Early stopping ended 6 of 8 candidates, so their final losses are unknown" in (
        result.verdict()
    )
    assert load(result.save(tmp_path / "c.json")).verdict() == result.verdict()
    # Runs agree with those of compare without halving, as far as they go.
    plain = compare("digits", [constant(1), cosine(1, 0)], **settings, workers=0)
    for run in result.runs:
        (alone,) = [
            other
            for other in plain.runs
            if (other.schedule, other.lr, other.seed) == (run.schedule, run.lr, run.seed)
        ]
        assert alone.losses[: len(run.losses)] == run.losses
    with pytest.raises(SettingError, match="halving chooses among lrs"):
        compare("digits", [constant(1)], lrs=0.1, halving=True, workers=0)

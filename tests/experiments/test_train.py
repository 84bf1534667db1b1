import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from ratecraft import ScheduleError, constant, cosine, epochs, warmup
from ratecraft.errors import TaskError
from ratecraft.experiments import Task, load_task, train


def line_task(**changes) -> Task:
    x = torch.linspace(-1, 1, 32)[:, None]
    fields = {
        "model": lambda: nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0)),
        "loss": lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean(),
        "train": x.split(8),
        "val": [x[:24], x[24:]],
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=1.0),
    }
    return Task(**fields | changes)


def test_seed_determines_the_run() -> None:
    task = load_task("digits")
    runs = [train(task, cosine(1, 0), lr=0.01, seed=seed, total_steps=20) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].evaluations == runs[1].evaluations
    assert runs[0].losses != runs[2].losses


def test_training_uses_the_lrs_of_the_schedule() -> None:
    lrs = []

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        sgd.register_step_pre_hook(lambda o, *_: lrs.append(o.param_groups[0]["lr"]))
        return sgd

    schedule = warmup(epochs(1)).then(cosine(1, 0))
    run = train(line_task(optimizer=optimizer), schedule, lr=0.1, total_steps=epochs(3))
    assert (
        lrs
        == list((0.1 * schedule).resolve(total_steps=12, steps_per_epoch=4))
        == list(run.curve())
    )


def test_evaluation_follows_each_epoch_and_the_end() -> None:
    run = train(line_task(), constant(1), lr=0.1, total_steps=10)
    assert [e.step for e in run.evaluations] == [4, 8, 10]
    assert len(run.losses) == 10


def test_evaluation_uses_eval_mode_and_weights_batches_by_rows() -> None:
    modes = []

    def metric(model, batch) -> torch.Tensor:
        modes.append(model.training)
        return batch.mean()

    task = line_task(metrics={"mean": metric})
    run = train(task, constant(1), lr=0.0, total_steps=4)
    assert modes == [False] * (2 + 4)  # validation and the last training batches
    assert run.final("mean") == pytest.approx(0.0, abs=1e-7)


def test_random_state_of_the_caller_is_restored() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    train(line_task(), constant(1), lr=0.1, total_steps=4)
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert np.random.get_state()[1].tolist() == expected[1]
    assert random.getstate() == expected[2]


def test_diverged_run_has_the_step_and_the_losses_before_it() -> None:
    run = train(line_task(), constant(1), lr=1e30, total_steps=50)
    assert run.diverged is not None
    assert len(run.losses) == run.diverged + 1
    assert math.isnan(run.final())


def test_run_whose_last_step_breaks_the_model_is_diverged() -> None:
    run = train(line_task(), constant(1), lr=1e38, total_steps=1)
    assert run.diverged == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda: 3}, r"Task.model\(\) returned int; expected a torch Module"),
        ({"optimizer": lambda model: None}, "expected a torch optimizer"),
        ({"loss": lambda model, batch: 0.5}, "returned float; expected a tensor of one element"),
        ({"loss": lambda model, batch: model(batch)}, r"a tensor of shape \(8, 1\)"),
    ],
)
def test_wrong_return_value_of_a_task_function_raises(changes, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        train(line_task(**changes), constant(1), lr=0.1, total_steps=2)


def test_schedule_that_does_not_fit_raises_before_training() -> None:
    calls = []
    task = line_task(model=lambda: calls.append(1))
    with pytest.raises(ScheduleError, match="no room"):
        train(task, warmup(50).then(cosine(1, 0)), lr=0.1, total_steps=10)
    assert not calls


def test_exhausted_training_data_raises() -> None:
    class OneTimeBatches:
        batches = torch.linspace(-1, 1, 32)[:, None].split(8)

        def __len__(self) -> int:
            return 4

        def __iter__(self):
            batches, self.batches = self.batches, ()
            return iter(batches)

    with pytest.raises(TaskError, match="gave no batch when it was iterated again"):
        train(line_task(train=OneTimeBatches()), constant(1), lr=0.1, total_steps=9)


def test_metric_that_is_not_a_scalar_raises() -> None:
    task = line_task(metrics={"each": lambda model, batch: model(batch)})
    with pytest.raises(TaskError, match=r"the metric each\(model, batch\) returned a tensor"):
        train(task, constant(1), lr=0.1, total_steps=4)


def test_batches_may_be_dicts() -> None:
    x = torch.linspace(-1, 1, 32)[:, None]
    batches = [{"x": part} for part in x.split(8)]
    task = line_task(
        train=batches,
        val=batches,
        loss=lambda model, batch: ((model(batch["x"]) - batch["x"]) ** 2).mean(),
    )
    assert train(task, constant(1), lr=0.1, total_steps=100).final() < 0.05

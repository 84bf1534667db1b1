"""find_lr: what it answers, what it costs, and that nobody notices."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from restoring import Boom, cross_entropy, failing, trained_after
from torch import nn

from ratecraft import cosine, epochs
from ratecraft._training._snapshot import seed_everything
from ratecraft.errors import RunFailed, SettingError, TaskError
from ratecraft.experiments import load_task, train
from ratecraft.experiments._train import start
from ratecraft.finder import find_lr
from ratecraft.results import load


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of this size gain nothing from more, and wait for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def line(lr: float = 0.1, count: int = 64, kind=torch.optim.SGD, **more: Any):
    """Return a model of a line, its optimizer, and batches of eight points."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.randn(8 * count, 1)
    return model, kind(model.parameters(), lr=lr, **more), list(x.split(8))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


# No trace


def whole(model, optimizer, loader) -> None:
    assert len(find_lr(model, optimizer, loader, cross_entropy, total_steps=100).runs) >= 4


def interrupted(error: BaseException, after: int):
    def trial(model, optimizer, loader) -> None:
        with pytest.raises(type(error)):
            find_lr(model, optimizer, loader, failing(after, error))

    return trial


@pytest.mark.parametrize(
    "trial",
    [whole, interrupted(Boom(), 2), interrupted(Boom(), 60), interrupted(KeyboardInterrupt(), 60)],
    ids=["end", "error before the first run", "error", "ctrl-c"],
)
def test_it_leaves_no_trace_in_later_training(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert torch.equal(untouched[2], touched[2])
    assert touched[4] == untouched[4]


# The answer


@pytest.mark.parametrize("lr", [1e-6, 1e-3, 0.1, 10.0, 1e3])
def test_the_answer_does_not_depend_on_the_optimizers_lr(lr: float) -> None:
    usual = find_lr(*line(), squares)
    found = find_lr(*line(lr), squares)
    assert found.lr == pytest.approx(usual.lr, rel=0.3)
    assert found.low < usual.lr < found.high


def test_a_quadratics_lr_is_below_the_edge_of_stability() -> None:
    for scale in (0.1, 1.0, 10.0):  # curvature 2 scale^2, so the edge is at 1 / scale^2
        _, _, batches = line()
        model = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        data = [x * scale for x in batches]
        found = find_lr(model, optimizer, data, lambda model, x: (model(x) - 3 * x).pow(2).mean())
        assert 0.01 < found.lr * scale**2 < 0.9


def test_the_digits_are_learned_with_the_lr_that_it_finds() -> None:
    for seed in (0, 1):
        task = load_task("digits")
        seed_everything(seed)
        found = find_lr(*start(task), task.train, task.loss, total_steps=10 * task.steps_per_epoch)
        run = train(task, cosine(1, 0), lr=found.lr, seed=seed, total_steps=epochs(10))
        assert run.final("accuracy") >= 0.975


def test_a_longer_run_has_a_lower_lr() -> None:
    # An epoch has 64 steps, a short run 20.
    results = [find_lr(*line(), squares, total_steps=total) for total in (140, 192, 1920, 192_000)]
    usual = find_lr(*line(), squares)
    assert results[0].lr == usual.lr
    ratios = [result.lr / usual.lr for result in results]
    lengths = [(total / 140) ** -0.1 for total in (140, 192, 1920, 192_000)]
    passes = [1, 1, 10**-0.5, 1000**-0.5]
    assert ratios == pytest.approx([a * b for a, b in zip(lengths, passes, strict=True)])
    assert results[2].low / usual.low == pytest.approx(ratios[2])
    assert results[1].reason.endswith("; times 0.97 for a run of 192 steps")
    assert results[2].reason.endswith("for a run of 1920 steps that sees the data 30 times")


def test_a_stream_without_a_length_has_no_passes() -> None:
    model, optimizer, batches = line()
    found = find_lr(model, optimizer, lambda: iter(batches), squares, total_steps=1400)
    assert found.lr / find_lr(*line(), squares).lr == pytest.approx(10**-0.1)


def test_accumulation_makes_an_epoch_shorter() -> None:
    reason = find_lr(*line(), squares, accumulate=4, total_steps=480).reason
    assert reason.endswith("for a run of 480 steps that sees the data 30 times")
    reason = find_lr(*line(count=2), squares, accumulate=4, total_steps=480).reason
    assert reason.endswith("for a run of 480 steps that sees the data 960 times")


def test_param_groups_keep_the_ratios_of_their_lrs() -> None:
    model, _, batches = line()
    groups = [{"params": [model.weight], "lr": 1e-3}, {"params": [model.bias], "lr": 1e-2}]
    optimizer = torch.optim.SGD(groups)
    seen: list[float] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        low, high = (group["lr"] for group in optimizer.param_groups)
        seen.append(high)
        assert high == pytest.approx(10 * low)
        return squares(model, batch)

    found = find_lr(model, optimizer, batches, loss)
    assert max(seen) == pytest.approx(max(run.lr for run in found.runs))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]


def test_an_optimizer_whose_warm_up_begins_at_0_is_searched_from_its_own_lr() -> None:
    model, optimizer, batches = line(0.1)
    optimizer.param_groups[0].update(lr=0.0, initial_lr=0.1)
    assert find_lr(model, optimizer, batches, squares).lr == find_lr(*line(), squares).lr
    optimizer.param_groups[0].update(lr=0.0, initial_lr=0.0)
    assert find_lr(model, optimizer, batches, squares).lr == find_lr(*line(1e-3), squares).lr


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.LBFGS])
def test_other_optimizers_are_searched_too(kind) -> None:
    found = find_lr(*line(1e-2, kind=kind), squares)
    assert found.lr is not None
    assert found.optimizer == kind.__name__
    assert found.runs[len(found.runs) // 2].gain > 0


# Short runs


def test_every_short_run_sees_the_same_batches_and_is_judged_by_others() -> None:
    model, optimizer, batches = line(count=200)
    seen: list[int] = []
    numbers = {id(batch): i for i, batch in enumerate(batches)}

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append(numbers[id(batch)])
        return squares(model, batch)

    found = find_lr(model, optimizer, batches, loss)
    first = [run for run in found.runs if run.lot == 0]
    again = [run for run in found.runs if run.lot == 1]
    assert len(again) == 3
    run = [*range(4, 24), *range(4)]
    other = [i + 24 for i in run]
    assert seen == run[-4:] + run * len(first) + other[-4:] + other * len(again)
    assert {len(one.losses) for one in found.runs} == {20}
    assert {one.lr for one in again} < {one.lr for one in first}


def test_a_short_run_is_half_constant_and_then_falls_to_0() -> None:
    model, optimizer, batches = line()
    lrs: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: lrs.append(optimizer.param_groups[0]["lr"] / 0.1))
    find_lr(model, optimizer, batches, squares)
    assert lrs[:10] == pytest.approx([1.0] * 10)
    assert lrs[10:20] == pytest.approx([k / 11 for k in range(10, 0, -1)])


def test_a_gain_is_the_mean_fall_of_the_batches_that_are_kept() -> None:
    found = find_lr(*line(), squares)
    model, optimizer, batches = line()
    kept = batches[:4]
    before = torch.stack([squares(model, batch) for batch in kept]).detach()
    run = next(run for run in found.runs if run.lr == pytest.approx(0.1))
    for k, batch in enumerate(batches[4:24]):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, (20 - k) / 11)
        optimizer.zero_grad()
        squares(model, batch).backward()
        optimizer.step()
    falls = (before - torch.stack([squares(model, batch) for batch in kept])).detach()
    assert found.before == pytest.approx(before.mean().item())
    assert run.gain == pytest.approx(falls.mean().item(), rel=1e-5)
    assert run.noise == pytest.approx(falls.std().item() / 2, rel=1e-4)


def test_a_run_that_diverges_ends_there() -> None:
    found = find_lr(*line(1e30), squares, budget_steps=400)
    worst = found.runs[-1]
    assert worst.gain == -math.inf
    assert not math.isfinite(worst.losses[-1])
    assert len(worst.losses) < found.length
    assert found.steps == sum(len(run.losses) for run in found.runs)


# Cost


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(50, 500),
    lr=st.sampled_from([1e-5, 1e-2, 1.0]),
    accumulate=st.integers(1, 3),
)
def test_it_never_costs_more_than_was_allowed(steps: int, lr: float, accumulate: int) -> None:
    told: list[tuple[int, int]] = []
    found = find_lr(
        *line(lr), squares, budget_steps=steps, accumulate=accumulate,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert found.steps + found.looks / accumulate / 3 <= steps
    assert found.length == steps // 10
    assert told == [(k + 1, steps) for k in range(found.steps)]
    assert found.batches == found.batches // accumulate * accumulate
    assert found.cost.startswith(f"{found.steps} of {steps} steps in {len(found.runs)} short")


def test_short_runs_are_never_longer_than_the_run_to_come() -> None:
    assert find_lr(*line(), squares, total_steps=3).length == 3


# No answer


def test_where_nothing_is_learned_there_is_no_answer() -> None:
    found = find_lr(*line(), lambda model, batch: squares(model, batch) * 0 + 2)
    assert (found.lr, found.low, found.high) == (None, None, None)
    assert "no answer: " in found.reason
    assert "none gained anything, from a loss of 2" in found.reason
    assert "more steps=" in found.reason


def test_a_gain_that_is_only_luck_is_no_answer() -> None:
    generator = torch.Generator()

    def noise(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return squares(model, batch) * 0 + torch.rand(1, generator=generator)[0]

    without = 0
    for seed in range(20):
        generator.manual_seed(seed)
        without += find_lr(*line(), noise).lr is None
    assert without >= 16


def test_a_search_that_was_cut_short_is_no_answer() -> None:
    found = find_lr(*line(1e-25), squares)
    assert found.lr is None
    assert "no answer: " in found.reason
    assert found.steps <= 200
    late = find_lr(*line(100.0, kind=torch.optim.AdamW), squares, budget_steps=50)
    assert late.lr is None
    assert "before worse ones were seen on both sides; begin there" in late.reason


def test_where_every_run_diverges_it_says_so_soon() -> None:
    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return squares(model, batch) + (model.weight.sum() * 0).sqrt()  # its gradient is nan

    found = find_lr(*line(), loss)
    assert found.lr is None
    assert found.reason.startswith("no answer: all of ")
    assert "diverged; look for what makes the loss or its gradients nan" in found.reason
    assert len(found.runs) < 10


def test_a_flat_loss_does_not_raise_the_lr_for_ever() -> None:
    found = find_lr(*line(), lambda model, batch: squares(model, batch) * 0 + 1, total_steps=5)
    assert found.lr is None
    assert max(run.lr for run in found.runs) <= 1e4
    assert "more steps=" not in found.reason  # the run to come has no more


def test_other_batches_may_be_harder() -> None:
    """The three best lrs are tried again on batches whose loss is of another size."""
    model, optimizer, batches = line()
    usual = find_lr(model, optimizer, batches, squares)
    for factor in (0.1, 10.0):
        scale = {id(batch): factor for batch in batches[24:48]}

        def loss(model: nn.Module, batch: torch.Tensor, scale=scale) -> torch.Tensor:
            return squares(model, batch) * scale.get(id(batch), 1.0)

        found = find_lr(model, optimizer, batches, loss)
        again = {run.lr for run in found.runs if run.lot == 1}
        assert min(again) / 2 < found.lr < max(again) * 2
        assert found.lr == pytest.approx(usual.lr, rel=2)
        assert min(found.curve[1]) > -0.1 * found.before


def test_a_loss_may_need_gradients_of_its_own() -> None:
    def penalised(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        x = batch.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return squares(model, batch) + 0.01 * slope.pow(2).mean()

    assert find_lr(*line(), penalised).lr is not None


def test_a_run_of_one_step_is_tried_at_the_full_lr() -> None:
    model, optimizer, batches = line()
    lrs: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: lrs.append(optimizer.param_groups[0]["lr"]))
    find_lr(model, optimizer, batches, squares, total_steps=1)
    assert lrs[0] == pytest.approx(0.1)


# Mistakes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 49}, "steps=49: expected at least 50"),
        ({"total": 0}, "total_steps=0: expected the run's length in steps"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"clip": -1.0}, "clip=-1.0: expected a norm above 0"),
    ],
)
def test_a_wrong_setting_is_told(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        find_lr(*line(), squares, **wrong)


def test_a_loss_that_is_nan_before_training_is_told() -> None:
    with pytest.raises(RunFailed, match="the loss is nan before any training"):
        find_lr(*line(), lambda model, batch: squares(model, batch) * math.nan)


@pytest.mark.parametrize("bad", [1.0, None, torch.tensor(1.0), torch.empty(0)])
def test_a_loss_that_is_no_loss_is_told(bad: Any) -> None:
    with pytest.raises(TaskError, match=r"loss\(model, batch\) returned"):
        find_lr(*line(), lambda model, batch: bad)


def test_lengths_must_be_whole_numbers(tmp_path) -> None:
    found = find_lr(*line(), squares, total_steps=np.int64(500), budget_steps=np.int64(100))
    assert load(found.save(tmp_path / "r.json")) == found
    with pytest.raises(TypeError):
        find_lr(*line(), squares, budget_steps=200.0)


def test_a_stream_and_an_empty_loader_are_refused() -> None:
    model, optimizer, batches = line()
    with pytest.raises(TaskError, match="one-way stream"):
        find_lr(model, optimizer, iter(batches), squares)
    with pytest.raises(TaskError, match="gave no batch"):
        find_lr(model, optimizer, [], squares)


def test_a_result_survives_its_file(tmp_path) -> None:
    found = find_lr(*line(1e30), squares, budget_steps=400, total_steps=1000, task="a line")
    assert load(found.save(tmp_path / "r.json")) == found


def test_a_search_that_leaves_what_is_sensible_says_so() -> None:
    # A loss that wants weights of a billion: each decade of the lr gains more.
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
    found = find_lr(
        model, optimizer, [torch.ones(4, 1)] * 64, lambda m, x: 1e9 - m(x).mean(), budget_steps=2000
    )
    assert found.lr is None
    assert "lrs as far as 1e+05 are not tried" in found.reason
    assert found.steps < 1000

"""find_lr: its result, its cost, and the restored state."""

import math
import re
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
from ratecraft.experiments._train import create_model_and_optimizer
from ratecraft.finder import find_lr
from ratecraft.results import load


@pytest.fixture(autouse=True)
def one_thread():
    """More threads do not help tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def line(lr: float = 0.1, count: int = 64, optimizer_class=torch.optim.SGD, **options: Any):
    """Return a linear model, its optimizer, and batches of eight points."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.randn(8 * count, 1)
    return model, optimizer_class(model.parameters(), lr=lr, **options), list(x.split(8))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


# Restored state


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
def test_later_training_is_bitwise_unchanged(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert torch.equal(untouched[2], touched[2])
    assert touched[4] == untouched[4]


# Result


@pytest.mark.parametrize("lr", [1e-6, 1e-3, 0.1, 10.0, 1e3])
def test_result_does_not_depend_on_the_start_lr(lr: float) -> None:
    usual = find_lr(*line(), squares)
    result = find_lr(*line(lr), squares)
    assert result.lr == pytest.approx(usual.lr, rel=0.3)
    assert result.lr_low < usual.lr < result.lr_high


def test_lr_of_a_quadratic_is_below_the_edge_of_stability() -> None:
    for scale in (0.1, 1.0, 10.0):  # curvature 2 scale^2, so the edge is at 1 / scale^2
        _, _, batches = line()
        model = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        data = [x * scale for x in batches]
        result = find_lr(model, optimizer, data, lambda model, x: (model(x) - 3 * x).pow(2).mean())
        assert 0.01 < result.lr * scale**2 < 0.9


def test_digits_reach_high_accuracy_with_the_lr() -> None:
    for seed in (0, 1):
        task = load_task("digits")
        seed_everything(seed)
        model, optimizer = create_model_and_optimizer(task)
        result = find_lr(
            model, optimizer, task.train, task.loss, total_steps=10 * task.steps_per_epoch
        )
        run = train(task, cosine(1, 0), lr=result.lr, seed=seed, total_steps=epochs(10))
        assert run.final("accuracy") >= 0.975


def test_longer_run_gets_a_lower_lr() -> None:
    # An epoch has 64 steps, a short run 20.
    results = [find_lr(*line(), squares, total_steps=total) for total in (140, 192, 1920, 192_000)]
    usual = find_lr(*line(), squares)
    assert results[0].lr == usual.lr
    ratios = [result.lr / usual.lr for result in results]
    lengths = [(total / 140) ** -0.1 for total in (140, 192, 1920, 192_000)]
    passes = [1, 1, 10**-0.5, 1000**-0.5]
    assert ratios == pytest.approx([a * b for a, b in zip(lengths, passes, strict=True)])
    assert results[2].lr_low / usual.lr_low == pytest.approx(ratios[2])
    assert results[0].reason.endswith(f" = {usual.lr:.3g}")
    assert f"; times 0.969 for a run of 192 steps: {results[1].lr:.3g}" in results[1].reason
    assert " for a run of 1920 steps (30 epochs): " in results[2].reason


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w.])\d[\d.]*(?:e-?\d+)?", text)]


def mean_decreases(table: str) -> dict[float, float]:
    """Return the decrease of each lr in a printed table, the mean of its runs."""
    decreases: dict[float, list[float]] = {}
    for row in table.splitlines()[1:]:
        lr, loss, *others = row.split()
        decreases.setdefault(float(lr), []).append(
            -math.inf if loss == "diverged" else float(others[0])
        )
    return {lr: sum(values) / len(values) for lr, values in decreases.items()}


def lr_at_90_percent(decreases: dict[float, float], best: float) -> float:
    """Return where the line through the decreases at lrs below the best reaches 90 % of its."""
    threshold, edge = 0.9 * decreases[best], best
    for lr in sorted((lr for lr in decreases if lr < best), reverse=True):
        if decreases[lr] < threshold:
            share = (decreases[edge] - threshold) / (decreases[edge] - decreases[lr])
            return edge * (lr / edge) ** share
        edge = lr
    return edge


@pytest.mark.parametrize("total_steps", [None, 192, 221, 1920])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_printed_runs_and_reason_lead_to_the_lr_in_steps(total_steps, optimizer_class) -> None:
    result = find_lr(*line(1e-2, optimizer_class=optimizer_class), squares, total_steps=total_steps)
    table, _, verdict = str(result).rpartition("\n")
    decreases = mean_decreases(table)
    assert len(table.splitlines()) == 1 + len(result.runs)
    runs, parabola, share, fit, *product = verdict.split("; ")
    best, before, after = numbers_in(runs)[-3:]
    assert max(lr for lr in decreases if decreases[lr] == max(decreases.values())) == best
    assert before - after == pytest.approx(decreases[best], rel=1e-3)

    (*points, vertex) = numbers_in(parabola)
    gains, lrs = points[::2], points[1::2]
    assert lrs[1] == best
    assert gains == pytest.approx([decreases[lr] for lr in lrs], rel=1e-4)
    offset = (gains[2] - gains[0]) / (2 * gains[1] - gains[0] - gains[2])
    assert vertex == pytest.approx(best * 10 ** (offset / 4), rel=0.01)

    _, low = numbers_in(share.replace("%", " %"))
    assert low == pytest.approx(lr_at_90_percent(decreases, best), rel=0.01)
    assert re.fullmatch(r"fitted lr [\de.-]+\^0.75 \* [\de.-]+\^0.25 = [\de.-]+", fit)
    assert numbers_in(fit)[0] == vertex
    fitted = numbers_in(fit)[-1]
    assert fitted == pytest.approx(vertex**0.75 * low**0.25, rel=0.01)
    if product:
        factor, *_, lr = numbers_in(product[0])
        assert lr == pytest.approx(factor * fitted, rel=0.015)
        fitted = lr
    assert fitted == float(f"{result.lr:.3g}")
    assert verdict.startswith(f"{fitted:g} ({result.lr_low:.3g} to {result.lr_high:.3g} are almost")


def test_reason_says_why_there_is_no_parabola() -> None:
    # At higher lrs than the best one, the loss is nan.
    model, optimizer, batches = line(1e-3)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        factor = math.nan if optimizer.param_groups[0]["lr"] > 0.05 else 1.0
        return squares(model, batch) * factor

    result = find_lr(model, optimizer, batches, loss)
    text = "; no parabola, because lr 0.1 diverged: vertex at 0.0251, 0.1 decades below the best; "
    assert text in result.reason
    assert re.search(r"\n +0\.1 +diverged ", str(result))


def test_loader_without_length_gets_no_correction_for_passes() -> None:
    model, optimizer, batches = line()
    result = find_lr(model, optimizer, lambda: iter(batches), squares, total_steps=1400)
    assert result.lr / find_lr(*line(), squares).lr == pytest.approx(10**-0.1)


def test_accumulation_increases_the_number_of_passes() -> None:
    reason = find_lr(*line(), squares, accumulate=4, total_steps=480).reason
    assert " for a run of 480 steps (30 epochs): " in reason
    reason = find_lr(*line(count=2), squares, accumulate=4, total_steps=480).reason
    assert " for a run of 480 steps (960 epochs): " in reason


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

    result = find_lr(model, optimizer, batches, loss)
    assert max(seen) == pytest.approx(max(run.lr for run in result.runs))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]


def test_search_starts_at_initial_lr_when_a_warm_up_starts_at_0() -> None:
    model, optimizer, batches = line(0.1)
    optimizer.param_groups[0].update(lr=0.0, initial_lr=0.1)
    assert find_lr(model, optimizer, batches, squares).lr == find_lr(*line(), squares).lr
    optimizer.param_groups[0].update(lr=0.0, initial_lr=0.0)
    assert find_lr(model, optimizer, batches, squares).lr == find_lr(*line(1e-3), squares).lr


@pytest.mark.parametrize(
    "optimizer_class", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.LBFGS]
)
def test_other_optimizers(optimizer_class) -> None:
    result = find_lr(*line(1e-2, optimizer_class=optimizer_class), squares)
    assert result.lr is not None
    assert result.optimizer == optimizer_class.__name__
    assert result.runs[len(result.runs) // 2].gain > 0


# Short runs


def test_all_short_runs_train_on_the_same_batches_and_evaluate_on_others() -> None:
    model, optimizer, batches = line(count=200)
    seen: list[int] = []
    numbers = {id(batch): i for i, batch in enumerate(batches)}

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append(numbers[id(batch)])
        return squares(model, batch)

    result = find_lr(model, optimizer, batches, loss)
    first = [run for run in result.runs if run.batch_set == 0]
    again = [run for run in result.runs if run.batch_set == 1]
    assert len(again) == 3
    first_set = [*range(4, 24), *range(4)]
    next_set = [i + 24 for i in first_set]
    expected = first_set[-4:] + first_set * len(first)
    assert seen == expected + next_set[-4:] + next_set * len(again)
    assert {len(run.losses) for run in result.runs} == {20}
    assert {run.lr for run in again} < {run.lr for run in first}


def test_short_run_is_half_constant_then_linear_to_0() -> None:
    model, optimizer, batches = line()
    lrs: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: lrs.append(optimizer.param_groups[0]["lr"] / 0.1))
    find_lr(model, optimizer, batches, squares)
    assert lrs[:10] == pytest.approx([1.0] * 10)
    assert lrs[10:20] == pytest.approx([k / 11 for k in range(10, 0, -1)])


def test_gain_is_the_mean_decrease_of_the_loss_on_the_evaluation_batches() -> None:
    result = find_lr(*line(), squares)
    model, optimizer, batches = line()
    eval_batches = batches[:4]
    before = torch.stack([squares(model, batch) for batch in eval_batches]).detach()
    run = next(run for run in result.runs if run.lr == pytest.approx(0.1))
    for k, batch in enumerate(batches[4:24]):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1, (20 - k) / 11)
        optimizer.zero_grad()
        squares(model, batch).backward()
        optimizer.step()
    decreases = (before - torch.stack([squares(model, batch) for batch in eval_batches])).detach()
    assert result.initial_loss == pytest.approx(before.mean().item())
    assert run.gain == pytest.approx(decreases.mean().item(), rel=1e-5)
    assert run.noise == pytest.approx(decreases.std().item() / 2, rel=1e-4)


def test_diverging_run_ends_early() -> None:
    result = find_lr(*line(1e30), squares, budget_steps=400)
    worst = result.runs[-1]
    assert worst.gain == -math.inf
    assert not math.isfinite(worst.losses[-1])
    assert len(worst.losses) < result.run_steps
    assert result.steps == sum(len(run.losses) for run in result.runs)


# Cost


@settings(max_examples=20, deadline=None)
@given(
    budget_steps=st.integers(50, 500),
    lr=st.sampled_from([1e-5, 1e-2, 1.0]),
    accumulate=st.integers(1, 3),
)
def test_cost_stays_within_the_budget(budget_steps: int, lr: float, accumulate: int) -> None:
    calls: list[tuple[int, int]] = []
    result = find_lr(
        *line(lr), squares, budget_steps=budget_steps, accumulate=accumulate,
        progress=lambda *done: calls.append(done),
    )  # fmt: skip
    assert result.steps + result.eval_batches / accumulate / 3 <= budget_steps
    assert result.run_steps == budget_steps // 10
    assert calls == [(k + 1, budget_steps) for k in range(result.steps)]
    assert result.batches == result.batches // accumulate * accumulate
    assert result.cost.startswith(
        f"{result.steps} of {budget_steps} steps in {len(result.runs)} short"
    )


def test_short_runs_are_at_most_as_long_as_the_run() -> None:
    assert find_lr(*line(), squares, total_steps=3).run_steps == 3


# No answer


def test_constant_loss_gives_no_lr() -> None:
    result = find_lr(*line(), lambda model, batch: squares(model, batch) * 0 + 2)
    assert (result.lr, result.lr_low, result.lr_high) == (None, None, None)
    assert result.verdict().startswith("No learning rate found: none of ")
    assert " lowered the loss from 2; " in result.reason
    assert "more budget_steps=" in result.reason


def test_gain_within_the_noise_gives_no_lr() -> None:
    generator = torch.Generator()

    def noise(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return squares(model, batch) * 0 + torch.rand(1, generator=generator)[0]

    refused = 0
    for seed in range(20):
        generator.manual_seed(seed)
        refused += find_lr(*line(), noise).lr is None
    assert refused >= 16


def test_spent_budget_gives_no_lr() -> None:
    result = find_lr(*line(1e-25), squares)
    assert result.lr is None
    assert result.reason.startswith("no learning rate found: ")
    assert result.steps <= 200
    late = find_lr(*line(100.0, optimizer_class=torch.optim.AdamW), squares, budget_steps=50)
    assert late.lr is None
    assert "before worse ones were seen on both sides; set the optimizer's lr" in late.reason


def test_search_stops_soon_when_every_run_diverges() -> None:
    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return squares(model, batch) + (model.weight.sum() * 0).sqrt()  # its gradient is nan

    result = find_lr(*line(), loss)
    assert result.lr is None
    assert result.reason.startswith("no learning rate found: all of ")
    assert "diverged; check why the loss or its gradients are nan" in result.reason
    assert len(result.runs) < 10


def test_constant_loss_does_not_raise_the_lr_without_bound() -> None:
    result = find_lr(*line(), lambda model, batch: squares(model, batch) * 0 + 1, total_steps=5)
    assert result.lr is None
    assert max(run.lr for run in result.runs) <= 1e4
    assert "more budget_steps=" not in result.reason  # the run itself is no longer


def test_second_batch_set_may_have_another_loss_scale() -> None:
    """The best three lrs run again on batches whose loss is scaled."""
    model, optimizer, batches = line()
    usual = find_lr(model, optimizer, batches, squares)
    for factor in (0.1, 10.0):
        scale = {id(batch): factor for batch in batches[24:48]}

        def loss(model: nn.Module, batch: torch.Tensor, scale=scale) -> torch.Tensor:
            return squares(model, batch) * scale.get(id(batch), 1.0)

        result = find_lr(model, optimizer, batches, loss)
        again = {run.lr for run in result.runs if run.batch_set == 1}
        assert min(again) / 2 < result.lr < max(again) * 2
        assert result.lr == pytest.approx(usual.lr, rel=2)
        assert min(result.curve[1]) > -0.1 * result.initial_loss


def test_loss_may_compute_gradients() -> None:
    def penalised(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        x = batch.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return squares(model, batch) + 0.01 * slope.pow(2).mean()

    assert find_lr(*line(), penalised).lr is not None


def test_short_run_of_one_step_uses_the_full_lr() -> None:
    model, optimizer, batches = line()
    lrs: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: lrs.append(optimizer.param_groups[0]["lr"]))
    find_lr(model, optimizer, batches, squares, total_steps=1)
    assert lrs[0] == pytest.approx(0.1)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_steps": 49}, "budget_steps=49: expected at least 50"),
        ({"total_steps": 0}, "total_steps=0: expected the run's length in steps"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"clip": -1.0}, "clip=-1.0: expected a norm above 0"),
    ],
)
def test_invalid_argument_raises(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        find_lr(*line(), squares, **arguments)


def test_nan_loss_before_training_raises() -> None:
    with pytest.raises(RunFailed, match="the loss is nan before any training"):
        find_lr(*line(), lambda model, batch: squares(model, batch) * math.nan)


@pytest.mark.parametrize("bad", [1.0, None, torch.tensor(1.0), torch.empty(0)])
def test_loss_that_is_not_a_differentiable_tensor_raises(bad: Any) -> None:
    with pytest.raises(TaskError, match=r"loss\(model, batch\) returned"):
        find_lr(*line(), lambda model, batch: bad)


def test_step_counts_must_be_integers(tmp_path) -> None:
    result = find_lr(*line(), squares, total_steps=np.int64(500), budget_steps=np.int64(100))
    assert load(result.save(tmp_path / "r.json")) == result
    with pytest.raises(TypeError):
        find_lr(*line(), squares, budget_steps=200.0)


def test_stream_and_empty_loader_raise() -> None:
    model, optimizer, batches = line()
    with pytest.raises(TaskError, match="can be iterated only once"):
        find_lr(model, optimizer, iter(batches), squares)
    with pytest.raises(TaskError, match="the loader is empty"):
        find_lr(model, optimizer, [], squares)


def test_saved_result_loads_unchanged(tmp_path) -> None:
    result = find_lr(*line(1e30), squares, budget_steps=400, total_steps=1000, task="a line")
    assert load(result.save(tmp_path / "r.json")) == result


def test_search_stops_at_the_largest_lr() -> None:
    # The optimum is at weights of about 1e9, so each decade of the lr gains more.
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
    result = find_lr(
        model, optimizer, [torch.ones(4, 1)] * 64, lambda m, x: 1e9 - m(x).mean(), budget_steps=2000
    )
    assert result.lr is None
    assert "the search would go on to lr 1e+05, outside the range it tries" in result.reason
    assert result.steps < 1000

"""Arguments of range_test and its result."""

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ratecraft.errors import SettingError, TaskError
from ratecraft.finder import range_test
from ratecraft.results import LRRangeTestResult, load


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads do not help tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def line(lr: float = 0.1, momentum: float = 0.0):
    """Return a linear model, its optimizer, and eight batches of data."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 64)[torch.randperm(64)][:, None]
    return model, torch.optim.SGD(model.parameters(), lr, momentum), list(x.split(8))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def weights(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def observed(read):
    """Return a loss that records ``read(model)`` before each call, and the list of records."""
    values: list[Any] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        values.append(read(model))
        return squares(model, batch)

    return loss, values


def curve(result: LRRangeTestResult) -> LRRangeTestResult:
    """Return a result without its cost."""
    return dataclasses.replace(result, seconds=0.0, batches=0)


# LRs


def test_linear_spacing() -> None:
    model, optimizer, batches = line()
    loss, lrs = observed(lambda _: optimizer.param_groups[0]["lr"])
    result = range_test(
        model, optimizer, batches, loss, low=0.1, high=0.5, steps=5, spacing="linear"
    )
    assert result.lrs == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert lrs == list(result.lrs)
    assert result.spacing == "linear"


def test_geometric_spacing_reaches_both_ends() -> None:
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches, squares, low=1e-5, high=1e-2, steps=40)
    assert (result.lrs[0], result.lrs[-1]) == (1e-5, pytest.approx(1e-2))
    ratios = [b / a for a, b in pairwise(result.lrs)]
    assert ratios == pytest.approx([1000 ** (1 / 39)] * 39)


# Accumulation


def trained_by_hand(model, batches, lrs, accumulate: int) -> list[list[float]]:
    """Return the weights before each batch, with the mean gradient of ``accumulate`` batches."""
    path = []
    for k, lr in enumerate(lrs):
        gradients = []
        for i in range(accumulate):
            path.append(weights(model))
            batch = batches[(k * accumulate + i) % len(batches)]
            gradients.append(torch.autograd.grad(squares(model, batch), list(model.parameters())))
        with torch.no_grad():
            for parameter, *parts in zip(model.parameters(), *gradients, strict=True):
                parameter.sub_(lr * sum(parts) / accumulate)
    return path


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_accumulate_averages_the_gradients_of_the_batches(accumulate: int) -> None:
    model, optimizer, batches = line()
    loss, path = observed(weights)
    result = range_test(
        model, optimizer, batches, loss, accumulate=accumulate, steps=12, low=0.01, high=0.3
    )
    assert result.batches == accumulate * 12 == len(path)
    expected = trained_by_hand(line()[0], batches, result.lrs, accumulate)
    assert np.allclose(path, expected, rtol=1e-4, atol=1e-5)
    other = trained_by_hand(line()[0], batches, result.lrs[: 12 // 2], 2 * accumulate)
    assert not np.allclose(path, other, rtol=1e-4, atol=1e-5)


def test_accumulate_averages_the_losses() -> None:
    model, optimizer, batches = line()
    first = [squares(model, batch).item() for batch in batches[:2]]
    result = range_test(model, optimizer, batches, squares, accumulate=2, steps=4)
    assert result.losses[0] == pytest.approx(sum(first) / 2)


def test_accumulate_reduces_the_default_number_of_steps() -> None:
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches * 50, squares, accumulate=2, high=1e-4)
    assert (result.planned_steps, result.batches) == (200, 400)


# Clipping and scaling


def norms_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return a list that records the norm of the gradients before each step."""
    norms: list[float] = []

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parts = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(parts).norm().item())

    optimizer.register_step_pre_hook(record)
    return norms


def halve(parameters: list[torch.Tensor]) -> None:
    nn.utils.clip_grad_norm_(parameters, 0.25)


@pytest.mark.parametrize(("clip", "limit"), [(0.5, 0.5), (halve, 0.25)], ids=["norm", "function"])
@pytest.mark.parametrize("scale", [None, 2.0**14], ids=["plain", "scaled"])
def test_clip_limits_the_norm_of_the_gradients(clip, limit: float, scale: float | None) -> None:
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    model, optimizer, batches = line()
    norms = norms_of(optimizer)
    settings = {"steps": 20, "high": 0.1, "scaler": scaler}
    range_test(model, optimizer, batches, squares, **settings)
    free, norms[:] = list(norms), []
    range_test(model, optimizer, batches, squares, clip=clip, **settings)
    assert min(free) > limit
    assert norms == pytest.approx([limit] * 20, rel=1e-4)


def test_a_grad_scaler_does_not_change_the_result() -> None:
    model, optimizer, batches = line()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=10)
    result = range_test(model, optimizer, batches, squares, scaler=scaler)
    plain = range_test(model, optimizer, batches, squares)
    assert curve(result).losses == pytest.approx(plain.losses)
    assert result.suggestion == plain.suggestion
    assert scaler.get_scale() == 2.0**8  # it grew during the test


def test_a_grad_scaler_skips_steps_whose_gradients_overflow() -> None:
    model, optimizer, batches = line()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    path = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        path.append(weights(model))
        return 10 * squares(model, batch)

    range_test(model, optimizer, batches, loss, scaler=scaler, steps=20, low=1e-3, high=1e-2)
    assert path[0] == path[1]  # the first gradient is inf
    assert path[-1] != path[-2]
    assert all(math.isfinite(value) for value in path[-1])


# Optimizers


def test_lbfgs_gets_a_closure() -> None:
    model, _, batches = line()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=3)
    loss, path = observed(weights)
    whole = [torch.cat(batches)]
    result = range_test(model, optimizer, whole, loss, low=1e-6, high=1.0, steps=40)
    assert len(result.losses) == result.batches == 40
    assert len(path) > 40  # several evaluations per step
    assert result.losses[-1] < 0.01 * result.losses[0]
    assert result.optimizer == "LBFGS"
    assert not optimizer.state


def test_lbfgs_is_refused_with_a_scaler_or_a_second_optimizer() -> None:
    model, other, batches = line()
    optimizer = torch.optim.LBFGS(model.parameters())
    refused = pytest.raises(
        TaskError, match="needs a closure works only as the single optimizer, without"
    )
    with refused:
        range_test(model, optimizer, batches, squares, scaler=torch.amp.GradScaler("cpu"))
    with refused:
        range_test(model, [optimizer, other], batches, squares)


def test_two_optimizers_keep_the_ratios_of_their_lrs() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(1, 2), nn.Linear(2, 1)]
    optimizers = [
        torch.optim.SGD(models[0].parameters(), lr=0.02),
        torch.optim.Adam(
            [{"params": [models[1].weight], "lr": 0.1}, {"params": [models[1].bias], "lr": 0.05}]
        ),
    ]
    lrs, path = [], []

    def loss(both: Any, batch: torch.Tensor) -> torch.Tensor:
        assert both is models
        lrs.append([group["lr"] for opt in optimizers for group in opt.param_groups])
        path.append(weights(both[0]) + weights(both[1]))
        return squares(nn.Sequential(*both), batch)

    _, _, batches = line()
    result = range_test(models, optimizers, batches, loss, steps=8, low=0.01, high=0.1)
    for lr, (first, second, third) in zip(result.lrs, lrs, strict=True):
        assert (first, second, third) == pytest.approx((0.2 * lr, lr, 0.5 * lr))
    assert all(a != b for a, b in zip(path[0], path[-1], strict=True))  # both are trained
    assert result.optimizer == "SGD and Adam"
    restored = [group["lr"] for opt in optimizers for group in opt.param_groups]
    assert restored == [0.02, 0.1, 0.05]


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda g: g["momentum"]),
        (lambda p: torch.optim.Adam(p, lr=0.1), lambda g: g["betas"][0]),
        (lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.99)), lambda g: g["betas"][0]),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
def test_momentum_is_interpolated_from_first_to_last(make, read) -> None:
    model, _, batches = line()
    optimizer = make(model.parameters())
    group = optimizer.param_groups[0]
    before, rest = read(group), group.get("betas", (0, 0))[1]
    loss, momenta = observed(lambda _: (read(group), group.get("betas", (0, 0))[1]))
    range_test(model, optimizer, batches, loss, steps=5, momentum=(0.95, 0.85), high=1e-2)
    assert [first for first, _ in momenta] == pytest.approx([0.95, 0.925, 0.9, 0.875, 0.85])
    assert [second for _, second in momenta] == [rest] * 5
    assert read(group) == before


def test_ratios_come_from_initial_lr_when_a_warm_up_starts_at_0() -> None:
    model, _, batches = line()
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.02}]
    )
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.0, 0.0]
    loss, lrs = observed(lambda _: [group["lr"] for group in groups])
    result = range_test(model, optimizer, batches, loss, steps=6)
    assert [pair[0] for pair in lrs] == pytest.approx(result.lrs)
    assert [pair[1] / pair[0] for pair in lrs] == pytest.approx([0.2] * 6)
    assert [group["lr"] for group in groups] == [0.0, 0.0]


# Checks


def scaled_from_call(at: int | None, factor: float):
    """Return a loss that is multiplied by a factor from a call on, and the list of calls."""
    calls: list[int] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        return squares(model, batch) * (factor if at is not None and len(calls) > at else 1.0)

    return loss, calls


@pytest.mark.parametrize(
    ("at", "factor", "high"),
    [
        (None, 1.0, 1e-2),  # all steps are taken
        (None, 1.0, 1e3),  # the loss diverges
        *((at, math.nan, 1e-2) for at in (1, 7, 8, 9, 40, 99)),
        *((at, math.inf, 1e-2) for at in (1, 41)),
        *((at, 1e6, 1e-2) for at in (11, 16, 43)),  # the first ten losses never count as divergence
    ],
)
def test_check_every_does_not_change_the_result(at: int | None, factor: float, high: float) -> None:
    results, steps = [], []
    for check_every in (1, 8):
        model, optimizer, batches = line()
        loss, calls = scaled_from_call(at, factor)
        result = range_test(model, optimizer, batches, loss, high=high, check_every=check_every)
        results.append(curve(result))
        steps.append(len(calls))
        assert result.batches == len(calls)
    assert repr(results[0]) == repr(results[1])
    assert 0 <= steps[1] - steps[0] <= 7
    if at is not None:
        assert steps[0] == at + 1


class DeviceSyncs(TorchDispatchMode):
    """Counts numbers that are read from a tensor, which make a program wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op is torch.ops.aten._local_scalar_dense.default
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(("check_every", "syncs"), [(8, 0), (1, 64)])
def test_no_number_is_read_from_a_tensor_between_two_checks(check_every: int, syncs: int) -> None:
    model, _, batches = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with DeviceSyncs() as seen:
        result = range_test(
            model,
            optimizer,
            batches,
            squares,
            steps=64,
            high=1e-2,
            clip=1.0,
            check_every=check_every,
        )
    # A single loss is read by item(); several are read in one transfer for each check.
    assert len(result.losses) == 64
    assert seen.count in (syncs, syncs + 1)  # the first step is checked by itself


def test_check_every_takes_no_steps_beyond_the_planned_ones() -> None:
    for check_every in (3, 8, 1000):
        model, optimizer, batches = line()
        loss, calls = scaled_from_call(None, 1.0)
        range_test(model, optimizer, batches, loss, high=1e-2, steps=50, check_every=check_every)
        assert len(calls) == 50


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"low": 0}, r"low=0, high=10: expected 0 < low < high, both finite"),
        ({"low": -1}, r"low=-1, high=10"),
        ({"low": 1, "high": 1}, r"low=1, high=1"),
        ({"low": math.nan}, r"low=nan"),
        ({"high": math.inf}, r"high=inf: expected"),
        ({"beta": 1}, r"beta=1, stop=4: expected 0 <= beta < 1 and stop > 1"),
        ({"beta": -0.1}, r"beta=-0.1"),
        ({"stop": 1}, r"beta=0.98, stop=1"),
        ({"accumulate": 0}, r"accumulate=0, check_every=None: expected >= 1"),
        ({"check_every": 0}, r"accumulate=1, check_every=0: expected >= 1"),
        ({"spacing": "cubic"}, r"spacing='cubic': expected \"geometric\" or \"linear\""),
        ({"steps": 1}, r"steps=1: a range test needs at least 2"),
        ({"steps": -5}, r"steps=-5"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_invalid_argument_raises(settings: dict[str, Any], words: str) -> None:
    model, optimizer, batches = line()
    with pytest.raises(SettingError, match=words):
        range_test(model, optimizer, batches, squares, **settings)


def test_momentum_of_an_optimizer_without_momentum_raises() -> None:
    model, _, batches = line()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    with pytest.raises(SettingError, match="momentum=: this optimizer has neither momentum nor"):
        range_test(model, optimizer, batches, squares, momentum=(0.9, 0.8))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_progress_is_called_after_each_step() -> None:
    model, optimizer, batches = line()
    calls: list[tuple[int, int]] = []
    result = range_test(
        model, optimizer, batches, squares, high=1e3, progress=lambda *done: calls.append(done)
    )
    assert len(result.losses) < 100  # the loss diverged
    assert calls == [(k + 1, 100) for k in range(len(result.losses))]


# Results


def test_saved_result_loads_with_all_fields(tmp_path: Path) -> None:
    model, optimizer, batches = line()
    measured = range_test(
        model, optimizer, batches, squares, low=1e-3, high=5.0, steps=60, spacing="linear",
        accumulate=2, task="a line",
    )  # fmt: skip
    result = dataclasses.replace(measured, seed=3)
    for field in dataclasses.fields(result):
        if field.default is not dataclasses.MISSING:
            assert getattr(result, field.name) != field.default, field.name
    loaded = load(result.save(tmp_path / "result.json"))
    assert isinstance(loaded, LRRangeTestResult)
    for field in dataclasses.fields(result):
        value = getattr(loaded, field.name)
        assert value == getattr(result, field.name), field.name
        assert type(value) is type(getattr(result, field.name)), field.name
    assert loaded == result


# The suggestion


@pytest.fixture(scope="module")
def realistic() -> LRRangeTestResult:
    """Return the curve of a small network that separates four Gaussian clusters."""
    torch.manual_seed(0)
    y = torch.arange(512) % 4
    x = torch.randn(4, 8)[y] + 0.8 * torch.randn(512, 8)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = list(zip(x.split(32), y.split(32), strict=True))

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return range_test(model, optimizer, batches, loss, low=1e-6, steps=200)


def test_a_realistic_curve_gets_a_usable_suggestion(realistic) -> None:
    lowest = realistic.smoothed.index(min(realistic.smoothed))
    assert 1e-3 <= realistic.suggestion <= 1.0
    assert realistic.suggestion == realistic.lrs[lowest] / 10
    assert "a tenth of the lr at the minimum" in realistic.reason

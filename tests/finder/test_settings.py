"""Each setting of the range test, what its result holds, and the rules that read it."""

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ratecraft.errors import SettingError, TaskError
from ratecraft.finder import range_test
from ratecraft.results import LRRangeTestResult, load
from ratecraft.results._range_test_rules import RULES, suggest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of this size gain nothing from more, and wait for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def line(lr: float = 0.1, momentum: float = 0.0):
    """Return a model of a line, its optimizer, and eight batches of data."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 64)[torch.randperm(64)][:, None]
    return model, torch.optim.SGD(model.parameters(), lr, momentum), list(x.split(8))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def weights(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def seen(look):
    """Return a loss that looks at the model before each call, and what it has seen."""
    found: list[Any] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        found.append(look(model))
        return squares(model, batch)

    return loss, found


def curve(result: LRRangeTestResult) -> LRRangeTestResult:
    """Return a result without what it cost."""
    return dataclasses.replace(result, seconds=0.0, batches=0)


# LRs


def test_linear_spacing() -> None:
    model, optimizer, batches = line()
    loss, lrs = seen(lambda _: optimizer.param_groups[0]["lr"])
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


# Control variate


def test_a_control_variate_takes_the_luck_of_the_batches_away() -> None:
    model, optimizer, batches = line()
    uneven = [batch * (i + 1) for i, batch in enumerate(batches)]  # some batches are far harder
    plain = range_test(model, optimizer, uneven, squares, high=1e-5, steps=40)
    result = range_test(model, optimizer, uneven, squares, high=1e-5, steps=40, control=8)
    assert max(plain.smoothed) - min(plain.smoothed) > 1
    assert result.smoothed == pytest.approx([result.smoothed[0]] * 40, rel=2e-3)
    assert result.losses == pytest.approx(plain.losses)  # what is recorded is what was measured
    assert result.batches == 8
    assert result.control == 8


def test_a_control_variate_is_smoothed_over_the_distance_from_the_start() -> None:
    model, optimizer, batches = line()
    starts = [squares(model, batch).item() for batch in batches[:3]]
    result = range_test(model, optimizer, batches, squares, steps=30, control=3, beta=0.5)
    average = 0.0
    for k, (loss, smooth) in enumerate(zip(result.losses, result.smoothed, strict=True)):
        average = 0.5 * average + 0.5 * (loss - starts[k % 3])
        assert smooth == pytest.approx(sum(starts) / 3 + average / (1 - 0.5 ** (k + 1)))
    assert result.suggestion == result.suggest("minimum/4").lr
    assert result.suggestion == result.lrs[result.smoothed.index(min(result.smoothed))] / 4


def test_a_control_variate_sees_a_curve_that_never_falls() -> None:
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches, squares, high=1e-6, control=8)
    assert result.suggestion is None
    assert result.reason == "no suggestion: the smoothed loss never fell by 5 %"
    with pytest.raises(SettingError, match="control=-1"):
        range_test(model, optimizer, batches, squares, control=-1)


# Accumulation


def trained_by_hand(model, batches, lrs, few: int) -> list[list[float]]:
    """Return the weights before each batch, where a step takes the mean gradient of a few."""
    path = []
    for k, lr in enumerate(lrs):
        gradients = []
        for i in range(few):
            path.append(weights(model))
            batch = batches[(k * few + i) % len(batches)]
            gradients.append(torch.autograd.grad(squares(model, batch), list(model.parameters())))
        with torch.no_grad():
            for parameter, *parts in zip(model.parameters(), *gradients, strict=True):
                parameter.sub_(lr * sum(parts) / few)
    return path


@pytest.mark.parametrize("few", [1, 2, 3])
def test_accumulate_takes_the_mean_gradient_of_some_batches(few: int) -> None:
    model, optimizer, batches = line()
    loss, path = seen(weights)
    result = range_test(
        model, optimizer, batches, loss, accumulate=few, steps=12, low=0.01, high=0.3
    )
    assert result.batches == few * 12 == len(path)
    expected = trained_by_hand(line()[0], batches, result.lrs, few)
    assert np.allclose(path, expected, rtol=1e-4, atol=1e-5)
    other = trained_by_hand(line()[0], batches, result.lrs[: 12 // 2], 2 * few)
    assert not np.allclose(path, other, rtol=1e-4, atol=1e-5)


def test_accumulated_losses_are_means() -> None:
    model, optimizer, batches = line()
    first = [squares(model, batch).item() for batch in batches[:2]]
    result = range_test(model, optimizer, batches, squares, accumulate=2, steps=4)
    assert result.losses[0] == pytest.approx(sum(first) / 2)


def test_accumulate_makes_an_epoch_of_fewer_steps() -> None:
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches * 50, squares, accumulate=2, high=1e-4)
    assert (result.planned, result.batches) == (200, 400)


# Clipping and scaling


def norms_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return a list that will hold the gradients' norm before each step."""
    norms: list[float] = []

    def note(one: torch.optim.Optimizer, *_: Any) -> None:
        parts = [p.grad.flatten() for group in one.param_groups for p in group["params"]]
        norms.append(torch.cat(parts).norm().item())

    optimizer.register_step_pre_hook(note)
    return norms


def halve(parameters: list[torch.Tensor]) -> None:
    nn.utils.clip_grad_norm_(parameters, 0.25)


@pytest.mark.parametrize(("clip", "limit"), [(0.5, 0.5), (halve, 0.25)], ids=["norm", "function"])
@pytest.mark.parametrize("scale", [None, 2.0**14], ids=["plain", "scaled"])
def test_clip_bounds_the_gradients(clip, limit: float, scale: float | None) -> None:
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    model, optimizer, batches = line()
    norms = norms_of(optimizer)
    settings = {"steps": 20, "high": 0.1, "scaler": scaler}
    range_test(model, optimizer, batches, squares, **settings)
    free, norms[:] = list(norms), []
    range_test(model, optimizer, batches, squares, clip=clip, **settings)
    assert min(free) > limit
    assert norms == pytest.approx([limit] * 20, rel=1e-4)


def test_a_scaler_changes_nothing_but_the_range_of_numbers() -> None:
    model, optimizer, batches = line()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=10)
    result = range_test(model, optimizer, batches, squares, scaler=scaler)
    plain = range_test(model, optimizer, batches, squares)
    assert curve(result).losses == pytest.approx(plain.losses)
    assert result.suggestion == plain.suggestion
    assert scaler.get_scale() == 2.0**8  # though it has grown meanwhile


def test_a_scaler_skips_steps_whose_gradients_overflow() -> None:
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


def test_an_optimizer_that_wants_a_closure_is_given_one() -> None:
    model, _, batches = line()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=3)
    loss, path = seen(weights)
    whole = [torch.cat(batches)]
    result = range_test(model, optimizer, whole, loss, low=1e-6, high=1.0, steps=40)
    assert len(result.losses) == result.batches == 40
    assert len(path) > 40  # it asks more than once a step
    assert result.losses[-1] < 0.01 * result.losses[0]
    assert result.optimizer == "LBFGS"
    assert not optimizer.state


def test_an_optimizer_that_wants_a_closure_works_alone() -> None:
    model, other, batches = line()
    optimizer = torch.optim.LBFGS(model.parameters())
    refused = pytest.raises(TaskError, match="wants a closure works alone, and without a GradSc")
    with refused:
        range_test(model, optimizer, batches, squares, scaler=torch.amp.GradScaler("cpu"))
    with refused:
        range_test(model, [optimizer, other], batches, squares)


def test_two_optimizers_get_the_same_lr_with_kept_ratios() -> None:
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
        lrs.append([group["lr"] for one in optimizers for group in one.param_groups])
        path.append(weights(both[0]) + weights(both[1]))
        return squares(nn.Sequential(*both), batch)

    _, _, batches = line()
    result = range_test(models, optimizers, batches, loss, steps=8, low=0.01, high=0.1)
    for lr, (first, second, third) in zip(result.lrs, lrs, strict=True):
        assert (first, second, third) == pytest.approx((0.2 * lr, lr, 0.5 * lr))
    assert all(a != b for a, b in zip(path[0], path[-1], strict=True))  # both have trained
    assert result.optimizer == "SGD and Adam"
    held = [group["lr"] for one in optimizers for group in one.param_groups]
    assert held == [0.02, 0.1, 0.05]


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda g: g["momentum"]),
        (lambda p: torch.optim.Adam(p, lr=0.1), lambda g: g["betas"][0]),
        (lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.99)), lambda g: g["betas"][0]),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
def test_momentum_goes_from_first_to_last(make, read) -> None:
    model, _, batches = line()
    optimizer = make(model.parameters())
    group = optimizer.param_groups[0]
    before, rest = read(group), group.get("betas", (0, 0))[1]
    loss, momenta = seen(lambda _: (read(group), group.get("betas", (0, 0))[1]))
    range_test(model, optimizer, batches, loss, steps=5, momentum=(0.95, 0.85), high=1e-2)
    assert [first for first, _ in momenta] == pytest.approx([0.95, 0.925, 0.9, 0.875, 0.85])
    assert [second for _, second in momenta] == [rest] * 5
    assert read(group) == before


def test_ratios_are_those_before_a_warm_up_set_all_lrs_to_zero() -> None:
    model, _, batches = line()
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.02}]
    )
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10)
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.0, 0.0]
    loss, lrs = seen(lambda _: [group["lr"] for group in groups])
    result = range_test(model, optimizer, batches, loss, steps=6)
    assert [pair[0] for pair in lrs] == pytest.approx(result.lrs)
    assert [pair[1] / pair[0] for pair in lrs] == pytest.approx([0.2] * 6)
    assert [group["lr"] for group in groups] == [0.0, 0.0]


# Checks


def ending(at: int | None, what: float):
    calls: list[int] = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        return squares(model, batch) * (what if at is not None and len(calls) > at else 1.0)

    return loss, calls


@pytest.mark.parametrize(
    ("at", "what", "high"),
    [
        (None, 1.0, 1e-2),  # to the end
        (None, 1.0, 1e3),  # an explosion
        *((at, math.nan, 1e-2) for at in (1, 7, 8, 9, 40, 99)),
        *((at, math.inf, 1e-2) for at in (1, 41)),
        *((at, 1e6, 1e-2) for at in (11, 16, 43)),  # the first ten count for no explosion
    ],
)
def test_seldom_looks_give_the_same_result(at: int | None, what: float, high: float) -> None:
    results, steps = [], []
    for every in (1, 8):
        model, optimizer, batches = line()
        loss, calls = ending(at, what)
        result = range_test(model, optimizer, batches, loss, high=high, check_every=every)
        results.append(curve(result))
        steps.append(len(calls))
        assert result.batches == len(calls)
    assert repr(results[0]) == repr(results[1])
    assert 0 <= steps[1] - steps[0] <= 7
    if at is not None:
        assert steps[0] == at + 1


class Waits(TorchDispatchMode):
    """Counts what makes a program wait for a device: a number that is read off a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op is torch.ops.aten._local_scalar_dense.default
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(("every", "waits"), [(8, 0), (1, 64)])
def test_between_two_looks_no_number_is_read_off_a_tensor(every: int, waits: int) -> None:
    model, _, batches = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Waits() as seen:
        result = range_test(
            model, optimizer, batches, squares, steps=64, high=1e-2, clip=1.0, check_every=every
        )
    # A single loss is read by item(); several are moved in one piece, once for each look.
    assert len(result.losses) == 64
    assert seen.count in (waits, waits + 1)  # the first step is looked at alone


def test_seldom_looks_cost_steps_only_after_an_end() -> None:
    for every in (3, 8, 1000):
        model, optimizer, batches = line()
        loss, calls = ending(None, 1.0)
        range_test(model, optimizer, batches, loss, high=1e-2, steps=50, check_every=every)
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
        ({"spacing": "cubic"}, r"spacing='cubic' is neither \"geometric\" nor \"linear\""),
        ({"steps": 1}, r"steps=1: a range test needs at least 2"),
        ({"steps": -5}, r"steps=-5"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_a_setting_outside_its_range_is_named(settings: dict[str, Any], words: str) -> None:
    model, optimizer, batches = line()
    with pytest.raises(SettingError, match=words):
        range_test(model, optimizer, batches, squares, **settings)


def test_momentum_of_an_optimizer_without_it_is_refused() -> None:
    model, _, batches = line()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    with pytest.raises(SettingError, match="momentum=: this optimizer has neither momentum nor"):
        range_test(model, optimizer, batches, squares, momentum=(0.9, 0.8))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_progress_is_told_after_each_step_that_is_made() -> None:
    model, optimizer, batches = line()
    told: list[tuple[int, int]] = []
    result = range_test(
        model, optimizer, batches, squares, high=1e3, progress=lambda *done: told.append(done)
    )
    assert len(result.losses) < 100  # it has exploded
    assert told == [(k + 1, 100) for k in range(len(result.losses))]


# Results


def test_all_fields_of_a_result_survive_its_file(tmp_path: Path) -> None:
    model, optimizer, batches = line()
    made = range_test(
        model, optimizer, batches, squares, low=1e-3, high=5, steps=60, spacing="linear",
        accumulate=2, control=3, task="a line",
    )  # fmt: skip
    result = dataclasses.replace(made, seed=3)
    for one in dataclasses.fields(result):
        if one.default is not dataclasses.MISSING:
            assert getattr(result, one.name) != one.default, one.name
    again = load(result.save(tmp_path / "result.json"))
    assert isinstance(again, LRRangeTestResult)
    for one in dataclasses.fields(result):
        value = getattr(again, one.name)
        assert value == getattr(result, one.name), one.name
        assert type(value) is type(getattr(result, one.name)), one.name
    assert again == result
    assert again.suggest("valley") == result.suggest("valley")


# Rules


@pytest.fixture(scope="module")
def realistic() -> LRRangeTestResult:
    """The curve of a small network on four clouds of points."""
    torch.manual_seed(0)
    y = torch.arange(512) % 4
    x = torch.randn(4, 8)[y] + 0.8 * torch.randn(512, 8)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = list(zip(x.split(32), y.split(32), strict=True))

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return range_test(model, optimizer, batches, loss, low=1e-6, steps=200)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_reads_a_usable_lr_off_a_realistic_curve(realistic, rule: str) -> None:
    lr, reason = realistic.suggest(rule)
    assert lr is not None
    assert reason
    assert 1e-3 <= lr <= 1.0
    assert lr < realistic.lrs[min(range(200), key=_or_inf(realistic.smoothed))]


def _or_inf(values: tuple[float, ...]):
    return lambda i: values[i] if i < len(values) else math.inf


def test_the_result_itself_suggests_by_the_first_rule(realistic) -> None:
    assert (realistic.suggestion, realistic.reason) == realistic.suggest("minimum/10")
    assert realistic.suggest() == realistic.suggest("minimum/10")


def test_a_rule_that_is_none_is_refused(realistic) -> None:
    known = "there is no rule 'best'; there are minimum/10, minimum/4, steepest, valley, slide"
    with pytest.raises(SettingError, match=known):
        realistic.suggest("best")


def published_valley(losses: list[float]) -> tuple[int, int]:
    """Return the index that the published rule takes, and where its valley begins."""
    falls = [1] * len(losses)
    for i in range(1, len(losses)):
        falls[i] = 1 + max((falls[j] for j in range(i) if losses[i] < losses[j]), default=0)
    end = falls.index(max(falls))
    start = end - max(falls)
    third = (end - start) / 3
    return start + int(third) + int(third / 2), start


def published_slide(lrs: list[float], losses: list[float]) -> float:
    slopes = np.gradient(np.array(losses))
    right, left = -1, -16
    lr = lrs[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > 0.005:
        lr = lrs[left]
        right, left = right - 1, left - 1
    return lr


def summed(start: float, steps: list[float]) -> list[float]:
    return [float(value) for value in np.cumsum([start, *steps])]


LOOSE = st.lists(st.integers(0, 30).map(float), min_size=17, max_size=60)  # with many ties
STEADY = st.builds(
    summed, st.floats(0, 5), st.lists(st.floats(-0.02, 0.015), min_size=16, max_size=59)
)
EXPLODED = st.builds(
    lambda calm, rise: [*calm, *(calm[-1] + value**2 / 50 for value in range(rise))],
    STEADY,
    st.integers(1, 40),
)
CURVES = LOOSE | STEADY | EXPLODED


def lrs_for(losses: list[float]) -> list[float]:
    return [1e-7 * 1.2**k for k in range(len(losses))]


@given(CURVES)
def test_valley_is_the_published_one(losses: list[float]) -> None:
    place, start = published_valley(losses)
    assume(start >= 0)
    lrs = lrs_for(losses)
    assert suggest("valley", lrs, losses, losses).lr == lrs[place]


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=60))
def test_valley_stays_on_a_curve_that_falls_from_its_first_step(steps: list[float]) -> None:
    # There the published rule begins one step before the first, and can take the last lr.
    losses = summed(100.0, [-step for step in steps])
    place, start = published_valley(losses)
    assert start == -1
    lrs = lrs_for(losses)
    taken = lrs.index(suggest("valley", lrs, losses, losses).lr)
    assert 0 <= taken <= len(losses) / 2
    assert abs(taken - max(place, 0)) <= 1


@given(CURVES)
def test_slide_is_the_published_one(losses: list[float]) -> None:
    assume(max(losses) - min(losses) > 1e-6)  # of a flat curve no rule says anything
    lrs = lrs_for(losses)
    assert suggest("slide", lrs, losses, losses).lr == published_slide(lrs, losses)

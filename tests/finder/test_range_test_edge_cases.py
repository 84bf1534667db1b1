"""range_test with unusual losses, loaders, models and interruptions."""

import math
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from ratecraft.errors import RunFailed, SettingError, TaskError
from ratecraft.finder import preserve_state, range_test


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads do not help tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def line(momentum: float = 0.9):
    """Return a linear model, its optimizer, and eight batches of data."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 64)[torch.randperm(64)][:, None]
    return model, torch.optim.SGD(model.parameters(), 0.1, momentum), list(x.split(8))


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return ((model(batch) - 3 * batch - 1) ** 2).mean()


def after(count: int, first: Callable[[torch.Tensor], Any], then: Callable[[torch.Tensor], Any]):
    """Return a loss that applies ``first`` to its value, and ``then`` from call ``count`` on."""
    calls = iter(range(10**9))

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (then if next(calls) >= count else first)(squares(model, batch))

    return loss


def unchanged(value: torch.Tensor) -> torch.Tensor:
    return value


def restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], bool]:
    """Return a function that tells whether the training state equals the current one."""

    def state() -> Any:
        return (
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
            [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            [module.training for module in model.modules()],
            str(optimizer.state_dict()),
            torch.get_rng_state().tolist(),
        )

    before = state()
    return lambda: state() == before


def test_nan_loss_from_step_40() -> None:
    model, optimizer, _ = line()
    batches = [torch.full((8, 1), math.nan if k >= 40 else 0.5) for k in range(100)]
    is_restored = restored(model, optimizer)
    result = range_test(model, optimizer, batches, squares)
    assert len(result.lrs) == len(result.losses) == len(result.smoothed) == 40
    assert all(map(math.isfinite, result.losses))
    assert result.batches == 41
    assert result.stop_reason.startswith("the loss was nan at lr ")
    assert is_restored()


def test_infinite_loss() -> None:
    model, optimizer, batches = line()
    is_restored = restored(model, optimizer)
    result = range_test(model, optimizer, batches, squares, high=1e12, stop=1e300)
    assert result.stop_reason.startswith("the loss was inf at lr ")  # float32 overflows
    assert all(map(math.isfinite, result.losses))
    assert 20 < len(result.losses) < 100
    assert is_restored()


def test_negative_losses() -> None:
    model, optimizer, batches = line()
    plain = range_test(model, optimizer, batches, squares)
    result = range_test(model, optimizer, batches, lambda m, b: squares(m, b) - 100)
    assert max(result.losses[:70]) < 0
    assert "rose too far above its minimum" in result.stop_reason
    assert plain.suggestion is not None
    # Adding a negative constant keeps the suggestion ...
    shifted = range_test(model, optimizer, batches, lambda m, b: squares(m, b) - 5)
    assert shifted.suggestion == pytest.approx(plain.suggestion)
    # ... unless it is so large that the loss falls by less than 1 % of it.
    large = range_test(model, optimizer, batches, lambda m, b: squares(m, b) - 1e4)
    assert large.suggestion is None
    assert "never fell clearly" in large.reason


def test_losses_crossing_zero() -> None:
    model, optimizer, batches = line()
    plain = range_test(model, optimizer, batches, squares)
    result = range_test(model, optimizer, batches, lambda m, b: squares(m, b) - 2)
    assert result.losses[0] > 0 > min(result.losses)
    assert "rose too far above its minimum" in result.stop_reason
    assert len(result.losses) > 60  # it does not end when the loss falls below 0
    assert result.suggestion == pytest.approx(plain.suggestion)


def test_loader_shorter_than_the_test() -> None:
    model, optimizer, batches = line()
    seen = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return squares(model, batch)

    result = range_test(model, optimizer, batches[:3], loss, steps=20, high=1e-3)
    assert len(result.lrs) == result.batches == 20
    for k, batch in enumerate(seen):
        assert batch is batches[k % 3]


class Endless(IterableDataset):
    """An endless stream with a position."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.position += 1
            yield torch.tensor([math.sin(self.position)])


def test_infinite_loader() -> None:
    model, optimizer, _ = line()
    data = Endless()
    result = range_test(model, optimizer, DataLoader(data, batch_size=8), squares)
    assert result.planned_steps == 100  # it has no length
    assert result.suggestion is not None
    assert data.position == 0


def test_constant_loss() -> None:
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches, lambda m, b: 0 * m(b).sum() + 2.0)
    assert set(result.losses) == {2.0}
    assert result.stop_reason == "all 100 steps were taken"
    assert result.suggestion is None
    assert result.reason == "no suggestion: the loss is constant"


def test_trained_model_gets_no_suggestion() -> None:
    # At the optimum no lr reduces the loss, so any suggestion would be read from noise.
    torch.manual_seed(0)
    x = torch.randn(512, 1)
    y = 3 * x + 1 + 0.5 * torch.randn(512, 1)
    model = nn.Linear(1, 1)
    design = torch.cat([x, torch.ones(512, 1)], 1)
    slope, offset = torch.linalg.lstsq(design, y).solution[:, 0].tolist()
    nn.init.constant_(model.weight, slope)
    nn.init.constant_(model.bias, offset)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x, y), 16, shuffle=True)

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).mean()

    result = range_test(model, optimizer, loader, loss)
    assert result.suggestion is None
    assert "never fell clearly" in result.reason
    assert "an untrained model" in result.reason
    nn.init.zeros_(model.weight)  # far from the optimum there is a suggestion
    assert range_test(model, optimizer, loader, loss).suggestion is not None


def test_frozen_model_raises() -> None:
    model, optimizer, batches = line()
    model.requires_grad_(False)
    with pytest.raises(TaskError, match="all parameters of the optimizer are frozen"):
        range_test(model, optimizer, batches, squares)


def test_partly_frozen_model() -> None:
    model, optimizer, batches = line()
    model.bias.requires_grad_(False)
    assert range_test(model, optimizer, batches, squares).suggestion is not None
    assert not model.bias.requires_grad


class Scalar(nn.Module):
    """A model with one scalar parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Parameter(torch.tensor(5.0))


def test_model_with_one_parameter() -> None:
    model = Scalar()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = range_test(model, optimizer, [0], lambda m, _: (m.only - 1) ** 2)
    assert result.losses[0] == 16.0
    assert 1e-3 < result.suggestion < 1
    assert model.only.item() == 5.0


def test_loss_that_is_a_parameter_is_recorded_before_the_step() -> None:
    model = Scalar()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = range_test(model, optimizer, [0], lambda m, _: m.only, low=1, high=2, steps=2)
    assert result.losses == (5.0, 4.0)


def lazy(make: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that lazy modules are experimental
        return make()


def test_lazy_module_without_weights_raises() -> None:
    model = lazy(lambda: nn.LazyLinear(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, _, batches = line()
    with pytest.raises(TaskError, match="lazy module has no weights yet; run one batch"):
        range_test(model, optimizer, batches, squares)
    model(batches[0])  # as the message says
    assert range_test(model, optimizer, batches, squares).suggestion is not None


@pytest.mark.parametrize(
    "make",
    [lambda: nn.LazyLinear(1), lambda: nn.LazyBatchNorm1d(affine=False)],
    ids=["parameters", "buffers"],
)
def test_lazy_module_outside_the_optimizer_raises(make) -> None:
    first, optimizer, batches = line()
    model = nn.Sequential(first, lazy(make))
    with pytest.raises(TaskError, match="lazy"):
        range_test(model, optimizer, batches, squares)


def test_one_way_stream_raises_and_its_factory_is_accepted() -> None:
    model, optimizer, batches = line()
    opened = []

    def stream() -> Iterator[torch.Tensor]:
        opened.append(len(opened))
        yield from batches[:3]

    one_way = stream()
    with pytest.raises(TaskError, match=r"only once \(generator\).* lambda: stream\(\)"):
        range_test(model, optimizer, one_way, squares)
    assert next(one_way) is batches[0]  # nothing was taken from it
    opened.clear()
    result = range_test(model, optimizer, stream, squares, steps=10, high=1e-3)
    assert len(result.losses) == 10
    assert len(opened) == 4  # three batches per pass
    whole = range_test(model, optimizer, batches[:3], squares, steps=10, high=1e-3)
    assert result.losses == whole.losses


class OneWay(IterableDataset):
    """A dataset that is its own iterator, so it can be iterated only once."""

    def __iter__(self) -> "OneWay":
        return self

    def __next__(self) -> torch.Tensor:
        return torch.ones(1)


def test_one_way_stream_in_a_data_loader_raises() -> None:
    model, optimizer, _ = line()
    with pytest.raises(TaskError, match=r"iterated only once \(OneWay\)"):
        range_test(model, optimizer, DataLoader(OneWay(), 8), squares)


@pytest.mark.parametrize(
    "loader",
    [[], DataLoader(TensorDataset(torch.ones(0, 1))), lambda: iter([])],
    ids=["list", "DataLoader", "factory"],
)
def test_empty_loader_raises(loader) -> None:
    model, optimizer, _ = line()
    is_restored = restored(model, optimizer)
    with pytest.raises(TaskError, match="the loader is empty: expected at least one batch"):
        range_test(model, optimizer, loader, squares)
    assert is_restored()


def test_loss_computed_under_no_grad_raises() -> None:
    model, optimizer, batches = line()
    is_restored = restored(model, optimizer)
    with pytest.raises(
        TaskError, match="does not require grad; was it detached, or computed under"
    ):
        range_test(model, optimizer, batches, torch.no_grad()(squares))
    assert is_restored()


def test_unreduced_losses() -> None:
    model, optimizer, batches = line()

    def unreduced(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (model(batch) - 3 * batch - 1) ** 2

    result, reduced = (range_test(model, optimizer, batches, loss) for loss in (unreduced, squares))
    assert unreduced(model, batches[0]).shape == (8, 1)
    assert result.losses == pytest.approx(reduced.losses)
    assert result.suggestion == reduced.suggestion


class Pairs(Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        x = torch.tensor([i / 16 - 1])
        return {"x": x, "y": 3 * x + 1}


def test_dict_batches() -> None:
    model, optimizer, _ = line()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return ((model(batch["x"]) - batch["y"]) ** 2).mean()

    result = range_test(model, optimizer, DataLoader(Pairs(), 8, shuffle=True), loss)
    assert result.suggestion is not None


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("check_every", [1, 8])
def test_non_finite_first_batch_raises(odd: float, check_every: int) -> None:
    model, optimizer, batches = line()
    is_restored = restored(model, optimizer)
    calls = []

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        calls.append(batch)
        return squares(model, batch)

    batches = [torch.full((8, 1), odd), *batches]
    with pytest.raises(RunFailed, match=r"loss is (nan|inf) at the first step.* check the data"):
        range_test(model, optimizer, batches, loss, check_every=check_every)
    assert len(calls) == 1
    assert is_restored()


def test_outlier_in_the_first_batch_gives_no_suggestion() -> None:
    # Its loss dominates the average for 100 steps, so no minimum is reliable.
    model, optimizer, batches = line()
    result = range_test(model, optimizer, batches, after(1, lambda v: 50 * v, unchanged))
    assert len(result.losses) > 60
    assert result.suggestion is None
    assert "never fell clearly" in result.reason


def test_ctrl_c_restores_the_state() -> None:
    model, optimizer, batches = line()
    model.eval()
    for batch in batches:  # optimizer state and gradients exist
        optimizer.zero_grad()
        squares(model, batch).backward()
        optimizer.step()
    is_restored = restored(model, optimizer)

    def interrupt(value: torch.Tensor) -> torch.Tensor:
        torch.rand(1)
        signal.raise_signal(signal.SIGINT)
        return value

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            range_test(model, optimizer, batches, after(60, unchanged, interrupt))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert is_restored()


class Fields(NamedTuple):
    scale: float
    shift: float


def test_named_tuple_of_a_module_is_restored() -> None:
    model, optimizer, _ = line()
    model.fields = Fields(2.0, 1.0)
    with preserve_state(model, optimizer):
        model.fields = Fields(3.0, 0.0)
    assert model.fields == Fields(2.0, 1.0)
    assert isinstance(model.fields, Fields)


def test_buffer_that_grew_in_place_is_restored() -> None:
    model, optimizer, _ = line()
    model.register_buffer("cache", torch.zeros(2))
    with preserve_state(model, optimizer):
        model.cache.resize_(100).fill_(1.0)
    assert model.cache.tolist() == [0.0, 0.0]


def test_parameter_whose_data_was_replaced_gets_its_memory_back() -> None:
    model, optimizer, _ = line()
    address = model.weight.data_ptr()
    with preserve_state(model, optimizer):
        model.weight.data = torch.zeros(1, 1)
    assert model.weight.data_ptr() == address


def test_converted_model_gets_its_dtype_back() -> None:
    model, optimizer, _ = line()
    with preserve_state(model, optimizer):
        model.double()
    assert model.weight.dtype == torch.float32


class Broken:
    """A loader whose state_dict() fails."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.ones(1, 1)])

    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("not before the first pass")

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_optimizer_keeps_its_hooks_when_the_setup_fails() -> None:
    model, optimizer, _ = line()
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    with pytest.raises(RuntimeError, match="not before"):
        range_test(model, optimizer, Broken(), squares)
    optimizer.step()
    assert seen == [1]


class CountingLoader(DataLoader):
    """A DataLoader that counts its passes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.passes = 0

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()


def test_counter_of_a_data_loader_subclass_is_restored() -> None:
    model, optimizer, _ = line()
    loader = CountingLoader(TensorDataset(torch.ones(4, 1)), 2)
    with preserve_state(model, optimizer, loader):
        list(loader)
    assert loader.passes == 0


class CountingSampler(Sampler):
    def __init__(self) -> None:
        self.state = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        self.state += 1
        return iter(range(4))


def test_counter_named_state_is_restored() -> None:
    model, optimizer, _ = line()
    sampler = CountingSampler()
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2, sampler=sampler)
    with preserve_state(model, optimizer, loader):
        list(loader)
    assert sampler.state == 0


def test_nan_stop_raises() -> None:
    model, optimizer, batches = line()
    with pytest.raises(SettingError, match="stop > 1"):
        range_test(model, optimizer, batches, squares, stop=math.nan)


@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated")
def test_scripted_module_is_restored() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    scripted.eval()
    optimizer = torch.optim.SGD(scripted.parameters(), lr=0.1, momentum=0.9)
    tensors = [*scripted.parameters(), *scripted.buffers()]
    before = [tensor.clone() for tensor in tensors]
    result = range_test(scripted, optimizer, line()[2], squares, high=1e-2)
    assert len(result.lrs) == 100
    assert not scripted.training
    assert all(torch.equal(tensor, copied) for tensor, copied in zip(tensors, before, strict=True))


class Jitter:
    """A transform with its own random generator and counter."""

    def __init__(self) -> None:
        self.random, self.calls = random.Random(3), 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.random.gauss(0, 1)


class Transformed(Dataset):
    def __init__(self) -> None:
        self.transform = Jitter()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(torch.ones(1))


def test_transform_of_a_dataset_is_restored() -> None:
    model, optimizer, _ = line()
    data = Transformed()
    loader = DataLoader(data, 2)
    with preserve_state(model, optimizer, loader):
        first = [batch.tolist() for batch in loader]
    assert data.transform.calls == 0
    assert [batch.tolist() for batch in loader] == first

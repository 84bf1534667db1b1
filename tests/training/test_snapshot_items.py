"""preserve_state, item by item: each item is restored, and changes without it."""

import os
import random
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, TensorDataset

from ratecraft import cosine
from ratecraft.finder import preserve_state
from ratecraft.torch import ScheduleLR

# Python 3.12 warns where a worker of a DataLoader is forked from a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Net(nn.Module):
    """Two layers with batch norm, a frozen bias, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.head.bias.requires_grad_(False)
        self.register_buffer("saved", torch.zeros(2))
        self.register_buffer("unsaved", torch.zeros(2), persistent=False)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(torch.tanh(self.norm(self.body(x))))


@dataclass
class Case:
    """A training state, how it is disturbed, and how it is compared.

    ``read`` returns the state without changing it, and must return the same after a restore.
    ``resume`` may change the state, and must return what it returns on an undisturbed twin.
    """

    model: Any
    optimizer: Any
    read: Callable[[], Any]
    disturb: Callable[[], object]
    loader: Any = ()
    options: dict[str, Any] = field(default_factory=dict)
    resume: Callable[[], Any] = lambda: None
    close: Callable[[], object] = lambda: None


class Same:
    """Compares by identity."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__} at {id(self.value):x}>"


def plain(value: Any) -> Any:
    """Return a copy that == compares bit for bit."""
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def step(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).pow(2).mean().backward()
        optimizer.step()


def net(momentum: float = 0.9, lr: float = 0.1):
    torch.manual_seed(1)
    model = Net()
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def model_case(disturb: Callable[[Net], object], read: Callable[[Net], Any]) -> Case:
    model, optimizer = net()
    return Case(model, optimizer, lambda: read(model), lambda: disturb(model))


def loader_case(
    loader: Any, read: Callable[[], Any], resume: Callable[[], Any] = lambda: None
) -> Case:
    """Return a case that is disturbed by one pass over the loader."""
    model, optimizer = net()
    return Case(model, optimizer, read, lambda: list(loader), loader, resume=resume)


def parameters() -> Case:
    model, optimizer = net()
    return Case(model, optimizer, lambda: list(model.parameters()), lambda: step(model, optimizer))


def persistent_buffers() -> Case:
    def disturb(model: Net) -> None:
        model(torch.randn(8, 3))  # updates the statistics of batch norm
        model.saved.add_(1)

    return model_case(disturb, lambda m: [m.norm.running_mean, m.norm.num_batches_tracked, m.saved])


def non_persistent_buffers() -> Case:
    return model_case(lambda m: m.unsaved.add_(1), lambda m: m.unsaved)


def buffers_replaced_by_new_tensors() -> Case:
    def disturb(model: Net) -> None:
        model.saved = model.saved + 1
        model.unsaved = torch.ones(5)
        model.register_buffer("more", torch.ones(1))

    def read(model: Net) -> Any:
        buffers = dict(model.named_buffers())
        return buffers, {name: Same(buffer) for name, buffer in buffers.items()}

    return model_case(disturb, read)


def training_flags_of_each_module() -> Case:
    model, optimizer = net()
    model.norm.eval()

    def disturb() -> None:
        model.train()
        model.body.eval()

    return Case(model, optimizer, lambda: [m.training for m in model.modules()], disturb)


def requires_grad() -> Case:
    def disturb(model: Net) -> None:
        model.head.bias.requires_grad_(True)
        model.body.weight.requires_grad_(False)

    return model_case(disturb, lambda m: [p.requires_grad for p in m.parameters()])


def gradients_that_are_none() -> Case:
    model, optimizer = net()
    return Case(
        model,
        optimizer,
        lambda: [p.grad for p in model.parameters()],
        lambda: model(torch.ones(8, 3)).sum().backward(),
    )


def graded():
    model, optimizer = net()
    model(torch.randn(8, 3)).pow(2).mean().backward()
    return model, optimizer


def values_of_gradients() -> Case:
    model, optimizer = graded()

    def disturb() -> None:
        model.body.weight.grad.mul_(3)
        model.head.weight.grad = None
        model.norm.weight.grad = torch.ones(4)

    return Case(model, optimizer, lambda: [p.grad for p in model.parameters()], disturb)


def identity_of_gradients() -> Case:
    model, optimizer = graded()
    return Case(
        model,
        optimizer,
        lambda: [Same(p.grad) for p in model.parameters()],
        lambda: step(model, optimizer),
    )


def state_of_a_fresh_optimizer() -> Case:
    model, optimizer = net()
    return Case(model, optimizer, lambda: len(optimizer.state), lambda: step(model, optimizer))


def state_of_a_warm_optimizer() -> Case:
    model, optimizer = net()
    step(model, optimizer)

    def read() -> Any:
        buffers = [state["momentum_buffer"] for state in optimizer.state.values()]
        return buffers, [Same(buffer) for buffer in buffers]

    return Case(model, optimizer, read, lambda: step(model, optimizer))


def state_of_a_warm_adam() -> Case:
    model, _ = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, amsgrad=True)
    step(model, optimizer)
    return Case(
        model,
        optimizer,
        lambda: [dict(state) for state in optimizer.state.values()],
        lambda: step(model, optimizer),
    )


def param_groups_with_extra_keys() -> Case:
    model, _ = net()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.body.parameters(), "name": "body", "tags": ["slow", {"depth": 1}]},
            {"params": model.head.parameters(), "lr": 0.5},
        ],
        lr=0.1,
    )

    def disturb() -> None:
        first, second = optimizer.param_groups
        first["lr"], first["betas"], first["name"] = 3.0, (0.1, 0.2), "other"
        first["tags"][1]["depth"] = 7
        first["tags"].append("quick")
        del second["weight_decay"]
        second["new"] = 1
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})

    def read() -> Any:
        rest = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        return rest, [[Same(p) for p in g["params"]] for g in optimizer.param_groups]

    return Case(model, optimizer, read, disturb)


def scaled(warm: bool) -> Case:
    model, optimizer = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    def train() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(8, 3)).pow(2).mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    if warm:
        train()
        train()
    return Case(
        model,
        optimizer,
        lambda: (scaler.state_dict(), scaler._scale, len(scaler._per_optimizer_states)),
        train,
        options={"scaler": scaler},
    )


def grad_scaler_before_its_first_use() -> Case:
    return scaled(warm=False)


def grad_scaler_after_some_use() -> Case:
    return scaled(warm=True)


def random_numbers_of_torch() -> Case:
    return model_case(lambda _: torch.rand(1), lambda _: torch.get_rng_state())


def random_numbers_of_numpy() -> Case:
    return model_case(lambda _: np.random.rand(), lambda _: np.random.get_state())


def random_numbers_of_python() -> Case:
    return model_case(lambda _: random.random(), lambda _: random.getstate())


def generator_of_the_loader() -> Case:
    generator = torch.Generator().manual_seed(7)
    loader = DataLoader(TensorDataset(torch.arange(8)), 2, shuffle=True, generator=generator)
    return loader_case(loader, generator.get_state, lambda: [b[0] for b in loader])


def generator_of_a_random_sampler() -> Case:
    data, generator = TensorDataset(torch.arange(8)), torch.Generator().manual_seed(7)
    loader = DataLoader(data, 2, sampler=RandomSampler(data, generator=generator))
    return loader_case(loader, generator.get_state, lambda: [b[0] for b in loader])


class Augmented(Dataset):
    """Draws from its own generator, and counts the draws."""

    def __init__(self, generator: Any, draw: Callable[[], float]) -> None:
        self.generator, self.draw, self.drawn = generator, draw, 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> float:
        self.drawn += 1
        return i + float(self.draw())


def augmented(generator: Any, draw: Callable[[], float], state: Callable[[], Any]) -> Case:
    loader = DataLoader(Augmented(generator, draw), 2)
    return loader_case(loader, state, lambda: list(loader))


def torch_generator_of_a_dataset() -> Case:
    generator = torch.Generator().manual_seed(7)

    def draw() -> float:
        return torch.rand(1, generator=generator).item()

    return augmented(generator, draw, generator.get_state)


def numpy_generator_of_a_dataset() -> Case:
    generator = np.random.default_rng(7)
    return augmented(generator, generator.random, lambda: generator.bit_generator.state)


def numpy_random_state_of_a_dataset() -> Case:
    generator = np.random.RandomState(7)
    return augmented(generator, generator.rand, generator.get_state)


def python_generator_of_a_dataset() -> Case:
    generator = random.Random(7)
    return augmented(generator, generator.random, generator.getstate)


def counter_of_a_dataset() -> Case:
    data = Augmented(None, lambda: 0.0)
    return loader_case(DataLoader(data, 2), lambda: data.drawn)


class Epochs(Sampler):
    """Starts each pass one position later."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self):
        self.epoch += 1
        return iter([(self.epoch + i) % 8 for i in range(8)])


def counter_of_a_sampler() -> Case:
    sampler = Epochs()
    loader = DataLoader(TensorDataset(torch.arange(8)), 2, sampler=sampler)
    return loader_case(loader, lambda: sampler.epoch, lambda: [b[0] for b in loader])


def counter_of_a_module() -> Case:
    return model_case(lambda m: m(torch.ones(8, 3)), lambda m: m.calls)


class Reader:
    """Continues where the last pass ended, like a reader of a long file."""

    def __init__(self) -> None:
        self.position = 0
        self.order = [3, 1, 2, 0]

    def __iter__(self):
        for _ in range(3):
            self.position += 1
            self.order.append(self.order.pop(0))
            yield torch.tensor(self.order[0] + 10 * self.position)


def position_of_a_custom_loader() -> Case:
    reader = Reader()
    return loader_case(reader, lambda: (reader.position, reader.order), lambda: list(reader))


class SlottedLoader:
    """Exposes its position only through state_dict."""

    __slots__ = ("_position",)

    def __init__(self) -> None:
        self._position = SimpleNamespace(at=0)

    def __iter__(self):
        for _ in range(3):
            self._position.at += 1
            yield torch.tensor(self._position.at)

    def state_dict(self) -> dict[str, int]:
        return {"at": self._position.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position.at = state["at"]


def loader_with_a_state_dict() -> Case:
    loader = SlottedLoader()
    return loader_case(loader, loader.state_dict, lambda: list(loader))


class CountingDataset(Dataset):
    """Returns the number of samples that this process has read."""

    def __init__(self) -> None:
        self.samples_read = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> int:
        self.samples_read += 1
        return self.samples_read


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def persistent_workers() -> Case:
    loader = DataLoader(CountingDataset(), 2, num_workers=1, persistent_workers=True)
    used: set[int] = set()

    def read_epoch() -> Any:
        batches = list(loader)
        used.update(worker.pid for worker in loader._iterator._workers)
        return batches

    read_epoch()  # the worker has counted 6 samples
    workers = loader._iterator
    own_pids = {worker.pid for worker in workers._workers}

    def read() -> Any:
        # The loader's own worker is alive; all others that were used have exited.
        return (
            Same(loader._iterator),
            {pid for pid in used if alive(pid)},
            all(map(alive, own_pids)),
        )

    model, optimizer = net()

    def close() -> None:
        for iterator in {id(it): it for it in (workers, loader._iterator)}.values():
            iterator._shutdown_workers()
        loader._iterator = None

    return Case(model, optimizer, read, read_epoch, loader, resume=read_epoch, close=close)


def memory_of_all_tensors() -> Case:
    model, optimizer = net()
    step(model, optimizer)

    def tensors() -> list[torch.Tensor]:
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
        tensors += [state["momentum_buffer"] for state in optimizer.state.values()]
        return [tensor for tensor in tensors if tensor is not None]

    def read() -> Any:
        return [(Same(tensor), tensor.data_ptr()) for tensor in tensors()]

    def disturb() -> None:
        step(model, optimizer)
        model.saved = model.saved + 1
        optimizer.state.clear()
        step(model, optimizer)

    return Case(model, optimizer, read, disturb)


def scheduler_and_post_hook() -> Case:
    model, optimizer = net()
    scheduler = ScheduleLR(optimizer, factor=cosine(1, 0), total_steps=50)
    lrs: list[float] = []
    optimizer.register_step_post_hook(lambda opt, *_: lrs.append(opt.param_groups[0]["lr"]))

    def read() -> Any:
        return scheduler.last_epoch, scheduler.get_last_lr(), list(lrs), scheduler.state_dict()

    def resume() -> Any:
        step(model, optimizer, 1)
        return read()

    return Case(model, optimizer, read, lambda: step(model, optimizer), resume=resume)


def two_models_and_two_optimizers() -> Case:
    models, optimizers = zip(net(), net(lr=0.2), strict=True)
    step(models[1], optimizers[1])  # one optimizer has state

    def disturb() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer)
            optimizer.param_groups[0]["lr"] = 3.0
            model.eval()

    def read() -> Any:
        return [
            [
                list(model.parameters()),
                list(model.buffers()),
                [p.grad for p in model.parameters()],
                [dict(state) for state in optimizer.state.values()],
                optimizer.param_groups[0]["lr"],
                [module.training for module in model.modules()],
            ]
            for model, optimizer in zip(models, optimizers, strict=True)
        ]

    return Case(models, optimizers, read, disturb)


def large_layer(on_disk: Any) -> Case:
    """Return a case with a layer of more than 1 MiB, which ``on_disk`` copies to disk."""
    torch.manual_seed(1)
    model = nn.Linear(600, 600)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(4, 600)).pow(2).mean().backward()
            optimizer.step()

    train()

    def read() -> Any:
        tensors = [*model.parameters(), *(p.grad for p in model.parameters())]
        tensors += [state["momentum_buffer"] for state in optimizer.state.values()]
        return tensors, [Same(tensor) for tensor in tensors], [t.data_ptr() for t in tensors]

    return Case(model, optimizer, read, train, options={"on_disk": on_disk})


def copies_on_disk() -> Case:
    return large_layer(True)


def copies_in_a_named_folder() -> Case:
    return large_layer(tempfile.gettempdir())


ITEMS = [
    parameters,
    persistent_buffers,
    non_persistent_buffers,
    buffers_replaced_by_new_tensors,
    training_flags_of_each_module,
    requires_grad,
    gradients_that_are_none,
    values_of_gradients,
    identity_of_gradients,
    state_of_a_fresh_optimizer,
    state_of_a_warm_optimizer,
    state_of_a_warm_adam,
    param_groups_with_extra_keys,
    grad_scaler_before_its_first_use,
    grad_scaler_after_some_use,
    random_numbers_of_torch,
    random_numbers_of_numpy,
    random_numbers_of_python,
    generator_of_the_loader,
    generator_of_a_random_sampler,
    torch_generator_of_a_dataset,
    numpy_generator_of_a_dataset,
    numpy_random_state_of_a_dataset,
    python_generator_of_a_dataset,
    counter_of_a_dataset,
    counter_of_a_sampler,
    counter_of_a_module,
    position_of_a_custom_loader,
    loader_with_a_state_dict,
    persistent_workers,
    memory_of_all_tensors,
    scheduler_and_post_hook,
    two_models_and_two_optimizers,
    copies_on_disk,
    copies_in_a_named_folder,
]


class Boom(Exception):
    pass


errors = pytest.mark.parametrize(
    "error", [None, Boom, KeyboardInterrupt], ids=["end", "error", "^C"]
)
items = pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.__name__)


@pytest.fixture(autouse=True)
def one_thread():
    """More threads do not help tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run_case(case: Case, error: type[BaseException] | None) -> None:
    refused = nullcontext() if error is None else pytest.raises(error)
    with refused, preserve_state(case.model, case.optimizer, case.loader, **case.options):
        case.disturb()
        if error is not None:
            raise error


@errors
@items
def test_item_is_restored(item, error, folder: Path) -> None:
    case = item()
    try:
        before = plain(case.read())
        run_case(case, error)
        assert plain(case.read()) == before
        twin = item()
        try:
            expected = plain(twin.resume())
        finally:
            twin.close()
        assert plain(case.resume()) == expected
    finally:
        case.close()
    assert list(folder.glob("tmp*")) == []


@items
def test_item_changes_without_preserve_state(item, folder: Path) -> None:
    case = item()
    try:
        before = case.read()  # keeps the tensors alive, so that no address is reused
        copied = plain(before)
        case.disturb()
        state, resumed = plain(case.read()), plain(case.resume())
        twin = item()
        try:
            expected = plain(twin.resume())
        finally:
            twin.close()
        assert (state, resumed) != (copied, expected)
    finally:
        case.close()


@errors
@pytest.mark.parametrize("named", [False, True], ids=["temporary", "named"])
def test_copies_on_disk_are_deleted_afterwards(named: bool, error, folder: Path) -> None:
    directory = folder / "named" if named else folder
    directory.mkdir(exist_ok=True)
    in_memory, on_disk = large_layer(False), large_layer(directory if named else True)
    files: list[str] = []
    train = on_disk.disturb

    def disturb() -> None:
        files.extend(path.name for path in directory.rglob("*.pt"))
        train()

    on_disk.disturb = disturb
    for case in (in_memory, on_disk):
        run_case(case, error)
    assert len(files) == 3  # the weight, its gradient and its momentum; the biases are small
    assert plain(on_disk.read()[0]) == plain(in_memory.read()[0])
    assert list(directory.glob("tmp*")) == []

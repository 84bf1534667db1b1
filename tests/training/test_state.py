"""Nested containers, sparse and complex tensors and plain objects are restored in place."""

import random
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.finder import preserve_state

# torch warns at the first use of a sparse tensor.
pytestmark = pytest.mark.filterwarnings("ignore:(?i)sparse:UserWarning")


@dataclass
class Meter:
    """A running mean, as helpers of training loops hold it."""

    total: float = 0.0
    window: deque = field(default_factory=lambda: deque(maxlen=3))


class Slotted:
    __slots__ = ("items", "missing")

    def __init__(self, items: list) -> None:
        self.items = items


class AttributeDict(dict):
    """A dict with attributes of its own."""


def attribute_dict(items: dict) -> AttributeDict:
    value = AttributeDict(items)
    value.tags = list(items)
    return value


def sparse(number: int) -> torch.Tensor:
    return torch.sparse_coo_tensor([[0, 2, 2]], [1.0, number, 3.0], (4,))


LEAVES = (
    lambda n: n,
    lambda n: [None, True, "text", b"bytes", 1j, range(3), torch.float16, np.bool_(True)][n % 8],
    lambda n: torch.tensor([n, 2.0]),
    lambda n: torch.tensor([n + 1j, 2.0]),
    lambda n: torch.tensor([n, 2]).expand(3, 2),
    sparse,
    lambda n: torch.diag(torch.tensor([n + 0.5, 2.0])).to_sparse_csr(),
    lambda n: np.array([n, 2.0]),
    lambda n: np.array([n, [n]], dtype=object),
    lambda n: array("d", [n]),
    lambda n: bytearray([n]),
    lambda n: set(range(n)),
    lambda n: Counter("abca"[:n]),
    lambda n: torch.Generator().manual_seed(n),
    np.random.default_rng,
    np.random.RandomState,
    random.Random,
)
CONTAINERS = (
    list,
    tuple,
    deque,
    lambda items: deque(items, maxlen=2),
    lambda items: dict(enumerate(items)),
    lambda items: OrderedDict(enumerate(items)),
    lambda items: defaultdict(list, enumerate(items)),
    lambda items: attribute_dict(dict(enumerate(items))),
    lambda items: Meter(1.0, deque(items, maxlen=4)),
    lambda items: SimpleNamespace(items=items),
    Slotted,
)
seeds = st.integers(0, 10**9)


def nested(draw: random.Random, depth: int = 4) -> Any:
    """Return a random value; at every depth it is a leaf or a container of such values."""
    if depth == 0 or draw.random() < 0.3:
        return draw.choice(LEAVES)(draw.randrange(9))
    return draw.choice(CONTAINERS)([nested(draw, depth - 1) for _ in range(draw.randrange(4))])


def parts(value: Any) -> list[Any]:
    """Return what a value holds, attributes included."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner += value.values()
    elif isinstance(value, list | tuple | deque):
        inner += value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        inner += value.tolist()
    if isinstance(value, Slotted):
        inner += [value.items]
    elif type(value).__module__ in (__name__, "types"):
        inner += vars(value).values()
    return inner


def described(value: Any) -> Any:
    """Return a description that differs if content, order or the identity of a part does."""
    content: Any = value
    if isinstance(value, torch.Tensor):
        dense = value.to_dense() if value.layout is not torch.strided else value
        coalesced = value.layout is torch.sparse_coo and (value.is_coalesced(), value._nnz())
        content = (coalesced, dense.tolist())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        content = value.tolist()
    elif isinstance(value, dict):
        content = list(value)  # the order of its keys
    elif isinstance(value, set):
        content = sorted(map(str, value))
    elif isinstance(value, bytearray | array):
        content = list(value)
    elif isinstance(value, random.Random):
        content = value.getstate()
    elif isinstance(value, np.random.Generator):
        content = value.bit_generator.state
    elif isinstance(value, np.random.RandomState):
        content = str(value.get_state())
    elif isinstance(value, torch.Generator):
        content = value.get_state().tolist()
    elif inner := parts(value):
        content = len(inner)
    names = sorted(vars(value)) if hasattr(value, "__dict__") else hasattr(value, "missing")
    return type(value), id(value), str(content), names, list(map(described, parts(value)))


def disturb(value: Any) -> bool:
    """Change a value and all that it holds; return whether anything could be changed."""
    changed = [disturb(part) for part in parts(value)]
    match value:
        case torch.Tensor() if value.layout is torch.sparse_csr:
            value.values().mul_(3)
        case torch.Tensor() if value.layout is torch.sparse_coo:
            value.mul_(3).add_(torch.ones(4).to_sparse())
        case torch.Tensor():
            value.data = value + 1
        case np.ndarray() if value.dtype == object:
            value[0] = "other"
        case np.ndarray():
            value += 1
        case dict():
            if value:
                key = next(iter(value))
                value[key] = value.pop(key)  # now the last one
            value["new"] = 1
        case list() | array() | bytearray():
            value.reverse()
            value.append(7)
        case deque():
            value.appendleft("new")
        case set():
            value.add("new")
        case Slotted():
            value.items, value.missing = [], 1
        case SimpleNamespace() | Meter():
            value.new = value.total = 1
        case random.Random() | np.random.Generator():
            value.random()
        case np.random.RandomState():
            value.rand()
        case torch.Generator():
            torch.rand(1, generator=value)
        case _:
            return any(changed)
    return True


def trained():
    model = nn.Linear(2, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


@given(seeds)
def test_any_nested_state_of_a_module_is_restored_in_place(seed: int) -> None:
    value = nested(random.Random(seed))
    model, optimizer = trained()
    model.value, model.again = value, [value]
    before = described(model.again), id(model.value)
    with preserve_state(model, optimizer):
        changed = disturb(value)
        assert not changed or described(model.again) != before[0] or isinstance(value, tuple)
        model.value = "other"
        model.again.clear()
    assert (described(model.again), id(model.value)) == before


@given(seeds)
def test_any_nested_state_of_an_optimizer_is_restored_in_place(seed: int) -> None:
    value = nested(random.Random(seed))
    model, optimizer = trained()
    optimizer.state[model.weight]["value"] = optimizer.param_groups[0]["value"] = value
    before = described(value)
    with preserve_state(model, optimizer):
        disturb(value)
        optimizer.state.clear()
        del optimizer.param_groups[0]["value"]
    assert optimizer.param_groups[0]["value"] is value
    assert optimizer.state[model.weight]["value"] is value
    assert described(value) == before


def test_a_container_that_holds_itself_is_restored() -> None:
    model, optimizer = trained()
    model.loop = [1]
    model.loop.append(model.loop)
    with preserve_state(model, optimizer):
        model.loop.clear()
    assert model.loop[0] == 1
    assert model.loop[1] is model.loop


def test_members_of_a_list_are_restored_even_if_their_state_is_hidden() -> None:
    model, optimizer = trained()
    hidden = count()
    model.callbacks = [print, hidden]
    with preserve_state(model, optimizer):
        model.callbacks.pop()
    assert model.callbacks == [print, hidden]


def test_a_model_in_a_list_of_a_module_is_restored() -> None:
    model, optimizer = trained()
    teacher = nn.BatchNorm1d(2)
    model.teacher = [teacher]  # a list, so that it is not a submodule
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    with preserve_state(model, optimizer):
        teacher(torch.randn(8, 2)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert teacher.weight.grad is None


def test_an_average_of_the_weights_in_an_object_is_restored() -> None:
    class Average:
        def __init__(self, model: nn.Module) -> None:
            self.model = model
            self.weights = [p.detach().clone() for p in model.parameters()]

    model, optimizer = trained()
    vars(model)["average"] = average = Average(model)
    before = [weight.clone() for weight in average.weights]
    with preserve_state(model, optimizer):
        for weight in average.weights:
            weight.mul_(2)
    assert all(map(torch.equal, average.weights, before))


def test_a_long_list_is_data_and_stays_as_it_is() -> None:
    model, optimizer = trained()
    model.samples = list(range(1001))
    with preserve_state(model, optimizer):
        model.samples.append(1)
    assert len(model.samples) == 1002


@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_sparse_gradient_is_restored(coalesced: bool, replaced: bool) -> None:
    model = nn.Embedding(6, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    model(torch.tensor([1, 1, 4])).pow(2).sum().backward()
    if coalesced:
        model.weight.grad = model.weight.grad.coalesce()
    grad = model.weight.grad
    weight, before = model.weight.detach().clone(), grad.clone()
    with preserve_state(model, optimizer):
        if replaced:
            optimizer.zero_grad()
        else:
            grad.mul_(3)
        model(torch.tensor([2, 3])).sum().backward()
        optimizer.step()
    assert torch.equal(model.weight, weight)
    assert model.weight.grad is grad
    assert grad.is_coalesced() == coalesced
    assert torch.equal(grad._indices(), before._indices())
    assert torch.equal(grad._values(), before._values())
    assert not optimizer.state


def test_complex_weights_buffers_and_momentum_are_restored() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    model.register_buffer("phase", torch.randn(3, dtype=torch.complex64).conj())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        (model.weight * model.phase).abs().pow(2).sum().backward()
        optimizer.step()

    step()
    tensors = [model.weight, model.phase, model.weight.grad]
    tensors += [optimizer.state[model.weight]["momentum_buffer"]]
    before = [tensor.detach().clone() for tensor in tensors]
    with preserve_state(model, optimizer):
        step()
        model.phase.mul_(1j)
    assert all(map(torch.equal, tensors, before))
    assert optimizer.state[model.weight]["momentum_buffer"] is tensors[-1]


def test_an_object_with_hidden_state_in_the_optimizer_is_refused_before_any_change() -> None:
    model, optimizer = trained()
    optimizer.state[model.weight]["calls"] = count()
    refused = pytest.raises(TaskError, match="holds a count, which cannot be restored")
    with refused, preserve_state(model, optimizer):
        raise AssertionError
    assert next(optimizer.state[model.weight]["calls"]) == 0


@pytest.mark.filterwarnings("ignore:.*mkldnn.*")
def test_a_tensor_without_accessible_memory_is_refused_before_any_change() -> None:
    model, optimizer = trained()
    model.fast = torch.ones(2).to_mkldnn()
    refused = pytest.raises(TaskError, match=r"layout torch\._mkldnn cannot be restored")
    with refused, preserve_state(model, optimizer):
        raise AssertionError

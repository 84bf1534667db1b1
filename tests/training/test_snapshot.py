"""preserve_state restores everything: bit for bit, object by object."""

import numpy as np
import pytest
import torch
from restoring import Boom, train, trained_after, training_setup
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ratecraft._training._state import restore_all
from ratecraft.errors import TaskError
from ratecraft.finder import preserve_state


def disturb(model, optimizer, loader) -> None:
    train(model, optimizer, loader, 6)
    model.eval()
    model.head.bias.requires_grad_(True)
    for group in optimizer.param_groups:
        group["lr"] = 3.0
        group["new"] = 1
    model.body[0].weight.grad = None


def normally(model, optimizer, loader) -> None:
    with preserve_state(model, optimizer, loader):
        disturb(model, optimizer, loader)


def interrupted_by(error: BaseException):
    def trial(model, optimizer, loader) -> None:
        def run() -> None:
            with preserve_state(model, optimizer, loader):
                disturb(model, optimizer, loader)
                raise error

        with pytest.raises(type(error)):
            run()

    return trial


@pytest.mark.parametrize(
    "trial",
    [normally, interrupted_by(Boom()), interrupted_by(KeyboardInterrupt())],
    ids=["end", "error", "ctrl-c"],
)
def test_later_training_is_bitwise_unchanged(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    assert untouched[1].keys() == touched[1].keys()
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert torch.equal(untouched[2], touched[2])
    assert np.array_equal(untouched[3], touched[3])
    assert untouched[4] == touched[4]


def test_without_preserve_state_later_training_changes() -> None:
    assert trained_after(disturb)[0] != trained_after(None)[0]


def test_tensors_remain_the_same_objects_in_the_same_memory() -> None:
    model, optimizer, loader = training_setup()
    train(model, optimizer, loader, 6)
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    tensors += [state["momentum_buffer"] for state in optimizer.state.values()]
    addresses = [(id(t), t.data_ptr()) for t in tensors if t is not None]
    normally(model, optimizer, loader)
    after = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    after += [state["momentum_buffer"] for state in optimizer.state.values()]
    assert [(id(t), t.data_ptr()) for t in after if t is not None] == addresses


def test_modes_gradients_and_groups_are_restored() -> None:
    model, optimizer, loader = training_setup()
    modes = [module.training for module in model.modules()]
    normally(model, optimizer, loader)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.head.bias.requires_grad
    assert not optimizer.state
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.05]
    assert "new" not in optimizer.param_groups[0]
    assert float(model.calls) == 0


def test_history_of_lbfgs_is_restored() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = torch.optim.LBFGS([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight**4).sum()
        loss.backward()
        return loss

    def run() -> torch.Tensor:
        optimizer.step(closure)
        return weight.detach().clone()

    run()
    with preserve_state(nn.Module(), optimizer):
        first = run()
    assert torch.equal(run(), first)


def test_tensor_lr_is_restored_in_place() -> None:
    lr = torch.tensor(0.5)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight], lr=lr)
    with preserve_state(nn.Module(), optimizer):
        lr.fill_(9.0)
        optimizer.param_groups[0]["lr"] = 3.0
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == 0.5


def test_expanded_buffer_is_restored() -> None:
    model, optimizer, _ = training_setup()
    model.register_buffer("mask", torch.ones(1, 4).expand(8, 4))
    with preserve_state(model, optimizer):
        optimizer.param_groups[0]["lr"] = 3.0
        model.mask = torch.zeros(8, 4)
    assert torch.equal(model.mask, torch.ones(8, 4))
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_failed_or_interrupted_restore_does_not_skip_the_others() -> None:
    calls = []

    def interrupted_once() -> None:
        calls.append("first")
        if len(calls) == 1:
            raise KeyboardInterrupt

    def failing() -> None:
        raise ValueError("cannot be restored")

    with pytest.raises(KeyboardInterrupt):
        restore_all([interrupted_once, failing, lambda: calls.append("last")])
    assert calls == ["first", "first", "last"]


def test_generator_of_a_sampler_is_restored() -> None:
    data = TensorDataset(torch.arange(10))
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(5))
    loader = DataLoader(data, batch_size=2, sampler=sampler)
    model, optimizer, _ = training_setup()
    with preserve_state(model, optimizer, loader):
        first = [batch[0].tolist() for batch in loader]
    assert [batch[0].tolist() for batch in loader] == first


def test_one_way_stream_raises() -> None:
    model, optimizer, loader = training_setup()
    refused = pytest.raises(TaskError, match=r"iterated only once .* give a list of batches")
    with refused, preserve_state(model, optimizer, iter(loader)):
        pass

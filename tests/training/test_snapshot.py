"""Whatever a trial run does, everything is as it was: bit for bit, object by object."""

import numpy as np
import pytest
import torch
from restoring import Boom, train, trained_after, world
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ratecraft._training._snapshot import _restore_all
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


def by(error: BaseException):
    def trial(model, optimizer, loader) -> None:
        def interrupted() -> None:
            with preserve_state(model, optimizer, loader):
                disturb(model, optimizer, loader)
                raise error

        with pytest.raises(type(error)):
            interrupted()

    return trial


@pytest.mark.parametrize(
    "trial", [normally, by(Boom()), by(KeyboardInterrupt())], ids=["end", "error", "ctrl-c"]
)
def test_training_goes_on_as_if_nothing_had_happened(trial) -> None:
    untouched, touched = trained_after(None), trained_after(trial)
    assert touched[0] == untouched[0]
    assert untouched[1].keys() == touched[1].keys()
    for name, tensor in untouched[1].items():
        assert torch.equal(tensor, touched[1][name]), name
    assert torch.equal(untouched[2], touched[2])
    assert np.array_equal(untouched[3], touched[3])
    assert untouched[4] == touched[4]


def test_without_it_the_same_trial_is_seen() -> None:
    assert trained_after(disturb)[0] != trained_after(None)[0]


def test_tensors_stay_the_same_objects_in_the_same_memory() -> None:
    model, optimizer, loader = world()
    train(model, optimizer, loader, 6)
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    tensors += [state["momentum_buffer"] for state in optimizer.state.values()]
    places = [(id(t), t.data_ptr()) for t in tensors if t is not None]
    normally(model, optimizer, loader)
    after = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    after += [state["momentum_buffer"] for state in optimizer.state.values()]
    assert [(id(t), t.data_ptr()) for t in after if t is not None] == places


def test_modes_gradients_and_groups_come_back() -> None:
    model, optimizer, loader = world()
    modes = [module.training for module in model.modules()]
    normally(model, optimizer, loader)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.head.bias.requires_grad
    assert not optimizer.state
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.05]
    assert "new" not in optimizer.param_groups[0]
    assert float(model.calls) == 0


def test_lbfgs_keeps_its_history() -> None:
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


def test_a_tensor_lr_comes_back_in_place() -> None:
    lr = torch.tensor(0.5)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight], lr=lr)
    with preserve_state(nn.Module(), optimizer):
        lr.fill_(9.0)
        optimizer.param_groups[0]["lr"] = 3.0
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == 0.5


def test_a_buffer_whose_elements_share_memory_comes_back() -> None:
    model, optimizer, _ = world()
    model.register_buffer("mask", torch.ones(1, 4).expand(8, 4))
    with preserve_state(model, optimizer):
        optimizer.param_groups[0]["lr"] = 3.0
        model.mask = torch.zeros(8, 4)
    assert torch.equal(model.mask, torch.ones(8, 4))
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_a_restore_that_fails_or_is_interrupted_stops_no_other() -> None:
    done = []

    def once() -> None:
        done.append("tried")
        if len(done) == 1:
            raise KeyboardInterrupt

    def never() -> None:
        raise ValueError("cannot be put back")

    with pytest.raises(KeyboardInterrupt):
        _restore_all([once, never, lambda: done.append("last")])
    assert done == ["tried", "tried", "last"]


def test_generators_of_samplers_come_back() -> None:
    data = TensorDataset(torch.arange(10))
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(5))
    loader = DataLoader(data, batch_size=2, sampler=sampler)
    model, optimizer, _ = world()
    with preserve_state(model, optimizer, loader):
        first = [batch[0].tolist() for batch in loader]
    assert [batch[0].tolist() for batch in loader] == first


def test_a_one_way_stream_is_refused() -> None:
    model, optimizer, loader = world()
    refused = pytest.raises(TaskError, match=r"one-way stream .* give a list of batches")
    with refused, preserve_state(model, optimizer, iter(loader)):
        pass

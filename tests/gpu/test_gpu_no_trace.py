"""Searches leave no trace, bit for bit: dropout and other random numbers, cudnn, a GradScaler."""

import pytest
import torch
from torch import nn

from ratecraft.finder import find_lr, range_test


@pytest.fixture(autouse=True)
def deterministic():
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


def training(device):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(8 * 36, 10),
    ).to(device)  # fmt: skip
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[-1].parameters()}]
    return model, torch.optim.AdamW(groups, lr=0.02, fused=True)


def batches(device):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 16, 1, 8, 8, generator=generator)
    y = torch.randint(10, (24, 16), generator=generator)
    return list(zip(x.to(device), y.to(device), strict=True))


def noisy_loss(model, batch):
    x, y = batch
    half = torch.float16 if x.is_cuda else torch.bfloat16
    with torch.autocast(x.device.type, dtype=half):
        outputs = model(x + 0.1 * torch.randn_like(x))
    return nn.functional.cross_entropy(outputs.float(), y)


def train(model, optimizer, scaler, loader):
    losses = []
    for batch in loader:
        loss = noisy_loss(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


def trained(device, search):
    """Train before and after a search; return everything that it could have changed."""
    model, optimizer = training(device)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    loader = batches(device)
    losses = [train(model, optimizer, scaler, loader[:6])]
    if search:
        search(model, optimizer, loader, noisy_loss, scaler=scaler, progress=False)
    losses.append(train(model, optimizer, scaler, loader[6:]))
    states = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [*model.parameters(), *model.buffers(), *states, *losses]
    tensors += [torch.rand(3), torch.rand(3, device=device), torch.tensor(scaler.get_scale())]
    return [tensor.detach().cpu() for tensor in tensors]


@pytest.mark.parametrize(
    "search",
    [
        lambda *args, **options: find_lr(*args, total_steps=100, budget_steps=80, **options),
        lambda *args, **options: range_test(*args, steps=30, **options),
    ],
    ids=["find_lr", "range_test"],
)
def test_training_goes_on_as_if_there_had_been_no_search(device, search):
    expected, actual = trained(device, None), trained(device, search)
    assert all(map(torch.equal, expected, actual))

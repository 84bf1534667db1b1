"""A Task in mixed precision on a device, against a loop by hand."""

import pytest
import torch

from ratecraft import ScheduleLR, cosine, warmup
from ratecraft.experiments import Task, train

SCHEDULE = warmup(2).then(cosine(1, 0.1))
STEPS, ACCUMULATE, LR = 10, 2, 0.05


def make_model():
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))


@pytest.mark.parametrize("skips", [False, True])
def test_task_in_mixed_precision_is_bit_for_bit_a_loop_by_hand(device, skips) -> None:
    half = torch.float16 if device == "cuda" else torch.bfloat16
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    # A scale at which the gradients of the first step overflow.
    settings = {"init_scale": 3e38, "backoff_factor": 1e-34} if skips else {"init_scale": 256.0}

    def loss(model, batch):
        with torch.autocast(device, dtype=half):
            return (model(batch).float() - batch.sum(1, keepdim=True)).square().mean()

    def make_scaler():
        return torch.amp.GradScaler(device, **settings)

    task = Task(
        model=make_model,
        loss=loss,
        train=x.split(8),
        val=[x],
        optimizer=lambda model: torch.optim.AdamW(model.parameters()),
        accumulate=ACCUMULATE,
        clip=0.5,
        scaler=make_scaler,
        device=device,
    )
    run = train(task, SCHEDULE, lr=LR, seed=1, total_steps=STEPS)
    torch.manual_seed(1)
    model = make_model().to(device)
    optimizer, scaler = torch.optim.AdamW(model.parameters()), make_scaler()
    scheduler = ScheduleLR(optimizer, lr=LR * SCHEDULE, total_steps=STEPS)
    losses, batches = [], x.to(device).split(8) * 2
    for k in range(STEPS):
        total = 0.0
        optimizer.zero_grad()
        for batch in batches[k * ACCUMULATE : (k + 1) * ACCUMULATE]:
            part = loss(model, batch) / ACCUMULATE
            scaler.scale(part).backward()
            total = total + part.detach()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(total))
    assert scheduler.last_epoch == (STEPS - 1 if skips else STEPS)
    assert list(run.losses) == losses
    with torch.no_grad():
        assert run.final() == float(loss(model, x.to(device)))

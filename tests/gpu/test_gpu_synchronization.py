"""Waits for the GPU: none in a step, and in a range test those that its docs name."""

import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.finder import range_test
from ratecraft.torch import PlateauLR, ScheduleLR

pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")

STEPS, SCHEDULE = 100, warmup(20).then(cosine())
MESSAGE = "called a synchronizing CUDA operation"
FORMS = {
    "foreach": ({"foreach": True}, False),
    "capturable, tensor lr": ({"foreach": True, "capturable": True}, True),
    "fused": ({"fused": True}, False),
    "fused, tensor lr": ({"fused": True, "capturable": True}, True),
}


@contextmanager
def sync_debug_mode(device, mode):
    """Let CUDA raise an error, or warn, at each wait for the GPU; has no effect on the CPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def training(device, form="foreach"):
    options, has_tensor_lr = FORMS[form]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    model.to(device)
    lr = torch.tensor(0.01, device=device) if has_tensor_lr else 0.01
    return model, torch.optim.AdamW(model.parameters(), lr=lr, **options)


def squares(model, batch):
    return (model(batch) - batch.sum(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("probes", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_hundred_scheduled_steps_do_not_wait(device, form, probes):
    if device == "cpu" and "tensor" in form:
        pytest.skip("capturable optimizers need a GPU")
    model, optimizer = training(device, form)
    scheduler = PlateauLR(ScheduleLR(optimizer, factor=SCHEDULE, total_steps=STEPS))
    inputs = torch.randn(16, 8, device=device)
    with Probe(optimizer, model, every=10) if probes else nullcontext() as probe:
        with sync_debug_mode(device, "error"):
            for k in range(STEPS):
                squares(model, inputs).backward()
                optimizer.step()
                optimizer.zero_grad()
                if k % 10 == 9:
                    scheduler.step(1.0)
        if probes:
            assert len(probe.rows()) == 10 * 2
    assert scheduler.scheduler.last_epoch == STEPS


def waits(device, steps):
    """Return how often a range test waits for the GPU."""
    model, optimizer = training(device)
    loader = list(torch.randn(100, 16, 8, device=device))
    with warnings.catch_warnings(record=True) as caught, sync_debug_mode(device, "warn"):
        warnings.simplefilter("always")
        result = range_test(
            model, optimizer, loader, squares, steps=steps, low=1e-6, high=1e-3, progress=False
        )
    assert len(result.lrs) == steps
    return sum(MESSAGE in str(warning.message) for warning in caught)


def test_a_range_test_waits_once_for_eight_steps(device):
    expected = 4 if device == "cuda" else 0
    assert waits(device, 64) - waits(device, 32) == expected


def test_a_fused_optimizer_under_amp_waits_once_for_each_step(cuda):
    model, optimizer = training(cuda, "fused")
    scaler = torch.amp.GradScaler(cuda)
    inputs = torch.randn(16, 8, device=cuda)

    def count():
        with warnings.catch_warnings(record=True) as caught, sync_debug_mode(cuda, "warn"):
            warnings.simplefilter("always")
            for _ in range(10):
                scaler.scale(squares(model, inputs)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        return sum(MESSAGE in str(warning.message) for warning in caught)

    count()  # creates the states
    without = count()
    ScheduleLR(optimizer, factor=SCHEDULE, total_steps=STEPS)
    assert count() - without == 10

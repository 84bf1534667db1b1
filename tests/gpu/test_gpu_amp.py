"""Mixed precision: steps that a GradScaler skips are not counted, with any form of AdamW."""

import math

import pytest
import torch

from ratecraft import cosine, warmup
from ratecraft.diagnostics import Probe
from ratecraft.torch import ScheduleLR

STEPS, SKIPPED = 12, (2, 3, 7)
CURVE = warmup(4).then(cosine(1, 0.1)).resolve(total_steps=STEPS)
FORMS = {
    "plain": {},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"capturable": True},
    "fused and capturable": {"fused": True, "capturable": True},
}


@pytest.mark.parametrize("lr", ["float", "tensor"])
@pytest.mark.parametrize("form", FORMS)
def test_skipped_steps_are_not_counted(device, form, lr):
    options = FORMS[form]
    if device == "cpu" and "capturable" in options:
        pytest.skip("capturable optimizers need a GPU")
    if lr == "tensor" and form == "foreach" and device == "cpu":
        pytest.skip("torch allows a tensor lr with foreach only in capturable optimizers")
    if lr == "tensor" and form == "foreach":
        options = {"foreach": True, "capturable": True}
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    model.to(device)
    base = torch.tensor(0.25, device=device) if lr == "tensor" else 0.25
    optimizer = torch.optim.AdamW(model.parameters(), lr=base, **options)
    scheduler = ScheduleLR(optimizer, factor=CURVE.schedule, total_steps=STEPS)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**8)
    half = torch.float16 if device == "cuda" else torch.bfloat16
    inputs, used = torch.ones(4, 8, device=device), []
    with Probe(optimizer, model, every=1, scaler=scaler) as probe:
        for k in range(STEPS):
            used.append(float(optimizer.param_groups[0]["lr"]))
            with torch.autocast(device, dtype=half):
                loss = model(inputs).float().square().mean()
            scaler.scale(loss * (math.inf if k in SKIPPED else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    counts = [sum(k not in SKIPPED for k in range(n)) for n in range(STEPS)]
    assert used == pytest.approx([0.25 * CURVE(count) for count in counts], rel=1e-6)
    assert scheduler.last_epoch == STEPS - len(SKIPPED)
    assert {row.step for row in probe.rows()} == set(range(STEPS - len(SKIPPED)))

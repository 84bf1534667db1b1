"""A tensor lr under torch.compile and in CUDA graphs: no recompilation, the right lrs.

On the CPU, tests/torch/test_compile.py has the same for torch.compile.
"""

import pytest
import torch
from torch._dynamo.utils import counters

from ratecraft import cosine, warmup
from ratecraft.torch import ScheduleLR

STEPS, WARMUP_STEPS = 200, 3
CURVE = warmup(10).then(cosine(1, 0.1)).resolve(total_steps=STEPS)
LRS = torch.tensor([0.125 * value for value in map(CURVE, range(STEPS))]).tolist()

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the compiler
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def training(device, *, clock="optimizer", fused=False):
    weight = torch.nn.Parameter(torch.ones(64, device=device))
    weight.grad = torch.zeros_like(weight)
    lr = torch.tensor(0.125, device=device)
    optimizer = torch.optim.AdamW([weight], lr=lr, capturable=True, fused=fused)
    scheduler = ScheduleLR(optimizer, factor=CURVE.schedule, total_steps=STEPS, clock=clock)
    return weight, optimizer, scheduler


def gradient(weight, k):
    return torch.arange(len(weight), device=weight.device).add(k).cos()


def eager_weights(device, **options):
    weight, optimizer, _ = training(device, **options)
    for k in range(STEPS):
        weight.grad.copy_(gradient(weight, k))
        optimizer.step()
    return weight


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_step_is_compiled_once(cuda, mode):
    weight, optimizer, scheduler = training(cuda)
    step = torch.compile(optimizer.step, mode=mode)  # "reduce-overhead" uses CUDA graphs
    used, graphs = [], []
    for k in range(STEPS):
        used.append(optimizer.param_groups[0]["lr"].clone())
        weight.grad.copy_(gradient(weight, k))
        step()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[-1] == graphs[WARMUP_STEPS - 1]
    assert torch.stack(used).tolist() == LRS
    assert scheduler.last_epoch == STEPS
    torch.testing.assert_close(weight, eager_weights(cuda))


@pytest.mark.parametrize("fused", [False, True])
def test_replayed_cuda_graph_reads_the_scheduled_lr(cuda, fused):
    # A replay calls no hooks, so the schedule counts calls of step().
    weight, optimizer, scheduler = training(cuda, clock="step", fused=fused)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for k in range(WARMUP_STEPS):
            weight.grad.copy_(gradient(weight, k))
            optimizer.step()
            scheduler.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records the step, and does not take it
        optimizer.step()
    used = []
    for k in range(WARMUP_STEPS, STEPS):
        used.append(optimizer.param_groups[0]["lr"].clone())
        weight.grad.copy_(gradient(weight, k))
        graph.replay()
        scheduler.step()
    assert torch.stack(used).tolist() == LRS[WARMUP_STEPS:]
    torch.testing.assert_close(weight, eager_weights(cuda, fused=fused))

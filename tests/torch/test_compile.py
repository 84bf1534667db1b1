"""ScheduleLR with torch.compile: the step is compiled once for a thousand lrs."""

import shutil
from copy import deepcopy

import pytest
import torch
from torch._dynamo.utils import counters
from torch.optim.lr_scheduler import LambdaLR

from ratecraft import cosine, warmup
from ratecraft.torch import ScheduleLR

pytestmark = [
    # Inductor imports a module of torch that defines script methods.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    # Torch 2.6 warns while it compiles.
    pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles_inline"),
    # So does torch 2.15, on Python 3.13.0 alone.
    pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0"),
]

BASE = 0.125
STEPS = 1000
SCHEDULE = warmup(10).then(cosine(1, 0.1))
# An lr that must not be compiled in as a constant is a tensor, so a float32.
CURVE = torch.tensor(
    [BASE * value for value in map(SCHEDULE.resolve(total_steps=STEPS), range(STEPS))]
).tolist()
WARMUP_STEPS = 3  # after which the optimizer has its state and its step is compiled

OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    with torch._inductor.config.patch(
        compile_threads=1
    ):  # compile in this process, without workers
        yield
    torch._dynamo.reset()


def training(name, *, tensor=True):
    """Return a weight, its optimizer (the lr is a float or a tensor) and the scheduler."""
    weight = torch.nn.Parameter(torch.ones(4))
    lr = torch.tensor(BASE) if tensor else BASE
    optimizer = OPTIMIZERS[name]([{"params": [weight], "lr": lr}])
    return weight, optimizer, ScheduleLR(optimizer, factor=SCHEDULE, total_steps=STEPS)


class Steps:
    """Train some steps; record each step's lr and the number of compiled graphs after it."""

    def __init__(self, weight, optimizer, step, numbers=range(STEPS)):
        self.lrs, self.graphs = [], []
        for k in numbers:
            self.lrs.append(float(optimizer.param_groups[0]["lr"]))
            weight.grad = torch.arange(weight.numel()).add(k).cos().view_as(weight)
            step()
            self.graphs.append(counters["stats"]["unique_graphs"])

    def recompiled(self):
        assert self.graphs[0] > 0, "nothing was compiled"
        return self.graphs[-1] - self.graphs[WARMUP_STEPS - 1]


@needs_compiler
@each_optimizer
def test_163093_a_thousand_lrs_do_not_recompile(name):
    weight, optimizer, _ = training(name)
    run = Steps(weight, optimizer, torch.compile(optimizer.step))
    assert run.lrs == CURVE
    assert run.recompiled() == 0
    plain, eager, _ = training(name)
    Steps(plain, eager, eager.step)
    torch.testing.assert_close(weight, plain)


@each_optimizer
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_163093_a_thousand_lrs_do_not_recompile_with_other_backends(name, backend):
    weight, optimizer, _ = training(name)
    run = Steps(weight, optimizer, torch.compile(optimizer.step, backend=backend))
    assert run.lrs == CURVE
    assert run.recompiled() == 0


@each_optimizer
def test_float_lr_is_correct_though_it_recompiles(name):
    weight, optimizer, _ = training(name, tensor=False)
    run = Steps(weight, optimizer, torch.compile(optimizer.step, backend="eager"))
    assert run.lrs == [
        BASE * value for value in map(SCHEDULE.resolve(total_steps=STEPS), range(STEPS))
    ]


@each_optimizer
def test_torchtune_2263_step_compiled_before_the_scheduler_is_built(name):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = OPTIMIZERS[name]([{"params": [weight], "lr": torch.tensor(BASE)}])
    optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
    with pytest.raises(AttributeError, match="__func__"):
        LambdaLR(optimizer, SCHEDULE.resolve(total_steps=STEPS))  # as with every class of torch
    del optimizer.param_groups[0]["initial_lr"]
    ScheduleLR(optimizer, factor=SCHEDULE, total_steps=STEPS)
    run = Steps(weight, optimizer, optimizer.step)
    assert run.lrs == CURVE
    assert run.recompiled() == 0


@each_optimizer
def test_step_compiled_after_the_scheduler_is_built(name):
    weight, optimizer, scheduler = training(name)
    optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
    assert Steps(weight, optimizer, optimizer.step).lrs == CURVE
    assert scheduler.last_epoch == STEPS


@each_optimizer
def test_run_with_a_compiled_step_resumes_bit_for_bit(name):
    weight, optimizer, scheduler = training(name)
    step = torch.compile(optimizer.step, backend="aot_eager")
    Steps(weight, optimizer, step, range(20))
    state = deepcopy((weight.data, optimizer.state_dict(), scheduler.state_dict()))
    whole = Steps(weight, optimizer, step, range(20, 40))
    again, theirs, resumed = training(name)
    again.data.copy_(state[0])
    theirs.load_state_dict(state[1])
    resumed.load_state_dict(state[2])
    step = torch.compile(theirs.step, backend="aot_eager")
    assert Steps(again, theirs, step, range(20, 40)).lrs == whole.lrs == CURVE[20:40]
    assert torch.equal(again, weight)


@each_optimizer
def test_whole_training_step_compiled(name):
    weight, optimizer, _ = training(name)

    @torch.compile(backend="aot_eager")
    def step():
        loss = (weight - 2).pow(2).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    run = Steps(weight, optimizer, step)
    assert run.lrs == CURVE
    assert run.recompiled() == 0


def test_compiled_model_with_an_eager_optimizer_does_not_recompile():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    ScheduleLR(optimizer, factor=SCHEDULE, total_steps=STEPS)
    forward = torch.compile(model, backend="aot_eager")

    def step():
        optimizer.zero_grad()
        forward(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()

    run = Steps(model.weight, optimizer, step)
    assert run.lrs == [
        BASE * value for value in map(SCHEDULE.resolve(total_steps=STEPS), range(STEPS))
    ]
    assert run.graphs[0] == run.graphs[-1] == 1

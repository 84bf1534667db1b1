"""ScheduleLR with torch.compile: a thousand lrs, and the step is compiled once."""

import shutil
from copy import deepcopy

import pytest
import torch
from torch._dynamo.utils import counters
from torch.optim.lr_scheduler import LambdaLR

from ratecraft import cosine, warmup
from ratecraft.torch import ScheduleLR

# Inductor imports a part of torch that defines script methods.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")

BASE = 0.125
STEPS = 1000
PLAN = warmup(10).then(cosine(1, 0.1))
# An lr that is not to be compiled in is a tensor, and so a float32.
CURVE = torch.tensor(
    [BASE * value for value in map(PLAN.resolve(total_steps=STEPS), range(STEPS))]
).tolist()
SETTLED = 3  # steps after which the optimizer has its state and its step is compiled

OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
}
both = pytest.mark.parametrize("kind", OPTIMIZERS)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    torch._dynamo.reset()
    counters.clear()
    with torch._inductor.config.patch(compile_threads=1):  # in this process: no workers are left
        yield
    torch._dynamo.reset()


def innermost_optimizer(kind, *, tensor=True):
    """Return a weight, and its optimizer with a schedule; a float or a tensor holds the lr."""
    weight = torch.nn.Parameter(torch.ones(4))
    lr = torch.tensor(BASE) if tensor else BASE
    optimizer = OPTIMIZERS[kind]([{"params": [weight], "lr": lr}])
    return weight, optimizer, ScheduleLR(optimizer, factor=PLAN, total_steps=STEPS)


class Steps:
    """What some steps did: their lrs, and how many graphs there were after each."""

    def __init__(self, weight, optimizer, step, numbers=range(STEPS)):
        self.lrs, self.graphs = [], []
        for k in numbers:
            self.lrs.append(float(optimizer.param_groups[0]["lr"]))
            weight.grad = torch.arange(weight.numel()).add(k).cos().view_as(weight)
            step()
            self.graphs.append(counters["stats"]["unique_graphs"])

    def recompiled(self):
        assert self.graphs[0] > 0, "nothing was compiled at all"
        return self.graphs[-1] - self.graphs[SETTLED - 1]


@needs_compiler
@both
def test_163093_a_thousand_lrs_recompile_nothing(kind):
    weight, optimizer, _ = innermost_optimizer(kind)
    run = Steps(weight, optimizer, torch.compile(optimizer.step))
    assert run.lrs == CURVE
    assert run.recompiled() == 0
    plain, eager, _ = innermost_optimizer(kind)
    Steps(plain, eager, eager.step)
    torch.testing.assert_close(weight, plain)


@both
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_163093_nor_do_they_with_other_backends(kind, backend):
    weight, optimizer, _ = innermost_optimizer(kind)
    run = Steps(weight, optimizer, torch.compile(optimizer.step, backend=backend))
    assert run.lrs == CURVE
    assert run.recompiled() == 0


@both
def test_a_lr_that_is_a_float_is_right_too_though_it_recompiles(kind):
    weight, optimizer, _ = innermost_optimizer(kind, tensor=False)
    run = Steps(weight, optimizer, torch.compile(optimizer.step, backend="eager"))
    assert run.lrs == [BASE * value for value in map(PLAN.resolve(total_steps=STEPS), range(STEPS))]


@both
def test_torchtune_2263_the_step_may_be_compiled_before_there_is_a_scheduler(kind):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = OPTIMIZERS[kind]([{"params": [weight], "lr": torch.tensor(BASE)}])
    optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
    with pytest.raises(AttributeError, match="__func__"):
        LambdaLR(optimizer, PLAN.resolve(total_steps=STEPS))  # as all of torch's do
    del optimizer.param_groups[0]["initial_lr"]
    ScheduleLR(optimizer, factor=PLAN, total_steps=STEPS)
    run = Steps(weight, optimizer, optimizer.step)
    assert run.lrs == CURVE
    assert run.recompiled() == 0


@both
def test_the_step_may_be_compiled_after_there_is_a_scheduler(kind):
    weight, optimizer, scheduler = innermost_optimizer(kind)
    optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
    assert Steps(weight, optimizer, optimizer.step).lrs == CURVE
    assert scheduler.last_epoch == STEPS


@both
def test_a_run_with_a_compiled_step_resumes_to_the_last_bit(kind):
    weight, optimizer, scheduler = innermost_optimizer(kind)
    step = torch.compile(optimizer.step, backend="aot_eager")
    Steps(weight, optimizer, step, range(20))
    state = deepcopy((weight.data, optimizer.state_dict(), scheduler.state_dict()))
    whole = Steps(weight, optimizer, step, range(20, 40))
    again, theirs, resumed = innermost_optimizer(kind)
    again.data.copy_(state[0])
    theirs.load_state_dict(state[1])
    resumed.load_state_dict(state[2])
    step = torch.compile(theirs.step, backend="aot_eager")
    assert Steps(again, theirs, step, range(20, 40)).lrs == whole.lrs == CURVE[20:40]
    assert torch.equal(again, weight)


@both
def test_a_whole_training_step_may_be_compiled(kind):
    weight, optimizer, _ = innermost_optimizer(kind)

    @torch.compile(backend="aot_eager")
    def step():
        loss = (weight - 2).pow(2).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    run = Steps(weight, optimizer, step)
    assert run.lrs == CURVE
    assert run.recompiled() == 0


def test_a_compiled_model_with_an_eager_optimizer_recompiles_nothing():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    ScheduleLR(optimizer, factor=PLAN, total_steps=STEPS)
    forward = torch.compile(model, backend="aot_eager")

    def step():
        optimizer.zero_grad()
        forward(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()

    run = Steps(model.weight, optimizer, step)
    assert run.lrs == [BASE * value for value in map(PLAN.resolve(total_steps=STEPS), range(STEPS))]
    assert run.graphs[0] == run.graphs[-1] == 1

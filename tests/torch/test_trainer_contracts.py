"""What DeepSpeed and torchtitan call on a scheduler, in short copies of their code.

tests/peers/test_deepspeed.py and test_torchtitan.py run the packages where they are installed.
"""

import types

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from ratecraft import cosine, tokens, warmup
from ratecraft.errors import BindingError
from ratecraft.torch import PlateauLR, ScheduleLR

SCHEDULE, TOTAL_STEPS = warmup(2).then(cosine()), 6
CURVE = [SCHEDULE.resolve(total_steps=TOTAL_STEPS)(k) for k in range(TOTAL_STEPS)]


def training(**options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(model, (1.0, 0.5))]  # noqa: B905
    optimizer = torch.optim.AdamW(groups)
    options = {"factor": SCHEDULE, "total_steps": TOTAL_STEPS} | options
    return model, optimizer, ScheduleLR(optimizer, **options)


def backward(model):
    model(torch.ones(2, 4)).square().mean().backward()


# Zero1 is DeepSpeedZeroOptimizer.step, for one process without partitions:
# https://github.com/deepspeedai/DeepSpeed/blob/master/deepspeed/runtime/zero/stage_1_and_2.py
# Engine is DeepSpeedEngine._take_model_step:
# https://github.com/deepspeedai/DeepSpeed/blob/master/deepspeed/runtime/engine.py
DEEPSPEED = """
class Zero1:
    def __init__(self, optimizer):
        self.optimizer, self.overflow = optimizer, False
        self.optimizer.step()  # initialize_optimizer_states, before there are gradients

    def step(self):
        if self.overflow:
            return
        groups = self.optimizer.param_groups
        for group in groups:
            self.optimizer.param_groups = [group]
            self.optimizer.step()
            self.optimizer.param_groups = groups


class Engine:
    def __init__(self, optimizer, lr_scheduler, batch_size=8):
        self.optimizer, self.lr_scheduler, self.batch_size = optimizer, lr_scheduler, batch_size

    def step(self, lr_kwargs=None):
        self.optimizer.step()
        if not getattr(self.optimizer, "overflow", False):
            try:
                self.lr_scheduler.step(**(lr_kwargs or {}))
            except TypeError:
                self.lr_scheduler.step(self.batch_size)
"""


@pytest.fixture
def deepspeed(monkeypatch):
    """The copies, in a module with the name of DeepSpeed's."""
    module = types.ModuleType("deepspeed.runtime.zero.stage_1_and_2")
    exec(DEEPSPEED, vars(module))  # noqa: S102
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", module)
    return module


def test_deepspeed_zero_with_several_groups_follows_the_curve(deepspeed):
    model, optimizer, scheduler = training(clock="step")
    engine, used = deepspeed.Engine(deepspeed.Zero1(optimizer), scheduler), []
    for _ in range(TOTAL_STEPS):
        used.append([group["lr"] for group in optimizer.param_groups])
        backward(model)
        engine.step()
    assert used == [[value, value / 2] for value in CURVE]
    assert scheduler.last_epoch == TOTAL_STEPS


def test_deepspeed_skips_the_scheduler_after_an_overflow(deepspeed):
    _, optimizer, scheduler = training(clock="step")
    zero = deepspeed.Zero1(optimizer)
    engine = deepspeed.Engine(zero, scheduler)
    engine.step()
    zero.overflow = True
    engine.step()
    assert scheduler.last_epoch == 1


def test_optimizer_steps_inside_a_deepspeed_optimizer_cannot_be_counted(deepspeed):
    _, optimizer, scheduler = training()
    with pytest.raises(BindingError, match=r"they cannot be counted; pass clock=\"step\""):
        deepspeed.Zero1(optimizer)
    assert scheduler.last_epoch == 0


def test_deepspeed_passes_the_tokens_of_a_step(deepspeed):
    model, optimizer, scheduler = training(
        factor=cosine(), total_steps=tokens(600), tokens_per_step=100
    )
    engine = deepspeed.Engine(optimizer, scheduler)
    for _ in range(3):
        backward(model)
        engine.step(lr_kwargs={"tokens": 100})
    assert scheduler.position == 300
    with pytest.raises(TypeError, match="takes no epoch"):
        engine.step()


def test_removed_group_is_still_an_error():
    _, optimizer, _ = training()
    del optimizer.param_groups[1]
    with pytest.raises(BindingError, match="the optimizer has 1 param groups, and had 2"):
        optimizer.step()


# LRSchedulersContainer of torchtitan 0.3:
# https://github.com/pytorch/torchtitan/blob/main/torchtitan/components/lr_scheduler.py
class LRSchedulersContainer:
    def __init__(self, schedulers):
        self.schedulers = schedulers

    def step(self):
        for scheduler in self.schedulers:
            scheduler.step()

    def state_dict(self):
        return {"last_epoch": self.schedulers[0].last_epoch}

    def load_state_dict(self, state_dict):
        last_epoch = state_dict["last_epoch"]
        for scheduler in self.schedulers:
            scheduler.last_epoch = last_epoch
            scheduler._step_count = last_epoch + 1
            scheduler._last_lr = scheduler.get_lr()


@pytest.mark.filterwarnings("ignore:To get the last learning rate")
@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("name", ["ScheduleLR", "LambdaLR"])
def test_torchtitan_resumes_from_the_number_of_steps(name, optimizer_first):
    def build():
        if name == "ScheduleLR":
            model, optimizer, scheduler = training(clock="step")
        else:
            model, optimizer, schedule = training()
            schedule.remove()
            scheduler = LambdaLR(optimizer, SCHEDULE.resolve(total_steps=TOTAL_STEPS))
        return model, optimizer, LRSchedulersContainer([scheduler])

    def train(model, optimizer, container, steps):
        used = []
        for _ in range(steps):
            used.append([group["lr"] for group in optimizer.param_groups])
            backward(model)
            optimizer.step()
            container.step()
        return used

    whole, resumed = build(), build()
    train(*whole, 3)
    parts = zip(resumed[1:], whole[1:], strict=True)
    for part, saved in list(parts)[:: 1 if optimizer_first else -1]:
        part.load_state_dict(saved.state_dict())
    assert train(*resumed, 3) == [[value, value / 2] for value in CURVE[3:]]


def test_plateau_keeps_its_factor_when_torchtitan_moves_the_schedule():
    _, optimizer, schedule = training(clock="step")
    plateau = PlateauLR(schedule, factor=0.5, patience=0)
    plateau.step(1.0)
    plateau.step(1.0)
    LRSchedulersContainer([schedule]).load_state_dict({"last_epoch": 3})
    assert optimizer.param_groups[0]["lr"] == CURVE[3] * 0.5

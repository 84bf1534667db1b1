"""Kill a training process at a random step and resume from its last checkpoint, bit for bit.

Each training is a process that writes a checkpoint every few steps and is killed with SIGKILL at
a random step. The resumed process reads only the file.
"""

import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from ratecraft import (
    constant,
    cooldown,
    cosine,
    custom,
    decay,
    exponential,
    inverse_sqrt,
    linear,
    multiplicative,
    noam,
    one_cycle,
    one_minus_sqrt,
    percent,
    polynomial,
    power_law,
    restarts,
    rex,
    sqrt,
    square,
    staircase,
    tanh,
    triangular2,
    warmup,
    wsd,
)
from ratecraft.torch import ScheduleLR

STEPS, CHECKPOINT_EVERY, KILLS = 60, 4, 50


def bumpy(t):
    return 0.5 + 0.1 * (t % 3)


def falling(k):
    return 0.97


# One schedule of every family; each is the factor of a run.
FAMILIES = {
    "constant": constant(0.5),
    "linear": linear(1, 0),
    "cosine": cosine(1, 0.1),
    "half cycles": cosine(1, 0.1, half_cycles=3),
    "exponential": exponential(1, 0.01),
    "polynomial": polynomial(1, 0, 2),
    "square": square(),
    "sqrt": sqrt(),
    "1-sqrt": one_minus_sqrt(),
    "tanh": tanh(),
    "rex": rex(),
    "decay": decay(0.95),
    "inverse sqrt": inverse_sqrt(10),
    "power law": power_law(-0.6, 10),
    "warmup": warmup(10, shape="cosine"),
    "cooldown": constant(1).then(cooldown(percent(20))),
    "staircase": staircase([1, 0.3, 0.1], at=[20, 40]),
    "staircase lengths": staircase([1, 0.1, 0.01], lengths=[20, 20, 20]),
    "custom": custom(bumpy),
    "multiplicative": multiplicative(falling),
    "wsd": wsd(10),
    "one cycle": one_cycle(),
    "triangular2": triangular2(7),
    "restarts": restarts(n=3, grow=2, decay=0.5),
    "noam": 100 * noam(10, 64),
    "product": warmup(10) * cosine(1, 0.1),
    "clip": (2 * cosine()).clip(high=1),
    "rescale": cosine().rescale(0.1, 1),
    "over": cosine().over(40),
    "reversed": warmup(30).then(cosine()).reversed(),
}


def training(family):
    """Return model, optimizer, a ScheduleLR, and a torch scheduler that multiplies as well."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    groups = [{"params": [model.weight], "lr": 0.05}, {"params": [model.bias], "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups)
    foreign = lr_scheduler.ExponentialLR(optimizer, 0.99)
    ours = ScheduleLR(
        optimizer,
        factor=FAMILIES[family],
        hyperparam_factors={"weight_decay": linear(1, 0)},
        total_steps=STEPS,
    )
    return {"model": model, "optimizer": optimizer, "ours": ours, "foreign": foreign}


def train(family, path, die_at=None):
    """Train to the end, or until killed; resume from ``path`` and write checkpoints to it."""
    parts = training(family)
    lrs, losses, first = [], [], 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        first, lrs, losses = state["step"], state["lrs"], state["losses"]
        for name in random.sample(list(parts), len(parts)):  # in any order
            parts[name].load_state_dict(state[name])
    model, optimizer = parts["model"], parts["optimizer"]
    for step in range(first, STEPS):
        if step % CHECKPOINT_EVERY == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"step": step, "lrs": lrs, "losses": losses}
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 4))).float()
        loss = ((model(batch) - batch.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        lrs.append([group["lr"] for group in optimizer.param_groups])
        losses.append(loss.item())
        optimizer.step()
        parts["foreign"].step()
    weights = [p.detach().clone() for p in model.parameters()]
    torch.save({"lrs": lrs, "losses": losses, "weights": weights}, path.with_suffix(".end"))


def run(*arguments):
    """Train in a process; return its exit code, negative if a signal ended it."""
    process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def _ready_to_fork():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child does not have the parent's other threads
    training("constant")  # the first optimizer has slow imports: do them once, not in every child
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a function that returns the uninterrupted run of a family, trained once."""
    folder, seen = tmp_path_factory.mktemp("whole"), {}

    def of(family):
        if family not in seen:
            assert run(family, folder / family) == 0
            seen[family] = torch.load((folder / family).with_suffix(".end"), weights_only=True)
        return seen[family]

    return of


RANDOM = random.Random(4)
KILLED = [
    (family, RANDOM.randrange(1, STEPS))
    for family, _ in zip(list(FAMILIES) * 2, range(KILLS), strict=False)
]


@pytest.mark.parametrize(("family", "die_at"), KILLED)
def test_killed_run_resumes_bit_for_bit(family, die_at, uninterrupted, tmp_path):
    killed = tmp_path / "killed"
    assert run(family, killed, die_at) == -signal.SIGKILL
    assert not killed.with_suffix(".end").exists()
    assert run(family, killed) == 0
    expected = uninterrupted(family)
    seen = torch.load(killed.with_suffix(".end"), weights_only=True)
    assert seen["lrs"] == expected["lrs"]
    assert seen["losses"] == expected["losses"]
    for a, b in zip(seen["weights"], expected["weights"], strict=True):
        assert torch.equal(a, b)
    assert len(expected["lrs"]) == STEPS

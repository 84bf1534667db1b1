"""DeepSpeed's engine with ScheduleLR, on one CPU process; where DeepSpeed is installed."""

import os

import pytest
import torch
from torch import distributed

from ratecraft import cosine, warmup
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # DeepSpeed uses deprecated functions of torch
]

SCHEDULE, TOTAL_STEPS = warmup(2).then(cosine()), 6
EXPECTED = [
    [value, value / 2]
    for value in map(SCHEDULE.resolve(total_steps=TOTAL_STEPS), range(TOTAL_STEPS))
]
PRECISIONS = ["float32", "bf16"]


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory):
    """DeepSpeed, in a process group of one process."""
    package = pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    single = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in single.items():
            patch.setenv(name, value)
        store = distributed.FileStore(os.fspath(tmp_path_factory.mktemp("deepspeed") / "store"), 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        package.init_distributed("gloo")
        yield package
        distributed.destroy_process_group()


def engine_of(deepspeed, stage, precision, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    rows = zip(model, (1.0, 0.5), strict=True)
    optimizer = torch.optim.AdamW([{"params": list(m.parameters()), "lr": lr} for m, lr in rows])
    scheduler = ScheduleLR(optimizer, factor=SCHEDULE, total_steps=TOTAL_STEPS, **options)
    config = {
        "train_batch_size": 4,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    if precision != "float32":
        config[precision] = {"enabled": True}
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=scheduler, config=config
    )
    return engine, scheduler


def train(engine, steps):
    used = []
    for _ in range(steps):
        used.append([group["lr"] for group in engine.optimizer.param_groups])
        dtype = next(engine.module.parameters()).dtype
        engine.backward(engine(torch.ones(4, 4, dtype=dtype)).float().square().mean())
        engine.step()
    return used


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_engine_steps_the_schedule_once_for_each_step(deepspeed, stage, precision):
    engine, scheduler = engine_of(deepspeed, stage, precision, clock="step")
    assert train(engine, TOTAL_STEPS) == EXPECTED
    assert scheduler.last_epoch == TOTAL_STEPS


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_steps_of_the_optimizer_inside_zero_cannot_be_counted(deepspeed, stage):
    with pytest.raises(BindingError, match='pass clock="step"'):
        train(engine_of(deepspeed, stage, "float32")[0], 1)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_run_resumes_from_a_checkpoint_of_the_engine(deepspeed, stage, tmp_path):
    engine, _ = engine_of(deepspeed, stage, "float32", clock="step")
    train(engine, 3)
    engine.save_checkpoint(tmp_path)
    resumed, scheduler = engine_of(deepspeed, stage, "float32", clock="step")
    resumed.load_checkpoint(tmp_path)
    assert scheduler.last_epoch == 3
    assert train(resumed, 3) == EXPECTED[3:] == train(engine, 3)
    pairs = zip(engine.module.parameters(), resumed.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)

"""ScheduleLR with Ignite's engine, and with Ignite's handler for torch schedulers."""

import pytest
import torch

from ratecraft import cosine, warmup
from ratecraft.errors import BindingError
from ratecraft.torch import ScheduleLR

engine = pytest.importorskip("ignite.engine")
handlers = pytest.importorskip("ignite.handlers")
pytestmark = pytest.mark.peers

BASE = 0.1
SCHEDULE = warmup(3, start=0.2).then(cosine(1, 0.1))
CURVE = [BASE * value for value in map(SCHEDULE.resolve(total_steps=12), range(12))]


class Run:
    """Two epochs of six steps; ``seen`` is the lr of every step."""

    def __init__(self, clock="optimizer"):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=BASE)
        self.scheduler = ScheduleLR(self.optimizer, factor=SCHEDULE, total_steps=12, clock=clock)
        self.engine = engine.Engine(self.step)
        self.seen = []

    def step(self, _, batch):
        self.seen.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        self.model(batch).pow(2).mean().backward()
        self.optimizer.step()

    def attach_ignites_handler(self):
        handler = handlers.param_scheduler.LRScheduler(self.scheduler)
        self.engine.add_event_handler(engine.Events.ITERATION_STARTED, handler)

    def parts(self):
        names = "model", "optimizer", "scheduler", "engine"
        return {name: getattr(self, name) for name in names}

    def start(self):
        generator = torch.Generator().manual_seed(1)
        self.engine.run([torch.randn(4, 3, generator=generator) for _ in range(6)], max_epochs=2)
        return self.seen


def test_default_clock_needs_no_handler():
    assert Run().start() == CURVE


def test_ignites_handler_raises_with_the_default_clock():
    run = Run()
    run.attach_ignites_handler()
    with pytest.raises(
        BindingError, match=r'for a trainer that sets it \(Ignite\) pass clock="step"'
    ):
        run.start()


def test_ignites_handler_drives_the_step_clock():
    run = Run("step")
    run.attach_ignites_handler()
    assert run.start() == CURVE


def test_step_clock_stepped_by_an_event():
    run = Run("step")

    @run.engine.on(engine.Events.ITERATION_COMPLETED)
    def step():  # the method itself would get the engine as its argument epoch
        run.scheduler.step()

    assert run.start() == CURVE


def test_ignites_simulation_reads_the_schedule_and_changes_nothing():
    run = Run("step")
    simulate = handlers.param_scheduler.LRScheduler.simulate_values
    assert [lr for _, lr in simulate(12, run.scheduler)] == CURVE
    run.attach_ignites_handler()
    assert run.start() == CURVE


def saved_after_an_epoch(folder, clock="optimizer", *, attach):
    """Return a run that was saved in the middle, and one resumed from there."""
    whole, resumed = Run(clock), Run(clock)
    disk = handlers.DiskSaver(str(folder), require_empty=False)
    save = handlers.Checkpoint(whole.parts(), disk, filename_pattern="middle.pt")
    whole.engine.add_event_handler(engine.Events.EPOCH_COMPLETED(once=1), save)
    for run in (whole, resumed):
        attach(run)
    whole.start()
    state = torch.load(folder / "middle.pt", weights_only=True)
    handlers.Checkpoint.load_objects(resumed.parts(), state)
    resumed.start()
    return whole, resumed


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_resumed_run_is_equal_bit_for_bit(tmp_path):
    whole, resumed = saved_after_an_epoch(tmp_path, attach=lambda run: None)
    assert resumed.seen == CURVE[6:]
    assert whole.seen == CURVE
    assert same(resumed.model, whole.model)


def test_run_resumed_with_ignites_handler_is_equal_bit_for_bit(tmp_path):
    whole, resumed = saved_after_an_epoch(tmp_path, "step", attach=Run.attach_ignites_handler)
    assert resumed.seen == CURVE[6:]
    assert whole.seen == CURVE
    assert same(resumed.model, whole.model)

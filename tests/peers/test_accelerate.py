"""ScheduleLR prepared by Accelerate, which steps a scheduler once for each process.

In Accelerate's issues 2708, 1382 and 2318, a schedule planned in optimizer steps runs n times too
fast over n processes.
"""

from functools import partial

import pytest
import torch
from spawning import run_in_processes
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from ratecraft import cosine, epochs, warmup
from ratecraft._trainers._accelerate import read_accelerator, read_scheduler
from ratecraft.diagnostics import doctor
from ratecraft.torch import ScheduleLR

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.peers

BASE = 0.1
BATCHES = 26
SCHEDULE = warmup(epochs(1)).then(cosine(1, 0.1))


@pytest.fixture(autouse=True)
def reset_accelerate():
    reset_state()
    yield
    reset_state()


def reset_state():
    """Reset the state that Accelerate keeps in class attributes."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def schedule_lr(optimizer, total_steps, steps_per_epoch):
    return ScheduleLR(
        optimizer, factor=SCHEDULE, total_steps=total_steps, steps_per_epoch=steps_per_epoch
    )


def lambda_lr(optimizer, total_steps, steps_per_epoch):
    curve = SCHEDULE.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return LambdaLR(optimizer, curve)


def cosine_over_calls(optimizer, total_steps, steps_per_epoch):
    """Return a scheduler over the calls that Accelerate makes, as in its own examples."""
    return CosineAnnealingLR(optimizer, 2 * total_steps)


class Run:
    """Two epochs of 26 batches, split over the processes; ``lrs`` holds the lr of each step."""

    def __init__(self, accumulate=1, make=schedule_lr, split_batches=False, **settings):
        reset_state()
        self.accelerator = accelerate.Accelerator(
            cpu=True,
            gradient_accumulation_steps=accumulate,
            dataloader_config=accelerate.DataLoaderConfiguration(split_batches=split_batches),
            **settings,
        )
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        data = TensorDataset(torch.randn(4 * BATCHES, 3, generator=generator))
        processes = 1 if split_batches else self.accelerator.num_processes
        self.steps_per_epoch = -(-BATCHES // processes // accumulate)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
        self.scheduler = make(optimizer, 2 * self.steps_per_epoch, self.steps_per_epoch)
        self.model, self.optimizer, self.loader, self.prepared = self.accelerator.prepare(
            model, optimizer, DataLoader(data, batch_size=4), self.scheduler
        )
        self.lrs = []

    def train(self, epochs=2):
        for _ in range(epochs):
            for (x,) in self.loader:
                with self.accelerator.accumulate(self.model):
                    lr = self.optimizer.param_groups[0]["lr"]
                    self.accelerator.backward(self.model(x).pow(2).mean())
                    self.optimizer.step()
                    self.prepared.step()
                    self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.lrs.append(lr)
        return self

    def weights(self):
        return [weight.tolist() for weight in self.model.parameters()]


def expected_lrs(steps_per_epoch):
    total_steps = 2 * steps_per_epoch
    curve = SCHEDULE.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return [BASE * curve(k) for k in range(total_steps)]


def run_and_resume(folder, accumulate):
    """Return the lrs of a run, its second epoch, and that epoch in a resumed run."""
    whole = Run(accumulate).train(epochs=1)
    whole.accelerator.save_state(folder)
    first = len(whole.lrs)
    whole.train(epochs=1)
    resumed = Run(accumulate)
    resumed.accelerator.load_state(folder)
    resumed.train(epochs=1)
    return {
        "lrs": whole.lrs,
        "rest": [whole.lrs[first:], whole.weights()],
        "resumed": [resumed.lrs, resumed.weights()],
    }


# One process ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulate", "steps_per_epoch"), [(1, 26), (2, 13), (4, 7)])
def test_lr_follows_the_optimizer_steps_under_accumulation(accumulate, steps_per_epoch):
    run = Run(accumulate).train()
    assert run.lrs == expected_lrs(steps_per_epoch)
    assert run.prepared.scheduler is run.scheduler
    assert run.scheduler.last_epoch == 2 * steps_per_epoch
    assert run.prepared.get_last_lr() == pytest.approx([0.1 * BASE])


def test_stepping_for_every_batch_is_harmless():
    assert Run(2, step_scheduler_with_optimizer=False).train().lrs == expected_lrs(13)


def test_schedule_lr_on_a_prepared_optimizer():
    run = Run()
    run.scheduler.remove()
    scheduler = ScheduleLR(run.optimizer, factor=SCHEDULE, total_steps=52, steps_per_epoch=26)
    run.prepared = run.accelerator.prepare(scheduler)
    assert run.train().lrs == expected_lrs(26)


def test_doctor_examines_everything_that_the_accelerator_prepared():
    run = Run(make=lambda optimizer, *_: CosineAnnealingLR(optimizer, 30))
    (finding,) = doctor(run.accelerator, total_steps=52)
    assert (
        finding.message == "CosineAnnealingLR ends after 30 of the run's 52 steps, and rises again"
    )
    (finding,) = doctor(run.accelerator, torch.nn.Linear(1, 1), total_steps=30)
    assert finding.message.startswith("no optimizer holds 2 of 4 trainable parameters")


def test_facts_of_an_accelerator():
    run = Run(accumulate=2)
    facts = read_accelerator(run.accelerator)
    assert (facts.models, facts.optimizers) == ((run.model,), (run.optimizer.optimizer,))
    assert facts.schedulers == (read_scheduler(run.prepared),)
    assert facts.schedulers[0].scheduler is run.scheduler
    assert (facts.accumulate, facts.scaler, facts.reduce) == (2, None, False)
    assert (facts.total_steps, facts.done) == (None, None)


@pytest.mark.parametrize(("accumulate", "steps_per_epoch"), [(1, 26), (2, 13)])
def test_resumed_run_is_bit_for_bit_the_same(tmp_path, accumulate, steps_per_epoch):
    answer = run_and_resume(tmp_path, accumulate)
    assert answer["lrs"] == expected_lrs(steps_per_epoch)
    assert answer["resumed"] == answer["rest"]


# Two processes ----------------------------------------------------------------------------------


def doctor_findings():
    """Return what doctor reports before the first step, by scheduler."""
    findings = {}
    run = Run(make=cosine_over_calls)
    planned = doctor(run.optimizer, run.prepared, total_steps=26)
    findings["cosine_over_calls"] = [str(finding) for finding in planned]
    for make in (lambda_lr, schedule_lr):
        run = Run(make=make)
        objects = run.accelerator.unwrap_model(run.model), run.optimizer, run.prepared
        texts = [str(f) for f in doctor(*objects, total_steps=26) if f.level != "note"]
        findings[make.__name__] = texts
    return findings


def run_in_process(_, folder):
    return {
        "plain": Run().train().lrs,
        "accumulated": Run(2).train().lrs,
        "split": Run(split_batches=True).train().lrs,
        "lambda_lr": Run(make=lambda_lr).train().lrs,
        "doctor": doctor_findings(),
        "resume": run_and_resume(folder / "state", 2),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    return run_in_processes(partial(run_in_process, folder=folder), folder)


def test_accelerate_2708_schedule_lr_keeps_its_pace_over_two_processes(both):
    for answers in both:
        assert answers["plain"] == expected_lrs(13)


def test_accelerate_2708_torch_scheduler_runs_twice_as_fast(both):
    twice = [BASE * SCHEDULE.resolve(total_steps=26, steps_per_epoch=13)(2 * k) for k in range(26)]
    for answers in both:
        assert answers["lambda_lr"] == twice


def test_doctor_finds_a_torch_scheduler_stepped_by_each_process(both):
    for answers in both:
        assert answers["doctor"]["schedule_lr"] == []
        assert answers["doctor"]["cosine_over_calls"] == []
        stepped, *_ = answers["doctor"]["lambda_lr"]
        assert stepped.startswith(
            "warning: LambdaLR is stepped 2 times per step: Accelerate steps it once for each of "
            "2 processes"
        )


def test_accelerate_1382_accumulation_over_two_processes(both):
    for answers in both:
        assert answers["accumulated"] == expected_lrs(7)


def test_accelerate_2318_total_steps_with_and_without_split_batches(both):
    for answers in both:
        assert len(answers["plain"]) == 26  # each process takes every other batch
        assert len(answers["split"]) == 52  # each takes half of every batch
        assert answers["split"] == expected_lrs(26)


def test_both_processes_resume_bit_for_bit(both):
    for answers in both:
        assert answers["resume"]["lrs"] == expected_lrs(7)
        assert answers["resume"]["resumed"] == answers["resume"]["rest"]

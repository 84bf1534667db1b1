"""ScheduleLR prepared by Accelerate, which steps a scheduler once for each process.

Its issues 2708, 1382 and 2318 are one complaint: over n processes a schedule runs n times too
fast for those who planned it in steps.
"""

from functools import partial

import pytest
import torch
from spawning import answers_of
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from ratecraft import cosine, epochs, warmup
from ratecraft.diagnostics import doctor
from ratecraft.torch import ScheduleLR

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.peers

BASE = 0.1
BATCHES = 26
PLAN = warmup(epochs(1)).then(cosine(1, 0.1))


@pytest.fixture(autouse=True)
def fresh_singletons():
    forget()
    yield
    forget()


def forget():
    """Let Accelerate forget its run; it has one for each process, in class attributes."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def ours(optimizer, total, epoch):
    return ScheduleLR(optimizer, factor=PLAN, total_steps=total, steps_per_epoch=epoch)


def torchs(optimizer, total, epoch):
    return LambdaLR(optimizer, PLAN.resolve(total_steps=total, steps_per_epoch=epoch))


def doubled(optimizer, total, epoch):
    """Return a schedule for as many calls as Accelerate makes, as its own examples do."""
    return CosineAnnealingLR(optimizer, 2 * total)


class Run:
    """Two epochs of 26 batches, split over the processes; ``lrs`` holds those of the steps."""

    def __init__(self, accumulate=1, kind=ours, split_batches=False, **settings):
        forget()
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
        self.epoch = -(-BATCHES // processes // accumulate)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
        self.scheduler = kind(optimizer, 2 * self.epoch, self.epoch)
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


def curve_of(epoch):
    return [
        BASE * value
        for value in map(
            PLAN.resolve(total_steps=2 * epoch, steps_per_epoch=epoch), range(2 * epoch)
        )
    ]


def saved_after_an_epoch(folder, accumulate):
    """Return a whole run, what is left of it after an epoch, and that rest in a resumed run."""
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


@pytest.mark.parametrize(("accumulate", "epoch"), [(1, 26), (2, 13), (4, 7)])
def test_the_lr_follows_the_steps_under_accumulation(accumulate, epoch):
    run = Run(accumulate).train()
    assert run.lrs == curve_of(epoch)
    assert run.prepared.scheduler is run.scheduler
    assert run.scheduler.last_epoch == 2 * epoch
    assert run.prepared.get_last_lr() == pytest.approx([0.1 * BASE])


def test_stepping_a_scheduler_for_every_batch_does_no_harm():
    assert Run(2, step_scheduler_with_optimizer=False).train().lrs == curve_of(13)


def test_a_prepared_optimizer_is_driven_too():
    run = Run()
    run.scheduler.remove()
    late = ScheduleLR(run.optimizer, factor=PLAN, total_steps=52, steps_per_epoch=26)
    run.prepared = run.accelerator.prepare(late)
    assert run.train().lrs == curve_of(26)


@pytest.mark.parametrize(("accumulate", "epoch"), [(1, 26), (2, 13)])
def test_a_saved_state_is_resumed_to_the_last_bit(tmp_path, accumulate, epoch):
    answer = saved_after_an_epoch(tmp_path, accumulate)
    assert answer["lrs"] == curve_of(epoch)
    assert answer["resumed"] == answer["rest"]


# Two processes ----------------------------------------------------------------------------------


def found_in_all_kinds():
    """Return what doctor says before any step of a torch scheduler, and of one of ours."""
    found = {}
    run = Run(kind=doubled)
    planned = doctor(run.optimizer, run.prepared, total_steps=26)
    found["planned"] = [str(finding) for finding in planned]
    for kind in (torchs, ours):
        run = Run(kind=kind)
        things = run.accelerator.unwrap_model(run.model), run.optimizer, run.prepared
        levels = [str(f) for f in doctor(*things, total_steps=26) if f.level != "note"]
        found[kind.__name__] = levels
    return found


def runs_of_both(_, folder):
    return {
        "plain": Run().train().lrs,
        "accumulated": Run(2).train().lrs,
        "split": Run(split_batches=True).train().lrs,
        "torch's": Run(kind=torchs).train().lrs,
        "found": found_in_all_kinds(),
        "saved": saved_after_an_epoch(folder / "state", 2),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    return answers_of(partial(runs_of_both, folder=folder), folder)


def test_accelerate_2708_a_scheduler_stepped_by_two_processes_keeps_its_pace(both):
    for answers in both:
        assert answers["plain"] == curve_of(13)


def test_accelerate_2708_one_of_torchs_runs_twice_as_fast(both):
    twice = [BASE * PLAN.resolve(total_steps=26, steps_per_epoch=13)(2 * k) for k in range(26)]
    for answers in both:
        assert answers["torch's"] == twice


def test_doctor_sees_that_one_of_torchs_is_stepped_by_each_process(both):
    for answers in both:
        assert answers["found"]["ours"] == []
        assert answers["found"]["planned"] == []
        stepped, *_ = answers["found"]["torchs"]
        assert stepped.startswith(
            "warning: LambdaLR is stepped 2 times a step: Accelerate steps it once for each of "
            "2 processes"
        )


def test_accelerate_1382_accumulation_over_two_processes_needs_no_thought(both):
    for answers in both:
        assert answers["accumulated"] == curve_of(7)


def test_accelerate_2318_a_total_of_true_steps_is_right_however_batches_are_split(both):
    for answers in both:
        assert len(answers["plain"]) == 26  # each process takes every other batch
        assert len(answers["split"]) == 52  # each takes its half of every batch
        assert answers["split"] == curve_of(26)


def test_both_processes_resume_to_the_last_bit(both):
    for answers in both:
        assert answers["saved"]["lrs"] == curve_of(7)
        assert answers["saved"]["resumed"] == answers["saved"]["rest"]

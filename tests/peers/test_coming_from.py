"""docs/coming-from.md: every line of its tables is run on both sides, and so is what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import FLOAT32, FLOAT64, apart

import ratecraft
from ratecraft.diagnostics import preview
from ratecraft.integrations import for_lightning, for_trainer
from ratecraft.torch import ScheduleLR

pytestmark = pytest.mark.peers

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
BASE, TOTAL, BATCHES = 0.1, 100, 10


def lines(section):
    """Return what you wrote and what you write, for each line of a section's table."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+)` \| `(.+)` \|$", text, re.M)


def table(section):
    found = lines(section)
    return pytest.mark.parametrize(
        ("wrote", "write"), found, ids=[wrote.split("(")[0] for wrote, _ in found]
    )


def sgd(**more):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=BASE, **more)


def ours(write, **said):
    """Return the lrs of what the right-hand side says."""
    settings = eval(f"dict({write})", vars(ratecraft) | said)  # noqa: S307 -- our own page
    return preview(ScheduleLR(sgd(), total_steps=TOTAL, **settings), TOTAL)["0"]


def stepped(wrote, names, step=lambda scheduler, k: scheduler.step()):
    """Return the lrs of what the left-hand side says, stepped after each step."""
    optimizer = sgd()
    scheduler = eval(wrote, {**names, "optimizer": optimizer})  # noqa: S307 -- our own page
    seen = []
    for k in range(TOTAL):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if k < TOTAL - 1:
            step(scheduler, k + 1)
    return seen


def test_no_table_is_empty():
    sections = ("torch", "transformers", "timm", "optax", "fastai")
    assert [len(lines(section)) for section in sections] == [12, 8, 7, 6, 3]


@table("torch")
def test_torch(wrote, write):
    theirs = stepped(wrote, vars(torch.optim.lr_scheduler))
    assert apart(ours(write), theirs) <= FLOAT64


@table("transformers")
def test_transformers(wrote, write):
    peer = pytest.importorskip("transformers.optimization")
    assert apart(ours(write), stepped(wrote, vars(peer))) <= FLOAT64


@table("timm")
def test_timm(wrote, write):
    peer = pytest.importorskip("timm.scheduler")
    wsd = pytest.importorskip("timm.scheduler.wsd_lr")
    names = vars(peer) | vars(wsd) | {"U": {"t_in_epochs": False}}
    theirs = stepped(wrote, names, lambda scheduler, k: scheduler.step_update(k))
    assert apart(ours(write), theirs) <= FLOAT64


def test_timm_by_default_counts_epochs_and_its_warm_up_hides_the_peak():
    peer = pytest.importorskip("timm.scheduler")
    optimizer = sgd()
    scheduler = peer.CosineLRScheduler(optimizer, 100)
    scheduler.step_update(50)
    assert optimizer.param_groups[0]["lr"] == BASE
    assert not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    lrs = stepped(
        "CosineLRScheduler(optimizer, 100, warmup_t=10, t_in_epochs=False)",
        vars(peer),
        lambda scheduler, k: scheduler.step_update(k),
    )
    assert [round(lr, 5) for lr in lrs[9:11]] == [0.09, 0.09755]
    assert max(lrs) < BASE


@table("optax")
def test_optax(wrote, write):
    peer = pytest.importorskip("optax")
    schedule = eval(wrote, dict(vars(peer)))  # noqa: S307 -- our own page
    assert apart(ours(write), [float(schedule(k)) for k in range(TOTAL)]) <= FLOAT32


def fitted(fit):
    """Return lr and momentum of every step of a fastai Learner."""
    learner = pytest.importorskip("fastai.learner")
    pytest.importorskip("fastai.callback.schedule")
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.optimizer import Adam

    seen = []

    class LRs(Callback):
        def before_step(self):
            seen.append((self.opt.hypers[-1]["lr"], self.opt.hypers[-1]["mom"]))

    x = torch.randn(4 * BATCHES, 3)
    rows = list(zip(x, x.sum(1, keepdim=True), strict=True))
    data = DataLoaders(DataLoader(rows, bs=4), DataLoader(rows, bs=4))
    loss = torch.nn.functional.mse_loss
    learn = learner.Learner(data, torch.nn.Linear(3, 1), loss, opt_func=Adam, cbs=[LRs()])
    with learn.no_bar(), learn.no_logging():
        eval(fit, {"learn": learn})  # noqa: S307 -- our own page
    return np.array(seen, float).T


@pytest.mark.filterwarnings("ignore")  # fastai 2.8 beside today's numpy, pandas and torch
@table("fastai")
def test_fastai(wrote, write):
    lrs, _ = fitted(wrote)
    assert apart(ours(write), list(lrs)) <= FLOAT32


@pytest.mark.filterwarnings("ignore")
def test_fastai_moves_momentum_and_is_late_by_an_step_in_the_third_cycle():
    _, momentum = fitted("learn.fit_one_cycle(10, 0.1)")
    assert momentum[[0, 25]].tolist() == [0.95, 0.85]
    assert momentum[-1] == pytest.approx(0.95, abs=1e-4)
    lrs, _ = fitted("learn.fit_sgdr(3, 1, 0.1)")
    plan = (0.1 * ratecraft.restarts(ratecraft.epochs(1), grow=2)).resolve(
        total_steps=70, steps_per_epoch=BATCHES
    )
    late = np.abs(plan.values() - lrs) > 1e-6
    assert np.flatnonzero(late).tolist() == [30]
    assert lrs[30] < 1e-9


# The trainers ------------------------------------------------------------------------------------


def lrs_in_lightning(folder, attach, monitor=False):
    """Return the lr of every step of two epochs; ``attach`` is configure_optimizers."""
    lightning = pytest.importorskip("lightning")
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    seen = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(3, 1)

        def training_step(self, batch, _):
            return self.line(batch[0]).pow(2).mean()

        def configure_optimizers(self):
            return attach(self, torch.optim.SGD(self.parameters(), lr=BASE))

        def on_before_optimizer_step(self, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    data = torch.utils.data.TensorDataset(torch.randn(4 * BATCHES, 3))
    watched = callbacks.LearningRateMonitor("step") if monitor else None
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=loggers.CSVLogger(folder) if monitor else False,
        log_every_n_steps=1,
        callbacks=[watched] if watched else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=4))
    if watched:
        assert watched.lrs["lr-SGD"] == seen
    return seen


def cosine_for(optimizer, length):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)


LIGHTNING = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\):FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*litmodels.*"),
]


def in_lightning(test):
    for mark in LIGHTNING:
        test = mark(test)
    return test


@in_lightning
def test_lightning_as_written_before_and_with_for_lightning(tmp_path):
    def wrote(module, optimizer):
        scheduler = cosine_for(optimizer, module.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def write(module, optimizer):
        return for_lightning(module, optimizer, factor=ratecraft.cosine())

    theirs = lrs_in_lightning(tmp_path, wrote)
    assert len(theirs) == 2 * BATCHES
    assert apart(lrs_in_lightning(tmp_path, write, monitor=True), theirs) <= FLOAT64


@in_lightning
def test_lightnings_two_lists_step_once_an_epoch(tmp_path):
    def wrote(module, optimizer):
        return [optimizer], [cosine_for(optimizer, module.trainer.estimated_stepping_batches)]

    seen = lrs_in_lightning(tmp_path, wrote)
    assert len(set(seen)) == 2
    assert min(seen) > 0.99 * BASE


def test_the_trainers_own_schedule_and_for_trainer(tmp_path):
    hf = pytest.importorskip("transformers")

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(3, 1)

        def forward(self, x, labels):
            return {"loss": (self.line(x) - labels).pow(2).mean()}

    class LRs(hf.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            seen.append(optimizer.param_groups[0]["lr"])

    def trainer(**more):
        arguments = hf.TrainingArguments(
            output_dir=str(tmp_path),
            learning_rate=BASE,
            per_device_train_batch_size=4,
            num_train_epochs=2,
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            **more,
        )
        rows = [{"x": x, "labels": x.sum(0, keepdim=True)} for x in torch.randn(4 * BATCHES, 3)]
        return hf.Trainer(Line(), arguments, train_dataset=rows, callbacks=[LRs()])

    seen = []
    trainer(lr_scheduler_type="cosine", warmup_steps=10).train()
    theirs, seen = seen, []
    made = trainer()
    for_trainer(made, factor=ratecraft.warmup(10).then(ratecraft.cosine()))
    made.train()
    assert len(theirs) == 2 * BATCHES
    assert apart(seen, theirs) <= FLOAT64

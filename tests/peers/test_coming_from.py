"""docs/how-to/migrate.md and migrate-others.md: both sides of every table row are compared."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import FLOAT32, FLOAT64, max_difference

import ratecraft
from ratecraft.diagnostics import preview
from ratecraft.integrations import for_lightning, for_trainer
from ratecraft.torch import ScheduleLR

pytestmark = pytest.mark.peers

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = "\n".join((HOW_TO / name).read_text() for name in ("migrate.md", "migrate-others.md"))
BASE, TOTAL, BATCHES = 0.1, 100, 10
TORCH_EPOCHS = "torch schedulers, stepped once an epoch"
TORCH_STEPS = "torch schedulers, stepped once a step"


def section_of(title):
    return PAGES.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(title):
    """Return the two code cells of each row of a section's table."""
    return re.findall(r"^\| `(.+)` \| `(.+)` \|$", section_of(title), re.M)


def table(title):
    rows = rows_of(title)
    return pytest.mark.parametrize(
        ("theirs", "ours"), rows, ids=[theirs.split("(")[0] for theirs, _ in rows]
    )


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=BASE)


def scheduler_of_ours(ours, **lengths):
    """Return ScheduleLR with the arguments on the right-hand side."""
    names = {**vars(ratecraft), "loader": range(BATCHES)}
    settings = eval(f"dict({ours})", names)  # noqa: S307 -- our own page
    return ScheduleLR(sgd(), **lengths, **settings)


def lrs_of_ours(ours):
    """Return the lrs of the right-hand side in a run of 100 steps."""
    return preview(scheduler_of_ours(ours, total_steps=TOTAL), TOTAL)["0"]


def lrs_by_epoch_of_ours(ours):
    """Return the lrs of the right-hand side in a run of 100 epochs, a row for each epoch."""
    length = ratecraft.epochs(TOTAL)
    scheduler = scheduler_of_ours(ours, total_steps=length, steps_per_epoch=BATCHES)
    return np.reshape(preview(scheduler, TOTAL * BATCHES)["0"], (TOTAL, BATCHES))


def lrs_of_theirs(theirs, names, step=lambda scheduler, k: scheduler.step(), batches=1):
    """Return the lrs of the scheduler on the left-hand side, stepped after ``batches`` steps."""
    optimizer = sgd()
    scheduler = eval(theirs, {**names, "optimizer": optimizer})  # noqa: S307 -- our own page
    lrs = []
    for k in range(TOTAL):
        for _ in range(batches):
            lrs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        if k < TOTAL - 1:
            step(scheduler, k + 1)
    return lrs


def assert_epochs_agree(ours, theirs):
    """Check the lrs of all steps if the schedule changes between epochs, else of the first ones."""
    lrs, expected = lrs_by_epoch_of_ours(ours), np.reshape(theirs, (TOTAL, BATCHES))
    if (lrs == lrs[:, :1]).all():
        assert max_difference(lrs.ravel(), expected.ravel()) <= FLOAT64
    else:
        assert max_difference(lrs[:, 0], expected[:, 0]) <= FLOAT64


def test_tables_have_the_expected_numbers_of_rows():
    rows = {
        TORCH_EPOCHS: 10,
        TORCH_STEPS: 13,
        "From transformers (get_cosine_schedule_with_warmup)": 8,
        "timm, in epochs": 5,
        "timm, in steps": 7,
        "optax": 6,
        "fastai": 3,
    }
    assert {title: len(rows_of(title)) for title in rows} == rows


@table(TORCH_EPOCHS)
def test_torch_stepped_once_an_epoch(theirs, ours):
    lrs = lrs_of_theirs(theirs, vars(torch.optim.lr_scheduler), batches=BATCHES)
    assert_epochs_agree(ours, lrs)


@pytest.mark.parametrize(("title", "count"), [(TORCH_EPOCHS, 4), ("timm, in epochs", 2)])
def test_the_first_rows_change_the_lr_only_between_epochs(title, count):
    changes_within = []
    for _, ours in rows_of(title):
        lrs = lrs_by_epoch_of_ours(ours)
        changes_within.append(bool((lrs != lrs[:, :1]).any()))
    assert changes_within == [False] * count + [True] * (len(changes_within) - count)


@table(TORCH_STEPS)
def test_torch_rows_of_steps_count_epochs_with_clock_step(theirs, ours):
    lrs = lrs_of_theirs(theirs, vars(torch.optim.lr_scheduler), batches=BATCHES)
    scheduler = scheduler_of_ours(ours, total_steps=TOTAL, clock="step")
    by_step = []
    for _ in range(TOTAL):
        for _ in range(BATCHES):
            by_step.append(scheduler.optimizer.param_groups[0]["lr"])
            scheduler.optimizer.step()
        scheduler.step()
    assert max_difference(by_step, lrs) <= FLOAT64


def test_nanogpt():
    def get_lr(step):
        if step < 10:
            return BASE * (step + 1) / 11
        if step > TOTAL:
            return 0.01
        decayed = (1 + math.cos(math.pi * (step - 10) / (TOTAL - 10))) / 2
        return 0.01 + decayed * (BASE - 0.01)

    code = re.search(r"^start = .*\nschedule = .*$", section_of("nanoGPT"), re.M)[0]
    names = {"learning_rate": BASE, "min_lr": 0.01, "warmup_iters": 10, **vars(ratecraft)}
    exec(code, names)  # noqa: S102 -- our own page
    scheduler = ScheduleLR(sgd(), lr=BASE * names["schedule"], total_steps=TOTAL)
    steps = TOTAL + 20
    assert max_difference(preview(scheduler, steps)["0"], list(map(get_lr, range(steps)))) < FLOAT64


@table(TORCH_STEPS)
def test_torch_stepped_once_a_step(theirs, ours):
    lrs = lrs_of_theirs(theirs, vars(torch.optim.lr_scheduler))
    assert max_difference(lrs_of_ours(ours), lrs) <= FLOAT64


@table("From transformers (get_cosine_schedule_with_warmup)")
def test_transformers(theirs, ours):
    peer = pytest.importorskip("transformers.optimization")
    assert max_difference(lrs_of_ours(ours), lrs_of_theirs(theirs, vars(peer))) <= FLOAT64


@table("timm, in epochs")
def test_timm_in_epochs(theirs, ours):
    peer = pytest.importorskip("timm.scheduler")
    lrs = lrs_of_theirs(theirs, vars(peer), lambda scheduler, k: scheduler.step(k), batches=BATCHES)
    assert_epochs_agree(ours, lrs)


@table("timm, in steps")
def test_timm_in_steps(theirs, ours):
    peer = pytest.importorskip("timm.scheduler")
    wsd = pytest.importorskip("timm.scheduler.wsd_lr")
    names = vars(peer) | vars(wsd) | {"U": {"t_in_epochs": False}}
    lrs = lrs_of_theirs(theirs, names, lambda scheduler, k: scheduler.step_update(k))
    assert max_difference(lrs_of_ours(ours), lrs) <= FLOAT64


def test_timm_counts_epochs_by_default_and_its_warmup_replaces_the_peak():
    peer = pytest.importorskip("timm.scheduler")
    optimizer = sgd()
    scheduler = peer.CosineLRScheduler(optimizer, 100)
    scheduler.step_update(50)
    assert optimizer.param_groups[0]["lr"] == BASE
    assert not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    lrs = lrs_of_theirs(
        "CosineLRScheduler(optimizer, 100, warmup_t=10, t_in_epochs=False)",
        vars(peer),
        lambda scheduler, k: scheduler.step_update(k),
    )
    assert [round(lr, 5) for lr in lrs[9:11]] == [0.09, 0.09755]
    assert max(lrs) < BASE


@table("optax")
def test_optax(theirs, ours):
    peer = pytest.importorskip("optax")
    schedule = eval(theirs, dict(vars(peer)))  # noqa: S307 -- our own page
    assert max_difference(lrs_of_ours(ours), [float(schedule(k)) for k in range(TOTAL)]) <= FLOAT32


def lrs_and_momenta_of_fastai(fit):
    """Return the lr and momentum of every step of a fastai Learner."""
    learner = pytest.importorskip("fastai.learner")
    pytest.importorskip("fastai.callback.schedule")
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.optimizer import Adam

    values = []

    class RecordLR(Callback):
        def before_step(self):
            values.append((self.opt.hypers[-1]["lr"], self.opt.hypers[-1]["mom"]))

    x = torch.randn(4 * BATCHES, 3)
    rows = list(zip(x, x.sum(1, keepdim=True), strict=True))
    data = DataLoaders(DataLoader(rows, bs=4), DataLoader(rows, bs=4))
    loss = torch.nn.functional.mse_loss
    learn = learner.Learner(data, torch.nn.Linear(3, 1), loss, opt_func=Adam, cbs=[RecordLR()])
    with learn.no_bar(), learn.no_logging():
        eval(fit, {"learn": learn})  # noqa: S307 -- our own page
    return np.array(values, float).T


@pytest.mark.filterwarnings("ignore")  # fastai 2.8 with newer numpy, pandas and torch
@table("fastai")
def test_fastai(theirs, ours):
    lrs, _ = lrs_and_momenta_of_fastai(theirs)
    assert max_difference(lrs_of_ours(ours), list(lrs)) <= FLOAT32


@pytest.mark.filterwarnings("ignore")
def test_fastai_schedules_momentum_and_is_one_step_late_in_the_third_cycle():
    _, momentum = lrs_and_momenta_of_fastai("learn.fit_one_cycle(10, 0.1)")
    assert momentum[[0, 25]].tolist() == [0.95, 0.85]
    assert momentum[-1] == pytest.approx(0.95, abs=1e-4)
    lrs, _ = lrs_and_momenta_of_fastai("learn.fit_sgdr(3, 1, 0.1)")
    curve = (0.1 * ratecraft.restarts(ratecraft.epochs(1), grow=2)).resolve(
        total_steps=70, steps_per_epoch=BATCHES
    )
    late = np.abs(curve.values() - lrs) > 1e-6
    assert np.flatnonzero(late).tolist() == [30]
    assert lrs[30] < 1e-9


# Trainers ----------------------------------------------------------------------------------------


def lrs_in_lightning(folder, configure, monitor=False):
    """Return the lr of every step of two epochs; ``configure`` is ``configure_optimizers``."""
    lightning = pytest.importorskip("lightning")
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    lrs = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(3, 1)

        def training_step(self, batch, _):
            return self.line(batch[0]).pow(2).mean()

        def configure_optimizers(self):
            return configure(self, torch.optim.SGD(self.parameters(), lr=BASE))

        def on_before_optimizer_step(self, optimizer):
            lrs.append(optimizer.param_groups[0]["lr"])

    data = torch.utils.data.TensorDataset(torch.randn(4 * BATCHES, 3))
    lr_monitor = callbacks.LearningRateMonitor("step") if monitor else None
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=loggers.CSVLogger(folder) if monitor else False,
        log_every_n_steps=1,
        callbacks=[lr_monitor] if lr_monitor else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=4))
    if lr_monitor:
        assert lr_monitor.lrs["lr-SGD"] == lrs
    return lrs


def cosine_for(optimizer, length):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)


LIGHTNING_WARNINGS = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\):FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*litmodels.*"),
]


def in_lightning(test):
    for decorate in LIGHTNING_WARNINGS:
        test = decorate(test)
    return test


@in_lightning
def test_lightning_with_torch_scheduler_and_with_for_lightning(tmp_path):
    def theirs(module, optimizer):
        scheduler = cosine_for(optimizer, module.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def ours(module, optimizer):
        return for_lightning(module, optimizer, factor=ratecraft.cosine())

    lrs = lrs_in_lightning(tmp_path, theirs)
    assert len(lrs) == 2 * BATCHES
    assert max_difference(lrs_in_lightning(tmp_path, ours, monitor=True), lrs) <= FLOAT64


@in_lightning
def test_lightning_steps_a_scheduler_in_a_list_once_an_epoch(tmp_path):
    def theirs(module, optimizer):
        return [optimizer], [cosine_for(optimizer, module.trainer.estimated_stepping_batches)]

    lrs = lrs_in_lightning(tmp_path, theirs)
    assert len(set(lrs)) == 2
    assert min(lrs) > 0.99 * BASE


def test_hugging_face_schedule_and_for_trainer(tmp_path):
    hf = pytest.importorskip("transformers")

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.line = torch.nn.Linear(3, 1)

        def forward(self, x, labels):
            return {"loss": (self.line(x) - labels).pow(2).mean()}

    class RecordLR(hf.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
            lrs.append(optimizer.param_groups[0]["lr"])

    def make_trainer(**options):
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
            **options,
        )
        rows = [{"x": x, "labels": x.sum(0, keepdim=True)} for x in torch.randn(4 * BATCHES, 3)]
        return hf.Trainer(Line(), arguments, train_dataset=rows, callbacks=[RecordLR()])

    lrs = []
    make_trainer(lr_scheduler_type="cosine", warmup_steps=10).train()
    theirs, lrs = lrs, []
    trainer = make_trainer()
    for_trainer(trainer, factor=ratecraft.warmup(10).then(ratecraft.cosine()))
    trainer.train()
    assert len(theirs) == 2 * BATCHES
    assert max_difference(lrs, theirs) <= FLOAT64

"""ScheduleLR and for_lightning in Lightning's own loop: the lr of every step."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ratecraft import cosine, epochs, inverse_sqrt, warmup
from ratecraft.diagnostics import doctor
from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.integrations import find_lr_for, for_lightning, range_test_for
from ratecraft.torch import ScheduleLR

L = pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.peers,
    # Lightning 2.6 walks its data loaders with a pytree class that torch 2.13 has renamed.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\):FutureWarning"),
    # A data loader without workers is what a test of seconds wants.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

BASE = 0.1
BATCHES = 13  # odd, so that accumulating two of them leaves a last step of one
PLAN = warmup(epochs(1)).then(cosine(1, 0.1))
SHORT = warmup(3).then(cosine(1, 0.1))
ENDLESS = warmup(3).then(inverse_sqrt(3))


class Module(L.LightningModule):
    """A line fitted by whatever ``attach(module, optimizer)`` returns."""

    def __init__(self, attach):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)
        self.attach = attach
        self.scheduler = None

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.mse_loss(self.line(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=BASE)
        answer = self.attach(self, optimizer)
        self.scheduler = answer["lr_scheduler"]["scheduler"]
        return answer


class LRs(L.Callback):
    """Writes down the lr of every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


class Save(L.Callback):
    """Saves a checkpoint after some steps."""

    def __init__(self, after, path):
        self.after, self.path = after, path

    def on_train_batch_end(self, trainer, *_):
        # Once: in the middle of an accumulation there are gradients that no checkpoint holds.
        if trainer.global_step == self.after and not self.path.exists():
            trainer.save_checkpoint(self.path)


class Stop(L.Callback):
    """Ends a run that has no end of its own."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 6


class Stream(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(3), torch.ones(1)


def data():
    """Return equal batches, since a run resumed in mid-epoch begins the data anew."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, generator=generator).repeat(BATCHES, 1)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def fit(attach, *callbacks, kind=Module, loader=None, resume=None, logger=False, **settings):
    """Train; return the module and the lr of every step."""
    module, lrs = kind(attach), LRs()
    saves = any(isinstance(callback, L.pytorch.callbacks.ModelCheckpoint) for callback in callbacks)
    trainer = L.Trainer(
        callbacks=[lrs, *callbacks],
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=saves,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, data() if loader is None else loader, ckpt_path=resume, weights_only=True)
    return module, lrs.seen


def planned(module, optimizer):
    return for_lightning(module, optimizer, factor=PLAN)


def curve_of(plan, total, steps_per_epoch=None):
    return [
        BASE * value
        for value in map(
            plan.resolve(total_steps=total, steps_per_epoch=steps_per_epoch), range(total)
        )
    ]


@pytest.mark.parametrize(
    ("settings", "total", "epoch"),
    [
        ({"max_epochs": 2}, 26, 13),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 14, 7),
        ({"max_epochs": 5, "max_steps": 20}, 20, 13),
        ({"max_epochs": 2, "limit_train_batches": 5}, 10, 5),
        pytest.param(
            {"max_steps": 20}, 20, 13,
        ),
    ],
)  # fmt: skip
def test_total_and_epoch_are_the_trainers(settings, total, epoch):
    _, seen = fit(planned, **settings)
    assert seen == curve_of(PLAN, total, epoch)


def test_what_is_said_goes_before_the_trainers():
    _, seen = fit(
        lambda *them: for_lightning(*them, factor=PLAN, total_steps=50, steps_per_epoch=9),
        max_epochs=2,
    )
    assert seen == curve_of(PLAN, 50, 9)[:26]


def test_a_stream_has_its_total_from_max_steps():
    loader = DataLoader(Stream(), batch_size=2)
    _, seen = fit(lambda *them: for_lightning(*them, factor=SHORT), loader=loader, max_steps=10)
    assert seen == curve_of(SHORT, 10)


def endless(module, optimizer):
    return for_lightning(module, optimizer, factor=ENDLESS)


def test_a_run_without_end_takes_an_endless_schedule():
    _, seen = fit(endless, Stop(), max_epochs=-1)
    assert seen == [BASE * value for value in map(ENDLESS.resolve(), range(6))]


def test_a_stream_of_unknown_length_takes_an_endless_schedule():
    _, seen = fit(endless, Stop(), max_epochs=1, loader=DataLoader(Stream(), batch_size=2))
    assert seen == [BASE * value for value in map(ENDLESS.resolve(), range(6))]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("frequency", [1, 3])
def test_a_wrong_interval_is_still_right_since_the_clock_follows_the_optimizer(interval, frequency):
    def attach(_, optimizer):
        scheduler = ScheduleLR(optimizer, factor=SHORT, total_steps=26)
        said = {"scheduler": scheduler, "interval": interval, "frequency": frequency}
        return {"optimizer": optimizer, "lr_scheduler": said}

    _, seen = fit(attach, max_epochs=2)
    assert seen == curve_of(SHORT, 26)


class Manual(Module):
    """Steps its optimizer itself, for every third batch, and never its scheduler."""

    automatic_optimization = False

    def training_step(self, batch, index):
        self.manual_backward(super().training_step(batch, index))
        if index % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_manual_optimization_needs_no_step_of_the_scheduler():
    def attach(_, optimizer):
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": ScheduleLR(optimizer, factor=SHORT, total_steps=8)},
        }

    module, seen = fit(attach, max_epochs=2, kind=Manual)
    assert seen == curve_of(SHORT, 8)
    assert module.scheduler.last_epoch == 8


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Lightning tells those whose data loader begins anew; here all batches are the same.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("save_at", [4, 7, 9])  # within an epoch, and at the end of one
def test_a_run_resumed_from_a_checkpoint_is_the_same_to_the_last_bit(tmp_path, save_at, accumulate):
    settings = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    file = tmp_path / "middle.ckpt"
    whole, lrs = fit(planned, Save(save_at, file), **settings)
    resumed, later = fit(planned, resume=file, **settings)
    assert later == lrs[save_at:]
    assert same(resumed, whole)


# The resumed run saves into the same folder, as it should.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_resumed_from_model_checkpoints_file_is_the_same_to_the_last_bit(tmp_path):
    def keep():
        return L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)

    whole, lrs = fit(planned, keep(), max_epochs=2)
    resumed, later = fit(planned, keep(), resume=tmp_path / "step=13.ckpt", max_epochs=2)
    assert later == lrs[13:] == curve_of(PLAN, 26, 13)[13:]
    assert same(resumed, whole)


def test_a_longer_run_is_not_resumed_without_a_word(tmp_path):
    file = tmp_path / "middle.ckpt"
    fit(planned, Save(4, file), max_epochs=2)
    with pytest.raises(ScheduleChanged, match=r"total: saved 26\n +now   39"):
        fit(planned, resume=file, max_epochs=3)


def test_a_longer_run_stretches_what_is_left_where_that_was_said(tmp_path):
    def stretched(module, optimizer):
        return for_lightning(module, optimizer, factor=PLAN, on_change="continue")

    file = tmp_path / "middle.ckpt"
    fit(planned, Save(13, file), max_epochs=2)
    _, later = fit(stretched, resume=file, max_epochs=3)
    curve = PLAN.resolve(total_steps=26, steps_per_epoch=13)
    assert later == pytest.approx([BASE * curve(13 + k / 2) for k in range(26)])


def test_the_lr_monitor_sees_the_same_lrs(tmp_path):
    monitor = L.pytorch.callbacks.LearningRateMonitor("step")
    logger = L.pytorch.loggers.CSVLogger(tmp_path)
    _, seen = fit(planned, monitor, logger=logger, log_every_n_steps=1, max_epochs=2)
    assert monitor.lrs["lr-AdamW"] == seen == curve_of(PLAN, 26, 13)


# Plateau ------------------------------------------------------------------------------------------

LOSSES = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0]  # of each epoch; patience 1 decides after the fourth


class LayerStats(Module):
    """Logs a metric that is written down beforehand."""

    def training_step(self, batch, i):
        self.log("measured", LOSSES[self.current_epoch], on_step=False, on_epoch=True)
        return super().training_step(batch, i)


def followed(module, optimizer):
    rule = {"patience": 1, "factor": 0.5}
    return for_lightning(module, optimizer, factor=PLAN, plateau=rule, monitor="measured")


def test_a_plateau_is_fed_the_metric_while_its_schedule_follows_the_steps(tmp_path):
    module, seen = fit(followed, max_epochs=6, kind=LayerStats)
    curve = PLAN.resolve(total_steps=6 * BATCHES, steps_per_epoch=BATCHES)
    expected = [BASE * curve(k) * (0.5 if k >= 4 * BATCHES else 1) for k in range(6 * BATCHES)]
    assert seen == pytest.approx(expected, rel=1e-12)
    (decision,) = module.scheduler.decisions
    assert (decision["at"], decision["metric"]) == (4 * BATCHES, 2.0)


class SaveAtStart(L.Callback):
    """Saves a checkpoint at the beginning of an epoch."""

    def __init__(self, epoch, path):
        self.epoch, self.path = epoch, path

    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch and not self.path.exists():
            trainer.save_checkpoint(self.path)


# Lightning 2.6 hands on no metric of the epoch in which, or at whose end, a run was resumed:
# torch's ReduceLROnPlateau misses it, too. Those of epochs 4 and 5 decide nothing here.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("epoch", [4, 5])
def test_a_plateau_resumes_to_the_last_bit(tmp_path, epoch):
    at, file = epoch * BATCHES, tmp_path / "start.ckpt"
    whole, lrs = fit(followed, SaveAtStart(epoch, file), max_epochs=6, kind=LayerStats)
    resumed, later = fit(followed, resume=file, max_epochs=6, kind=LayerStats)
    assert later == lrs[at:]
    assert resumed.scheduler.decisions == whole.scheduler.decisions
    assert same(resumed, whole)


@pytest.mark.parametrize("said", [{"plateau": {}}, {"monitor": "measured"}])
def test_a_plateau_and_its_metric_go_together(said):
    def attach(module, optimizer):
        return for_lightning(module, optimizer, factor=PLAN, **said)

    with pytest.raises(BindingError, match="say both"):
        fit(attach, max_epochs=1)


# Range test ---------------------------------------------------------------------------------------


class Searched(LayerStats):
    """Runs a range test before it trains, and logs in its training step."""

    result = None

    def on_train_start(self):
        self.result = range_test_for(self.trainer, high=1.0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, {"precision": "bf16-mixed"}],
)
def test_a_run_that_began_with_a_range_test_is_the_same_to_the_last_bit(settings):
    plain, lrs = fit(planned, kind=LayerStats, max_epochs=2, **settings)
    tested, again = fit(planned, kind=Searched, max_epochs=2, **settings)
    result = tested.result
    assert again == lrs
    assert same(tested, plain)
    assert result.optimizer == "AdamW"
    assert result.task == "Searched"
    assert result.batches == len(result.lrs) * settings.get("accumulate_grad_batches", 1)
    assert result.suggestion is not None
    assert "log" not in vars(tested)


class Found(LayerStats):
    """Looks for its lr before it trains."""

    result = None

    def on_train_start(self):
        self.result = find_lr_for(self.trainer, budget_steps=60)


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}])
def test_a_run_that_began_with_a_search_is_the_same_to_the_last_bit(settings):
    plain, lrs = fit(planned, kind=LayerStats, max_epochs=2, **settings)
    tested, again = fit(planned, kind=Found, max_epochs=2, **settings)
    result = tested.result
    assert again == lrs
    assert same(tested, plain)
    assert result.lr is not None
    assert (result.optimizer, result.task) == ("AdamW", "Found")
    assert result.total_steps == len(lrs)
    assert result.batches % settings.get("accumulate_grad_batches", 1) == 0
    assert result.steps + result.eval_batches / 3 <= 60 * settings.get("accumulate_grad_batches", 1)


def test_a_range_test_needs_a_trainer_that_fits_and_a_module_that_does_not_do_it_by_hand():
    with pytest.raises(BindingError, match="on_train_start"):
        range_test_for(L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))

    class Wrong(ByHand):
        def on_train_start(self):
            range_test_for(self.trainer)

    with pytest.raises(BindingError, match="optimizes by hand"):
        fit(None, kind=Wrong, max_epochs=1)
    with pytest.raises(TypeError, match="takes a trainer, not int"):
        range_test_for(3)
    with pytest.raises(TypeError, match=r"find_lr_for\(\) takes a trainer, not int"):
        find_lr_for(3)


# doctor -------------------------------------------------------------------------------------------


class Look(L.Callback):
    """Asks doctor when all is set up, and again at the end."""

    def __init__(self):
        self.found = []

    def on_train_start(self, trainer, module):
        self.found.append([str(finding) for finding in doctor(trainer)])

    def on_train_end(self, trainer, module):
        self.found.append([str(finding) for finding in doctor(trainer)])


class Listed(Module):
    """Returns two lists, and so steps its scheduler once an epoch."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=BASE)
        self.scheduler = self.attach(self, optimizer)
        return [optimizer], [self.scheduler]


def one_cycle(module, optimizer):
    total = module.trainer.estimated_stepping_batches
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, BASE, total)


def test_doctor_sees_a_schedule_of_steps_stepped_once_an_epoch():
    look = Look()
    _, seen = fit(one_cycle, look, kind=Listed, max_epochs=2)
    assert len(set(seen)) == 2  # it hardly moved
    for found in look.found:
        (text,) = found
        assert text.startswith(
            "error: OneCycleLR counts 26 steps, but is stepped 2 times in this run (its interval "
            'is "epoch"): it will hardly move\n  step it after every step: interval="step"'
        )


def test_doctor_sees_it_where_the_run_is_measured_in_steps():
    look = Look()
    fit(one_cycle, look, kind=Listed, max_steps=40)
    assert "counts 40 steps, but is stepped 3 times in this run" in look.found[0][0]


class ByHand(Listed):
    """Steps two optimizers and their schedulers itself."""

    def __init__(self, attach):
        super().__init__(attach)
        self.automatic_optimization = False

    def training_step(self, batch, i):
        for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(Module.training_step(self, batch, i))
            optimizer.step()
            scheduler.step()

    def configure_optimizers(self):
        made = [torch.optim.AdamW([p], lr=BASE) for p in self.parameters()]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        return made, [cosine(optimizer, 26) for optimizer in made]


def test_doctor_believes_no_interval_where_the_module_steps_by_hand():
    look = Look()
    fit(None, look, kind=ByHand, max_epochs=2)
    assert look.found == [[], []]


def test_the_metric_of_a_plateau_may_come_every_other_epoch():
    module, _ = fit(followed_by_validation, max_epochs=6, kind=Validated, check_val_every_n_epoch=2)
    assert module.scheduler.last_epoch == 3


class Validated(Module):
    def validation_step(self, batch, _):
        self.log("validated", 1.0)

    def val_dataloader(self):
        return data()


def followed_by_validation(module, optimizer):
    return for_lightning(module, optimizer, factor=PLAN, plateau={}, monitor="validated")


def test_doctor_has_nothing_to_say_of_what_is_right():
    def stepped(module, optimizer):
        config = {"scheduler": one_cycle(module, optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    for attach, kind in ((planned, Module), (stepped, Module), (epochs_of_two, Listed)):
        look = Look()
        fit(attach, look, kind=kind, max_epochs=2)
        found = [text for at_once in look.found for text in at_once if "lr 0" not in text]
        assert found == []


def epochs_of_two(module, optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)


def test_doctor_asks_for_a_trainer_that_fits():
    with pytest.raises(BindingError, match="on_train_start"):
        doctor(L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))

"""The lr of every step of ScheduleLR and for_lightning in Lightning's training loop."""

import pytest
import torch
from spawning import run_in_processes
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ratecraft import cosine, epochs, inverse_sqrt, warmup
from ratecraft._trainers._lightning import read_lightning
from ratecraft.diagnostics import doctor
from ratecraft.errors import BindingError, RunFailed, ScheduleChanged, ScheduleError
from ratecraft.integrations import find_and_set_lr, find_lr_for, for_lightning, range_test_for
from ratecraft.torch import ScheduleLR

L = pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.peers,
    # Lightning 2.6 uses a pytree class that torch 2.13 deprecates.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\):FutureWarning"),
    # A short test needs no data loader workers.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

BASE = 0.1
BATCHES = 13  # odd: with two batches per step, the last step has one
SCHEDULE = warmup(epochs(1)).then(cosine(1, 0.1))
SHORT = warmup(3).then(cosine(1, 0.1))
ENDLESS = warmup(3).then(inverse_sqrt(3))


class Module(L.LightningModule):
    """A linear model; ``configure(module, optimizer)`` returns its schedulers."""

    def __init__(self, configure):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)
        self.configure = configure
        self.scheduler = None

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.mse_loss(self.line(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=BASE)
        config = self.configure(self, optimizer)
        self.scheduler = config["lr_scheduler"]["scheduler"]
        return config


class RecordLR(L.Callback):
    """Records the lr of every step."""

    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


class Save(L.Callback):
    """Saves a checkpoint after a given step."""

    def __init__(self, after, path):
        self.after, self.path = after, path

    def on_train_batch_end(self, trainer, *_):
        # Only once: later batches of an accumulation have gradients, which are not saved.
        if trainer.global_step == self.after and not self.path.exists():
            trainer.save_checkpoint(self.path)


class Stop(L.Callback):
    """Stops an endless run after 6 steps."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 6


class Stream(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(3), torch.ones(1)


def data():
    """Return equal batches, since a run resumed within an epoch starts the data again."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, generator=generator).repeat(BATCHES, 1)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def fit(
    configure, *callbacks, module_class=Module, loader=None, resume=None, logger=False, **settings
):
    """Train; return the module and the lr of every step."""
    module, recorder = module_class(configure), RecordLR()
    saves = any(isinstance(callback, L.pytorch.callbacks.ModelCheckpoint) for callback in callbacks)
    trainer = L.Trainer(
        callbacks=[recorder, *callbacks],
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=saves,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, data() if loader is None else loader, ckpt_path=resume, weights_only=True)
    return module, recorder.lrs


def scheduled(module, optimizer):
    return for_lightning(module, optimizer, factor=SCHEDULE)


def expected_lrs(schedule, total_steps, steps_per_epoch=None):
    curve = schedule.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return [BASE * curve(k) for k in range(total_steps)]


@pytest.mark.parametrize(
    ("settings", "total_steps", "steps_per_epoch"),
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
def test_total_steps_and_steps_per_epoch_come_from_the_trainer(
    settings, total_steps, steps_per_epoch
):
    _, lrs = fit(scheduled, **settings)
    assert lrs == expected_lrs(SCHEDULE, total_steps, steps_per_epoch)


def test_arguments_override_the_trainer():
    _, lrs = fit(
        lambda *args: for_lightning(*args, factor=SCHEDULE, total_steps=50, steps_per_epoch=9),
        max_epochs=2,
    )
    assert lrs == expected_lrs(SCHEDULE, 50, 9)[:26]


def test_total_steps_of_a_stream_is_max_steps():
    loader = DataLoader(Stream(), batch_size=2)
    _, lrs = fit(lambda *args: for_lightning(*args, factor=SHORT), loader=loader, max_steps=10)
    assert lrs == expected_lrs(SHORT, 10)


def endless(module, optimizer):
    return for_lightning(module, optimizer, factor=ENDLESS)


def test_endless_run_with_an_endless_schedule():
    _, lrs = fit(endless, Stop(), max_epochs=-1)
    assert lrs == [BASE * value for value in map(ENDLESS.resolve(), range(6))]


def test_stream_of_unknown_length_with_an_endless_schedule():
    _, lrs = fit(endless, Stop(), max_epochs=1, loader=DataLoader(Stream(), batch_size=2))
    assert lrs == [BASE * value for value in map(ENDLESS.resolve(), range(6))]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("frequency", [1, 3])
def test_interval_and_frequency_do_not_matter_with_the_optimizer_clock(interval, frequency):
    def configure(_, optimizer):
        scheduler = ScheduleLR(optimizer, factor=SHORT, total_steps=26)
        config = {"scheduler": scheduler, "interval": interval, "frequency": frequency}
        return {"optimizer": optimizer, "lr_scheduler": config}

    _, lrs = fit(configure, max_epochs=2)
    assert lrs == expected_lrs(SHORT, 26)


class Manual(Module):
    """Steps its optimizer at every third batch, and never its scheduler."""

    automatic_optimization = False

    def training_step(self, batch, index):
        self.manual_backward(super().training_step(batch, index))
        if index % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_manual_optimization_without_stepping_the_scheduler():
    def configure(_, optimizer):
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": ScheduleLR(optimizer, factor=SHORT, total_steps=8)},
        }

    module, lrs = fit(configure, max_epochs=2, module_class=Manual)
    assert lrs == expected_lrs(SHORT, 8)
    assert module.scheduler.last_epoch == 8


# The length of the run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "by_epoch"),
    [
        ({"max_epochs": 4}, {2: 2}),
        ({"max_epochs": 4}, {0: 4}),
        ({"max_epochs": 4}, {1: 2, 3: 5}),
        ({"max_epochs": 4}, {4: 2}),  # after the run
        ({"max_epochs": 4, "limit_train_batches": 6}, {0: 2, 1: 4}),
        ({"max_epochs": 4, "max_steps": 15}, {1: 2}),
        ({"max_steps": 15}, {1: 2}),
    ],
)
def test_lightning_21534_total_steps_follows_accumulation_that_changes(settings, by_epoch):
    callback = L.pytorch.callbacks.GradientAccumulationScheduler(by_epoch)
    module, lrs = fit(
        lambda *args: for_lightning(*args, factor=SHORT), callback, **{"max_epochs": -1} | settings
    )
    assert module.scheduler.end_step == len(lrs)
    assert lrs == expected_lrs(SHORT, len(lrs))


@pytest.mark.parametrize(("by_epoch", "steps_per_epoch"), [({0: 4}, 4), ({4: 2}, 13)])
def test_steps_per_epoch_is_known_if_the_accumulation_does_not_change(by_epoch, steps_per_epoch):
    callback = L.pytorch.callbacks.GradientAccumulationScheduler(by_epoch)
    _, lrs = fit(scheduled, callback, max_epochs=2)
    assert lrs == expected_lrs(SCHEDULE, 2 * steps_per_epoch, steps_per_epoch)


def test_epochs_of_different_lengths_need_steps_per_epoch():
    callbacks = [L.pytorch.callbacks.GradientAccumulationScheduler({1: 2}) for _ in range(2)]
    with pytest.raises(ScheduleError, match=r"epochs\(1\) needs steps_per_epoch="):
        fit(scheduled, callbacks[0], max_epochs=3)
    _, lrs = fit(
        lambda *args: for_lightning(*args, factor=SCHEDULE, steps_per_epoch=13),
        callbacks[1],
        max_epochs=3,
    )
    assert lrs == expected_lrs(SCHEDULE, 13 + 7 + 7, 13)


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_steps": 20}])
@pytest.mark.parametrize("schedule", [SCHEDULE, SHORT])
def test_manual_optimization_needs_the_steps_of_each_optimizer(settings, schedule):
    with pytest.raises(BindingError, match="pass total_steps=, the steps of this optimizer"):
        fit(
            lambda *args: for_lightning(*args, factor=schedule),
            module_class=Manual,
            **{"max_epochs": -1} | settings,
        )


def test_manual_optimization_with_an_endless_schedule():
    _, lrs = fit(endless, max_epochs=2, module_class=Manual)
    assert lrs == [BASE * value for value in map(ENDLESS.resolve(), range(8))]


def test_a_wrong_schedule_in_manual_optimization_raises_its_own_error():
    with pytest.raises(ScheduleError, match="was never closed") as caught:
        fit(
            lambda *args: for_lightning(*args, factor="cosine(1"),
            max_epochs=1,
            module_class=Manual,
        )
    assert not isinstance(caught.value, BindingError)


class Adversarial(Module):
    """Steps a critic at every batch, and a generator at every fifth."""

    automatic_optimization = False

    def training_step(self, batch, index):
        critic, generator = self.optimizers()
        for optimizer in [critic, generator] if index % 5 == 0 else [critic]:
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, index))
            optimizer.step()

    def configure_optimizers(self):
        self.configs = [
            self.configure(self, torch.optim.AdamW([parameter], lr=BASE), i)
            for i, parameter in enumerate(self.parameters())
        ]
        return self.configs


def adversarial(*lengths):
    return lambda module, optimizer, i: for_lightning(
        module, optimizer, factor=SHORT, total_steps=lengths[i]
    )


def test_optimizers_stepped_by_hand_have_schedules_of_their_own_length():
    checks = RunDoctor()
    module, _ = fit(adversarial(26, 6), checks, module_class=Adversarial, max_epochs=2)
    schedulers = [config["lr_scheduler"]["scheduler"] for config in module.configs]
    assert [scheduler.last_epoch for scheduler in schedulers] == [26, 6]
    assert [scheduler.end_step for scheduler in schedulers] == [26, 6]
    texts = [text for findings in checks.findings for text in findings]
    assert [text for text in texts if "lr 0" not in text] == []


@pytest.mark.parametrize(("lengths", "is_found"), [((20, 20), True), ((16, 4), False)])
def test_doctor_compares_max_steps_with_the_steps_of_all_optimizers(lengths, is_found):
    checks = RunDoctor()
    fit(adversarial(*lengths), checks, module_class=Adversarial, max_steps=20, max_epochs=-1)
    errors = [text for text in checks.findings[0] if text.startswith("error")]
    expected = [
        "error: the schedules of 2 optimizers take 40 steps, but max_steps=20 counts the "
        "steps of all optimizers together: not all schedules reach their end\n"
        "  write max_steps=40, or shorten the schedules"
    ]
    assert errors == expected * is_found


def test_doctor_finds_a_length_that_ignores_the_accumulation():
    checks = RunDoctor()
    callback = L.pytorch.callbacks.GradientAccumulationScheduler({1: 2})

    def configure(module, optimizer):
        steps = module.trainer.estimated_stepping_batches
        return for_lightning(module, optimizer, factor=SHORT, total_steps=int(steps))

    fit(configure, checks, callback, max_epochs=3)
    assert "reaches its end after 39 steps, and the run has 27" in checks.findings[0][0]


@pytest.mark.parametrize(("max_steps", "expected"), [(8, []), (20, ["the run's 20 steps"])])
def test_doctor_takes_max_steps_as_the_length_with_one_optimizer(max_steps, expected):
    checks = RunDoctor()

    def configure(module, optimizer):
        return for_lightning(module, optimizer, factor=SHORT, total_steps=8)

    fit(configure, checks, module_class=Manual, max_epochs=-1, max_steps=max_steps)
    errors = [text for text in checks.findings[0] if text.startswith("error")]
    assert len(errors) == len(expected)
    assert all(part in text for part, text in zip(expected, errors, strict=True))


def test_facts_accumulate_as_the_current_epoch_does():
    reader = ReadFacts()
    fit(scheduled, L.pytorch.callbacks.GradientAccumulationScheduler({0: 2}), reader, max_epochs=2)
    first, later = reader.facts
    assert (first.accumulate, later.accumulate) == (2, 2)
    assert (first.total_steps, first.steps_per_epoch) == (14, 7)
    assert (later.total_steps, later.steps_per_epoch) == (14, 7)


# Resuming -----------------------------------------------------------------------------------------


def equal_weights(model, other):
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Lightning warns that the data loader starts again; here all batches are equal.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("save_at", [4, 7, 9])  # within an epoch, and at its end
def test_run_resumed_from_a_checkpoint_is_bit_for_bit_the_same(tmp_path, save_at, accumulate):
    settings = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    file = tmp_path / "middle.ckpt"
    whole, lrs = fit(scheduled, Save(save_at, file), **settings)
    resumed, later = fit(scheduled, resume=file, **settings)
    assert later == lrs[save_at:]
    assert equal_weights(resumed, whole)


# The resumed run saves into the same folder.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_run_resumed_by_model_checkpoint_is_bit_for_bit_the_same(tmp_path):
    def checkpoints():
        return L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)

    whole, lrs = fit(scheduled, checkpoints(), max_epochs=2)
    resumed, later = fit(scheduled, checkpoints(), resume=tmp_path / "step=13.ckpt", max_epochs=2)
    assert later == lrs[13:] == expected_lrs(SCHEDULE, 26, 13)[13:]
    assert equal_weights(resumed, whole)


def test_resuming_a_longer_run_raises(tmp_path):
    file = tmp_path / "middle.ckpt"
    fit(scheduled, Save(4, file), max_epochs=2)
    with pytest.raises(ScheduleChanged, match=r"total_steps: saved 26\n +now   39"):
        fit(scheduled, resume=file, max_epochs=3)


def test_on_change_continue_stretches_the_rest_over_a_longer_run(tmp_path):
    def stretched(module, optimizer):
        return for_lightning(module, optimizer, factor=SCHEDULE, on_change="continue")

    file = tmp_path / "middle.ckpt"
    fit(scheduled, Save(13, file), max_epochs=2)
    _, later = fit(stretched, resume=file, max_epochs=3)
    curve = SCHEDULE.resolve(total_steps=26, steps_per_epoch=13)
    assert later == pytest.approx([BASE * curve(13 + k / 2) for k in range(26)])


def test_learning_rate_monitor_reports_the_same_lrs(tmp_path):
    monitor = L.pytorch.callbacks.LearningRateMonitor("step")
    logger = L.pytorch.loggers.CSVLogger(tmp_path)
    _, lrs = fit(scheduled, monitor, logger=logger, log_every_n_steps=1, max_epochs=2)
    assert monitor.lrs["lr-AdamW"] == lrs == expected_lrs(SCHEDULE, 26, 13)


# Plateau ------------------------------------------------------------------------------------------

LOSSES = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0]  # by epoch; patience 1 reduces after the fourth


class LogsLosses(Module):
    """Logs the given losses as a metric."""

    def training_step(self, batch, i):
        self.log("measured", LOSSES[self.current_epoch], on_step=False, on_epoch=True)
        return super().training_step(batch, i)


def with_plateau(module, optimizer):
    rule = {"patience": 1, "factor": 0.5}
    return for_lightning(module, optimizer, factor=SCHEDULE, plateau=rule, monitor="measured")


def test_plateau_follows_the_metric_and_its_schedule_the_steps(tmp_path):
    module, lrs = fit(with_plateau, max_epochs=6, module_class=LogsLosses)
    curve = SCHEDULE.resolve(total_steps=6 * BATCHES, steps_per_epoch=BATCHES)
    expected = [BASE * curve(k) * (0.5 if k >= 4 * BATCHES else 1) for k in range(6 * BATCHES)]
    assert lrs == pytest.approx(expected, rel=1e-12)
    (reduction,) = module.scheduler.reductions
    assert (reduction["at"], reduction["metric"]) == (4 * BATCHES, 2.0)


class SaveAtStart(L.Callback):
    """Saves a checkpoint at the start of an epoch."""

    def __init__(self, epoch, path):
        self.epoch, self.path = epoch, path

    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch and not self.path.exists():
            trainer.save_checkpoint(self.path)


# Lightning 2.6 passes no metric for the epoch in which a run is resumed, nor to torch's
# ReduceLROnPlateau. The metrics of epochs 4 and 5 do not change the factor.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("epoch", [4, 5])
def test_plateau_resumes_bit_for_bit(tmp_path, epoch):
    step, file = epoch * BATCHES, tmp_path / "start.ckpt"
    whole, lrs = fit(with_plateau, SaveAtStart(epoch, file), max_epochs=6, module_class=LogsLosses)
    resumed, later = fit(with_plateau, resume=file, max_epochs=6, module_class=LogsLosses)
    assert later == lrs[step:]
    assert resumed.scheduler.reductions == whole.scheduler.reductions
    assert equal_weights(resumed, whole)


class Measured(Module):
    """Logs one metric in training and another one in validation; neither ever improves."""

    def training_step(self, batch, i):
        self.log("trained", 1.0 + self.current_epoch, on_step=False, on_epoch=True)
        return super().training_step(batch, i)

    def validation_step(self, batch, _):
        self.log("validated", 1.0 + self.current_epoch)

    def val_dataloader(self):
        return data()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(
    ("monitor", "at_train_end", "settings"),
    [
        ("trained", True, {}),
        ("validated", True, {}),
        ("validated", False, {}),
        ("validated", True, {"check_val_every_n_epoch": 2}),
        ("validated", False, {"check_val_every_n_epoch": 2}),
        ("validated", False, {"max_epochs": -1, "max_steps": 6 * BATCHES}),
    ],
)
def test_plateau_resumes_from_the_checkpoint_of_an_epoch(
    tmp_path, monitor, at_train_end, settings, epoch
):
    def configure(module, optimizer):
        rule = {"patience": 0, "factor": 0.5}
        return for_lightning(module, optimizer, factor=SHORT, plateau=rule, monitor=monitor)

    def run(folder, resume=None):
        checkpoints = L.pytorch.callbacks.ModelCheckpoint(
            folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=at_train_end
        )
        settings_ = {"max_epochs": 6, "module_class": Measured} | settings
        return fit(configure, checkpoints, resume=resume, **settings_)

    whole, lrs = run(tmp_path / "whole")
    resumed, later = run(tmp_path / "resumed", tmp_path / "whole" / f"epoch={epoch}.ckpt")
    assert later == lrs[(epoch + 1) * BATCHES :]
    assert resumed.scheduler.reductions == whole.scheduler.reductions != []
    assert "outstanding_metric" not in vars(resumed.scheduler)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:The lr scheduler dict contains the key")
@pytest.mark.parametrize("epoch", [0, 2])
def test_plateau_stepped_by_hand_resumes_from_the_checkpoint_of_an_epoch(tmp_path, epoch):
    class MeasuredByHand(Manual):
        def training_step(self, batch, index):
            self.log("measured", 1.0 + self.current_epoch, on_step=False, on_epoch=True)
            super().training_step(batch, index)

        def on_train_epoch_end(self):
            self.lr_schedulers().step(1.0 + self.current_epoch)

    def configure(module, optimizer):
        rule = {"plateau": {"patience": 0, "factor": 0.5}, "monitor": "measured"}
        return for_lightning(module, optimizer, factor=SHORT, total_steps=16, **rule)

    def run(folder, resume=None):
        checkpoints = L.pytorch.callbacks.ModelCheckpoint(
            folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True
        )
        return fit(configure, checkpoints, module_class=MeasuredByHand, max_epochs=4, resume=resume)

    whole, lrs = run(tmp_path / "whole")
    resumed, later = run(tmp_path / "resumed", tmp_path / "whole" / f"epoch={epoch}.ckpt")
    assert later == lrs[(epoch + 1) * 4 :]
    assert resumed.scheduler.reductions == whole.scheduler.reductions != []


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"backbone_initial_lr": 0.01}, {"should_align": False}])
def test_backbone_finetuning_with_a_plateau_resumes_from_every_epoch(tmp_path, epoch, settings):
    class Backbone(Measured):
        def __init__(self, configure):
            super().__init__(configure)
            self.backbone = torch.nn.Linear(3, 3)

        def training_step(self, batch, i):
            return super().training_step((self.backbone(batch[0]), batch[1]), i)

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.line.parameters(), lr=BASE)
            rule = {"patience": 0, "factor": 0.5}
            config = for_lightning(self, optimizer, factor=SHORT, plateau=rule, monitor="trained")
            self.scheduler = config["lr_scheduler"]["scheduler"]
            return config

    def run(folder, resume=None):
        groups = RecordGroups()
        finetuning = L.pytorch.callbacks.BackboneFinetuning(2, **settings)
        checkpoints = L.pytorch.callbacks.ModelCheckpoint(
            folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True
        )
        fit(
            None,
            groups,
            finetuning,
            checkpoints,
            module_class=Backbone,
            max_epochs=5,
            resume=resume,
        )
        return groups.lrs

    whole = run(tmp_path / "whole")
    resumed = run(tmp_path / "resumed", tmp_path / "whole" / f"epoch={epoch}.ckpt")
    assert resumed == whole[(epoch + 1) * BATCHES :]
    assert len(whole[0]) == 1
    assert len(whole[-1]) == 2


class RecordGroups(L.Callback):
    """Records the lr of every group at every step."""

    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.lrs.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("options", [{"plateau": {}}, {"monitor": "measured"}])
def test_plateau_without_monitor_or_monitor_without_plateau_raises(options):
    def configure(module, optimizer):
        return for_lightning(module, optimizer, factor=SCHEDULE, **options)

    with pytest.raises(BindingError, match="pass both"):
        fit(configure, max_epochs=1)


# Facts --------------------------------------------------------------------------------------------


class ReadFacts(L.Callback):
    """Reads the trainer's facts at the start and after the 5th step."""

    def __init__(self):
        self.facts = []

    def on_train_start(self, trainer, module):
        self.facts.append(read_lightning(trainer))

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5 and len(self.facts) == 1:
            self.facts.append(read_lightning(trainer))


def test_facts_of_a_fitting_trainer():
    reader = ReadFacts()
    settings = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    module, _ = fit(scheduled, reader, max_epochs=2, gradient_clip_algorithm="value", **settings)
    first, later = reader.facts
    assert first.models == (module,)
    assert [type(optimizer).__name__ for optimizer in first.optimizers] == ["AdamW"]
    assert (first.total_steps, first.steps_per_epoch, first.accumulate) == (14, 7, 2)
    assert (first.clip, first.clips_values, first.scaler, first.reduce) == (0.1, True, None, False)
    assert len(first.loader) == BATCHES
    (stepped,) = first.schedulers
    assert (stepped.scheduler, stepped.calls_per_step) == (module.scheduler, 1)
    assert (first.done, later.done) == (0, 5)


def test_facts_of_a_stream_have_no_steps_per_epoch():
    reader = ReadFacts()
    fit(endless, reader, Stop(), max_epochs=1, loader=DataLoader(Stream(), batch_size=2))
    assert (reader.facts[0].total_steps, reader.facts[0].steps_per_epoch) == (None, None)


def test_steps_of_several_optimizers_are_not_known():
    reader = ReadFacts()
    fit(None, reader, max_epochs=2, module_class=ByHand)
    assert len(reader.facts[0].optimizers) == 2
    assert reader.facts[0].done is None
    assert [stepped.calls_per_step for stepped in reader.facts[0].schedulers] == [None, None]


# Finders ------------------------------------------------------------------------------------------


class RangeTested(LogsLosses):
    """Runs a range test before training."""

    result = None

    def on_train_start(self):
        self.result = range_test_for(self.trainer, high=1.0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, {"precision": "bf16-mixed"}],
)
def test_run_after_a_range_test_is_bit_for_bit_the_same(settings):
    plain, lrs = fit(scheduled, module_class=LogsLosses, max_epochs=2, **settings)
    tested, again = fit(scheduled, module_class=RangeTested, max_epochs=2, **settings)
    result = tested.result
    assert again == lrs
    assert equal_weights(tested, plain)
    assert result.optimizer == "AdamW"
    assert result.task == "RangeTested"
    assert result.batches == len(result.lrs) * settings.get("accumulate_grad_batches", 1)
    assert result.suggestion is not None
    assert "log" not in vars(tested)


class LRFound(LogsLosses):
    """Runs find_lr before training."""

    result = None

    def on_train_start(self):
        self.result = find_lr_for(self.trainer, budget_steps=60)


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}])
def test_run_after_find_lr_is_bit_for_bit_the_same(settings):
    plain, lrs = fit(scheduled, module_class=LogsLosses, max_epochs=2, **settings)
    tested, again = fit(scheduled, module_class=LRFound, max_epochs=2, **settings)
    result = tested.result
    assert again == lrs
    assert equal_weights(tested, plain)
    assert result.lr is not None
    assert (result.optimizer, result.task) == ("AdamW", "LRFound")
    assert result.total_steps == len(lrs)
    assert result.batches % settings.get("accumulate_grad_batches", 1) == 0
    assert result.steps + result.eval_batches / 3 <= 60 * settings.get("accumulate_grad_batches", 1)


def test_finders_require_a_fitting_trainer_with_automatic_optimization():
    with pytest.raises(BindingError, match="on_train_start"):
        range_test_for(L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))

    class RangeTestedByHand(ByHand):
        def on_train_start(self):
            range_test_for(self.trainer)

    with pytest.raises(BindingError, match="uses manual optimization"):
        fit(None, module_class=RangeTestedByHand, max_epochs=1)
    with pytest.raises(TypeError, match="takes a Lightning or Hugging Face Trainer, not int"):
        range_test_for(3)
    with pytest.raises(
        TypeError, match=r"find_lr_for\(\) takes a Lightning or Hugging Face Trainer, not int"
    ):
        find_lr_for(3)


# find_and_set_lr ----------------------------------------------------------------------------------


class TwoGroups(LogsLosses):
    """Has a bias whose lr is a tenth of the weight's; ``search`` sets both lrs, if it is given."""

    def __init__(self, configure, lr=BASE, search=None):
        super().__init__(configure)
        self.lr, self.search = lr, search

    def configure_optimizers(self):
        groups = [
            {"params": [self.line.weight], "lr": self.lr},
            {"params": [self.line.bias], "lr": self.lr / 10},
        ]
        optimizer = torch.optim.AdamW(groups)
        if self.search is not None:
            self.search(self.trainer, optimizer)
        return self.configure(self, optimizer)


def short_search(trainer, optimizer):
    find_and_set_lr(trainer, optimizer, budget_steps=100)


def searching(*, lr=BASE, search=short_search):
    return lambda configure: TwoGroups(configure, lr, search)


def torch_scheduled(_, optimizer):
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 26)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def base_lrs(module):
    return [group["initial_lr"] for group in module.optimizers().param_groups]


@pytest.mark.parametrize("configure", [scheduled, torch_scheduled])
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}])
def test_run_is_that_of_the_lr_that_was_set(configure, settings, caplog):
    tested, lrs = fit(configure, module_class=searching(), max_epochs=2, **settings)
    high, low = base_lrs(tested)
    assert high != BASE
    assert low == pytest.approx(high / 10)
    assert f"find_and_set_lr set the learning rate {high:.3g} (" in caplog.text
    plain, expected = fit(
        configure, module_class=searching(lr=high, search=None), max_epochs=2, **settings
    )
    assert lrs == expected
    assert equal_weights(tested, plain)


@pytest.mark.parametrize("configure", [scheduled, torch_scheduled])
def test_resumed_run_has_the_lr_of_its_checkpoint_without_a_search(configure, tmp_path, caplog):
    path = tmp_path / "middle.ckpt"
    whole, lrs = fit(configure, Save(13, path), module_class=searching(), max_epochs=2)
    caplog.clear()

    def search(trainer, optimizer):  # with options that would raise if a search ran
        find_and_set_lr(trainer, optimizer, budget_steps=1)

    resumed, again = fit(
        configure, module_class=searching(search=search), max_epochs=2, resume=path
    )
    assert base_lrs(resumed) == base_lrs(whole)
    assert again == lrs[13:]
    assert equal_weights(resumed, whole)
    (message,) = [text for text in caplog.messages if "find_and_set_lr" in text]
    lr = f"{base_lrs(whole)[0]:.3g}"
    assert message == (
        f"find_and_set_lr did not search: the run resumes, and its checkpoint has lr {lr}"
    )


def test_run_without_an_lr_does_not_start():
    class Constant(TwoGroups):
        def training_step(self, batch, _):
            return super().training_step(batch, _) * 0

    with pytest.raises(RunFailed, match="no learning rate found"):
        fit(
            scheduled,
            module_class=lambda module: Constant(module, BASE, short_search),
            max_epochs=1,
        )


def test_fast_dev_run_does_not_search(caplog):
    fit(scheduled, module_class=searching(), fast_dev_run=True)
    assert "fast_dev_run does not search" in caplog.text


def test_scheduler_before_the_search_is_refused():
    def search(trainer, optimizer):
        ScheduleLR(optimizer, factor=SHORT, total_steps=26)
        find_and_set_lr(trainer, optimizer)

    with pytest.raises(BindingError, match="a scheduler of ratecraft already sets"):
        fit(scheduled, module_class=searching(search=search), max_epochs=2)


def test_find_and_set_lr_names_what_lightning_needs():
    without = searching(search=lambda trainer, _: find_and_set_lr(trainer))
    with pytest.raises(TypeError, match=r"write find_and_set_lr\(self.trainer, optimizer\)"):
        fit(scheduled, module_class=without, max_epochs=1)
    with pytest.raises(TypeError, match=r"find_and_set_lr\(\) takes a Lightning or Hugging Face"):
        find_and_set_lr(3)

    class Late(L.pytorch.strategies.SingleDeviceStrategy):
        restore_checkpoint_after_setup = True

    with pytest.raises(BindingError, match="Late loads a checkpoint after configure_optimizers"):
        fit(scheduled, module_class=searching(), strategy=Late(), max_epochs=1)


def run_in_process(rank):
    settings = {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}
    module, lrs = fit(
        scheduled,
        module_class=searching(),
        max_epochs=1,
        devices=2,
        strategy="ddp",
        **settings,
    )
    return [base_lrs(module), len(lrs)]


def test_two_processes_that_clip_values_set_the_same_lr(tmp_path):
    first, second = run_in_processes(run_in_process, tmp_path)
    assert first == second
    assert first[0][0] != BASE
    assert first[1] == 7


# doctor -------------------------------------------------------------------------------------------


class RunDoctor(L.Callback):
    """Calls doctor at the start and at the end of fit."""

    def __init__(self):
        self.findings = []

    def on_train_start(self, trainer, module):
        self.findings.append([str(finding) for finding in doctor(trainer)])

    def on_train_end(self, trainer, module):
        self.findings.append([str(finding) for finding in doctor(trainer)])


class TwoLists(Module):
    """Returns two lists, for which Lightning steps the scheduler once an epoch."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=BASE)
        self.scheduler = self.configure(self, optimizer)
        return [optimizer], [self.scheduler]


def one_cycle(module, optimizer):
    total_steps = module.trainer.estimated_stepping_batches
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, BASE, total_steps)


def test_doctor_finds_a_schedule_in_steps_that_is_stepped_once_an_epoch():
    doctor_calls = RunDoctor()
    _, lrs = fit(one_cycle, doctor_calls, module_class=TwoLists, max_epochs=2)
    assert len(set(lrs)) == 2  # it hardly moves
    for (text,) in doctor_calls.findings:
        assert text.startswith(
            "error: OneCycleLR counts 26 steps, but is stepped 2 times in this run (its interval "
            'is "epoch"): it will hardly move\n  step it after every step: interval="step"'
        )


def test_doctor_finds_it_with_max_steps():
    doctor_calls = RunDoctor()
    fit(one_cycle, doctor_calls, module_class=TwoLists, max_steps=40)
    assert "counts 40 steps, but is stepped 3 times in this run" in doctor_calls.findings[0][0]


class ByHand(TwoLists):
    """Steps two optimizers and their schedulers by manual optimization."""

    def __init__(self, configure):
        super().__init__(configure)
        self.automatic_optimization = False

    def training_step(self, batch, i):
        for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(Module.training_step(self, batch, i))
            optimizer.step()
            scheduler.step()

    def configure_optimizers(self):
        optimizers = [torch.optim.AdamW([p], lr=BASE) for p in self.parameters()]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        return optimizers, [cosine(optimizer, 26) for optimizer in optimizers]


def test_doctor_ignores_the_interval_under_manual_optimization():
    doctor_calls = RunDoctor()
    fit(None, doctor_calls, module_class=ByHand, max_epochs=2)
    assert doctor_calls.findings == [[], []]


def test_plateau_metric_every_other_epoch():
    module, _ = fit(
        with_validation_plateau, max_epochs=6, module_class=Validated, check_val_every_n_epoch=2
    )
    assert module.scheduler.last_epoch == 3


class Validated(Module):
    def validation_step(self, batch, _):
        self.log("validated", 1.0)

    def val_dataloader(self):
        return data()


def with_validation_plateau(module, optimizer):
    return for_lightning(module, optimizer, factor=SCHEDULE, plateau={}, monitor="validated")


def test_doctor_reports_nothing_for_correct_setups():
    def stepped(module, optimizer):
        config = {"scheduler": one_cycle(module, optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    for configure, module_class in ((scheduled, Module), (stepped, Module), (per_epoch, TwoLists)):
        doctor_calls = RunDoctor()
        fit(configure, doctor_calls, module_class=module_class, max_epochs=2)
        texts = [text for findings in doctor_calls.findings for text in findings]
        assert [text for text in texts if "lr 0" not in text] == []


def per_epoch(module, optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)


def test_doctor_requires_a_fitting_trainer():
    with pytest.raises(BindingError, match="on_train_start"):
        doctor(L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))

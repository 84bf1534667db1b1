"""The lr of every step of ScheduleLR and for_trainer in the Hugging Face Trainer."""

import json
import math

import pytest
import torch

from ratecraft import ScheduleError, constant, cosine, epochs, warmup
from ratecraft._trainers._hugging_face import epoch_of_run, read_hugging_face
from ratecraft.diagnostics import doctor
from ratecraft.errors import BindingError, RunFailed, ScheduleChanged
from ratecraft.integrations import find_and_set_lr, find_lr_for, for_trainer, range_test_for
from ratecraft.torch import ScheduleLR

hf = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

BASE = 0.1
BATCHES = 13  # odd: with two batches per step, the last step has one
SCHEDULE = warmup(epochs(1)).then(cosine(1, 0.1))
SHORT = warmup(3).then(cosine(1, 0.1))


DEFAULTS = {"learning_rate": BASE, "per_device_train_batch_size": 4, "num_train_epochs": 2}
DEFAULTS |= {"save_strategy": "no", "logging_strategy": "no"}


class Line(torch.nn.Module):
    """A linear model that returns its loss, as the Trainer expects."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.mse_loss(self.line(x), labels)}


class RecordLR(hf.TrainerCallback):
    """Records the lr of every step."""

    def __init__(self):
        self.lrs = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        # The Trainer makes two param groups, with equal lrs.
        (lr,) = {group["lr"] for group in optimizer.param_groups}
        self.lrs.append(lr)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from data()


class Streaming(hf.Trainer):
    """Trains on a loader without a length."""

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(Stream(), batch_size=4)


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4 * BATCHES, 3, generator=generator)
    return [{"x": row, "labels": row.sum(0, keepdim=True)} for row in x]


def make_trainer(
    folder,
    recorder=None,
    optimizers=(None, None),
    model=None,
    model_init=None,
    eval_dataset=None,
    trainer_class=hf.Trainer,
    **settings,
):
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **DEFAULTS | settings,
    )
    return trainer_class(
        model if model or model_init else Line(),
        arguments,
        model_init=model_init,
        train_dataset=data(),
        eval_dataset=eval_dataset,
        callbacks=[recorder] if recorder else [],
        optimizers=optimizers,
    )


def train(folder, *, resume=None, schedule=SCHEDULE, options=None, **settings):
    """Train with for_trainer; return the model and the lr of every step."""
    recorder = RecordLR()
    trainer = make_trainer(folder, recorder, **settings)
    for_trainer(trainer, factor=schedule, **(options or {}))
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model, recorder.lrs


def expected_lrs(schedule, total_steps, steps_per_epoch=None):
    curve = schedule.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return [BASE * curve(k) for k in range(total_steps)]


def equal_weights(model, other):
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("settings", "total_steps", "steps_per_epoch"),
    [
        ({}, 26, 13),
        ({"gradient_accumulation_steps": 2}, 14, 7),
        pytest.param(
            {"num_train_epochs": 1.5},
            20,
            13,
        ),
    ],
)
def test_total_steps_and_steps_per_epoch_come_from_the_trainer(
    tmp_path, settings, total_steps, steps_per_epoch
):
    _, lrs = train(tmp_path, **settings)
    assert lrs == expected_lrs(SCHEDULE, total_steps, steps_per_epoch)


def test_total_steps_is_max_steps(tmp_path):
    _, lrs = train(tmp_path, schedule=SHORT, max_steps=20)
    assert lrs == expected_lrs(SHORT, 20)


@pytest.mark.parametrize(
    ("settings", "total_steps", "steps_per_epoch"),
    [
        ({"max_steps": 20}, 20, 13),
        ({"max_steps": 5}, 5, 13),
        ({"max_steps": 10, "gradient_accumulation_steps": 2}, 10, 7),
        ({"num_train_epochs": 0.5}, 7, 13),
        ({"num_train_epochs": 0.5, "gradient_accumulation_steps": 3}, 3, 5),
        ({"num_train_epochs": 0.01}, 1, 13),
        ({"num_train_epochs": 1.1, "dataloader_drop_last": True}, 15, 13),
    ],
)
def test_steps_per_epoch_of_a_run_set_by_steps_or_shorter_than_an_epoch(
    tmp_path, settings, total_steps, steps_per_epoch
):
    schedule = warmup(epochs(0.05)).then(cosine(1, 0.1))
    _, lrs = train(tmp_path, schedule=schedule, **settings)
    assert lrs == expected_lrs(schedule, total_steps, steps_per_epoch)


def test_reading_steps_per_epoch_leaves_no_trace(tmp_path):
    plain, _ = train(tmp_path, schedule=SHORT, max_steps=20, options={"steps_per_epoch": 13})
    read, _ = train(tmp_path, schedule=SHORT, max_steps=20)
    assert equal_weights(plain, read)


def test_steps_per_epoch_with_a_loader_of_ones_own(tmp_path):
    class OwnLoader(hf.Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(data(), batch_size=4)

    _, lrs = train(tmp_path, max_steps=20, trainer_class=OwnLoader)
    assert lrs == expected_lrs(SCHEDULE, 20, 13)


def test_schedule_in_epochs_over_a_stream_needs_steps_per_epoch(tmp_path):
    with pytest.raises(ScheduleError, match=r"needs steps_per_epoch= \(steps per epoch\)"):
        train(tmp_path, max_steps=20, trainer_class=Streaming)
    _, lrs = train(tmp_path, max_steps=20, trainer_class=Streaming, options={"steps_per_epoch": 13})
    assert lrs == expected_lrs(SCHEDULE, 20, 13)


@pytest.mark.parametrize(("epochs_", "steps"), [(5.48, 375), (1.1, 10), (2.5, 3), (1, 1)])
def test_steps_per_epoch_is_exact_for_fractions_of_an_epoch(tmp_path, epochs_, steps):
    trainer = make_trainer(tmp_path, num_train_epochs=epochs_)
    assert epoch_of_run(trainer, math.ceil(epochs_ * steps)) == steps


def test_arguments_override_the_trainer(tmp_path):
    _, lrs = train(tmp_path, options={"total_steps": 50, "steps_per_epoch": 9})
    assert lrs == expected_lrs(SCHEDULE, 50, 9)[:26]


def test_custom_optimizer_keeps_its_base_lr(tmp_path):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    _, lrs = train(tmp_path, model=model, optimizers=(optimizer, None))
    assert lrs == pytest.approx([5 * lr for lr in expected_lrs(SCHEDULE, 26, 13)])


def test_each_run_with_model_init_starts_the_schedule_again(tmp_path):
    recorder = RecordLR()
    trainer = make_trainer(tmp_path, recorder, model_init=Line)
    for_trainer(trainer, factor=SCHEDULE)
    trainer.train()
    trainer.train()
    assert recorder.lrs == 2 * expected_lrs(SCHEDULE, 26, 13)


def test_second_run_with_the_same_optimizer_starts_the_schedule_again(tmp_path):
    recorder = RecordLR()
    trainer = make_trainer(tmp_path, recorder)
    for_trainer(trainer, factor=SCHEDULE)
    trainer.train()
    trainer.train()
    assert recorder.lrs == 2 * expected_lrs(SCHEDULE, 26, 13)


def test_transformers_35942_logged_lr_is_that_of_the_step(tmp_path):
    recorder = RecordLR()
    trainer = make_trainer(tmp_path, recorder, logging_strategy="steps", logging_steps=1)
    for_trainer(trainer, factor=SCHEDULE)
    trainer.train()
    logged = [line["learning_rate"] for line in trainer.state.log_history[:-1]]
    assert logged == recorder.lrs


def test_trainer_with_a_scheduler_raises(tmp_path):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE)
    theirs = torch.optim.lr_scheduler.ConstantLR(optimizer)
    trainer = make_trainer(tmp_path, model=model, optimizers=(optimizer, theirs))
    with pytest.raises(BindingError, match="already has a scheduler"):
        for_trainer(trainer, factor=SCHEDULE)


# Passed as optimizers=(optimizer, scheduler) ----------------------------------------------------


def train_with_schedule_lr(folder, resume=None, **settings):
    model, recorder = Line(), RecordLR()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = ScheduleLR(optimizer, factor=SHORT, total_steps=14)
    trainer = make_trainer(
        folder,
        recorder,
        (optimizer, scheduler),
        model,
        gradient_accumulation_steps=2,
        logging_steps=1,
        **settings,
    )
    trainer.train(resume_from_checkpoint=resume)
    assert scheduler.last_epoch == 14
    return model, recorder.lrs


def test_schedule_lr_passed_to_the_trainer(tmp_path):
    _, lrs = train_with_schedule_lr(tmp_path)
    assert lrs == expected_lrs(SHORT, 14)


def test_schedule_lr_passed_to_the_trainer_resumes_bit_for_bit(tmp_path):
    whole, lrs = train_with_schedule_lr(tmp_path, save_strategy="steps", save_steps=5)
    resumed, later = train_with_schedule_lr(tmp_path, resume=tmp_path / "checkpoint-5")
    assert later == lrs[5:]
    assert equal_weights(resumed, whole)


# Resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_at", [5, 7])  # within an epoch, and at its end
def test_resumed_run_is_bit_for_bit_the_same(tmp_path, save_at):
    settings = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": save_at}
    whole, lrs = train(tmp_path, **settings)
    resumed, later = train(tmp_path, resume=tmp_path / f"checkpoint-{save_at}", **settings)
    assert later == lrs[save_at:]
    assert equal_weights(resumed, whole)


@pytest.mark.parametrize("length", [{"max_steps": 20}, {"num_train_epochs": 0.9}])
def test_resumed_run_of_a_fraction_of_an_epoch_or_of_steps_is_the_same(tmp_path, length):
    schedule = warmup(epochs(0.2)).then(cosine(1, 0.1))
    settings = {"schedule": schedule, "save_strategy": "steps", "save_steps": 5, **length}
    whole, lrs = train(tmp_path, **settings)
    resumed, later = train(tmp_path, resume=tmp_path / "checkpoint-5", **settings)
    assert later == lrs[5:]
    assert equal_weights(resumed, whole)


def test_saved_scheduler_state_is_plain_data(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=5)
    state = torch.load(tmp_path / "checkpoint-5" / "scheduler.pt", weights_only=True)
    assert state["steps"] == 5
    expected = {"factor": repr(SCHEDULE), "total_steps": "26", "steps_per_epoch": 13}
    assert expected.items() <= state["config"].items()


def test_resuming_a_longer_run_raises(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=13)
    with pytest.raises(ScheduleChanged, match=r"total_steps: saved 26\n +now   39"):
        train(tmp_path, resume=tmp_path / "checkpoint-13", num_train_epochs=3)


def test_on_change_continue_stretches_the_rest_over_a_longer_run(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=13)
    stretch = {"on_change": "continue"}
    _, later = train(
        tmp_path, resume=tmp_path / "checkpoint-13", num_train_epochs=3, options=stretch
    )
    curve = SCHEDULE.resolve(total_steps=26, steps_per_epoch=13)
    assert later == pytest.approx([BASE * curve(13 + k / 2) for k in range(26)])


def test_transformers_24656_resuming_with_another_learning_rate_raises(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=13)
    for options in ({}, {"on_change": "continue"}):
        with pytest.raises(ScheduleChanged, match=r"base lr of group 0: saved 0.1\n +now   0.01"):
            train(tmp_path, resume=tmp_path / "checkpoint-13", learning_rate=0.01, options=options)


@pytest.mark.parametrize(("on_change", "base"), [("keep", BASE), ("replan", 0.01)])
def test_another_learning_rate_is_used_as_on_change_says(tmp_path, on_change, base):
    train(tmp_path, save_strategy="steps", save_steps=13)
    options = {"on_change": on_change}
    _, later = train(
        tmp_path, resume=tmp_path / "checkpoint-13", learning_rate=0.01, options=options
    )
    expected = [base / BASE * lr for lr in expected_lrs(SCHEDULE, 26, 13)[13:]]
    assert later == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "changed", [{"per_device_train_batch_size": 2}, {"gradient_accumulation_steps": 2}]
)
def test_resuming_with_another_number_of_steps_raises(tmp_path, changed):
    train(tmp_path, save_strategy="steps", save_steps=5)
    with pytest.raises(ScheduleChanged, match=r"total_steps: saved 26\n +now   "):
        train(tmp_path, resume=tmp_path / "checkpoint-5", **changed)


# Plateau ------------------------------------------------------------------------------------------

LOSSES = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0]  # by epoch; patience 1 reduces after the fourth
EVALUATED = {"eval_strategy": "epoch", "metric_for_best_model": "measured"}
EVALUATED |= {"greater_is_better": False, "num_train_epochs": 6}
RULE = {"patience": 1, "factor": 0.5}


def make_measured_trainer(folder, **settings):
    """Return a trainer that evaluates to the given losses, and a recorder of its lrs."""
    recorder = RecordLR()
    trainer = make_trainer(folder, recorder, eval_dataset=data()[:4], **(EVALUATED | settings))
    trainer.compute_metrics = lambda _: {"measured": LOSSES[round(trainer.state.epoch) - 1]}
    return trainer, recorder


def test_plateau_follows_the_metric_and_its_schedule_the_steps(tmp_path):
    trainer, recorder = make_measured_trainer(tmp_path)
    for_trainer(trainer, factor=SCHEDULE, plateau=RULE)
    trainer.train()
    curve = SCHEDULE.resolve(total_steps=6 * BATCHES, steps_per_epoch=BATCHES)
    expected = [BASE * curve(k) * (0.5 if k >= 4 * BATCHES else 1) for k in range(6 * BATCHES)]
    assert recorder.lrs == pytest.approx(expected, rel=1e-12)
    (reduction,) = trainer.lr_scheduler.reductions
    assert (reduction["at"], reduction["metric"]) == (4 * BATCHES, 2.0)


def test_plateau_resumes_bit_for_bit(tmp_path):
    settings = {"save_strategy": "epoch"}
    whole, recorder = make_measured_trainer(tmp_path, **settings)
    for_trainer(whole, factor=SCHEDULE, plateau=RULE)
    whole.train()
    resumed, later = make_measured_trainer(tmp_path, **settings)
    for_trainer(resumed, factor=SCHEDULE, plateau=RULE)
    resumed.train(resume_from_checkpoint=tmp_path / f"checkpoint-{3 * BATCHES}")
    assert later.lrs == recorder.lrs[3 * BATCHES :]
    assert equal_weights(resumed.model, whole.model)


@pytest.mark.parametrize("missing", [{"eval_strategy": "no"}, {"metric_for_best_model": None}])
def test_plateau_without_an_evaluated_metric_raises(tmp_path, missing):
    trainer, _ = make_measured_trainer(tmp_path, **missing)
    with pytest.raises(BindingError, match='eval_strategy="epoch", metric_for_best_model="loss"'):
        for_trainer(trainer, factor=SCHEDULE, plateau=RULE)


def test_plateau_mode_is_that_of_the_trainers_metric(tmp_path):
    trainer, recorder = make_measured_trainer(tmp_path, greater_is_better=True)
    trainer.compute_metrics = lambda _: {"measured": trainer.state.epoch}  # better each time
    for_trainer(trainer, factor=constant(1), plateau={"patience": 0, "factor": 0.5})
    trainer.train()
    assert set(recorder.lrs) == {BASE}
    trainer, _ = make_measured_trainer(tmp_path, greater_is_better=True)
    with pytest.raises(BindingError, match="has mode='min', but the Trainer has greater_is_better"):
        for_trainer(trainer, factor=SCHEDULE, plateau={"mode": "min"})


# Facts --------------------------------------------------------------------------------------------


class ReadFacts(hf.TrainerCallback):
    """Reads the trainer's facts after the 5th step."""

    facts = trainer = None

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 5:
            self.facts = read_hugging_face(self.trainer)


def test_facts_before_during_and_after_training(tmp_path):
    reader = ReadFacts()
    trainer = reader.trainer = make_trainer(tmp_path, reader, gradient_accumulation_steps=2)
    before = read_hugging_face(trainer)
    assert (before.optimizers, before.schedulers, before.done) == ((), (), 0)
    assert (before.total_steps, before.steps_per_epoch, before.accumulate) == (14, 7, 2)
    assert (before.clip, before.clips_values, before.scaler, before.reduce) == (
        1,
        False,
        None,
        False,
    )
    assert len(before.loader) == BATCHES
    assert trainer.accelerator._dataloaders == []
    trainer.train()
    assert (reader.facts.total_steps, reader.facts.done) == (14, 5)
    assert reader.facts.loader is None  # a running trainer knows its length without one
    assert [stepped.calls_per_step for stepped in reader.facts.schedulers] == [1]


def test_total_steps_after_training_are_those_of_the_next_run(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.args.num_train_epochs = 3
    assert read_hugging_face(trainer).total_steps == 39
    assert find_lr_for(trainer, budget_steps=60).total_steps == 39


def test_steps_per_epoch_are_known_with_max_steps(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=20)
    facts = read_hugging_face(trainer, with_loader=True)
    assert (facts.total_steps, facts.steps_per_epoch) == (20, 13)
    assert read_hugging_face(trainer).loader is None


def test_loader_without_a_length(tmp_path):
    trainer = make_trainer(tmp_path, trainer_class=Streaming)
    assert read_hugging_face(trainer).total_steps is None
    assert doctor(trainer) == []


# Finders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}])
def test_run_after_a_range_test_is_bit_for_bit_the_same(tmp_path, settings):
    models, lrs = [], []
    for tested in (False, True):
        recorder = RecordLR()
        trainer = make_trainer(tmp_path, recorder, **settings)
        for_trainer(trainer, factor=SCHEDULE)
        if tested:
            result = range_test_for(trainer, high=1.0)
            assert trainer.optimizer is None
            assert trainer.accelerator._dataloaders == []
            assert result.batches == len(result.lrs) * settings.get(
                "gradient_accumulation_steps", 1
            )
            assert result.task == "Line"
        trainer.train()
        models.append(trainer.model)
        lrs.append(recorder.lrs)
    assert lrs[0] == lrs[1]
    assert equal_weights(*models)


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"max_steps": 7}])
def test_run_after_find_lr_is_bit_for_bit_the_same(tmp_path, settings):
    models, lrs = [], []
    for tested in (False, True):
        recorder = RecordLR()
        trainer = make_trainer(tmp_path, recorder, **settings)
        for_trainer(trainer, factor=constant(1))
        if tested:
            result = find_lr_for(trainer, budget_steps=60)
            assert trainer.optimizer is None
            assert trainer.accelerator._dataloaders == []
        trainer.train()
        models.append(trainer.model)
        lrs.append(recorder.lrs)
    assert lrs[0] == lrs[1]
    assert equal_weights(*models)
    assert result.lr is not None
    assert result.total_steps == len(recorder.lrs)


# find_and_set_lr ----------------------------------------------------------------------------------


class TwoLRs(hf.Trainer):
    """Gives the bias a tenth of the lr."""

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            lr, line = self.args.learning_rate, self.model.line
            groups = [
                {"params": [line.weight], "lr": lr},
                {"params": [line.bias], "lr": lr / 10},
            ]
            self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer


class RecordBothLRs(hf.TrainerCallback):
    """Records the lrs of every step."""

    def __init__(self):
        self.lrs = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        self.lrs.append([group["lr"] for group in optimizer.param_groups])


def ratecraft_schedule(trainer):
    for_trainer(trainer, factor=SCHEDULE)


def transformers_schedule(trainer):
    """Leave the trainer its own linear decay."""


def run_with_two_lrs(folder, configure, *, search=None, resume=None, **settings):
    """Train with two lrs; return the trainer and the lrs of every step."""
    recorder = RecordBothLRs()
    trainer = make_trainer(folder, recorder, trainer_class=TwoLRs, **settings)
    if search is not None:
        find_and_set_lr(trainer, budget_steps=search)
    configure(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, recorder.lrs


def lrs_that_were_set(trainer):
    return [entry["found_lr"] for entry in trainer.state.log_history if "found_lr" in entry]


@pytest.mark.parametrize("configure", [ratecraft_schedule, transformers_schedule])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}])
def test_run_is_that_of_the_lr_that_was_set(tmp_path, configure, settings, caplog):
    tested, lrs = run_with_two_lrs(tmp_path, configure, search=100, **settings)
    (lr,) = lrs_that_were_set(tested)
    assert lr != BASE
    assert [group["initial_lr"] for group in tested.optimizer.param_groups] == [
        lr,
        pytest.approx(lr / 10),
    ]
    assert f"find_and_set_lr set the learning rate {lr:.3g} (" in caplog.text
    plain, expected = run_with_two_lrs(tmp_path, configure, learning_rate=lr, **settings)
    assert lrs == [pytest.approx(pair) for pair in expected]
    assert equal_weights(tested.model, plain.model)


@pytest.mark.parametrize("configure", [ratecraft_schedule, transformers_schedule])
def test_resumed_run_has_the_lr_of_its_checkpoint_without_a_search(tmp_path, configure, caplog):
    settings = {"save_strategy": "steps", "save_steps": 13}
    whole, lrs = run_with_two_lrs(tmp_path, configure, search=100, **settings)
    caplog.clear()
    resumed, again = run_with_two_lrs(
        tmp_path,
        configure,
        search=1,  # would raise if a search ran
        resume=f"{tmp_path}/checkpoint-13",
        **settings,
    )
    assert again == lrs[13:]
    assert equal_weights(resumed.model, whole.model)
    (lr,) = lrs_that_were_set(whole)
    assert lrs_that_were_set(resumed) == [lr]
    assert caplog.messages == [
        f"find_and_set_lr did not search: the run resumes, and its checkpoint has lr {lr:.3g}"
    ]


def test_checkpoint_of_a_run_without_a_search_keeps_the_lr(tmp_path, caplog):
    settings = {"save_strategy": "steps", "save_steps": 13}
    whole, lrs = run_with_two_lrs(tmp_path, ratecraft_schedule, **settings)
    resumed, again = run_with_two_lrs(
        tmp_path, ratecraft_schedule, search=1, resume=f"{tmp_path}/checkpoint-13", **settings
    )
    assert again == lrs[13:]
    assert equal_weights(resumed.model, whole.model)
    assert "its checkpoint has no learning rate of a search" in caplog.text


def test_second_run_searches_only_for_a_new_optimizer(tmp_path):
    trainer, _ = run_with_two_lrs(tmp_path, ratecraft_schedule, search=100)
    trainer.train()  # goes on with the same optimizer
    assert lrs_that_were_set(trainer) == []
    again = make_trainer(tmp_path, model_init=Line)
    find_and_set_lr(again, budget_steps=100)
    lrs = []
    for _ in range(2):
        again.train()  # with a new model
        lrs += lrs_that_were_set(again)
    assert len(lrs) == 2


def test_find_lr_for_does_not_set_the_lr(tmp_path):
    trainer = make_trainer(tmp_path)
    find_and_set_lr(trainer, budget_steps=100)
    find_lr_for(trainer, budget_steps=60)
    assert trainer.optimizer is None
    assert lrs_that_were_set(trainer) == []


def test_run_without_an_lr_does_not_start(tmp_path):
    class Constant(Line):
        def forward(self, x, labels):
            return {"loss": super().forward(x, labels)["loss"] * 0}

    trainer = make_trainer(tmp_path, model=Constant())
    find_and_set_lr(trainer)
    with pytest.raises(RunFailed, match="no learning rate found"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_find_and_set_lr_refuses_a_scheduler_or_an_optimizer(tmp_path):
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    with pytest.raises(TypeError, match=r"so write find_and_set_lr\(trainer\)"):
        find_and_set_lr(make_trainer(tmp_path), optimizer)
    scheduler = ScheduleLR(optimizer, factor=SHORT, total_steps=26)
    trainer = make_trainer(tmp_path, optimizers=(optimizer, scheduler), model=model)
    with pytest.raises(BindingError, match="this Trainer already has a scheduler"):
        find_and_set_lr(trainer)
    late = make_trainer(tmp_path, optimizers=(optimizer, None), model=model)
    find_and_set_lr(late)
    with pytest.raises(BindingError, match="a scheduler of ratecraft already sets"):
        late.train()


def test_second_call_of_find_and_set_lr_is_refused(tmp_path):
    trainer = make_trainer(tmp_path)
    find_and_set_lr(trainer, budget_steps=100)
    with pytest.raises(BindingError, match="was already called: the search runs once, in train"):
        find_and_set_lr(trainer)
    trainer.train()
    assert len(lrs_that_were_set(trainer)) == 1


def test_resumed_run_takes_the_last_lr_that_was_set(tmp_path, caplog):
    settings = {"save_strategy": "steps", "save_steps": 13}
    whole, _ = run_with_two_lrs(tmp_path, ratecraft_schedule, search=100, **settings)
    (lr,) = lrs_that_were_set(whole)
    # Runs of an earlier version could search twice.
    path = tmp_path / "checkpoint-13" / "trainer_state.json"
    state = json.loads(path.read_text())
    state["log_history"].insert(0, {"found_lr": 10 * lr, "step": 0})
    path.write_text(json.dumps(state))
    caplog.clear()
    resumed, _ = run_with_two_lrs(
        tmp_path, ratecraft_schedule, search=1, resume=str(path.parent), **settings
    )
    assert equal_weights(resumed.model, whole.model)
    assert f"its checkpoint has lr {lr:.3g}" in caplog.text


# doctor -------------------------------------------------------------------------------------------


# torch warns because the scheduler's optimizer never steps.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_doctor_finds_a_scheduler_passed_without_its_optimizer(tmp_path):
    model, recorder = Line(), RecordLR()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 26)
    trainer = make_trainer(
        tmp_path, recorder, (None, scheduler), model, logging_strategy="steps", logging_steps=1
    )
    (before,) = doctor(trainer)
    assert trainer.accelerator._dataloaders == []
    assert before.level == "error"
    assert before.message.startswith("the Trainer was given a LinearLR without its optimizer")
    trainer.train()
    assert set(recorder.lrs) == {BASE}
    logged = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    assert logged[0] > 5 * logged[-1]  # the logged lr is the scheduler's
    after = doctor(trainer)
    assert after[0].message.startswith("LinearLR is not attached to the optimizer that steps")


def test_doctor_reports_nothing_for_correct_setups(tmp_path):
    trainer = make_trainer(tmp_path)
    assert doctor(trainer) == []
    for_trainer(trainer, factor=SCHEDULE)
    trainer.train()
    assert [finding.level for finding in doctor(trainer)] == ["note"]  # about the step at lr 0


def test_doctor_compares_the_schedule_length_with_the_trainers(tmp_path):
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = hf.get_cosine_schedule_with_warmup(optimizer, 3, 52)
    trainer = make_trainer(tmp_path, None, (optimizer, scheduler), model)
    (finding,) = doctor(trainer)
    assert finding.message.startswith("LambdaLR reaches its end after 52 steps, and the run has")
    assert "the run has 26" in finding.message
    right = hf.get_cosine_schedule_with_warmup(optimizer, 3, 20)
    trainer = make_trainer(tmp_path, None, (optimizer, right), model, max_steps=20)
    assert doctor(trainer) == []


@pytest.mark.parametrize("theirs", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("options", [{"initial_step": 13}, {"on_change": "replan"}])
def test_run_of_the_trainers_scheduler_goes_on_under_ours(tmp_path, theirs, options):
    settings = {"save_strategy": "steps", "save_steps": 13}
    make_trainer(tmp_path, lr_scheduler_type=theirs, **settings).train()
    _, later = train(tmp_path, resume=tmp_path / "checkpoint-13", options=options)
    assert later == pytest.approx(expected_lrs(SCHEDULE, 26, 13)[13:])


def test_run_of_the_trainers_scheduler_needs_a_choice(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=13).train()
    with pytest.raises(BindingError, match=r'build it with initial_step=13 or on_change="replan"'):
        train(tmp_path, resume=tmp_path / "checkpoint-13")


def test_a_migrated_run_resumes_bit_for_bit(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 5}
    make_trainer(tmp_path, **settings).train()
    options = {"on_change": "replan"}
    whole, lrs = train(tmp_path, resume=tmp_path / "checkpoint-5", options=options, **settings)
    resumed, later = train(tmp_path, resume=tmp_path / "checkpoint-15")
    assert later == lrs[10:]
    assert equal_weights(resumed, whole)

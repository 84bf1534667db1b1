"""ScheduleLR and for_trainer in the Hugging Face Trainer's own loop: the lr of every step."""

import pytest
import torch

from ratecraft import ScheduleError, constant, cosine, epochs, warmup
from ratecraft.diagnostics import doctor
from ratecraft.errors import BindingError, ScheduleChanged
from ratecraft.integrations import find_lr_for, for_trainer, range_test_for
from ratecraft.torch import ScheduleLR

hf = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

BASE = 0.1
BATCHES = 13  # odd, so that accumulating two of them leaves a last step of one
PLAN = warmup(epochs(1)).then(cosine(1, 0.1))
SHORT = warmup(3).then(cosine(1, 0.1))


class Line(torch.nn.Module):
    """A custom model, as the Trainer wants it: it returns its own loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.mse_loss(self.line(x), labels)}


class LRs(hf.TrainerCallback):
    """Writes down the lr of every step."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        (lr,) = {group["lr"] for group in optimizer.param_groups}  # the Trainer makes two groups
        self.seen.append(lr)


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4 * BATCHES, 3, generator=generator)
    return [{"x": row, "labels": row.sum(0, keepdim=True)} for row in x]


def trainer_in(
    folder,
    lrs=None,
    optimizers=(None, None),
    model=None,
    model_init=None,
    eval_dataset=None,
    **settings,
):
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        learning_rate=BASE,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **{"save_strategy": "no", "logging_strategy": "no", "num_train_epochs": 2} | settings,
    )
    return hf.Trainer(
        model if model or model_init else Line(),
        arguments,
        model_init=model_init,
        train_dataset=data(),
        eval_dataset=eval_dataset,
        callbacks=[lrs] if lrs else [],
        optimizers=optimizers,
    )


def train(folder, *, resume=None, plan=PLAN, said=None, **settings):
    """Train with for_trainer; return the model and the lr of every step."""
    lrs = LRs()
    trainer = trainer_in(folder, lrs, **settings)
    for_trainer(trainer, factor=plan, **(said or {}))
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model, lrs.seen


def curve_of(plan, total, steps_per_epoch=None):
    return [
        BASE * value
        for value in map(
            plan.resolve(total_steps=total, steps_per_epoch=steps_per_epoch), range(total)
        )
    ]


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("settings", "total", "epoch"),
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
def test_total_and_epoch_are_the_trainers(tmp_path, settings, total, epoch):
    _, seen = train(tmp_path, **settings)
    assert seen == curve_of(PLAN, total, epoch)


def test_max_steps_is_the_total(tmp_path):
    _, seen = train(tmp_path, plan=SHORT, max_steps=20)
    assert seen == curve_of(SHORT, 20)


def test_with_max_steps_a_plan_in_epochs_wants_to_be_told_the_epoch(tmp_path):
    with pytest.raises(ScheduleError, match=r"needs steps_per_epoch= \(steps per epoch\)"):
        train(tmp_path, max_steps=20)
    _, seen = train(tmp_path, max_steps=20, said={"epoch": 13})
    assert seen == curve_of(PLAN, 20, 13)


def test_what_is_said_goes_before_the_trainers(tmp_path):
    _, seen = train(tmp_path, said={"total": 50, "epoch": 9})
    assert seen == curve_of(PLAN, 50, 9)[:26]


def test_an_optimizer_of_ones_own_is_driven_from_its_own_lr(tmp_path):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    _, seen = train(tmp_path, model=model, optimizers=(optimizer, None))
    assert seen == pytest.approx([5 * lr for lr in curve_of(PLAN, 26, 13)])


def test_a_model_made_afresh_for_each_run_begins_the_plan_afresh(tmp_path):
    lrs = LRs()
    trainer = trainer_in(tmp_path, lrs, model_init=Line)
    for_trainer(trainer, factor=PLAN)
    trainer.train()
    trainer.train()
    assert lrs.seen == 2 * curve_of(PLAN, 26, 13)


def test_a_second_run_with_the_same_optimizer_begins_the_plan_afresh(tmp_path):
    lrs = LRs()
    trainer = trainer_in(tmp_path, lrs)
    for_trainer(trainer, factor=PLAN)
    trainer.train()
    trainer.train()
    assert lrs.seen == 2 * curve_of(PLAN, 26, 13)


def test_transformers_35942_the_logged_lr_is_that_of_the_step(tmp_path):
    lrs = LRs()
    trainer = trainer_in(tmp_path, lrs, logging_strategy="steps", logging_steps=1)
    for_trainer(trainer, factor=PLAN)
    trainer.train()
    logged = [line["learning_rate"] for line in trainer.state.log_history[:-1]]
    assert logged == lrs.seen


def test_a_trainer_that_was_given_a_scheduler_is_refused(tmp_path):
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE)
    theirs = torch.optim.lr_scheduler.ConstantLR(optimizer)
    trainer = trainer_in(tmp_path, model=model, optimizers=(optimizer, theirs))
    with pytest.raises(BindingError, match="was given a scheduler of its own"):
        for_trainer(trainer, factor=PLAN)


# Given as optimizers=(optimizer, scheduler) -----------------------------------------------------


def train_with_both(folder, resume=None, **settings):
    model, lrs = Line(), LRs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = ScheduleLR(optimizer, factor=SHORT, total_steps=14)
    both = optimizer, scheduler
    trainer = trainer_in(
        folder, lrs, both, model, gradient_accumulation_steps=2, logging_steps=1, **settings
    )
    trainer.train(resume_from_checkpoint=resume)
    assert scheduler.last_epoch == 14
    return model, lrs.seen


def test_a_schedule_lr_is_taken_as_the_trainers_scheduler(tmp_path):
    _, seen = train_with_both(tmp_path)
    assert seen == curve_of(SHORT, 14)


def test_a_schedule_lr_given_to_the_trainer_resumes_to_the_last_bit(tmp_path):
    whole, lrs = train_with_both(tmp_path, save_strategy="steps", save_steps=5)
    resumed, later = train_with_both(tmp_path, resume=tmp_path / "checkpoint-5")
    assert later == lrs[5:]
    assert same(resumed, whole)


# Resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_at", [5, 7])  # within an epoch, and at the end of one
def test_a_resumed_run_is_the_same_to_the_last_bit(tmp_path, save_at):
    settings = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": save_at}
    whole, lrs = train(tmp_path, **settings)
    resumed, later = train(tmp_path, resume=tmp_path / f"checkpoint-{save_at}", **settings)
    assert later == lrs[save_at:]
    assert same(resumed, whole)


def test_the_saved_scheduler_is_plain_data(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=5)
    state = torch.load(tmp_path / "checkpoint-5" / "scheduler.pt", weights_only=True)
    assert state["steps"] == 5
    assert {"factor": repr(PLAN), "total": "26", "epoch": 13}.items() <= state["plan"].items()


def test_a_longer_run_is_not_resumed_without_a_word(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=13)
    with pytest.raises(ScheduleChanged, match=r"total: saved 26\n +now   39"):
        train(tmp_path, resume=tmp_path / "checkpoint-13", num_train_epochs=3)


def test_a_longer_run_stretches_what_is_left_where_that_was_said(tmp_path):
    train(tmp_path, save_strategy="steps", save_steps=13)
    stretch = {"on_change": "continue"}
    _, later = train(tmp_path, resume=tmp_path / "checkpoint-13", num_train_epochs=3, said=stretch)
    curve = PLAN.resolve(total_steps=26, steps_per_epoch=13)
    assert later == pytest.approx([BASE * curve(13 + k / 2) for k in range(26)])


# Plateau ------------------------------------------------------------------------------------------

LOSSES = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0]  # of each epoch; patience 1 decides after the fourth
EVALUATED = {"eval_strategy": "epoch", "metric_for_best_model": "measured"}
EVALUATED |= {"greater_is_better": False, "num_train_epochs": 6}
RULE = {"patience": 1, "factor": 0.5}


def measured_in(folder, **settings):
    """Return a trainer that evaluates to what is written down beforehand, and its lrs."""
    lrs = LRs()
    trainer = trainer_in(folder, lrs, eval_dataset=data()[:4], **(EVALUATED | settings))
    trainer.compute_metrics = lambda _: {"measured": LOSSES[round(trainer.state.epoch) - 1]}
    return trainer, lrs


def test_a_plateau_is_fed_the_metric_while_its_schedule_follows_the_steps(tmp_path):
    trainer, lrs = measured_in(tmp_path)
    for_trainer(trainer, factor=PLAN, plateau=RULE)
    trainer.train()
    curve = PLAN.resolve(total_steps=6 * BATCHES, steps_per_epoch=BATCHES)
    expected = [BASE * curve(k) * (0.5 if k >= 4 * BATCHES else 1) for k in range(6 * BATCHES)]
    assert lrs.seen == pytest.approx(expected, rel=1e-12)
    (decision,) = trainer.lr_scheduler.decisions
    assert (decision["at"], decision["metric"]) == (4 * BATCHES, 2.0)


def test_a_plateau_resumes_to_the_last_bit(tmp_path):
    settings = {"save_strategy": "epoch"}
    whole, lrs = measured_in(tmp_path, **settings)
    for_trainer(whole, factor=PLAN, plateau=RULE)
    whole.train()
    resumed, later = measured_in(tmp_path, **settings)
    for_trainer(resumed, factor=PLAN, plateau=RULE)
    resumed.train(resume_from_checkpoint=tmp_path / f"checkpoint-{3 * BATCHES}")
    assert later.seen == lrs.seen[3 * BATCHES :]
    assert same(resumed.model, whole.model)


@pytest.mark.parametrize("missing", [{"eval_strategy": "no"}, {"metric_for_best_model": None}])
def test_a_plateau_needs_something_that_is_evaluated(tmp_path, missing):
    trainer, _ = measured_in(tmp_path, **missing)
    with pytest.raises(BindingError, match='eval_strategy="epoch", metric_for_best_model="loss"'):
        for_trainer(trainer, factor=PLAN, plateau=RULE)


def test_the_plateau_goes_the_way_of_the_trainers_metric(tmp_path):
    trainer, lrs = measured_in(tmp_path, greater_is_better=True)
    trainer.compute_metrics = lambda _: {"measured": trainer.state.epoch}  # better each time
    for_trainer(trainer, factor=constant(1), plateau={"patience": 0, "factor": 0.5})
    trainer.train()
    assert set(lrs.seen) == {BASE}
    trainer, _ = measured_in(tmp_path, greater_is_better=True)
    with pytest.raises(BindingError, match="says mode='min', and the Trainer greater_is_better"):
        for_trainer(trainer, factor=PLAN, plateau={"mode": "min"})


# Range test ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}])
def test_a_run_that_began_with_a_range_test_is_the_same_to_the_last_bit(tmp_path, settings):
    weights, losses = [], []
    for tested in (False, True):
        lrs = LRs()
        trainer = trainer_in(tmp_path, lrs, **settings)
        for_trainer(trainer, factor=PLAN)
        if tested:
            result = range_test_for(trainer, high=1.0)
            assert trainer.optimizer is None
            assert trainer.accelerator._dataloaders == []
            assert result.batches == len(result.lrs) * settings.get(
                "gradient_accumulation_steps", 1
            )
            assert result.task == "Line"
        trainer.train()
        weights.append(trainer.model)
        losses.append(lrs.seen)
    assert losses[0] == losses[1]
    assert same(*weights)


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"max_steps": 7}])
def test_a_run_that_began_with_a_search_is_the_same_to_the_last_bit(tmp_path, settings):
    weights, losses = [], []
    for tested in (False, True):
        lrs = LRs()
        trainer = trainer_in(tmp_path, lrs, **settings)
        for_trainer(trainer, factor=constant(1))
        if tested:
            result = find_lr_for(trainer, budget_steps=60)
            assert trainer.optimizer is None
            assert trainer.accelerator._dataloaders == []
        trainer.train()
        weights.append(trainer.model)
        losses.append(lrs.seen)
    assert losses[0] == losses[1]
    assert same(*weights)
    assert result.lr is not None
    assert result.total_steps == len(lrs.seen)


# doctor -------------------------------------------------------------------------------------------


# torch's warning is about something else: its optimizer never steps.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_doctor_sees_a_scheduler_given_without_its_optimizer(tmp_path):
    model, lrs = Line(), LRs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 26)
    trainer = trainer_in(
        tmp_path, lrs, (None, scheduler), model, logging_strategy="steps", logging_steps=1
    )
    (before,) = doctor(trainer)
    assert trainer.accelerator._dataloaders == []
    assert before.level == "error"
    assert before.message.startswith("the Trainer was given a LinearLR without its optimizer")
    trainer.train()
    assert set(lrs.seen) == {BASE}  # trained at one lr,
    logged = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    assert logged[0] > 5 * logged[-1]  # and logged another
    after = doctor(trainer)
    assert after[0].message.startswith("LinearLR drives another optimizer than the one that steps")


def test_doctor_has_nothing_to_say_of_what_is_right(tmp_path):
    trainer = trainer_in(tmp_path)
    assert doctor(trainer) == []
    for_trainer(trainer, factor=PLAN)
    trainer.train()
    assert [finding.level for finding in doctor(trainer)] == ["note"]  # of the step at lr 0


def test_doctor_measures_a_horizon_by_the_trainers(tmp_path):
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE)
    scheduler = hf.get_cosine_schedule_with_warmup(optimizer, 3, 52)
    trainer = trainer_in(tmp_path, None, (optimizer, scheduler), model)
    (finding,) = doctor(trainer)
    assert finding.message.startswith("LambdaLR reaches its end after 52 steps, and the run has")
    assert "the run has 26" in finding.message
    right = hf.get_cosine_schedule_with_warmup(optimizer, 3, 20)
    trainer = trainer_in(tmp_path, None, (optimizer, right), model, max_steps=20)
    assert doctor(trainer) == []

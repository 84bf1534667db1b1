"""Task.from_trainer: runs of a comparison in the Hugging Face Trainer's own loop."""

import math
import tempfile
from pathlib import Path

import numpy
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from ratecraft import ScheduleLR, constant, cosine, epochs, warmup
from ratecraft.errors import ScheduleError, SettingError, TaskError
from ratecraft.experiments import Plateau, Task, compare, train
from ratecraft.integrations import for_trainer

hf = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

BATCHES = 13  # odd: with two batches per step, the last step has one
SCHEDULE = warmup(2).then(cosine(1, 0.1))
QUIET = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
QUIET |= {"use_cpu": True, "dataloader_pin_memory": False, "disable_tqdm": True}


class Digits(torch.nn.Module):
    """A linear model that returns its loss and its logits, as the Trainer expects."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(64, 10))

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def rows(start, end):
    images, labels = load_digits(return_X_y=True)
    return [
        {"x": torch.tensor(image).float() / 16, "labels": int(label)}
        for image, label in zip(images[start:end], labels[start:end], strict=True)
    ]


class RecordLR(hf.TrainerCallback):
    """Records the lr of every step."""

    def __init__(self, lrs):
        self.lrs = lrs

    def on_pre_optimizer_step(self, args, state, control, optimizer, **_):
        self.lrs.append(optimizer.param_groups[0]["lr"])


def accuracy(evaluation):
    return {"accuracy": float((evaluation.predictions.argmax(1) == evaluation.label_ids).mean())}


def digits_task(
    folder="unused",
    lrs=None,
    steps_per_epoch=None,
    trainer_class=hf.Trainer,
    parts=None,
    **settings,
):
    def make_trainer():
        arguments = hf.TrainingArguments(
            str(folder), per_device_train_batch_size=32, **QUIET | settings
        )
        defaults = {
            "train_dataset": rows(0, 416),
            "eval_dataset": rows(416, 624),
            "compute_metrics": accuracy,
            "callbacks": None if lrs is None else [RecordLR(lrs)],
        }
        return trainer_class(Digits(), arguments, **defaults | (parts or {}))

    return Task.from_trainer(make_trainer, steps_per_epoch=steps_per_epoch)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """The Trainer creates its output_dir, also if it saves nothing."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("settings", "total_steps", "steps_per_epoch"),
    [({}, 15, 13), ({"gradient_accumulation_steps": 2}, 15, 7)],
)
def test_steps_have_the_lrs_of_the_schedule(settings, total_steps, steps_per_epoch) -> None:
    lrs: list[float] = []
    task = digits_task(lrs=lrs, **settings)
    assert task.steps_per_epoch == steps_per_epoch
    schedule = warmup(epochs(1)).then(cosine(1, 0))
    run = train(task, schedule, lr=0.05, total_steps=total_steps)
    assert lrs == list(run.curve())
    assert (len(run.losses), run.steps_per_epoch) == (total_steps, steps_per_epoch)
    assert run.evaluations[-1].lrs["0"] == lrs[-1]


class WithoutDropout(hf.TrainerCallback):
    def on_train_begin(self, args, state, control, model, **_):
        model.net[0].p = 0.0


@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.1), (4, 0.0)])  # the last step has 1 batch
def test_run_is_bit_for_bit_a_loop_by_hand(accumulate, clip) -> None:
    batches = []

    class Recording(hf.Trainer):
        def training_step(self, model, inputs, *more):
            batches.append(inputs)
            return super().training_step(model, inputs, *more)

    task = digits_task(
        trainer_class=Recording,
        parts={"callbacks": [WithoutDropout()]},
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip,
        optim="adamw_torch",
    )
    steps = math.ceil(BATCHES / accumulate)
    run = train(task, SCHEDULE, lr=0.05, seed=3, total_steps=steps)
    assert len(batches) == BATCHES
    torch.manual_seed(3)
    model = Digits()
    model.net[0].p = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.0)
    ScheduleLR(optimizer, lr=0.05 * SCHEDULE, total_steps=steps)
    losses = []
    for k in range(0, BATCHES, accumulate):
        total, part = 0.0, batches[k : k + accumulate]
        for batch in part:
            loss = model(**batch)["loss"] / len(part)
            loss.backward()
            total += loss.item()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert list(run.losses) == losses


def test_run_has_the_evaluations_of_the_trainer_and_of_the_end() -> None:
    task = digits_task(eval_strategy="steps", eval_steps=10)
    run = train(task, SCHEDULE, lr=0.05, total_steps=25)
    assert [evaluation.step for evaluation in run.evaluations] == [10, 20, 25]
    assert [set(evaluation.metrics) for evaluation in run.evaluations] == [{"loss", "accuracy"}] * 3
    assert run.final("accuracy") > 0.7
    assert run.final() < run.evaluations[0].metrics["loss"]


def test_seed_determines_weights_and_data_order() -> None:
    task = digits_task(seed=7)  # which each run replaces
    runs = [train(task, SCHEDULE, lr=0.05, seed=seed, total_steps=14) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].evaluations == runs[1].evaluations
    assert runs[0].losses[0] != runs[2].losses[0]


def test_model_init_is_seeded() -> None:
    def make_trainer():
        return hf.Trainer(
            model_init=Digits,
            args=hf.TrainingArguments("unused", **QUIET),
            train_dataset=rows(0, 416),
            eval_dataset=rows(416, 624),
        )

    task = Task.from_trainer(make_trainer)
    runs = [train(task, SCHEDULE, lr=0.05, seed=seed, total_steps=5) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].losses[0] != runs[2].losses[0]


def test_random_numbers_of_the_caller_are_restored() -> None:
    torch.manual_seed(5)
    numpy.random.seed(5)
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist()
    task = digits_task()
    assert task.steps_per_epoch == BATCHES
    train(task, SCHEDULE, lr=0.05, total_steps=4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.get_state()[1].tolist() == before[1]


def test_progress_watch_and_divergence() -> None:
    steps, seen = [], []
    run = train(
        digits_task(),
        constant(1),
        lr=0.05,
        total_steps=14,
        progress=lambda done, total: steps.append((done, total)),
        watch=seen.append,
    )
    assert steps == [(k + 1, 14) for k in range(14)]
    assert tuple(seen) == run.evaluations
    run = train(digits_task(), constant(1), lr=1e38, total_steps=50)
    assert run.diverged is not None
    assert len(run.losses) == run.diverged + 1 < 13
    assert math.isnan(run.final())


def test_plateau_follows_the_evaluations_of_the_trainer() -> None:
    lrs: list[float] = []
    task = digits_task(lrs=lrs, eval_strategy="steps", eval_steps=3)
    plateau = Plateau(constant(1), factor=0.5, patience=0, threshold=0.9)
    run = train(task, plateau, lr=0.05, total_steps=12)
    assert lrs == pytest.approx(list(run.curve()))
    assert lrs[0] == 0.05 > lrs[-1]
    with pytest.raises(ScheduleError, match="has no metric 'f1'; it has loss, accuracy"):
        train(task, Plateau(metric="f1"), lr=0.05, total_steps=12)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from rows(0, 416)


def test_stream_needs_steps_per_epoch() -> None:
    settings = {"parts": {"train_dataset": Stream()}, "max_steps": 1}
    with pytest.raises(TaskError, match="has no length: write steps_per_epoch="):
        train(digits_task(**settings), SCHEDULE, lr=0.05, total_steps=9)
    task = digits_task(**settings, steps_per_epoch=3)
    run = train(task, SCHEDULE, lr=0.05, total_steps=epochs(5))
    assert len(run.losses) == 15  # more than one pass


def test_nothing_is_written_but_what_the_arguments_ask_for(tmp_path) -> None:
    train(digits_task(tmp_path / "out"), SCHEDULE, lr=0.05, total_steps=5)
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]  # the Trainer creates its output_dir
    train(
        digits_task(tmp_path / "out", save_strategy="steps", save_steps=5),
        SCHEDULE,
        lr=0.05,
        total_steps=5,
    )
    assert (tmp_path / "out" / "checkpoint-5").is_dir()


class Impatient(hf.TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = True


def with_scheduler():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    return None, torch.optim.lr_scheduler.StepLR(optimizer, 5)


def with_for_trainer():
    def make_trainer():
        trainer = digits_task().make_trainer()
        for_trainer(trainer, factor=cosine())
        return trainer

    return Task.from_trainer(make_trainer)


def test_same_trainer_for_two_runs_is_refused() -> None:
    trainer = digits_task().make_trainer()
    task = Task.from_trainer(lambda: trainer)
    train(task, SCHEDULE, lr=0.05, total_steps=2)
    with pytest.raises(TaskError, match="one that it returned before"):
        train(task, SCHEDULE, lr=0.05, total_steps=2)
    with pytest.raises(TaskError, match="make_trainer is a Trainer; expected a function"):
        Task.from_trainer(trainer)


@pytest.mark.parametrize("steps_per_epoch", [0, 2.5, True])
def test_wrong_steps_per_epoch_raises(steps_per_epoch) -> None:
    with pytest.raises(TaskError, match="expected a whole number >= 1"):
        digits_task(steps_per_epoch=steps_per_epoch)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (digits_task(parts={"eval_dataset": None}), r"write Trainer\(eval_dataset=..., ...\)"),
        (digits_task(parts={"eval_dataset": {"a": rows(0, 8)}}), "there is no validation loss"),
        (digits_task(parts={"optimizers": with_scheduler()}), "with a scheduler"),
        (digits_task(parts={"callbacks": [Impatient()]}), "stopped after 1 of 10 steps"),
        (with_for_trainer(), "with a scheduler"),
        (Task.from_trainer(dict), r"make_trainer\(\) returned dict; expected"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(task, message) -> None:
    with pytest.raises(TaskError, match=message) as error:
        train(task, SCHEDULE, lr=0.05, total_steps=10)
    assert "\n" not in str(error.value)


def task():
    return digits_task(tempfile.gettempdir(), gradient_accumulation_steps=2)


def test_comparison_is_the_same_inline_in_workers_and_from_the_store(tmp_path) -> None:
    options = {"lrs": [0.01, 0.05], "seeds": 2, "total_steps": epochs(2), "progress": False}
    schedules = [constant(1), cosine(1, 0)]
    name, store = f"{Path(__file__)}:task", tmp_path / "runs.db"
    inline = compare(name, schedules, workers=0, **options)
    workers = compare(name, schedules, workers=2, store=store, **options)
    again = compare(name, schedules, workers=2, store=store, **options)
    assert len(inline.runs) == 8
    assert [run.losses for run in inline.runs] == [run.losses for run in workers.runs]
    assert [run.evaluations for run in inline.runs] == [run.evaluations for run in workers.runs]
    assert again.runs == workers.runs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"halving": True}, SettingError, "leave out halving and branches"),
        ({"branches": True}, SettingError, "leave out halving and branches"),
        ({"optimizers": "sgd"}, TaskError, "creates its own optimizer"),
    ],
)
def test_comparison_refuses_what_a_trainer_cannot_do(options, error, message) -> None:
    with pytest.raises(error, match=message):
        compare(task, [constant(1)], lrs=[0.01, 0.05], seeds=1, workers=0, **options)


def test_commands_train_find_and_compare(tmp_path) -> None:
    from command_line import ratecraft_in_this_process as run  # which workers cannot import

    name = f"{Path(__file__)}:task"
    trained = run(tmp_path, "train", name, "cosine(1, 0)", "--lr", "0.05", "-n", "20")
    assert trained.returncode == 0
    lines = [line.split() for line in trained.stdout.splitlines() if line.strip()]
    titles = ["epoch", "step", "val", "loss", "val", "accuracy", "lr", "0", "lr", "1"]
    assert titles in lines
    search = run(tmp_path, "find", name, "--budget-steps", "60", "-n", "20")
    assert "AdamW: " in search.stdout
    assert "lr: " in search.stdout
    arguments = ["constant(1)", "cosine(1, 0)", "--seeds", "1", "-n", "14", "--workers", "0"]
    compared = run(tmp_path, "compare", name, *arguments)
    assert compared.returncode == 0
    assert "cosine(1, 0)" in compared.stdout

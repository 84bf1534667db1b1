"""Logs as people have them, and those that are refused."""

import csv
import json

import numpy as np
import pytest

from ratecraft import constant, cosine, epochs, warmup
from ratecraft.errors import LogError
from ratecraft.forecasting import Log, log_of_run, read_logs
from ratecraft.results import Comparison, Evaluation, Run, Setting

STEPS = list(range(10, 210, 10))
LOSSES = [3 - k / 200 for k in STEPS]
PLAN = 0.1 * cosine(1, 0)
LRS = PLAN.resolve(total_steps=200).values(np.array(STEPS, float)).tolist()


def same(log, lrs=LRS):
    assert list(log.steps) == STEPS
    assert list(log.losses) == LOSSES
    assert len(log.every_lr) == 200
    if lrs is not None:
        # Just used or the next one: logs differ.
        assert log.every_lr[[k - 1 for k in STEPS]] == pytest.approx(lrs, abs=1e-3)


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("step", "lr", "loss"),
    [
        ("step", "lr", "loss"),
        ("Step", "learning_rate", "val_loss"),
        ("_step", "train/learning_rate", "eval/loss"),
        ("global_step", "lr-AdamW", "train_loss"),
        ("Step", "noble-sun-3 - lr", "noble-sun-3 - train/loss"),
    ],
)
def test_columns_have_many_names(tmp_path, step, lr, loss) -> None:
    rows = [
        {step: k, lr: u, loss: x, f"{loss}__MIN": 0, "note": "-"}
        for k, u, x in zip(STEPS, LRS, LOSSES, strict=True)
    ]
    (log,) = read_logs(write(tmp_path / "run.csv", rows))
    same(log)
    assert log.name == "run.csv"
    lines = tmp_path / "run.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n")
    same(read_logs(lines)[0])
    (tmp_path / "run.json").write_text(json.dumps(rows))
    same(read_logs(tmp_path / "run.json")[0])
    (tmp_path / "cols.json").write_text(json.dumps({step: STEPS, lr: LRS, loss: LOSSES}))
    same(read_logs(tmp_path / "cols.json")[0])


def test_a_trainers_state_has_losses_and_lrs_on_rows_of_their_own(tmp_path) -> None:
    history = [
        {"step": k, "learning_rate": u, "loss": 9.0} for k, u in zip(STEPS, LRS, strict=True)
    ]
    history += [{"step": k, "eval_loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"global_step": 200, "log_history": history}))
    same(read_logs(path)[0])
    assert set(read_logs(path, loss="loss")[0].losses) == {9.0}


def test_our_own_results_are_read(tmp_path) -> None:
    seen = tuple(Evaluation(k, {"loss": x}) for k, x in zip(STEPS, LOSSES, strict=True))
    good = Run("cosine(1, 0)", 0.1, 0, 200, 20, (4.0,) * 200, seen)
    few = Run("cosine(1, 0)", 0.1, 1, 200, 100, (4.0,) * 200, seen[-2:])
    lost = Run("cosine(1, 0)", 0.1, 2, 200, 100, (4.0,) * 7, (), diverged=7)
    path = Comparison("t", {"a": "cosine(1, 0)"}, (good, few, lost), {}).save(tmp_path / "c.json")
    first, second = read_logs(path)
    same(first)
    assert list(second.steps) == list(range(1, 201))
    assert set(second.losses) == {4.0}
    with pytest.raises(LogError, match="diverged at step 7"):
        log_of_run(lost)


def test_the_plan_of_a_run_may_be_said(tmp_path) -> None:
    rows = [{"step": k, "loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = write(tmp_path / "run.csv", rows)
    (log,) = read_logs(path, schedule=PLAN)
    same(log)
    assert log.warmup == 0
    (longer,) = read_logs(path, schedule=0.1 * warmup(50).then(cosine(1, 0)), total_steps=400)
    assert longer.warmup == 50
    assert longer.every_lr[-1] > 0.05
    with pytest.raises(LogError, match="no lrs were logged; say the schedule of the run"):
        read_logs(path)
    rated = [{**row, "lr": u} for row, u in zip(rows, LRS, strict=True)]
    same(read_logs(write(tmp_path / "rated.csv", rated), schedule=PLAN)[0])
    with pytest.raises(
        LogError, match=r"at step 10 the log has an lr of 0\.09938, the schedule 0\.1"
    ):
        read_logs(tmp_path / "rated.csv", schedule=0.1 * constant(1))


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_a_log_may_hold_the_lr_just_used_or_the_next_one(late) -> None:
    curve = (0.1 * warmup(200)).resolve(total_steps=200)
    lrs = [curve(max(k + late, 0)) for k in STEPS]
    same(Log(STEPS, LOSSES, lrs, curve), None)


def changed(place, row):
    table = [list(STEPS), list(LOSSES), list(LRS)]
    for column, value in row.items():
        table[column][place] = value
    return table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([STEPS[:3], LOSSES[:3], LRS[:3]], "3 losses; a law needs at least 8"),
        ([STEPS, LOSSES, LRS[:-1]], "must be of one length"),
        (changed(4, {1: float("nan")}), r"the loss of row 5 is nan; leave out"),
        (changed(4, {1: float("inf")}), r"the loss of row 5 is inf"),
        (changed(4, {1: -0.5}), r"the loss of row 5 is -0\.5; the law is of losses above 0"),
        (changed(4, {0: 40}), "step 40 of row 5 is there twice; give one row for each"),
        (changed(4, {0: 15}), "step 15 of row 5 comes after 40"),
        (changed(0, {0: -5}), "steps must be whole numbers from 0 up"),
        (changed(0, {0: 9.5}), "steps must be whole numbers from 0 up"),
        (changed(4, {2: -0.1}), "lrs must be finite, not below 0"),
        (changed(4, {2: float("nan")}), "lrs must be finite, not below 0"),
        ([STEPS, LOSSES, [0.0] * 20], "lrs must be finite, not below 0, and some above it"),
    ],
)
def test_nonsense_is_refused_with_the_reason(table, words) -> None:
    with pytest.raises(LogError, match=words):
        Log(*table)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "step,lr\n1,2\n", "no column eval_loss or .*there is lr; name it with loss="),
        ("a.csv", "epoch,loss\n1,2\n", "row 1 has no column step or .*there is epoch, loss"),
        ("a.csv", "step,loss\n1,2\nx,2\n", "step of row 2 is 'x', no number"),
        ("a.csv", "step,loss,lr\n1,2,0.1\n2,high,0.1\n", "loss of row 2 is 'high', no number"),
        ("a.json", "{", "expected CSV, JSON, JSON lines or events"),
        ("a.json", "[1, 2]", "expected a table, rows of names and numbers"),
        ("a.json", '{"ratecraft": "LRRangeTestResult", "format": 1, "lrs": [], "losses": [], '
         '"smoothed": [], "stopped": "", "suggestion": null, "reason": ""}', "a saved LRRangeTestResult"),
        ("a.jsonl", "{}\n{", "expected CSV"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_log_is_told(tmp_path, name, text, words) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LogError, match=words):
        read_logs(path)


def test_a_file_that_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(LogError, match="no such file"):
        read_logs(tmp_path / "a.csv")


def test_between_logged_lrs_it_is_a_line_and_before_the_first_it_holds() -> None:
    log = Log(range(100, 300, 10), LOSSES, [0.1] * 10 + [0.2] * 10)
    assert set(log.every_lr[:190]) == {0.1}
    assert log.every_lr[194] == pytest.approx(0.15)
    assert log.peak == 0.2
    assert log.warmup == 199


def test_lrs_and_losses_may_be_logged_at_different_times(tmp_path) -> None:
    plan = (0.01 * warmup(20).then(cosine(1, 0))).resolve(total_steps=400)
    history = [{"step": k, "learning_rate": plan(k - 1)} for k in range(5, 401, 5)]
    history += [{"step": k, "eval_loss": 3 - k / 400} for k in range(50, 401, 50)]
    history.append({"step": 400, "eval_loss": 2.0})  # once more, after training
    history.append({"step": 400, "train_runtime": 3.0, "train_loss": 2.1})
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    (log,) = read_logs(path)
    assert len(log.losses) == 8
    assert 18 <= log.warmup <= 26
    assert log.peak == pytest.approx(0.01, rel=1e-3)
    assert log.begins == 5
    assert log.every_lr[99] == pytest.approx(plan(99), rel=1e-3)


def test_a_few_validation_losses_make_way_for_many_training_losses(tmp_path) -> None:
    rows = [
        {"step": k, "lr": 0.1, "train_loss": 3 - k / 400, "val_loss": 2.0 if k > 180 else ""}
        for k in STEPS
    ]
    assert read_logs(write(tmp_path / "a.csv", rows))[0].losses[0] == 3 - 10 / 400


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bom.csv", "\ufeffstep,lr,loss\n{rows}"),
        ("semicolon.csv", "step;lr;loss\n{rows}"),
        ("TAB.TSV", "step\tlr\tloss\n{rows}"),
        ("spaces.csv", "step, lr, loss\n{rows}\n,,\n"),
        ("lines.ndjson", "\ufeff{lines}"),
        ("config.jsonl", '{{"model": "m"}}\n{lines}'),
        ("nan.jsonl", "{nans}"),
        ("wandb.csv", "_step,global_step,lr,loss\n{blank}"),
    ],
)
def test_files_as_programs_write_them(tmp_path, name, text) -> None:
    comma = {"semicolon.csv": ";", "TAB.TSV": "\t"}.get(name, ",")
    table = list(zip(STEPS, LRS, LOSSES, strict=True))
    dicts = [{"step": k, "lr": u, "loss": x} for k, u, x in table]
    empty = [{"step": k, "lr": 0.1, "eval_loss": float("nan")} for k in range(1, 200)]
    filled = text.format(
        rows="\n".join(comma.join(map(str, row)) for row in table),
        lines="\n".join(map(json.dumps, dicts)),
        nans="\n".join(
            json.dumps({"step": k, "lr": u, "eval_loss": x} if row is None else row)
            for row, k, u, x in [(None, *one) for one in table] + [(e, 0, 0, 0) for e in empty]
        ),
        blank="\n".join(f"{k},,{u},{x}" for k, u, x in table),
    )
    (tmp_path / name).write_text(filled, encoding="utf-8")
    if name == "nan.jsonl":
        assert list(read_logs(tmp_path / name)[0].losses) == LOSSES
    else:
        same(read_logs(tmp_path / name)[0])


def test_several_runs_in_one_export_are_refused(tmp_path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("Step,a - train/loss,b - train/loss\n1,2,3\n")
    with pytest.raises(LogError, match="'a - train/loss' and 'b - train/loss' are both train/loss"):
        read_logs(path)


def test_names_of_columns_are_read_in_any_case(tmp_path) -> None:
    rows = [{"Step": k, "LR": u, "Value": x} for k, u, x in zip(STEPS, LRS, LOSSES, strict=True)]
    same(read_logs(write(tmp_path / "a.csv", rows), loss="Value")[0])


def test_plans_that_do_not_reach_and_steps_that_are_tokens_are_refused() -> None:
    with pytest.raises(LogError, match="the plan ends after 150 steps, the log goes on to 200"):
        Log(STEPS, LOSSES, schedule=PLAN.resolve(total_steps=150))
    with pytest.raises(LogError, match="are these tokens or samples"):
        Log([10**9 * k for k in range(1, 21)], LOSSES, [0.1] * 20)
    with pytest.raises(TypeError, match="a curve, as schedule="):
        Log(STEPS, LOSSES, schedule=PLAN)


def test_a_comparison_without_a_finished_run_or_with_settings_is_refused(tmp_path) -> None:
    lost = Run("cosine(1, 0)", 0.1, 2, 200, 100, (4.0,) * 7, (), diverged=7)
    path = Comparison("t", {"a": "cosine(1, 0)"}, (lost,), {}).save(tmp_path / "c.json")
    with pytest.raises(LogError, match="every run of this comparison diverged"):
        read_logs(path)
    with pytest.raises(LogError, match="leave out schedule= and loss="):
        read_logs(path, schedule=PLAN)


def test_plans_may_speak_of_epochs(tmp_path) -> None:
    rows = [{"step": k, "loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = write(tmp_path / "a.csv", rows)
    plan = 0.1 * warmup(epochs(2)).then(cosine(1, 0))
    assert read_logs(path, schedule=plan, steps_per_epoch=25)[0].warmup == 50


def test_runs_of_one_schedule_at_several_lrs_keep_their_names(tmp_path) -> None:
    names = {f"flat, lr {lr}": "constant(1)" for lr in (0.1, 0.2)}
    runs = tuple(
        Run("constant(1)", lr, 0, 200, 10, tuple(np.linspace(3, 2, 200).tolist()), ())
        for lr in (0.1, 0.2)
    )
    settings = {f"flat, lr {lr}": Setting(lr, "", 200) for lr in (0.1, 0.2)}
    Comparison("t", names, runs, {}, settings).save(tmp_path / "c.json")
    logs = read_logs(tmp_path / "c.json")
    told = {log.name: float(max(log.every_lr)) for log in logs}
    assert told == {"flat, lr 0.1, seed 0": 0.1, "flat, lr 0.2, seed 0": 0.2}

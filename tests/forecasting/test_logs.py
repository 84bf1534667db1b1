"""Log files of common formats, and invalid ones."""

import csv
import json
import math
import tracemalloc

import numpy as np
import pytest

from ratecraft import constant, cosine, epochs, warmup
from ratecraft.errors import LogError
from ratecraft.forecasting import Log, log_of_run, read_logs
from ratecraft.results import Comparison, Evaluation, Run, RunConfig

STEPS = list(range(10, 210, 10))
LOSSES = [3 - k / 200 for k in STEPS]
SCHEDULE = 0.1 * cosine(1, 0)
LRS = SCHEDULE.resolve(total_steps=200).values(np.array(STEPS, float)).tolist()


def assert_same(log, lrs=LRS):
    assert list(log.steps) == STEPS
    assert list(log.losses) == LOSSES
    assert len(log.every_lr) == 200
    if lrs is not None:
        # Logs have the lr of the last step or of the next one.
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
        ("update", "rate", "validation_loss"),
        ("iteration", "optimizer/lr", "lm loss"),
    ],
)
def test_columns_with_common_names(tmp_path, step, lr, loss) -> None:
    rows = [
        {step: k, lr: u, loss: x, f"{loss}__MIN": 0, "note": "-"}
        for k, u, x in zip(STEPS, LRS, LOSSES, strict=True)
    ]
    (log,) = read_logs(write(tmp_path / "run.csv", rows))
    assert_same(log)
    assert log.name == "run.csv"
    lines = tmp_path / "run.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert_same(read_logs(lines)[0])
    (tmp_path / "run.json").write_text(json.dumps(rows))
    assert_same(read_logs(tmp_path / "run.json")[0])
    (tmp_path / "cols.json").write_text(json.dumps({step: STEPS, lr: LRS, loss: LOSSES}))
    assert_same(read_logs(tmp_path / "cols.json")[0])


def test_trainer_state_with_losses_and_lrs_on_separate_rows(tmp_path) -> None:
    history = [
        {"step": k, "learning_rate": u, "loss": 9.0} for k, u in zip(STEPS, LRS, strict=True)
    ]
    history += [{"step": k, "eval_loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"global_step": 200, "log_history": history}))
    assert_same(read_logs(path)[0])
    assert set(read_logs(path, loss="loss")[0].losses) == {9.0}


def test_saved_comparison_is_read(tmp_path) -> None:
    evaluations = tuple(Evaluation(k, {"loss": x}) for k, x in zip(STEPS, LOSSES, strict=True))
    good = Run("cosine(1, 0)", 0.1, 0, 200, 20, (4.0,) * 200, evaluations)
    short = Run("cosine(1, 0)", 0.1, 1, 200, 100, (4.0,) * 200, evaluations[-2:])
    diverged = Run("cosine(1, 0)", 0.1, 2, 200, 100, (4.0,) * 7, (), diverged=7)
    path = Comparison("t", {"a": "cosine(1, 0)"}, (good, short, diverged), {}).save(
        tmp_path / "c.json"
    )
    words = r'a, seed 1: 2 validation losses; .* pass loss="train_loss"'
    with pytest.raises(LogError, match=words):
        read_logs(path)
    logs = read_logs(path, loss="train_loss")
    assert [list(log.steps) for log in logs] == [list(range(1, 201))] * 2
    assert {x for log in logs for x in log.losses} == {4.0}
    assert_same(log_of_run(good))
    assert log_of_run(good).columns == {"loss": "loss"}
    not_evaluated = Run("cosine(1, 0)", 0.1, 1, 200, 100, (4.0,) * 200, ())
    assert log_of_run(not_evaluated).columns == {"loss": "train_loss"}
    with pytest.raises(LogError, match="diverged at step 7"):
        log_of_run(diverged)
    with pytest.raises(LogError, match="loss='accuracy'; expected \"train_loss\""):
        log_of_run(good, loss="accuracy")


def test_schedule_argument_replaces_or_checks_logged_lrs(tmp_path) -> None:
    rows = [{"step": k, "loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = write(tmp_path / "run.csv", rows)
    (log,) = read_logs(path, schedule=SCHEDULE)
    assert_same(log)
    assert log.warmup_steps == 0
    (longer,) = read_logs(path, schedule=0.1 * warmup(50).then(cosine(1, 0)), total_steps=400)
    assert longer.warmup_steps == 50
    assert longer.every_lr[-1] > 0.05
    with pytest.raises(LogError, match="no lrs were logged; pass the schedule of the run"):
        read_logs(path)
    rows_with_lr = [{**row, "lr": u} for row, u in zip(rows, LRS, strict=True)]
    assert_same(read_logs(write(tmp_path / "with_lr.csv", rows_with_lr), schedule=SCHEDULE)[0])
    with pytest.raises(
        LogError, match=r"at step 10 the log has an lr of 0\.09938, the schedule 0\.1"
    ):
        read_logs(tmp_path / "with_lr.csv", schedule=0.1 * constant(1))


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_log_has_the_lr_of_the_last_or_the_next_step(offset) -> None:
    curve = (0.1 * warmup(200)).resolve(total_steps=200)
    lrs = [curve(max(k + offset, 0)) for k in STEPS]
    assert_same(Log(STEPS, LOSSES, lrs, curve), None)


def changed(index, row):
    table = [list(STEPS), list(LOSSES), list(LRS)]
    for column, value in row.items():
        table[column][index] = value
    return table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([STEPS[:3], LOSSES[:3], LRS[:3]], "3 losses; a fit needs at least 8"),
        ([STEPS, LOSSES, LRS[:-1]], "must have the same length"),
        (changed(4, {1: float("nan")}), r"the loss of row 5 is nan; leave out rows"),
        (changed(4, {1: float("inf")}), r"the loss of row 5 is inf"),
        (changed(4, {1: -0.5}), r"the loss of row 5 is -0\.5; expected losses above 0"),
        (changed(4, {0: 40}), "step 40 of row 5 occurs twice; expected one row for each"),
        (changed(4, {0: 15}), "step 15 of row 5 comes after 40"),
        (changed(0, {0: -5}), "steps must be whole numbers of at least 0"),
        (changed(0, {0: 9.5}), "steps must be whole numbers of at least 0"),
        (changed(4, {2: -0.1}), "lrs must be finite numbers of at least 0"),
        (changed(4, {2: float("nan")}), "lrs must be finite numbers of at least 0"),
        (
            [STEPS, LOSSES, [0.0] * 20],
            "lrs must be finite numbers of at least 0, and not all of them 0",
        ),
    ],
)
def test_invalid_log_raises(table, words) -> None:
    with pytest.raises(LogError, match=words):
        Log(*table)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "step,lr\n1,2\n", "no column eval_loss or .*the columns are step, lr; pass"),
        ("a.csv", "epoch,loss\n1,2\n", "row 1 has no column step or .*the columns are epoch, loss"),
        ("a.csv", "step,loss\n1,2\nx,2\n", "step of row 2 is 'x'; expected a number"),
        ("a.csv", "step,loss,lr\n1,2,0.1\n2,high,0.1\n", "loss of row 2 is 'high'; expected"),
        ("a.json", "{", "expected CSV, JSON, JSON lines, TensorBoard events, or lines of text"),
        ("a.json", "[1, 2]", "expected a table: a list of rows"),
        ("a.json", '{"ratecraft": "LRRangeTestResult", "format": 2, "lrs": [1], "losses": [1], '
         '"smoothed": [1], "stop_reason": "", "suggestion": null, "reason": ""}',
         "a saved LRRangeTestResult; expected a Comparison"),
        ("a.jsonl", "{}\n{", "expected CSV"),
    ],
)  # fmt: skip
def test_invalid_file_raises(tmp_path, name, text, words) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LogError, match=words):
        read_logs(path)


def test_missing_file_raises(tmp_path) -> None:
    with pytest.raises(LogError, match="no such file"):
        read_logs(tmp_path / "a.csv")


def test_logged_lrs_are_interpolated_and_constant_before_the_first() -> None:
    log = Log(range(100, 300, 10), LOSSES, [0.1] * 10 + [0.2] * 10)
    assert set(log.every_lr[:190]) == {0.1}
    assert log.every_lr[194] == pytest.approx(0.15)
    assert log.peak_lr == 0.2
    assert log.warmup_steps == 199


def test_lrs_and_losses_logged_at_different_steps(tmp_path) -> None:
    curve = (0.01 * warmup(20).then(cosine(1, 0))).resolve(total_steps=400)
    history = [{"step": k, "learning_rate": curve(k - 1)} for k in range(5, 401, 5)]
    history += [{"step": k, "eval_loss": 3 - k / 400} for k in range(50, 401, 50)]
    history.append({"step": 400, "eval_loss": 2.0})  # a second evaluation, after training
    history.append({"step": 400, "train_runtime": 3.0, "train_loss": 2.1})
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    (log,) = read_logs(path)
    assert len(log.losses) == 8
    assert 18 <= log.warmup_steps <= 26
    assert log.peak_lr == pytest.approx(0.01, rel=1e-3)
    assert log.first_lr_step == 5
    assert log.every_lr[99] == pytest.approx(curve(99), rel=1e-3)


def test_training_losses_do_not_replace_too_few_validation_losses(tmp_path) -> None:
    rows = [
        {"step": k, "lr": 0.1, "train_loss": 3 - k / 400, "val_loss": 2.0 if k > 180 else ""}
        for k in STEPS
    ]
    path = write(tmp_path / "a.csv", rows)
    words = r'val_loss has 2 losses, and a fit needs at least 8, .*pass loss="train_loss"'
    with pytest.raises(LogError, match=words):
        read_logs(path)
    (log,) = read_logs(path, loss="train_loss")
    assert log.losses[0] == 3 - 10 / 400
    assert log.columns == {"step": "step", "loss": "train_loss", "lr": "lr"}
    with pytest.raises(LogError, match="2 losses; a fit needs at least 8"):
        read_logs(path, loss="val_loss")
    longer = [{**row, "eval/loss": 2 - row["step"] / 400} for row in rows]
    assert read_logs(write(tmp_path / "b.csv", longer))[0].columns["loss"] == "eval/loss"


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
def test_file_variants_of_common_programs(tmp_path, name, text) -> None:
    delimiter = {"semicolon.csv": ";", "TAB.TSV": "\t"}.get(name, ",")
    table = list(zip(STEPS, LRS, LOSSES, strict=True))
    records = [{"step": k, "lr": u, "loss": x} for k, u, x in table]
    empty = [{"step": k, "eval_loss": float("nan")} for k in range(1, 200)]
    filled = text.format(
        rows="\n".join(delimiter.join(map(str, row)) for row in table),
        lines="\n".join(map(json.dumps, records)),
        nans="\n".join(
            json.dumps({"step": k, "lr": u, "eval_loss": x} if row is None else row)
            for row, k, u, x in [(None, *values) for values in table]
            + [(record, 0, 0, 0) for record in empty]
        ),
        blank="\n".join(f"{k},,{u},{x}" for k, u, x in table),
    )
    (tmp_path / name).write_text(filled, encoding="utf-8")
    if name == "nan.jsonl":
        assert list(read_logs(tmp_path / name)[0].losses) == LOSSES
    else:
        assert_same(read_logs(tmp_path / name)[0])


def test_export_of_several_runs_raises(tmp_path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("Step,a - train/loss,b - train/loss\n1,2,3\n")
    with pytest.raises(LogError, match="'a - train/loss' and 'b - train/loss' are both train/loss"):
        read_logs(path)


def test_column_names_are_case_insensitive(tmp_path) -> None:
    rows = [{"Step": k, "LR": u, "Value": x} for k, u, x in zip(STEPS, LRS, LOSSES, strict=True)]
    assert_same(read_logs(write(tmp_path / "a.csv", rows), loss="Value")[0])


def test_short_schedule_or_steps_in_tokens_raise() -> None:
    with pytest.raises(LogError, match="the schedule ends after 150 steps, the log after 200"):
        Log(STEPS, LOSSES, schedule=SCHEDULE.resolve(total_steps=150))
    with pytest.raises(LogError, match="are these tokens or samples"):
        Log([10**9 * k for k in range(1, 21)], LOSSES, [0.1] * 20)
    with pytest.raises(TypeError, match="schedule= must be a curve"):
        Log(STEPS, LOSSES, schedule=SCHEDULE)


def test_comparison_without_finished_run_or_with_options_raises(tmp_path) -> None:
    diverged = Run("cosine(1, 0)", 0.1, 2, 200, 100, (4.0,) * 7, (), diverged=7)
    path = Comparison("t", {"a": "cosine(1, 0)"}, (diverged,), {}).save(tmp_path / "c.json")
    with pytest.raises(LogError, match="every run of this comparison diverged"):
        read_logs(path)
    with pytest.raises(LogError, match="leave out schedule= and loss="):
        read_logs(path, schedule=SCHEDULE)


def test_schedule_with_lengths_in_epochs(tmp_path) -> None:
    rows = [{"step": k, "loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    path = write(tmp_path / "a.csv", rows)
    schedule = 0.1 * warmup(epochs(2)).then(cosine(1, 0))
    assert read_logs(path, schedule=schedule, steps_per_epoch=25)[0].warmup_steps == 50


def test_logs_of_one_schedule_at_several_lrs_have_distinct_names(tmp_path) -> None:
    names = {f"flat, lr {lr}": "constant(1)" for lr in (0.1, 0.2)}
    runs = tuple(
        Run("constant(1)", lr, 0, 200, 10, tuple(np.linspace(3, 2, 200).tolist()), ())
        for lr in (0.1, 0.2)
    )
    configs = {f"flat, lr {lr}": RunConfig(lr, "", 200) for lr in (0.1, 0.2)}
    Comparison("t", names, runs, {}, configs).save(tmp_path / "c.json")
    logs = read_logs(tmp_path / "c.json")
    peaks = {log.name: float(max(log.every_lr)) for log in logs}
    assert peaks == {"flat, lr 0.1, seed 0": 0.1, "flat, lr 0.2, seed 0": 0.2}


def test_wrong_step_far_away_is_refused_and_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(LogError, match="step 100000000 of row 21 follows step 200; expected"):
            Log([*STEPS, 10**8], [*LOSSES, 1.0], [*LRS, 0.1])
        with pytest.raises(LogError, match="step 20000000 of row 21 follows step 200; expected"):
            Log([*STEPS, 2 * 10**7], [*LOSSES, 1.0], [*LRS, 0.1])
        with pytest.raises(LogError, match="at most 20,000,000 optimizer steps"):
            Log(range(10**8, 10**8 + 20), LOSSES, LRS)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_losses_at_growing_distances_are_read() -> None:
    steps = [3**k for k in range(8)]
    assert len(Log(steps, LOSSES[:8], [0.1] * 8).every_lr) == 3**7


@pytest.mark.parametrize("lr_steps", [[0, math.nan], [0, math.inf], [5, 5], [5, 4], [-1, 5]])
def test_steps_of_lrs_must_increase(lr_steps) -> None:
    with pytest.raises(LogError, match=r"the step of lr \d is .*; expected increasing steps"):
        Log(STEPS, LOSSES, [0.1, 0.1], lr_steps=lr_steps)


def test_last_step_that_is_no_number_is_refused_before_the_schedule_is_resolved(tmp_path) -> None:
    rows = [{"step": k, "loss": x} for k, x in zip(STEPS, LOSSES, strict=True)]
    for step in (math.nan, math.inf):
        path = tmp_path / "a.json"
        path.write_text(json.dumps([*rows, {"step": step, "loss": 1.0}]))
        with pytest.raises(LogError, match=r"the step of row 21 is (nan|inf)"):
            read_logs(path, schedule=SCHEDULE)


ROW = '{"step": 1, "loss": 2, "lr": 0.1}'


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", f"{ROW}\n" + "[" * 100_000, "nested too deeply"),
        ("a.json", '[{"step": 1, "loss": true}]', "loss of row 1 is True; expected a number"),
        ("a.json", '[{"step": [1], "loss": 1}]', r"step of row 1 is \[1\]; expected a number"),
        ("a.json", '[{"step": 1, "loss": 1' + "0" * 400 + "}]", "loss of row 1 is 1000.*…; expect"),
        ("a.json", '[{"step": 1, "loss": "' + "x" * 10**5 + '"}]', "is 'xxx.*…; expected a number"),
        ("a.json", '{"step": [1, 2], "loss": [1]}', "step has 2 values, loss has 1 values"),
        ("a.json", '{"step": 1}', "expected a table: a list of rows"),
        ("a.csv", "step,loss\n1,2\n10,2,5\n", "row 2 has 3 cells, the first line 2 titles; if com"),
        ("a.csv", "step,loss,loss\n1,2,3\n", "'loss' and 'loss' are both loss"),
        ("a.csv", "step,loss,acc\n1,2,-\n,3,-\n", "row 2 has no column step or .*; the columns"),
        ("a.csv", "step,loss,acc\n1,,-\n", "no column eval_loss or .*with numbers; the"),
        ("a.csv", "acc\n1\n", "no column step or .*; the columns are acc"),
        ("a.csv", "", "no column step or .*; the columns are none"),
    ],
)  # fmt: skip
def test_damaged_file_raises(tmp_path, name, text, words) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LogError, match=words):
        read_logs(path)


def test_rows_with_many_different_columns_are_read(tmp_path) -> None:
    rows = [
        {"step": k, "lr": u, "loss": x, "text": "a\u2028b"} | {f"{k}/{i}": i for i in range(99)}
        for k, u, x in zip(STEPS, LRS, LOSSES, strict=True)
    ]
    path = tmp_path / "a.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8")
    assert_same(read_logs(path)[0])


def test_a_million_rows_are_read(tmp_path) -> None:
    path = tmp_path / "long.csv"
    count = 10**6
    lines = (f"{k},0.1,{3 + 9 / k:.6g},{2.5 if k % 1000 == 0 else ''}" for k in range(1, count + 1))
    path.write_text("step,lr,train_loss,val_loss\n" + "\n".join(lines))
    (log,) = read_logs(path, loss="train_loss")
    assert len(log.steps) == len(log.every_lr) == count
    assert len(read_logs(path)[0].steps) == 1000

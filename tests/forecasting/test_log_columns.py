"""Columns of log files: their names, the order of their rows, tables inside of JSON."""

import json
import random

import pytest

from ratecraft import cosine
from ratecraft.errors import LogError
from ratecraft.forecasting import read_logs
from ratecraft.forecasting._read_logs import read_columns
from ratecraft.results import Comparison

STEPS = list(range(10, 210, 10))
LOSSES = [3 - k / 200 for k in STEPS]
LRS = (0.1 * cosine(1, 0)).resolve(total_steps=200).values(STEPS).tolist()
ROWS = [{"step": k, "loss": x, "lr": u} for k, x, u in zip(STEPS, LOSSES, LRS, strict=True)]


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def test_rows_out_of_order_are_sorted_if_their_steps_are_distinct(tmp_path) -> None:
    rows = random.Random(0).sample(ROWS, len(ROWS))
    (log,) = read_logs(write(tmp_path / "a.json", rows))
    assert (list(log.steps), list(log.losses), list(log.lrs)) == (STEPS, LOSSES, LRS)
    evaluations = [{"step": row["step"], "val_loss": row["loss"] + 1} for row in ROWS]
    (log,) = read_logs(write(tmp_path / "b.json", [*evaluations[10:], *rows, *evaluations[:10]]))
    assert list(log.losses) == [x + 1 for x in LOSSES]


def test_steps_with_two_losses_are_not_sorted(tmp_path) -> None:
    resumed = [*ROWS[:15], *({**row, "loss": row["loss"] + 0.01} for row in ROWS[10:])]
    with pytest.raises(LogError, match=r"step 110 of row 16 comes after 150; .*or a resumed one"):
        read_logs(write(tmp_path / "a.json", resumed))
    same = [*ROWS[:15], *ROWS[10:]]
    assert list(read_logs(write(tmp_path / "b.json", same))[0].losses) == LOSSES


def test_steps_with_two_lrs_are_refused(tmp_path) -> None:
    rows = [*ROWS, {"step": 50, "lr": 0.3}]
    with pytest.raises(LogError, match="the step of lr 21 is 50 after 200; expected increasing"):
        read_logs(write(tmp_path / "a.json", rows))


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ({"config": {"layers": [2, 3]}, "history": ROWS}, ("loss", "lr")),
        ({"run": {"name": "a", "metrics": {"history": ROWS}}}, ("loss", "lr")),
        (
            {"run": {"history": {"step": STEPS, "loss": LOSSES, "lr": LRS}, "best": [1]}},
            ("loss", "lr"),
        ),
        (
            {"history": {"train": [{**row, "loss": 9.0} for row in ROWS], "val": ROWS}},
            ("val/loss", "train/lr"),
        ),
        (
            {
                "train": {"step": STEPS, "loss": [9.0] * 20, "lr": LRS},
                "eval": {"step": STEPS, "loss": LOSSES},
            },
            ("eval/loss", "train/lr"),
        ),
        (
            [
                {"step": row["step"], "train": {"loss": 9.0, "lr": row["lr"]}, "val": row}
                for row in ROWS
            ],
            ("val/loss", "train/lr"),
        ),
    ],
)
def test_tables_inside_of_json(tmp_path, data, columns) -> None:
    (log,) = read_logs(write(tmp_path / "a.json", data))
    assert (list(log.steps), list(log.losses), list(log.lrs)) == (STEPS, LOSSES, LRS)
    assert log.columns == {"step": "step", "loss": columns[0], "lr": columns[1]}
    assert read_logs(write(tmp_path / "history", data))[0].columns == log.columns


def test_json_without_a_table_is_refused(tmp_path) -> None:
    data = {"a": {"b": {"c": {"d": {"e": {"f": ROWS}}}}}, "loss": 3}
    with pytest.raises(LogError, match="expected a table: a list of rows"):
        read_logs(write(tmp_path / "a.json", data))
    runs = {"first": ROWS, "second": ROWS}
    with pytest.raises(LogError, match="the columns are step, first/loss, first/lr, second/loss"):
        read_logs(write(tmp_path / "b.json", runs))
    assert read_logs(
        write(tmp_path / "b.json", runs), loss="second/loss", schedule=0.1 * cosine(1, 0)
    )[0].columns == {"step": "step", "loss": "second/loss"}


def test_repr_of_a_log_has_its_columns(tmp_path) -> None:
    rows = [{"global_step": row["step"], "Val Loss": row["loss"], "lr": row["lr"]} for row in ROWS]
    (log,) = read_logs(write(tmp_path / "a.json", rows))
    assert repr(log) == (
        "<Log: a.json, 20 losses, 200 steps, peak lr 0.09938, step from global_step, loss from "
        "val loss, lr from lr>"
    )
    assert read_logs(tmp_path / "a.json", loss="val_loss")[0].columns == log.columns


def test_read_columns_returns_all_numbers(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,Loss,top-1,note,empty\n1,3.5,,a,\n2,3.0,0.5,b,\n2,2.5,0.7,c,\n")
    assert read_columns(path) == {
        "loss": ([1.0, 2.0, 2.0], [3.5, 3.0, 2.5]),
        "top-1": ([2.0, 2.0], [0.5, 0.7]),
    }
    path = tmp_path / "run.out"
    path.write_text("starting\nstep 1: loss 3.5, top-1 0.1\nstep 2: loss 3.0\n  val_loss 3.2\n")
    assert read_columns(path) == {
        "loss": ([1.0, 2.0], [3.5, 3.0]),
        "top-1": ([1.0], [0.1]),
        "val_loss": ([2.0], [3.2]),
    }
    with pytest.raises(LogError, match=r"no column step or .*; the columns are epoch, loss"):
        read_columns(write(tmp_path / "b.json", [{"epoch": 1, "loss": 2.0, "note": "-"}]))
    with pytest.raises(LogError, match="no such file"):
        read_columns(tmp_path / "c.csv")
    with pytest.raises(LogError, match="a saved comparison; expected the log of one run"):
        read_columns(Comparison("t", {"a": "cosine(1, 0)"}, (), {}).save(tmp_path / "d.json"))

"""log_lrs and Probe.log write to the loggers that people use, read back from their files."""

import csv
from pathlib import Path

import pytest
import torch
from optimizers import named, sgd

from ratecraft import Probe, ScheduleLR, cosine
from ratecraft.diagnostics import log_lrs
from ratecraft.errors import SettingError

pytestmark = pytest.mark.peers

STEPS = 4
Points = list[tuple[int, float]]


def train(logger) -> dict[str, Points]:
    """Train for a few steps, log each lr, and return the lrs that the optimizer used."""
    optimizer = named(backbone=0.1, head=0.2)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=STEPS)
    used: dict[str, Points] = {"lr/backbone": [], "lr/head": []}
    for k in range(STEPS):
        log_lrs(scheduler, logger)
        for group in optimizer.param_groups:
            used[f"lr/{group['name']}"].append((k, group["lr"]))
        optimizer.step()
    return used


def probed_layers(logger) -> None:
    """Log the effective lrs of a model with one layer in two steps."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Probe(optimizer, model, every=1) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    probe.log(logger)


def tensorboard_points(folder: Path, name: str) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def approximately(points: Points) -> Points:
    return [(step, pytest.approx(value)) for step, value in points]  # float32 in event files


def test_tensorboard(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        used = train(writer)
        probed_layers(writer)
    for name, points in used.items():
        assert tensorboard_points(tmp_path, name) == approximately(points)
    assert tensorboard_points(tmp_path, "lr/0") == [(0, 0.5), (1, 0.5)]
    log_lrs(ScheduleLR(sgd(0.1), factor=cosine(), total_steps=4), writer.add_scalar)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    module = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for folder in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{folder}", str(tmp_path))
    yield module
    module.teardown()


def wandb_rows(folder: Path) -> list[dict[str, float]]:
    """Return the history of an offline run: records of a length, a checksum and a message."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # waits for the process that writes the file
    (path,) = folder.rglob("run-*.wandb")
    data, rows = path.read_bytes()[7:], []
    assert len(data) < 32_000  # a larger file has several blocks
    while data:
        end = 7 + int.from_bytes(data[4:6], "little")
        items = Record.FromString(data[7:end]).history.item
        row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in items}
        rows += [row] if row else []
        data = data[end:]
    return rows


def wandb_points(rows: list[dict[str, float]], name: str) -> Points:
    return [(int(row["_step"]), row[name]) for row in rows if name in row]


@pytest.mark.parametrize("is_module", [False, True], ids=["run", "module"])
def test_wandb_offline(is_module, wandb, tmp_path) -> None:
    with wandb.init(project="test", dir=tmp_path) as run:
        used = train(wandb if is_module else run)
    rows = wandb_rows(tmp_path)
    assert {name: wandb_points(rows, name) for name in used} == used


def test_wandb_keeps_the_metrics_of_a_step_together(wandb, tmp_path) -> None:
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=STEPS)
    with wandb.init(project="test", dir=tmp_path) as run:
        for k in range(STEPS):
            run.log({"loss": 1.0 + k}, step=k)
            log_lrs(scheduler, run)
            optimizer.step()
    rows = wandb_rows(tmp_path)
    assert [(row["_step"], row["loss"]) for row in rows] == [(k, 1.0 + k) for k in range(STEPS)]
    assert all("lr" in row for row in rows)


def test_wandb_before_init_raises_its_own_error(wandb) -> None:
    with pytest.raises(wandb.Error, match=r"must call wandb.init\(\)"):
        train(wandb)


def test_mlflow_file_store(tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # it is in maintenance mode
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        used = train(mlflow)
        probed_layers(mlflow)
    client = mlflow.MlflowClient()

    def points(name: str) -> Points:
        history = client.get_metric_history(run.info.run_id, name)
        return [(metric.step, metric.value) for metric in history]

    assert {name: points(name) for name in used} == used
    assert points("effective_lr/0") == [(0, pytest.approx(0.5)), (1, pytest.approx(0.5))]


def test_lightning_logger(tmp_path) -> None:
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(tmp_path)
    used = train(logger)
    logger.save()
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {name: [(int(row["step"]), float(row[name])) for row in rows] for name in used} == used


def test_lightning_module_and_fabric_log_under_other_arguments(tmp_path) -> None:
    lightning = pytest.importorskip("lightning")
    logger = pytest.importorskip("lightning.fabric.loggers").CSVLogger(tmp_path)
    fabric = lightning.Fabric(accelerator="cpu", loggers=logger)
    for other in (lightning.LightningModule(), fabric):
        with pytest.raises(SettingError, match=r"has no add_scalar.*is not a function of \(name"):
            train(other)
    used = train(fabric.log)  # which is such a function
    logger.save()
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, points in used.items():
        assert [(int(row["step"]), float(row[name])) for row in rows if row[name]] == points


def test_accelerator_and_a_scheduler_that_it_prepared(tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("run")
    optimizer = sgd(0.1)
    scheduler = ScheduleLR(optimizer, factor=cosine(), total_steps=STEPS)
    optimizer, scheduler = accelerator.prepare(optimizer, scheduler)
    used = []
    for k in range(STEPS):
        log_lrs(scheduler, accelerator)
        used.append((k, optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    accelerator.end_training()
    assert tensorboard_points(tmp_path / "run", "lr") == approximately(used)

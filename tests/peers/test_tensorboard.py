"""Read TensorBoard event files written by torch."""

import pytest

pytest.importorskip("tensorboard")

from torch.utils.tensorboard import SummaryWriter

from ratecraft.errors import LogError
from ratecraft.forecasting import read_logs

pytestmark = pytest.mark.peers


def test_read_logs_reads_event_files(tmp_path) -> None:
    with SummaryWriter(tmp_path / "run") as writer:
        for k in range(10, 210, 10):
            writer.add_scalar("train/loss", 3 - k / 200, k)
            writer.add_scalar("train/lr", 0.5, k)
    (log,) = read_logs(tmp_path / "run")
    assert list(log.steps) == list(range(10, 210, 10))
    assert log.losses[0] == pytest.approx(2.95)
    assert set(log.every_lr) == {0.5}
    (file,) = (tmp_path / "run").iterdir()
    assert read_logs(file)[0].losses == log.losses
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="no scalars in it"):
        read_logs(tmp_path / "empty")

"""The Ray engine: the numbers and errors of the local engine, and a clean shutdown."""

import dataclasses
import os
import re
import signal
import time
from concurrent.futures import BrokenExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ratecraft import constant, cosine
from ratecraft.errors import RunFailed, SettingError
from ratecraft.experiments import compare
from ratecraft.experiments._engines import RayEngine

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.peers,
    # Ray leaves files and sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


def test_ray_engine_gives_the_numbers_of_the_local_engine(tmp_path: Path) -> None:
    def exit_process() -> None:  # local, since Ray's workers cannot import a test file
        time.sleep(0.2)
        os._exit(9)

    def crash() -> None:
        raise ValueError("on purpose")

    settings = {"lrs": [0.01, 0.001], "seeds": 1, "total_steps": 20}
    schedules = [constant(1), cosine(1, 0)]
    handler = signal.getsignal(signal.SIGTERM)
    usage_stats = os.environ.get("RAY_USAGE_STATS_ENABLED")
    with closing(RayEngine(cpus=1)) as engine:
        assert signal.getsignal(signal.SIGTERM) is handler
        assert os.environ.get("RAY_USAGE_STATS_ENABLED") == usage_stats
        assert engine.slots == len(os.sched_getaffinity(0))
        result = compare("digits", schedules, **settings, engine=engine, store=tmp_path / "r.db")
        with pytest.raises(BrokenExecutor):
            engine.submit(exit_process).result(60)
        with pytest.raises(ValueError, match="on purpose"):
            engine.submit(crash).result(60)
        assert engine.submit(os.getpid).result(60) != os.getpid()
        with closing(RayEngine()) as other:  # uses the running Ray and does not stop it
            assert other.slots == engine.slots
        assert ray.is_initialized()
        with pytest.raises(SettingError, match="a trial needs 999 cores and 0 GPUs; the cluster"):
            RayEngine(cpus=999)
    assert not ray.is_initialized()
    local = compare("digits", schedules, **settings, workers=1)
    for run, local_run in zip(result.runs, local.runs, strict=True):
        assert dataclasses.replace(run, seconds=0.0) == dataclasses.replace(local_run, seconds=0.0)


def test_invalid_resources_raise() -> None:
    with pytest.raises(SettingError, match="expected cpus > 0"):
        RayEngine(cpus=0)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "a.invalid:99999"]
)
def test_cluster_that_does_not_answer_raises_at_once(address: str) -> None:
    with pytest.raises(RunFailed, match=f"Ray does not answer at {re.escape(address)}: "):
        RayEngine(address)
    assert not ray.is_initialized()

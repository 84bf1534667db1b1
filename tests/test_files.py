"""Writes are complete or change nothing, and follow no link."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ratecraft import constant
from ratecraft._files import parse_json, shortened, write_atomically
from ratecraft.report import plot_schedule, save_figure
from ratecraft.results import Comparison

LARGE = Comparison("t", {}, (), {str(i): "x" * 1000 for i in range(200)})

WRITES_TO_A_FULL_DISK = """
import resource, signal, sys
import torch
from ratecraft import constant
from ratecraft.diagnostics import Probe
from ratecraft.report import plot_schedule, save_figure, write_report
from ratecraft.results import Comparison, Evaluation, Run

net = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with Probe(optimizer, net, every=1) as probe:
    for _ in range(50):
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
run = Run("constant(1)", 0.1, 0, 4, 2, (1.0, 0.8, 0.6, 0.5), (Evaluation(4, {"loss": 0.5}),))
result = Comparison("t", {"a": "constant(1)"}, (run,), {str(i): "x" * 1000 for i in range(99)})
figure = plot_schedule(constant(1), total_steps=100)
writes = {
    "r.json": result.save,
    "r.html": lambda path: write_report(path, comparison=result, title="t"),
    "r.svg": lambda path: save_figure(figure, path),
    "r.csv": probe.save,
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write fails with an error instead
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for name, write in writes.items():
    try:
        write(f"{sys.argv[1]}/{name}")
    except OSError as error:
        print(error.filename.rpartition("/")[2], error.strerror)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    names = ["r.json", "r.html", "r.svg", "r.csv"]
    for name in names:
        (tmp_path / name).write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", WRITES_TO_A_FULL_DISK, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{name} File too large" for name in names]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "old"
    )


def test_several_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    contents = [letter * 100_000 for letter in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_atomically(tmp_path / "r.txt", contents[i % 4]), range(100)))
        list(pool.map(lambda _: LARGE.save(tmp_path / "r.json"), range(100)))
    assert (tmp_path / "r.txt").read_text() in contents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.txt"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("r.json", "r.json.partial", "r.json.tmp"):
        (tmp_path / name).symlink_to(victim)
    LARGE.save(tmp_path / "r.json")
    save_figure(plot_schedule(constant(1), total_steps=9), tmp_path / "r.svg")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "r.json").is_symlink()
    assert (tmp_path / "r.json.partial").is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_the_old_file_or_the_default(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    path = tmp_path / "new" / "r.txt"
    before = os.umask(0o027)
    try:
        write_atomically(path, "1")
        assert mode(path) == 0o640
        path.chmod(0o666)
        write_atomically(path, b"2")
    finally:
        os.umask(before)
    assert mode(path) == 0o666
    path.chmod(0o600)
    write_atomically(path, "3")
    assert mode(path) == 0o600
    assert path.read_text() == "3"


def test_folder_or_device_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="is not a regular file; write another file name"):
            write_atomically(path, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "r.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_read_only_file_is_refused_as_a_plain_open_refuses_it(tmp_path: Path, monkeypatch) -> None:
    path = Path("r.txt")
    monkeypatch.chdir(tmp_path)
    path.write_text("precious")
    path.chmod(0o444)
    tmp_path.chmod(0o777)
    errors = []
    user = os.geteuid()
    if user == 0:  # who may write any file
        os.seteuid(65534)
    try:
        for write in (lambda: path.open("w"), lambda: write_atomically(path, "new")):
            with pytest.raises(PermissionError) as error:
                write()
            errors.append(str(error.value))
        Path("link.txt").symlink_to(path)
        write_atomically("link.txt", "new")  # replaces the link
    finally:
        os.seteuid(user)
    assert errors == ["[Errno 13] Permission denied: 'r.txt'"] * 2
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "r.txt": "precious", "link.txt": "new",
    }  # fmt: skip


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "r.txt").write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "r.txt", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_invalid_json_is_a_value_error() -> None:
    assert parse_json('{"a": [1, NaN]}')["a"][0] == 1
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="it has the key 'a' twice"):
        parse_json('{"b": {"a": 1, "c": 0, "a": 2}}', strict=True)
    with pytest.raises(ValueError, match="the number 1e400 is too large"):
        parse_json("[1e400]", strict=True)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    with pytest.raises(ValueError, match="limit"):
        parse_json("9" * 5000)


def test_long_values_are_shortened_in_messages() -> None:
    assert shortened("x") == "'x'"
    assert len(shortened("x" * 10**6)) == 60
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shortened(nested) == "a deeply nested list"

"""What workers print: whole lines, on the stream they were meant for, above the view."""

import os
import re
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from terminal import run_in_terminal, shown_lines

from ratecraft import compare, constant
from ratecraft.errors import RunFailed
from ratecraft.experiments._engines import LocalEngine
from ratecraft.experiments._reports import (
    MAX_PRINTED_BYTES,
    PrintedLines,
    PrintedText,
    StepReport,
    forward_to,
)

TASK = """
import os, sys, time
import torch
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[:, None]

def task():
    print("building [the] task :smile:")
    steps = [0]
    def loss(model, batch):
        if model.training:
            time.sleep(0.01)
            steps[0] += 1
            if steps[0] % 5 == 0:
                print("step", steps[0], "x" * 60)
                print("careful", steps[0], file=sys.stderr)
        return ((model(batch) - 2 * batch) ** 2).mean()
    return Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
"""
SCRIPT = """
from ratecraft import compare, constant, cosine
if __name__ == "__main__":
    schedules = {"flat": constant(1), "wave": cosine(1, 0)}
    options = {"seeds": 1, "total_steps": 100, "workers": WORKERS}
    result = compare("my_task.py:task", schedules, lrs=0.1, **options)
    print("runs:", len(result.runs))
"""
COMMAND = (
    *("compare", "my_task.py:task", "constant(1)", "cosine(1, 0)", "--lrs", "0.1"),
    *("--seeds", "1", "-n", "100", "--workers", "2"),
)
STEP_LINES = [f"step {step} {'x' * 60}" for step in range(5, 101, 5)]
ERROR_LINES = [f"careful {step}" for step in range(5, 101, 5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(TASK)
    for workers in (0, 2):
        (tmp_path / f"script{workers}.py").write_text(SCRIPT.replace("WORKERS", str(workers)))
    return tmp_path


def printed_lines(lines: list[str]) -> list[str]:
    return sorted(line for line in lines if line.startswith(("step", "careful")))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_prints_of_a_task_appear_above_the_view_of_a_script(folder: Path, workers: int) -> None:
    code, output = run_in_terminal(folder, f"script{workers}.py")
    assert code == 0, output
    assert re.search(r"training .* [01]/2 runs  .* left", output)
    assert re.search(r"  step \d+ of 100  loss \S+ +(flat|wave), seed 0", output)
    lines = shown_lines(output)
    assert printed_lines(lines) == sorted(2 * (STEP_LINES + ERROR_LINES))
    assert lines.count("building [the] task :smile:") == 3
    rest = set(lines) - {*STEP_LINES, *ERROR_LINES}
    assert rest == {"building [the] task :smile:", "runs: 2", ""}  # the view is gone


@pytest.mark.slow
def test_prints_of_a_task_appear_above_the_view_of_the_command(folder: Path) -> None:
    code, output = run_in_terminal(folder, "-m", "ratecraft", *COMMAND)
    assert code == 0, output
    assert re.search(r"  step \d+ of 100  loss \S+ +(constant\(1\)|cosine\(1, 0\)), seed 0", output)
    assert printed_lines(shown_lines(output)) == sorted(2 * (STEP_LINES + ERROR_LINES))


@pytest.mark.slow
def test_prints_of_a_task_keep_their_streams_in_a_script(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "script2.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.splitlines()) == sorted(
        [*2 * STEP_LINES, *3 * ["building [the] task :smile:"], "runs: 2"]
    )
    assert sorted(done.stderr.splitlines()) == sorted(2 * ERROR_LINES)


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.slow), "2"])
def test_prints_of_a_task_do_not_mix_with_json(folder: Path, workers: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ratecraft", *COMMAND[:-1], workers, "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line[0] for line in done.stdout.splitlines()} == {"{"}
    assert '"event": "step"' in done.stdout
    assert printed_lines(done.stderr.splitlines()) == sorted(2 * (STEP_LINES + ERROR_LINES))


def print_and_fork() -> int:
    sys.stdout.write("from the worker\n")
    child = os.fork()
    if child == 0:
        sys.stdout.write("x" * 3 * MAX_PRINTED_BYTES + "\n")
        os._exit(0)
    os.waitpid(child, 0)
    return os.getpid()


def print_and_exit() -> None:
    sys.stdout.write("last words\n")
    os._exit(9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_text_of_a_dead_worker_and_of_its_children_arrives(capsys) -> None:
    engine, lines = LocalEngine(1), PrintedLines()
    try:
        engine.submit(print_and_fork).result(60)
        engine.submit(print_and_exit).exception(60)
        engine.submit(print_and_fork).result(60)  # in a new worker
        for report in engine.reports():
            assert isinstance(report, PrintedText)
            lines.add(report)
        lines.flush()
    finally:
        engine.close()
    long = "x" * 3 * MAX_PRINTED_BYTES
    assert capsys.readouterr().out.splitlines() == [
        "from the worker", long, "last words", "from the worker", long,
    ]  # fmt: skip


def test_lines_of_several_workers_are_not_mixed(capsys) -> None:
    lines = PrintedLines()
    for process, text in ((1, "one "), (2, "two "), (1, "line\nand"), (2, "lines\n")):
        lines.add(PrintedText(process, "stdout", text.encode()))
    lines.add(PrintedText(1, "stderr", b"\r10 %\r20 %"))
    lines.add(PrintedText(1, "stderr", b"\r30 %\n"))
    assert capsys.readouterr() == ("one line\ntwo lines\n", "30 %\n")
    lines.flush()
    assert capsys.readouterr() == ("and\n", "")


def test_bar_that_is_drawn_again_and_again_takes_no_memory(capsys) -> None:
    lines, bar = PrintedLines(), b"=" * 3000 + b"\r"
    tracemalloc.start()
    for _ in range(300):
        lines.add(PrintedText(1, "stdout", bar))
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert memory < 30_000
    lines.flush()
    assert capsys.readouterr() == ("=" * 3000 + "\n", "")


DYING = """
import os, sys
import torch
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[:, None]

def loss(model, batch):
    sys.stderr.write("last words")
    sys.stderr.flush()
    os._exit(3)

def task():
    return Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
"""


@pytest.mark.slow
def test_last_words_of_dying_workers_are_shown(tmp_path: Path, capsys) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    with pytest.raises(RunFailed, match="a worker process died 3 times"):
        compare(
            f"{tmp_path / 'dying.py'}:task",
            [constant(1)], lrs=0.1, seeds=1, total_steps=5, workers=1, progress=False,
        )  # fmt: skip
    assert capsys.readouterr().err == 3 * "last words\n"


def test_text_that_standard_output_cannot_encode_is_escaped(tmp_path: Path) -> None:
    script = (
        "from ratecraft.experiments._reports import PrintedLines, PrintedText\n"
        "PrintedLines().add(PrintedText(1, 'stdout', 'é ± \\u4e2d\\n'.encode()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "\\xe9 \\xb1 \\u4e2d\n"


def test_forwarded_text_has_the_order_of_its_stream() -> None:
    sent: list[PrintedText | StepReport] = []
    with forward_to(sent.append):
        sys.stdout.write("a\n")
        sys.stderr.write("b")
        sys.stdout.buffer.write(b"c\n")
        sys.stdout.write("d")
        assert sys.stdout.fileno() == 1  # programs that are started write to the terminal
        assert not sys.stdout.isatty()
    text = {
        name: b"".join(t.data for t in sent if t.stream == name) for name in ("stdout", "stderr")
    }
    assert text == {"stdout": b"a\nc\nd", "stderr": b"b"}


def test_a_closed_pipe_ends_no_job() -> None:
    def send(_: object) -> None:
        raise BrokenPipeError

    with forward_to(send):
        sys.stdout.write("nobody reads this\n")


def test_threads_of_a_worker_print_whole_pieces() -> None:
    sent: list[PrintedText] = []
    with forward_to(sent.append):
        threads = [
            threading.Thread(target=lambda i=i: sys.stdout.write(f"{i}" * 100 + "\n"))
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = b"".join(text.data for text in sent).decode().splitlines()
    assert sorted(lines) == [f"{i}" * 100 for i in range(8)]

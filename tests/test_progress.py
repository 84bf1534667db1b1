"""The ``progress=`` argument of find_lr, range_test, train and compare."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from terminal import run_in_terminal, shown_lines

from ratecraft import constant, find_lr
from ratecraft._progress import format_duration, show_steps, show_view
from ratecraft.errors import SettingError
from ratecraft.experiments import Task, train
from ratecraft.experiments._display import show_progress
from ratecraft.finder import range_test

SCRIPT = """
import sys, time
import torch
from ratecraft import constant, find_lr, range_test
from ratecraft.experiments import Task, train

def loss(model, batch):
    time.sleep(0.01)
    return ((model(batch) - 2 * batch) ** 2).mean()

x = torch.linspace(-1, 1, 64)[torch.arange(64) * 37 % 64, None]
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
task = Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
calls = {
    "find_lr": lambda: find_lr(model, optimizer, x.split(8), loss, budget_steps=60),
    "range_test": lambda: range_test(model, optimizer, x.split(8), loss, steps=60),
    "train": lambda: train(task, constant(1), lr=0.01, total_steps=60),
}
calls[sys.argv[1]]()
print("done")
"""


@pytest.mark.parametrize(
    ("name", "title", "unit"),
    [
        ("find_lr", "short runs", "steps at most"),
        ("range_test", "range test", "steps"),
        ("train", "training", "steps"),
    ],
)
def test_a_terminal_shows_a_bar_that_is_gone_in_the_end(
    tmp_path: Path, name: str, title: str, unit: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    code, output = run_in_terminal(tmp_path, "script.py", name)
    assert code == 0, output
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert re.search(rf"{title} [━╸╺]+ +\d+/60 {unit} \d:\d\d:\d\d .* s left", text)
    assert [line.strip() for line in shown_lines(output)] == ["done", ""]


# The process of rank 1 starts that of rank 0.
SECOND_PROCESS = """
import os, subprocess, sys
from torch import distributed

rank, file = int(sys.argv[2]), os.path.abspath("rendezvous")
if rank == 1:
    first = subprocess.Popen([sys.executable, __file__, "train", "0"])
distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
if rank == 0:
    distributed.barrier()
    sys.exit()
"""


def test_a_terminal_without_a_cursor_shows_no_bar(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    code, output = run_in_terminal(tmp_path, "script.py", "range_test", TERM="dumb")
    assert (code, output.split()) == (0, ["done"])


@pytest.mark.slow
def test_only_the_first_process_of_a_distributed_run_shows_a_bar(tmp_path: Path) -> None:
    text = f"{SECOND_PROCESS}{SCRIPT}distributed.barrier()\nfirst.wait()\n"
    (tmp_path / "script.py").write_text(text)
    code, output = run_in_terminal(tmp_path, "script.py", "range_test", "1")
    assert code == 0, output
    assert "range test" not in output
    assert "done" in output


@pytest.mark.slow
def test_only_the_first_process_of_a_distributed_run_prints_lines(tmp_path: Path) -> None:
    script = SCRIPT.replace("steps=60)", "steps=60, progress=True)")
    text = f"{SECOND_PROCESS}{script}distributed.barrier()\nfirst.wait()\n"
    (tmp_path / "script.py").write_text(text)
    code, output = run_in_terminal(tmp_path, "script.py", "range_test", "1", TERM="dumb")
    assert (code, output.split()) == (0, ["done"])


def test_text_without_a_line_end_is_shown_above_the_bar(tmp_path: Path) -> None:
    # A handler of logging keeps the stream that it was created with.
    prints = (
        "if model.training:\n"
        "        print('.', end='')\n"
        "        print('!', end='', file=sys.stderr)\n"
        "        streams.update((sys.stdout, sys.stderr))"
    )
    script = SCRIPT.replace("time.sleep(0.01)", prints)
    (tmp_path / "script.py").write_text(f"streams = set()\n{script}")
    code, output = run_in_terminal(tmp_path, "script.py", "train")
    assert code == 0, output
    assert [line.strip() for line in shown_lines(output)] == ["." * 60, "!" * 60, "done", ""]


def search(**options: object) -> None:
    x = torch.linspace(-1, 1, 64)[:, None]
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for function, length in (
        (find_lr, {"budget_steps": 60}),
        (range_test, {"steps": 60, "high": 1e-3}),
    ):
        function(
            model, optimizer, x.split(8), lambda model, batch: model(batch).square().mean(),
            **length, **options,
        )  # fmt: skip


def test_an_error_in_a_progress_function_ends_no_training() -> None:
    x = torch.linspace(-1, 1, 64)[:, None]
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    task = Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
    data = model, optimizer, x.split(8), loss
    calls = []

    def progress(done: int, planned: int) -> None:
        calls.append(done)
        if done == 5:
            raise ValueError("on purpose")

    functions = [
        lambda: find_lr(*data, budget_steps=60, progress=progress),
        lambda: range_test(*data, steps=60, high=1e-3, progress=progress),
        lambda: train(task, constant(1), lr=0.01, total_steps=60, progress=progress),
    ]
    for function in functions:
        calls.clear()
        with pytest.warns(RuntimeWarning, match="ValueError: on purpose; training goes") as warned:
            function()
        assert calls == [1, 2, 3, 4, 5]
        assert len(warned) == 1


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_is_shown_without_a_terminal(capfd, progress: bool | None) -> None:
    search(progress=progress)
    assert capfd.readouterr() == ("", "")


def test_lines_are_shown_on_request_without_a_terminal(capfd) -> None:
    search(progress=True)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert "short runs: 6/60 steps at most" in lines
    assert lines[-10:] == [f"range test: {step}/60 steps" for step in range(6, 61, 6)]


def test_an_unknown_progress_is_refused_before_any_step() -> None:
    with pytest.raises(SettingError, match="progress=3: expected None, True, False or a function"):
        search(progress=3)


def test_only_one_view_is_shown_at_a_time(capfd) -> None:
    with show_view(), show_steps(True, "inner") as advance, show_progress(True) as callback:
        assert advance is callback is None
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1e-5, "0 s"),
        (0.0042, "0.004 s"),
        (0.123, "0.12 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


NOTEBOOK = [
    """
import sys, time
import torch
from ratecraft import compare, constant, cosine, find_lr
from ratecraft.experiments import Task

def task():
    print("building the task")
    def loss(model, batch):
        time.sleep(0.02)
        return ((model(batch) - 2 * batch) ** 2).mean()
    x = torch.linspace(-1, 1, 64)[:, None]
    return Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
""",
    """
result = compare(
    task, {"flat": constant(1), "wave": cosine(1, 0)}, lrs=0.1, seeds=1, total_steps=60, workers=0
)
len(result.runs)
""",
    """
made = task()
model = made.model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
len(find_lr(model, optimizer, made.train, made.loss, budget_steps=60).runs) > 0
""",
]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # of the notebook's own packages
def test_a_notebook_shows_the_progress_of_a_comparison_and_of_a_search() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(cells=cells)
    shown: list[str] = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, cell_index):
            shown.append(message["content"].get("data", {}).get("text/plain", ""))
            return super().process_message(message, cell, cell_index)

    Client(notebook, timeout=120).execute()
    text = "\n".join(shown)
    assert re.search(r"training [━╸]+ *\d:\d\d:\d\d [01]/2 runs  .* left", text)
    assert re.search(r"step \d+ of 60  loss \S+ +(flat|wave), seed 0", text)
    assert re.search(r"short runs [━╸]+ *\d+/60 steps at most \d:\d\d:\d\d .* left", text)
    for cell, value in zip(cells[1:], ("2", "True"), strict=True):
        outputs = [output for output in cell["outputs"] if output["output_type"] != "stream"]
        assert [output["output_type"] for output in outputs] == ["display_data", "execute_result"]
        assert [output["data"]["text/plain"] for output in outputs] == ["", value]


def test_the_library_loads_rich_only_to_show_something() -> None:
    script = (
        "import sys, torch\n"
        "from ratecraft import find_lr\n"
        "x = torch.linspace(-1, 1, 64)[:, None]\n"
        "model = torch.nn.Linear(1, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)\n"
        "find_lr(model, optimizer, x.split(8), lambda m, b: m(b).square().mean())\n"
        "assert 'rich' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.PIPE)

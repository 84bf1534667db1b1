"""Running the command in a process of its own, or, which is faster, in this one."""

import io
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from ratecraft.cli._app import run

TASK = """
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[torch.arange(64) * 37 % 64, None]

def make(loss=None, **fields):
    loss = loss or (lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean())
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x], optimizer=sgd)

def task(): return make()
def leaves(): return make(lambda model, batch: (model(batch).mean(), __import__("sys").exit(0))[0])
def talks(): return make(lambda model, batch: (model(batch).mean(), print("step", flush=True))[0])
def noisy():
    noise = __import__("numpy").random.randn
    return make(lambda model, batch: ((model(batch) - 2 * batch + 0.1 * noise()) ** 2).mean())
def number(): return 3
def nan(): return make(lambda model, batch: model(batch).mean() * float("nan"))
def crash(): return make(lambda model, batch: (model(batch) @ torch.zeros(7, 7)).mean())
"""


def ratecraft(
    folder: Path, *arguments: str, columns: int = 100
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder; return its exit code and its output."""
    return subprocess.run(
        [sys.executable, "-m", "ratecraft", *arguments],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )


def ratecraft_in_this_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder without a new process, which would load torch again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    path, stdout, stderr = list(sys.path), io.StringIO(), io.StringIO()
    try:
        with chdir(folder), redirect_stdout(stdout), redirect_stderr(stderr):
            code = run(arguments)
    finally:
        sys.path[:] = path
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())

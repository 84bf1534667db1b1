"""Running the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

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

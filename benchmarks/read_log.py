"""Seconds and memory that read_logs needs for a CSV and a text log with a million rows.

python benchmarks/read_log.py [rows]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy  # noqa: F401 - loaded before the clock starts

from ratecraft.forecasting import read_logs


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.csv")
        with path.open("w") as file:
            file.write("step,lr,train_loss,val_loss,note\n")
            for k in range(1, rows + 1):
                val_loss = 2.5 if k % 1000 == 0 else ""
                file.write(f"{k},{0.1 - 0.05 * k / rows:.6g},{3 + 9 / k:.6g},{val_loss},x\n")
        read(path, "train_loss")
        text = path.with_suffix(".txt")
        with text.open("w") as file:
            for k in range(1, rows + 1):
                if k % 1000 == 0:
                    file.write(f"step {k}: train loss 2.5, val loss 2.5\n")
                lr = 0.1 - 0.05 * k / rows
                file.write(f"iter {k}: loss {3 + 9 / k:.4f}, lr {lr:.6g}, time 135.18ms\n")
        read(text, "loss")


def read(path: Path, loss: str) -> None:
    started = time.perf_counter()
    (log,) = read_logs(path, loss=loss)
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(log.steps):,} rows of {path.name}: {seconds:.1f} s, {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()

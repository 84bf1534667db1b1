"""Compare three learning-rate schedules on real data, with the runs spread over a Ray cluster.

Each schedule is trained at each learning rate and with each seed, on scikit-learn's handwritten
digits. Ray runs the trials side by side: on the cores of this machine, or on a cluster. Without
Ray the script uses worker processes of this machine, which give the same numbers. Progress is
printed as the runs end, then the mean of each candidate and a verdict. With `--folder` every
finished run is stored, so that the same command continues after an interruption. Without it the
script keeps no files, but Ray writes its logs to /tmp/ray.

Run it:

    pip install ray
    python examples/compare_on_ray.py
    python examples/compare_on_ray.py --address auto --seeds 5 --folder /tmp/comparison

On a cluster, this file must have the same path on every machine. It needs ratecraft, torch and
scikit-learn.
"""

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from ratecraft import Task, compare, constant, cosine, percent, warmup, wsd
from ratecraft.experiments import Progress

SCHEDULES = {
    "constant": constant(1),
    "warmup + cosine": warmup(percent(10)).then(cosine()),
    "wsd": wsd(percent(10), cooldown=percent(30)),
}


def task() -> Task:
    """Return what is trained; workers import this file and call this function."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    val, train = order[:360], order[360:]
    dataset = torch.utils.data.TensorDataset(x[train], y[train])
    return Task(
        model=lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        train=torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True),
        val=[(x[val], y[val])],
        optimizer=lambda model: torch.optim.AdamW(model.parameters()),
        metrics={"accuracy": accuracy},
        name="digits: one hidden layer, AdamW, batches of 64",
    )


def accuracy(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the share of images that the model recognizes."""
    images, labels = batch
    return (model(images).argmax(1) == labels).float().mean()


def main() -> None:
    """Train all candidates and print the comparison."""
    args = parse_arguments()
    result = compare(
        task,
        SCHEDULES,
        lrs=args.lrs,
        seeds=args.seeds,
        total_steps=args.steps,
        engine=choose_engine(args.address),
        store=store_in(args.folder),
        progress=print_progress,
    )
    for row in result.summaries():
        spread = f" ± {row.spread['loss']:.4f}" if row.seeds > 1 else ""
        print(
            f"{row.name:30}  loss {row.mean['loss']:.4f}{spread}  "
            f"accuracy {row.mean['accuracy']:.3f}"
        )
    print(result.verdict())


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=115, help="of each run; 23 are an epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lrs", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--address", help='of a Ray cluster, such as "auto"; default: start Ray')
    parser.add_argument("--folder", type=Path, help="for finished runs; default: do not save")
    return parser.parse_args()


def choose_engine(address: str | None) -> str:
    """Return "ray" if it is installed, or else "local"."""
    if find_spec("ray") is None:
        print('Ray is not installed ("pip install ray"): using local worker processes', flush=True)
        return "local"
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    if address:  # the engine uses a Ray that is connected already; otherwise it starts one
        import ray

        ray.init(address, log_to_driver=False)
    print("running the trials on Ray", flush=True)
    return "ray"


def store_in(folder: Path | None) -> Path | None:
    """Return the file for finished runs, in a folder that exists."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "runs.db"


def print_progress(progress: Progress) -> None:
    """Print a line for each run that has ended."""
    if progress.run:
        print(f"{progress.done}/{progress.planned}  {progress.name}", flush=True)
    elif progress.error:
        print(f"failed  {progress.name}: {progress.error}", flush=True)


# Worker processes import this file, and must not start a comparison of their own.
if __name__ == "__main__":
    main()

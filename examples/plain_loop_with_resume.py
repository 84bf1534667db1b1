"""A plain PyTorch training loop that saves a checkpoint every epoch and resumes from it.

It trains a small network on scikit-learn's handwritten digits with a warmup and a cosine decay.
After each epoch it saves the model, the optimizer and the scheduler. When you start the script
again, it continues with the first epoch that is not complete. The learning rates, the losses and
the final weights are then exactly those of a run that was never stopped.

Run it without interruption, which writes no files:

    python examples/plain_loop_with_resume.py

Stop it in the middle of the fifth epoch, as if the job had been killed, and start it again:

    python examples/plain_loop_with_resume.py --folder /tmp/digits --stop-after 100
    python examples/plain_loop_with_resume.py --folder /tmp/digits

It needs ratecraft, torch and scikit-learn.
"""

import argparse
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from ratecraft import ScheduleLR, cosine, epochs, warmup

BATCH_SIZE = 64
NUM_VAL = 360  # images that are held out


def main() -> None:
    """Train until the end, or until the step at which the run should stop."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # a model this small gains nothing from more
    x_train, y_train, x_val, y_val = load_data()
    steps_per_epoch = -(-len(x_train) // BATCH_SIZE)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    scheduler = ScheduleLR(
        optimizer,
        factor=warmup(epochs(1)).then(cosine()),
        total_steps=epochs(args.epochs),
        steps_per_epoch=steps_per_epoch,
    )

    checkpoint_file = args.folder / "checkpoint.pt" if args.folder else None
    if checkpoint_file and checkpoint_file.exists():
        checkpoint = torch.load(checkpoint_file, weights_only=True)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
        print(f"resumed from {checkpoint_file} at step {scheduler.last_epoch}")

    # The scheduler counts optimizer steps, so it also says where the run is.
    step = scheduler.last_epoch
    for epoch in range(step // steps_per_epoch, args.epochs):
        # The order of the data depends on the epoch alone, so a resumed epoch sees the same order.
        generator = torch.Generator().manual_seed(epoch)
        for batch in torch.randperm(len(x_train), generator=generator).split(BATCH_SIZE):
            if step == args.stop_after:
                print(f"stopped at step {step}, in epoch {epoch + 1}")
                return
            loss = F.cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            step += 1
        val_loss, accuracy = evaluate(model, x_val, y_val)
        print(
            f"epoch {epoch + 1:2}  step {step:4}  lr {lr:.8f}  "
            f"val loss {val_loss:.4f}  accuracy {accuracy:.3f}"
        )
        if checkpoint_file:
            checkpoint = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            }
            save_checkpoint(checkpoint, checkpoint_file)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate after the warmup")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the checkpoint; default: do not save")
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="stop before this step")
    return parser.parse_args()


def load_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images and labels for training, then those for validation."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    val, train = order[:NUM_VAL], order[NUM_VAL:]
    return x[train], y[train], x[val], y[val]


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    model.eval()
    logits = model(x)
    model.train()
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def save_checkpoint(checkpoint: dict[str, object], path: Path) -> None:
    """Write the file under another name first: a kill never leaves half a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save(checkpoint, unfinished)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()

"""Train with PyTorch Lightning under a warmup and cosine decay, and resume from a checkpoint.

The module's `configure_optimizers` returns `for_lightning(self, optimizer, factor=...)`. It takes
the length of the run from the trainer, and Lightning saves the schedule in its checkpoints. The
data are scikit-learn's handwritten digits. The script prints a line after every epoch, and needs
no logger and no LearningRateMonitor for it.

Run it:

    python examples/lightning_digits.py

Stop after the third of six epochs, and continue from the checkpoint:

    python examples/lightning_digits.py --folder /tmp/lightning --stop-after 3
    python examples/lightning_digits.py --folder /tmp/lightning

It needs ratecraft, lightning and scikit-learn.
"""

import argparse
import logging
import warnings
from pathlib import Path

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from ratecraft import cosine, epochs, warmup
from ratecraft.integrations import for_lightning

# Lightning reports the devices it sees, and advises more workers than these data need.
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Digits(L.LightningModule):
    """A small convolutional network for images of 8 x 8 pixels."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
            nn.Linear(32 * 4 * 4, 10),
        )

    def configure_optimizers(self) -> dict[str, object]:
        """Return the optimizer and its schedule; Lightning knows how long the run is."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.05)
        return for_lightning(self, optimizer, factor=warmup(epochs(1)).then(cosine()))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy; Lightning averages it over the batches."""
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(1) == labels).float().mean())


class PrintEpoch(L.Callback):
    """Print the step, the learning rate and the accuracy after each epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print one line; validation has run already."""
        print(
            f"epoch {trainer.current_epoch + 1}  step {trainer.global_step:3}  "
            f"lr {trainer.optimizers[0].param_groups[0]['lr']:.8f}  "
            f"accuracy {trainer.callback_metrics['accuracy']:.3f}",
            flush=True,
        )


class StopAfter(L.Callback):
    """End the run early, as a job that is killed would, with the schedule of the whole run."""

    def __init__(self, num_epochs: int) -> None:
        self.num_epochs = num_epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask the trainer to stop once enough epochs are done."""
        trainer.should_stop = trainer.current_epoch + 1 >= self.num_epochs


def main() -> None:
    """Train, and continue from the last checkpoint if there is one."""
    args = parse_arguments()
    L.seed_everything(args.seed, verbose=False)
    torch.set_num_threads(1)  # a model this small gains nothing from more
    train_loader, val_loader = load_data()

    callbacks: list[L.Callback] = [PrintEpoch()]
    checkpoint = None
    if args.folder:
        saver = L.pytorch.callbacks.ModelCheckpoint(
            args.folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        callbacks.append(saver)
        if (args.folder / "last.ckpt").exists():
            checkpoint = args.folder / "last.ckpt"
            print(f"resuming from {checkpoint}")
    if args.stop_after:
        callbacks.append(StopAfter(args.stop_after))

    trainer = L.Trainer(
        max_epochs=args.epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=args.folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Digits(args.lr), train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate after the warmup")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the checkpoint; default: do not save")
    parser.add_argument("--stop-after", type=int, metavar="EPOCHS", help="stop early")
    return parser.parse_args()


def load_data() -> tuple[DataLoader, DataLoader]:
    """Return the loaders for training and validation."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    dataset = TensorDataset(images, torch.tensor(digits.target))
    train, val = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=256)


if __name__ == "__main__":
    main()

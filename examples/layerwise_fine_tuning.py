"""Fine-tune a pre-trained network with a learning rate for each layer.

The network is first trained on the handwritten digits 0 to 4. It then gets a new output layer and
is fine-tuned on the digits 5 to 9. Each layer has a lower learning rate than the layer after it
(`layer_decay`). The new output layer has a high learning rate of its own. Norms and biases have no
weight decay. A warmup and a cosine decay multiply all of these learning rates. The script shows
how to set this up. The digits are too easy to show what it gains: on them, training from scratch
works as well. The script writes no files.

Run it:

    python examples/layerwise_fine_tuning.py
    python examples/layerwise_fine_tuning.py --layer-decay 0.5 --head-lr 0.003

It needs ratecraft, torch and scikit-learn.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from ratecraft import ScheduleLR, cosine, describe, param_groups, percent, warmup

Data = tuple[torch.Tensor, torch.Tensor]  # images and labels
WIDTH = 64
BATCH_SIZE = 32


class Block(nn.Module):
    """A layer that is added to its input, after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the hidden state after this block."""
        return x + self.linear(self.norm(x)).relu()


class Network(nn.Module):
    """An input layer, three blocks and an output layer for five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, WIDTH)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the classes."""
        return self.head(self.blocks(self.embed(x)))


def main() -> None:
    """Pre-train and fine-tune."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # a model this small gains nothing from more
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

    print("pre-training on the digits 0 to 4, all layers with the same learning rate")
    model = Network()
    groups = param_groups(model, lr=3e-3, no_decay=True, weight_decay=0.05)
    train_data, val_data = split(x[y < 5], y[y < 5])
    train(model, torch.optim.AdamW(groups), train_data, val_data, num_steps=args.steps)

    print("fine-tuning on the digits 5 to 9")
    model.head = nn.Linear(WIDTH, 5)
    groups = param_groups(
        model,
        lr=args.lr,
        layer_decay=args.layer_decay,  # the head is the last layer, the block before it the next
        rules={"head": args.head_lr},  # counts instead of the layer's learning rate
        no_decay=True,
        weight_decay=0.05,
    )
    optimizer = torch.optim.AdamW(groups)
    print(describe(optimizer, model))
    train_data, val_data = split(x[y >= 5], y[y >= 5] - 5)
    train(model, optimizer, train_data, val_data, num_steps=args.steps)
    print(f"final accuracy {accuracy(model, val_data):.3f}")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="of each of the two runs")
    parser.add_argument("--lr", type=float, default=1e-3, help="of the layers, before the decay")
    parser.add_argument("--head-lr", type=float, default=1e-2, help="of the new output layer")
    parser.add_argument(
        "--layer-decay", type=float, default=0.7, help="factor from a layer to the one before"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def split(x: torch.Tensor, y: torch.Tensor) -> tuple[Data, Data]:
    """Return a random four fifths for training, and the rest for validation."""
    order = torch.randperm(len(x))
    cut = len(x) * 4 // 5
    return (x[order[:cut]], y[order[:cut]]), (x[order[cut:]], y[order[cut:]])


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, val: Data, *, num_steps: int
) -> None:
    """Train with a warmup and a cosine decay, which multiply the lr of every group."""
    factor = warmup(percent(10)).then(cosine())
    scheduler = ScheduleLR(optimizer, factor=factor, total_steps=num_steps)
    x, y = data
    for step in range(num_steps):
        batch = torch.randint(len(x), (BATCH_SIZE,))
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        lrs = scheduler.get_last_lr()  # of this step, one for each group
        optimizer.step()
        if step % 20 == 19:
            print(
                f"  step {step + 1:4}  lr {min(lrs):.6f} to {max(lrs):.6f}  "
                f"accuracy {accuracy(model, val):.3f}"
            )


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of images that the model recognizes."""
    x, y = data
    return (model(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    main()

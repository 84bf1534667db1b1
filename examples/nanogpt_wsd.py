"""Train a small GPT on Python's own source code with a WSD schedule (warmup, stable, decay).

The script is in the style of nanoGPT: one file, one loop, AdamW with weight decay on matrices
only, gradient accumulation and gradient clipping. The text is the source code of Python's standard
library, read character by character, so nothing is downloaded. The learning rate rises over
the first tenth of the run, stays constant, and falls to 0 over the last fifth. The validation loss
is printed on the way, so you see what the decay adds. The script writes no files.

Run it:

    python examples/nanogpt_wsd.py
    python examples/nanogpt_wsd.py --steps 1000 --layers 6 --width 384 --device cuda

It needs ratecraft and torch.
"""

import argparse
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ratecraft import ScheduleLR, param_groups, percent, wsd

CONTEXT = 64  # characters that the model sees
BATCH_SIZE = 8  # sequences in a micro-batch
MAX_CHARACTERS = 1_000_000  # of the text


def main() -> None:
    """Train, and print the validation loss on the way and at the end."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)  # a small model gains nothing from more than one
    train, val, vocabulary = load_text()
    model = GPT(vocabulary, args.layers, args.heads, args.width).to(args.device)
    num_weights = sum(p.numel() for p in model.parameters())
    print(f"{len(train):,} training characters, {num_weights:,} weights, {args.steps} steps")

    # Matrices and embeddings decay; biases and layer norms do not.
    groups = param_groups(model, lr=args.lr, no_decay=["bias", "norm"], weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    schedule = wsd(percent(10), cooldown=percent(20))
    scheduler = ScheduleLR(optimizer, factor=schedule, total_steps=args.steps)

    for step in range(args.steps):
        if step % args.eval_every == 0:
            report(step, scheduler.get_last_lr()[0], evaluate(model, val, args.device))
        for _ in range(args.accumulate):
            inputs, targets = random_batch(train, BATCH_SIZE, args.device)
            loss = language_loss(model, inputs, targets) / args.accumulate
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # the schedule counts this step, whatever was accumulated before it
        optimizer.zero_grad()
    final_loss = evaluate(model, val, args.device)
    report(args.steps, scheduler.get_last_lr()[0], final_loss)
    print(f"final validation loss {final_loss:.4f}")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--lr", type=float, default=5e-3, help="learning rate after the warmup")
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches in a step")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--eval-every", type=int, default=25, metavar="STEPS")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_text() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return the training text, the last tenth for validation, and the number of characters."""
    text = ""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        text += "".join(c for c in source if c.isascii())
        if len(text) >= MAX_CHARACTERS:
            break
    alphabet = sorted(set(text))
    codes = {character: code for code, character in enumerate(alphabet)}
    data = torch.tensor([codes[character] for character in text[:MAX_CHARACTERS]])
    cut = len(data) * 9 // 10
    return data[:cut], data[cut:], len(alphabet)


def random_batch(
    data: torch.Tensor, size: int, device: str, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random pieces of the text, and the same pieces moved on by one character."""
    starts = torch.randint(len(data) - CONTEXT, (size, 1), generator=generator)
    pieces = data[starts + torch.arange(CONTEXT + 1)].to(device)
    return pieces[:, :-1], pieces[:, 1:]


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each added to its input."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the hidden states after this block."""
        x = x + self.attend(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Return what each character takes from those before it."""
        heads = self.queries_keys_values(x).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each: batch, head, time, channel
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class GPT(nn.Module):
    """A decoder-only transformer whose output layer shares its weights with the embedding."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(heads, width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.apply(self.initialize)
        for block in self.blocks:  # the sum over layers should not grow with their number
            for output in (block.projection, block.mlp[-1]):
                nn.init.normal_(output.weight, std=0.02 / (2 * layers) ** 0.5)

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Set small random weights, and biases of 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next character at every position."""
        positions = torch.arange(characters.shape[1], device=characters.device)
        x = self.tokens(characters) + self.positions(positions)
        return self.head(self.norm(self.blocks(x)))


def language_loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean loss in nats per character."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model: nn.Module, val: torch.Tensor, device: str) -> float:
    """Return the loss on 128 pieces of the validation text, the same ones every time."""
    model.eval()
    inputs, targets = random_batch(val, 128, device, torch.Generator().manual_seed(0))
    loss = language_loss(model, inputs, targets).item()
    model.train()
    return loss


def report(step: int, lr: float, loss: float) -> None:
    """Print a line of progress."""
    print(f"step {step:5}  lr {lr:.6f}  val loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()

"""Train a small GPT-2 with the Hugging Face Trainer under a WSD schedule, without a download.

`for_trainer(trainer, factor=...)` makes the Trainer use a ratecraft schedule in place of
`lr_scheduler_type`. The length of the run, gradient accumulation included, comes from the
Trainer. The model is a GPT-2 with random weights, and the text is the source code of Python's
standard library, read character by character.

Run it:

    python examples/hugging_face_trainer.py

Save a checkpoint every 20 steps, and continue from the last one if there is one:

    python examples/hugging_face_trainer.py --folder /tmp/gpt2

It needs ratecraft, transformers and accelerate.
"""

import argparse
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from the hub

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from ratecraft import percent, wsd
from ratecraft.integrations import for_trainer

CONTEXT = 64  # characters in a sequence
MAX_CHARACTERS = 100_000  # of the text


class PrintLog(TrainerCallback):
    """Print what the Trainer logs: the learning rate and the losses."""

    def on_log(self, args, state, control, logs, **kwargs) -> None:
        """Print one line."""
        if "loss" in logs:
            print(
                f"step {state.global_step:4}  lr {logs['learning_rate']:.8f}  "
                f"loss {logs['loss']:.4f}",
                flush=True,
            )


def main() -> None:
    """Train, then print the validation loss."""
    args = parse_arguments()
    torch.set_num_threads(1)  # a model this small gains nothing from more
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        settings = TrainingArguments(
            output_dir=str(folder),
            learning_rate=args.lr,
            weight_decay=0.1,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            logging_steps=10,
            save_strategy="steps" if args.folder else "no",
            save_steps=20,
            seed=args.seed,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = make_trainer(settings)
        last_checkpoint = get_last_checkpoint(folder) if folder.exists() else None
        if last_checkpoint:
            print(f"resuming from {last_checkpoint}")
        trainer.train(resume_from_checkpoint=last_checkpoint)
        print(f"final validation loss {trainer.evaluate()['eval_loss']:.4f}")


def make_trainer(settings: TrainingArguments) -> Trainer:
    """Return a Trainer with its schedule."""
    torch.manual_seed(settings.seed)
    train, val, vocabulary = load_text()
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLM",
    )
    trainer = Trainer(
        GPT2LMHeadModel(config),
        settings,
        train_dataset=train,
        eval_dataset=val,
        callbacks=[PrintLog()],
    )
    trainer.remove_callback(PrinterCallback)
    for_trainer(trainer, factor=wsd(percent(10), cooldown=percent(20)))
    return trainer


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate after the warmup")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for checkpoints; default: do not save")
    return parser.parse_args()


def load_text() -> tuple[list[dict], list[dict], int]:
    """Return sequences for training and validation, and the number of different characters."""
    text = ""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        text += "".join(c for c in source if c.isascii())
        if len(text) >= MAX_CHARACTERS:
            break
    alphabet = sorted(set(text))
    codes = {character: code for code, character in enumerate(alphabet)}
    data = torch.tensor([codes[character] for character in text[:MAX_CHARACTERS]])
    rows = data[: len(data) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    # The model moves the labels on by one character itself.
    examples = [{"input_ids": row, "labels": row} for row in rows]
    cut = len(examples) * 9 // 10
    return examples[:cut], examples[cut:], len(alphabet)


if __name__ == "__main__":
    main()

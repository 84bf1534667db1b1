"""Ask four other libraries for an lr, each run as its users run it: 100 steps, its own range.

    pip install torch-lr-finder==0.2.2 lightning==2.6.6 pytorch-ignite==0.5.5 fastai==2.8.12

These versions were run, with torch 2.13.0. What a call leaves at its default is the peer's own
choice; torch-lr-finder and ignite begin at the optimizer's lr, for which 1e-7 is written here,
as fastai has it. All train with the task's own optimizer; its lr is the peers' to set. fastai's
four suggestions read the same run. A peer that is not installed is left out. fastai brings
torchvision, which must be built for the same torch, or Lightning cannot be imported; neither
needs it here.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache, wraps
from typing import Any, NamedTuple

import torch
from torch import nn

from ratecraft._training._snapshot import seed_everything
from ratecraft.experiments import Task

START = 1e-7

Found = float | Exception | None
"""An lr, or the peer's own error, or None where it suggests nothing."""


class Answer(NamedTuple):
    """What a peer suggests, after how many steps; without an lr, why not."""

    lr: float | None
    steps: float
    why: str


class Peer(NamedTuple):
    """A library, the names of its suggestions, and how to get them from a fresh model."""

    package: str
    names: tuple[str, ...]
    run: Callable[[Task, nn.Module, torch.optim.Optimizer], Sequence[Found]]


def answers(task: Task, seed: int) -> dict[str, Answer]:
    """Return what each installed peer suggests for a task, by the suggestion's name."""
    given: dict[str, Answer] = {}
    for peer in PEERS:
        seed_everything(seed)
        model = task.model()
        optimizer = task.optimizer(model)
        made: list[None] = []
        optimizer.register_step_post_hook(lambda *_, made=made: made.append(None))
        found: Sequence[Found]
        try:
            with silence():
                found = peer.run(task, model, optimizer)
        except ModuleNotFoundError as error:
            say_missing(peer.package, str(error))
            continue
        except Exception as error:
            if not made:  # before it began: it is not set up as it should be
                raise
            found = [error] * len(peer.names)
        for name, one in zip(peer.names, found, strict=True):
            given[name] = answer(one, len(made))
    return given


def answer(found: Found, steps: int) -> Answer:
    """Return what was found as an answer."""
    if isinstance(found, Exception):
        return Answer(None, steps, f"{type(found).__name__}: {found}")
    return Answer(found, steps, "it suggests nothing" if found is None else "")


@cache
def say_missing(package: str, error: str) -> None:
    """Say once on stderr that a peer is left out."""
    print(f"{package} is left out ({error}): pip install {package}", file=sys.stderr)


@contextmanager
def silence() -> Iterator[None]:
    """Show no progress bar, log or warning of a peer's."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


# Two peers want batches of inputs and labels, and call criterion(model(inputs), labels): here the
# inputs are the whole batch, the model returns its loss, and the criterion hands that on.


class Pairs:
    """A task's training batches, each as inputs and as labels."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __len__(self) -> int:
        return self.task.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for batch in self.task.train:
            yield batch, batch


class Losing(nn.Module):
    """A model that returns the task's loss."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.task.loss(self.model, batch)


def handed_on(loss: torch.Tensor, _: Any) -> torch.Tensor:
    """Return the loss that the model returned."""
    return loss


# The peers


def torch_lr_finder(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Sequence[Found]:
    """Return the point that torch-lr-finder marks in its plot: 1e-7 to 10."""
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder, TrainDataLoaderIter

    set_lr(optimizer, START)
    finder = LRFinder(Losing(task, model), optimizer, handed_on)
    finder.range_test(TrainDataLoaderIter(Pairs(task)))
    _, lr = finder.plot(ax=Figure().subplots())  # axes of ours, or it would open a window
    return [float(lr)]


def lightning(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sequence[Found]:
    """Return the suggestion of Lightning's tuner: 1e-8 to 1."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.tuner import Tuner

    class Module(LightningModule):
        """The task, for Lightning."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = model, 1e-3

        def training_step(self, batch: Any) -> torch.Tensor:
            return task.loss(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            set_lr(optimizer, self.lr)
            return optimizer

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        finder = Tuner(trainer).lr_find(Module(), task.train)
    return [None if finder is None else finder.suggestion()]


def ignite(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sequence[Found]:
    """Return the suggestion of ignite's FastaiLRFinder: 1e-7 to 10."""
    from ignite.engine import Engine
    from ignite.handlers import FastaiLRFinder

    def step(_: Engine, batch: Any) -> float:
        model.train()
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    set_lr(optimizer, START)
    finder, saved = FastaiLRFinder(), {"model": model, "optimizer": optimizer}
    with finder.attach(Engine(step), to_save=saved, num_iter=100) as trainer:
        trainer.run(task.train)
    return [float(finder.lr_suggestion())]


def fastai(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sequence[Found]:
    """Return the four suggestions of fastai, of which valley is its default: 1e-7 to 10."""
    from fastai.callback.schedule import minimum, slide, steep, valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    def apart(suggest: Callable[..., Any]) -> Callable[..., Any]:
        """Let an error be the answer of one suggestion and not of all four."""

        @wraps(suggest)
        def tried(*curve: Any) -> tuple[Any, Any]:
            try:
                lr, point = suggest(*curve)
                return float(lr), point
            except Exception as error:
                return error, None

        return tried

    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(
            DataLoaders(Pairs(task), Pairs(task)),
            Losing(task, model),
            loss_func=handed_on,
            opt_func=OptimWrapper(opt=optimizer),
            path=folder,
        )
        with learner.no_bar():
            functions = [apart(one) for one in (valley, slide, minimum, steep)]
            return list(learner.lr_find(suggest_funcs=functions, show_plot=False))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give all parameters one lr."""
    for group in optimizer.param_groups:
        group["lr"] = lr


FASTAI = ("fastai valley", "fastai slide", "fastai minimum", "fastai steep")
PEERS = (
    Peer("torch-lr-finder==0.2.2", ("torch-lr-finder",), torch_lr_finder),
    Peer("lightning==2.6.6", ("Lightning lr_find",), lightning),
    Peer("pytorch-ignite==0.5.5", ("ignite FastaiLRFinder",), ignite),
    Peer("fastai==2.8.12", FASTAI, fastai),
)

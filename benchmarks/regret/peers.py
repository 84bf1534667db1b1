"""Get the learning rates that four other libraries suggest, each with its defaults, 100 steps.

    pip install torch-lr-finder==0.2.2 lightning==2.6.6 pytorch-ignite==0.5.5 fastai==2.8.12

These versions were run, with torch 2.13.0. All arguments have the library's defaults, except that
torch-lr-finder and ignite start at the optimizer's learning rate, which is set to 1e-7, the start
of fastai. All train with the task's own optimizer. The four suggestions of fastai come from the
same run. A library that is not installed is skipped. fastai installs torchvision, which must be
built for the same torch, or Lightning cannot be imported.
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

START_LR = 1e-7

Suggestion = float | Exception | None
"""A learning rate, the library's error, or None if it suggests nothing."""


class Answer(NamedTuple):
    """A suggested learning rate, the steps it took, and the reason if there is none."""

    lr: float | None
    steps: float
    reason: str


class Peer(NamedTuple):
    """A library, the names of its suggestions, and the function that computes them."""

    package: str
    names: tuple[str, ...]
    run: Callable[[Task, nn.Module, torch.optim.Optimizer], Sequence[Suggestion]]


def answers(task: Task, seed: int) -> dict[str, Answer]:
    """Return the suggestions of all installed libraries for a task, by name."""
    given: dict[str, Answer] = {}
    for peer in PEERS:
        seed_everything(seed)
        model = task.model()
        optimizer = task.optimizer(model)
        steps: list[None] = []
        optimizer.register_step_post_hook(lambda *_, steps=steps: steps.append(None))
        suggestions: Sequence[Suggestion]
        try:
            with no_output():
                suggestions = peer.run(task, model, optimizer)
        except ModuleNotFoundError as error:
            print_missing(peer.package, str(error))
            continue
        except Exception as error:
            if not steps:  # it failed before training, so the setup is wrong
                raise
            suggestions = [error] * len(peer.names)
        for name, suggestion in zip(peer.names, suggestions, strict=True):
            given[name] = answer(suggestion, len(steps))
    return given


def answer(suggestion: Suggestion, steps: int) -> Answer:
    """Return a suggestion as an answer."""
    if isinstance(suggestion, Exception):
        return Answer(None, steps, f"{type(suggestion).__name__}: {suggestion}")
    return Answer(suggestion, steps, "no suggestion" if suggestion is None else "")


@cache
def print_missing(package: str, error: str) -> None:
    """Print once to stderr that a library is skipped."""
    print(f"{package} is skipped ({error}): pip install {package}", file=sys.stderr)


@contextmanager
def no_output() -> Iterator[None]:
    """Suppress progress bars, logs and warnings."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


# Two libraries expect batches of (inputs, labels) and call criterion(model(inputs), labels). Here
# the inputs are the whole batch, the model returns the loss, and the criterion passes it through.


class Pairs:
    """The training batches of a task, each as a pair (batch, batch)."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __len__(self) -> int:
        return self.task.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for batch in self.task.train:
            yield batch, batch


class LossModel(nn.Module):
    """A model that returns the task's loss."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.task.loss(self.model, batch)


def identity(loss: torch.Tensor, _: Any) -> torch.Tensor:
    """Return the loss that the model computed."""
    return loss


# The peers


def torch_lr_finder(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Sequence[Suggestion]:
    """Return the point that torch-lr-finder highlights in its plot: 1e-7 to 10."""
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder, TrainDataLoaderIter

    set_lr(optimizer, START_LR)
    finder = LRFinder(LossModel(task, model), optimizer, identity)
    finder.range_test(TrainDataLoaderIter(Pairs(task)))
    _, lr = finder.plot(ax=Figure().subplots())  # without ax= it would open a window
    return [float(lr)]


def lightning(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Sequence[Suggestion]:
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


def ignite(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sequence[Suggestion]:
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

    set_lr(optimizer, START_LR)
    finder, saved = FastaiLRFinder(), {"model": model, "optimizer": optimizer}
    with finder.attach(Engine(step), to_save=saved, num_iter=100) as trainer:
        trainer.run(task.train)
    return [float(finder.lr_suggestion())]


def fastai(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sequence[Suggestion]:
    """Return the four suggestions of fastai, of which valley is its default: 1e-7 to 10."""
    from fastai.callback.schedule import minimum, slide, steep, valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    def catch_errors(suggest: Callable[..., Any]) -> Callable[..., Any]:
        """Return an error as the suggestion, so that the other three still run."""

        @wraps(suggest)
        def suggest_or_error(*curve: Any) -> tuple[Any, Any]:
            try:
                lr, point = suggest(*curve)
                return float(lr), point
            except Exception as error:
                return error, None

        return suggest_or_error

    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(
            DataLoaders(Pairs(task), Pairs(task)),
            LossModel(task, model),
            loss_func=identity,
            opt_func=OptimWrapper(opt=optimizer),
            path=folder,
        )
        with learner.no_bar():
            functions = [catch_errors(rule) for rule in (valley, slide, minimum, steep)]
            return list(learner.lr_find(suggest_funcs=functions, show_plot=False))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the same learning rate for all param groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


FASTAI = ("fastai valley", "fastai slide", "fastai minimum", "fastai steep")
PEERS = (
    Peer("torch-lr-finder==0.2.2", ("torch-lr-finder",), torch_lr_finder),
    Peer("lightning==2.6.6", ("Lightning lr_find",), lightning),
    Peer("pytorch-ignite==0.5.5", ("ignite FastaiLRFinder",), ignite),
    Peer("fastai==2.8.12", FASTAI, fastai),
)

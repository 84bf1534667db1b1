"""Results of learning-rate searches: range tests and short runs."""

import gc
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ratecraft._render._axis import number
from ratecraft._render._chart import Chart, Line, Mark
from ratecraft.errors import BindingError, RunFailed

from ._base import (
    Count,
    FiniteFloat,
    NonNegativeFloat,
    SavedResult,
    Steps,
    pluralize,
    short_repr,
)
from ._charts import with_margin

GAIN_DIGITS: Final = 5  # significant digits of a gain; the parabola depends on small differences


@dataclass(frozen=True, slots=True)
class LRRangeTestResult(SavedResult):
    """The curve of a learning-rate range test and the learning rate read off it.

    Attributes:
        lrs: learning rate of each step, ascending.
        losses: training loss before each step.
        smoothed: exponential moving average of ``losses``, with bias correction.
        stop_reason: why the test ended.
        suggestion: learning rate to train with; ``None`` if the curve shows none.
        reason: how the suggestion was chosen, or why there is none.
        task: description of the task.
        optimizer: class name of the optimizer.
        seconds: wall time of the test.
        low: first learning rate of the planned range.
        high: last learning rate of the planned range.
        planned_steps: planned number of steps.
        spacing: "geometric" or "linear" learning rates.
        batches: number of batches read.
        seed: seed of the initial weights and the data order, if one was set.
    """

    lrs: tuple[NonNegativeFloat, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    stop_reason: str
    suggestion: NonNegativeFloat | None
    reason: str
    task: str = ""
    optimizer: str = ""
    seconds: NonNegativeFloat = 0.0
    low: NonNegativeFloat = 0.0
    high: NonNegativeFloat = 0.0
    planned_steps: Steps = 0
    spacing: str = "geometric"
    batches: Count = 0
    seed: int | None = None

    def __repr__(self) -> str:
        steps = pluralize(len(self.lrs), "step")
        if self.suggestion is None:
            return short_repr(self, self.reason, steps)
        return short_repr(self, f"suggestion {number(self.suggestion)}", steps, self.stop_reason)

    def chart(self) -> Chart:
        """Return the chart of the losses and of the suggested learning rate."""
        lr = self.suggestion
        return Chart(
            lines=[
                Line("loss", self.lrs, self.losses, "faint"),
                Line("smoothed", self.lrs, self.smoothed),
            ],
            title="Training loss while the learning rate rises",
            x_label="learning rate",
            y_label="loss",
            log_x=self.spacing == "geometric",
            y_range=self._loss_limits(),
            marks=[] if lr is None else [Mark(lr, number(lr))],
        )

    def _loss_limits(self) -> tuple[float, float] | None:
        """Return limits that leave out the divergence at the end, if the losses have a range."""
        low, lowest = min(*self.losses, *self.smoothed), min(self.smoothed)
        start = max(self.smoothed[: len(self.smoothed) // 10 + 1])
        high = min(max(self.smoothed), start + 0.5 * (start - lowest))
        return with_margin(low, high) if high > low else None

    def verdict(self) -> str:
        """Return the suggestion and its reason, or why there is none."""
        if self.suggestion is None:
            return self.reason[:1].upper() + self.reason[1:]
        return f"{number(self.suggestion)}: {self.reason}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        lrs = number(self.lrs[0]), number(self.lrs[-1])
        row = (f"{len(self.lrs):,}", *lrs, self.stop_reason)
        return ("steps", "first learning rate", "last learning rate", "reason for the end"), [row]

    @property
    def cost(self) -> str:
        """Steps, batches and wall time of the test, as text."""
        steps = pluralize(len(self.lrs), "step")
        return f"{steps}, {self.batches or len(self.lrs)} batches, {self.seconds:.3g} s"


@dataclass(frozen=True, slots=True)
class ShortRun:
    """One short training run of a learning-rate search.

    Attributes:
        lr: learning rate before the cooldown of the run.
        losses: training loss before each step.
        gain: decrease of the loss on the evaluation batches; -inf if the run diverged.
        noise: standard error of the gain over those batches.
        batch_set: index of the set of batches: 0 for the first, 1 for the next.
    """

    lr: NonNegativeFloat
    losses: tuple[float, ...]
    gain: float
    noise: float
    batch_set: Count = 0

    def __repr__(self) -> str:
        gain = f"gain {number(self.gain)} ± {number(self.noise)}"
        return short_repr(self, f"lr {number(self.lr)}", pluralize(len(self.losses), "step"), gain)


@dataclass(frozen=True, slots=True)
class LRFinderResult(SavedResult):
    """The learning rate that a search suggests, or the reason why it suggests none.

    Attributes:
        lr: learning rate to train with, the peak of a schedule; ``None`` if there is no answer.
        lr_low: lowest learning rate that should do almost as well.
        lr_high: highest learning rate that should do almost as well.
        reason: how ``lr`` was chosen, or why there is none and what to try.
        initial_loss: loss before any training.
        runs: the short runs, sorted by learning rate.
        run_steps: steps of a short run.
        total_steps: length in steps of the training run, if it was given.
        budget_steps: steps that the search was allowed.
        steps: optimizer steps taken.
        eval_batches: batches whose loss was computed without a step.
        batches: batches read.
        task: description of the task.
        optimizer: class name of the optimizer.
        seconds: wall time of the search.
        seed: seed of the initial weights and the data order, if one was set.
    """

    lr: NonNegativeFloat | None
    lr_low: NonNegativeFloat | None
    lr_high: NonNegativeFloat | None
    reason: str
    initial_loss: FiniteFloat
    runs: tuple[ShortRun, ...]
    run_steps: Steps
    total_steps: Steps | None = None
    budget_steps: Steps = 0
    steps: Steps = 0
    eval_batches: Count = 0
    batches: Count = 0
    task: str = ""
    optimizer: str = ""
    seconds: NonNegativeFloat = 0.0
    seed: int | None = None

    def __repr__(self) -> str:
        lr = self.reason
        if self.lr is not None and self.lr_low is not None and self.lr_high is not None:
            lr = f"lr {number(self.lr)} ({number(self.lr_low)} to {number(self.lr_high)})"
        runs = pluralize(len(self.runs), "short run")
        return short_repr(self, lr, f"{runs} of {pluralize(self.run_steps, 'step')}")

    @property
    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Ascending learning rates that did not diverge, and the mean loss after their runs."""
        gains: dict[float, list[float]] = {}
        for run in self.runs:
            gains.setdefault(run.lr, []).append(run.gain)
        means = {lr: statistics.fmean(values) for lr, values in gains.items()}
        finite = {lr: gain for lr, gain in sorted(means.items()) if math.isfinite(gain)}
        return tuple(finite), tuple(self.initial_loss - gain for gain in finite.values())

    def chart(self) -> Chart:
        """Return the chart of the loss after each short run, with its standard error as a bar.

        A dashed line joins the means, and a cross is a run that diverged or made the loss worse.
        """
        losses = [self.initial_loss - run.gain for run in self.runs]
        low = min([self.initial_loss, *losses])
        fall = self.initial_loss - low or abs(self.initial_loss) or 1.0
        y_range = low - 0.1 * fall, self.initial_loss + 0.3 * fall
        edge = y_range[1] - 0.03 * (y_range[1] - y_range[0])
        points = [run for run, loss in zip(self.runs, losses, strict=True) if loss <= y_range[1]]
        lrs = sorted({run.lr for run in self.runs})
        worse = [lr for lr in lrs if any(run.lr == lr for run in self.runs if run not in points)]
        means = [point for point in zip(*self.curve, strict=True) if point[1] <= y_range[1]]
        marks, span = [], None
        if self.lr is not None and self.lr_low is not None and self.lr_high is not None:
            span = (self.lr_low, self.lr_high)
            label = f"{number(self.lr, 2)} ({number(span[0], 2)} to {number(span[1], 2)})"
            marks = [Mark(self.lr, label)]
        xs = sorted([*lrs, *(span or ())])  # the axis holds the span, too
        lines = [
            Line("", [lr for lr, _ in means], [loss for _, loss in means], "dashed", 0),
            self._error_bars(points, y_range),
            self._dots(points),
            Line("before training", xs, [self.initial_loss] * len(xs), "faint"),
            Line("worse or diverged", worse, [edge] * len(worse), "crosses", 1),
        ]
        return Chart(
            lines=[line for line in lines if line.xs],
            title="Loss after short runs at different learning rates",
            x_label="learning rate",
            y_label="loss",
            log_x=True,
            y_range=y_range,
            marks=marks,
            span=span,
        )

    def _dots(self, runs: Sequence[ShortRun]) -> Line:
        """Return the loss after each run, with gaps, so that no line joins the dots."""
        xs = [run.lr for run in runs for _ in range(2)]
        ys = [y for run in runs for y in (self.initial_loss - run.gain, math.nan)]
        return Line("after a short run", xs, ys, "dots", 0)

    def _error_bars(self, runs: Sequence[ShortRun], y_range: tuple[float, float]) -> Line:
        """Return a vertical line for each run, of two standard errors, within the axis."""
        xs, ys = [], []
        for run in runs:
            loss = self.initial_loss - run.gain
            xs += [run.lr] * 3
            ys += [max(loss - run.noise, y_range[0]), min(loss + run.noise, y_range[1]), math.nan]
        return Line("", xs, ys, "solid", 0)

    def verdict(self) -> str:
        """Return the learning rate and how it was chosen, or why there is none."""
        if self.lr is None:
            return self.reason[:1].upper() + self.reason[1:]
        band = f"{self.lr_low:.3g} to {self.lr_high:.3g} are almost as good"
        return f"{self.lr:.3g} ({band}): {self.reason}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (
                f"{run.lr:.3g}",
                number(self.initial_loss - run.gain) if math.isfinite(run.gain) else "diverged",
                number(run.gain, GAIN_DIGITS) if math.isfinite(run.gain) else "",
                number(run.noise, 2) if math.isfinite(run.noise) else "",
                f"{run.batch_set + 1}",
            )
            for run in self.runs
        ]
        head = ("learning rate", "loss after the run", "decrease", "standard error", "batch set")
        return head, rows

    def __str__(self) -> str:
        return f"{runs_table(self)}\n{self.verdict()}"

    @property
    def cost(self) -> str:
        """Steps, evaluations and wall time of the search, as text."""
        steps = f"{self.steps} of {self.budget_steps} steps in {len(self.runs)} short runs"
        return f"{steps}, {self.eval_batches} batch evaluations, {self.seconds:.3g} s"

    def apply(self, optimizer: Any) -> None:
        """Set the learning rate of an optimizer, or of several, before you create a scheduler.

        The param group with the highest learning rate gets ``lr``; the other groups keep their
        ratio to it. ``initial_lr`` is set too where a group has it, and a tensor learning rate
        is filled in place. After an error, nothing has changed.

        Args:
            optimizer: a ``torch.optim.Optimizer``, also in the wrapper of Accelerate or Lightning,
                or a sequence of them with ratios kept across all their groups.

        Raises:
            RunFailed: ``lr`` is ``None``; the message is ``reason``.
            BindingError: it is not an optimizer; a scheduler already sets its learning rates; or a
                group has a learning rate that is negative, not finite, or an integer tensor.

        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> LRFinderResult(0.5, 0.2, 0.8, "the best of 7", 1.0, (), 20).apply(optimizer)
        >>> optimizer.param_groups[0]["lr"]
        0.5
        """
        if self.lr is None:
            raise RunFailed(self.reason)
        set_lr(optimizer, self.lr)


def set_lr(optimizer: Any, lr: float) -> None:
    """Set the highest lr of all param groups, as `LRFinderResult.apply` describes."""
    several = isinstance(optimizer, list | tuple)
    optimizers = [_unwrap(each) for each in (optimizer if several else [optimizer])]
    if not optimizers:
        raise BindingError("apply() got no optimizer: expected one, or a sequence of them")
    for group, ratio in group_lr_ratios(optimizers):
        write_lr(group, lr * ratio)
        if "initial_lr" in group:
            write_lr(group, lr * ratio, key="initial_lr")


def _unwrap(optimizer: Any) -> Any:
    """Return an optimizer without wrappers, after a check that no scheduler has any of them."""
    if not hasattr(optimizer, "param_groups"):
        raise BindingError(
            f"apply() got {type(optimizer).__name__}: expected a torch.optim.Optimizer, or a "
            "sequence of them"
        )
    check_without_scheduler(optimizer)
    inner = getattr(optimizer, "optimizer", None)  # in the wrappers of Accelerate and Lightning
    return _unwrap(inner) if hasattr(inner, "param_groups") else optimizer


def check_without_scheduler(optimizer: Any) -> None:
    """Raise BindingError if a scheduler sets the lr: it would overwrite a new one, or ignore it.

    ``initial_lr`` is no evidence of a scheduler, because checkpoints hold it, too.
    """
    # Where ratecraft.torch, which this package cannot import, keeps the writers of an optimizer.
    writer = vars(optimizer).get("_ratecraft_writers", {}).get("lr")
    if writer is not None and writer.sources:
        raise BindingError(
            "a scheduler of ratecraft already sets the learning rate of this optimizer: remove() a "
            "ScheduleLR, or create a new optimizer; then set the learning rate, and create a "
            "scheduler last"
        )
    # torch's schedulers mark step(), and the mark stays when the scheduler is gone.
    is_marked = hasattr(optimizer.step, "_wrapped_by_lr_sched")
    if is_marked and (scheduler := _torch_scheduler_of(optimizer)):
        raise BindingError(
            f"torch's {type(scheduler).__name__} already sets the learning rate of this optimizer: "
            "create a new optimizer, then set the learning rate, and create a scheduler last"
        )


def _torch_scheduler_of(optimizer: Any) -> Any:
    """Return a scheduler of torch's that exists for this optimizer; torch keeps no list of them."""
    from torch.optim.lr_scheduler import LRScheduler

    # type() and not isinstance(), which runs code of proxies.
    schedulers = [each for each in gc.get_objects() if issubclass(type(each), LRScheduler)]
    for scheduler in schedulers:
        is_ours = type(scheduler).__module__.startswith("ratecraft.")
        if not is_ours and getattr(scheduler, "optimizer", None) is optimizer:
            return scheduler
    return None


def runs_table(result: LRFinderResult) -> str:
    """Return a table of the short runs as text, from which the reason can be redone.

    Runs of one learning rate on two batch sets count with their mean.
    """
    head, rows = result._table()
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in (head, *rows)]
    return "\n".join(lines)


def group_lr_ratios(optimizers: Sequence[Any]) -> list[tuple[dict[str, Any], float]]:
    """Return every param group with the ratio of its learning rate to the highest one."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for key, value in ((key, group.get(key)) for group in groups for key in ("lr", "initial_lr")):
        if hasattr(value, "fill_") and not value.is_floating_point():
            raise BindingError(
                f"a param group has {key}={value!r}, and a tensor of integers cannot hold a "
                f"fraction: write {key}=torch.tensor({float(value)})"
            )
    lrs = current_lrs(optimizers)
    if not all(0 <= lr < math.inf for lr in lrs):
        raise BindingError(
            f"the learning rates of the param groups, {lrs}, have no ratios that could be kept: "
            "expected finite values >= 0"
        )
    highest = max(lrs)
    return [
        (group, lr / highest if highest > 0 else 1.0) for group, lr in zip(groups, lrs, strict=True)
    ]


def current_lrs(optimizers: Sequence[Any]) -> list[float]:
    """Return the lr of every param group; if all are 0, as in a warmup, their ``initial_lr``."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    lrs = [float(group["lr"]) for group in groups]
    if not any(lrs):
        lrs = [float(group.get("initial_lr", group["lr"])) for group in groups]
    return lrs


def write_lr(group: dict[str, Any], lr: float, *, key: str = "lr") -> None:
    if hasattr(group[key], "fill_"):
        group[key].detach().fill_(lr)  # a tensor that requires grad cannot be filled itself
    else:
        group[key] = lr

"""find_lr: the learning rate for a run, from a few short runs."""

import math
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Unpack

import torch
from torch import nn

from ratecraft._keywords import explain_arguments
from ratecraft._progress import show_steps
from ratecraft._training._processes import Processes
from ratecraft._training._short_runner import (
    LossFunction,
    ShortRunner,
    StepOptions,
    set_optimizer_mode,
)
from ratecraft._training._snapshot import Batches, as_list
from ratecraft.errors import RunFailed, SettingError
from ratecraft.results import LRFinderResult, ShortRun
from ratecraft.results._lr_search import GAIN_DIGITS, current_lrs

from ._search import (
    BAND_REL_TOL,
    MIN_SPACING,
    SAFETY_SHARE,
    Peak,
    around_best,
    find_peak,
    next_position,
)

DEFAULT_BUDGET_STEPS: Final = 200
BUDGET_RUNS: Final = 10  # a short run has 1/BUDGET_RUNS of the budget
MIN_RUN_STEPS: Final = 5  # steps of the shortest short run
MIN_TRIED_LR: Final = 1e-12  # no lower lr is tried, unless the optimizer starts below it
MAX_TRIED_LR: Final = 1e4  # no higher lr is tried, unless the optimizer starts above it
EVAL_STEPS: Final = 4  # a short run is evaluated on the batches of this many steps
EVAL_COST_STEPS: Final = 1 / 3  # cost of an evaluation (a loss without a backward pass), in steps
MIN_GAIN_SIGMAS: Final = 3  # smallest significant gain, in standard errors
HORIZON_RUNS: Final = 7  # no correction for training runs up to this many times a short run
HORIZON_PASSES: Final = 3  # no correction for up to this many passes over the data
LENGTH_EXPONENT: Final = 0.1  # in longer runs lr ~ length ** -LENGTH_EXPONENT
PASSES_EXPONENT: Final = 0.5  # with more passes lr ~ passes ** -PASSES_EXPONENT
DEFAULT_START_LR: Final = 1e-3  # if the optimizer's lr is 0


@explain_arguments(
    "find_lr() takes model, optimizer, loader and loss by position and the rest by keyword, such "
    "as total_steps=; it takes no schedule, because all short runs share a fixed one",
    options=StepOptions.__annotations__,
)
def find_lr(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loader: Batches,
    loss: LossFunction,
    *,
    total_steps: int | None = None,
    budget_steps: int = DEFAULT_BUDGET_STEPS,
    progress: Callable[[int, int], object] | bool | None = None,
    task: str = "",
    **options: Unpack[StepOptions],
) -> LRFinderResult:
    """Find a learning rate with short training runs, and restore everything afterwards.

    Each candidate trains a short run: half of it at a constant learning rate, then linearly to
    0, always from the same weights, on the same batches and with the same random numbers. Its
    gain is the decrease of the loss on other batches. The search starts at the optimizer's own
    learning rate and moves by one or two decades, then by half a decade. If the budget allows,
    the best learning rate and its neighbours run again on other batches, to rule out batch noise.

    The result is r*^(3/4) s^(1/4). Here r* is the vertex of the parabola over log r through the
    gains of the best learning rate tried and of its neighbours, and s is the low end of the
    connected range around the best one in which the interpolated gain is at least 90 % of its
    gain. With n the steps of a short run, it is multiplied by max(1, total_steps / 7 n)^-0.1 and,
    if the loader has a length, by max(1, passes / 3)^-0.5, where passes is the number of passes
    over the data; the exponents were measured on 30 small tasks (benchmarks/regret).

    Args:
        model: the model, or several, as in `range_test`.
        optimizer: its optimizer, or several. Param groups keep the ratios of their learning
            rates, and the result is that of the group with the highest one.
        loader: an iterable of batches, as in `range_test`.
        loss: ``loss(model, batch)`` returns the training loss as a tensor.
        total_steps: length in steps of the training run. Longer runs need lower learning rates,
            most of all where they repeat the data. Default: no correction for the length.
        budget_steps: cost limit of the search, in steps; an evaluation (a loss without a backward
            pass) counts as a third of a step. A short run takes a tenth of the budget, or
            ``total_steps`` if that is less.
        progress: called as ``progress(steps_done, budget_steps)`` after each step. None: a bar, if
            standard error is a terminal or in a notebook; True: a bar, or lines elsewhere; False:
            none. If it raises, a warning says so, and the search goes on without it.
        task: description of the task, for the result.
        options: ``accumulate=``, ``clip=``, ``scaler=``, ``reduce=``, ``check_every=`` and
            ``on_disk=``, as in `range_test`.

    Returns:
        The learning rate, its range and the reason, which leads from the gains of the runs to the
        learning rate. ``lr`` is ``None`` if no learning rate is significantly better than not
        training, or if the search ran into a limit. ``print(result)`` shows the runs, too.

    Raises:
        SettingError: an argument is out of its range; or the processes of a distributed search
            have different settings, which the message names.
        TaskError: the task is refused, as in `range_test`; or another process failed.
        BindingError: as in `range_test`.
        RunFailed: the loss is not finite before any training.

    >>> import torch
    >>> x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    >>> def loss(model, batch):
    ...     return ((model(batch) - 3 * batch - 1) ** 2).mean()
    >>> result = find_lr(model, optimizer, x.split(8), loss, total_steps=200)
    >>> 0.03 < result.lr_low < result.lr < result.lr_high < 1
    True
    """
    started = time.perf_counter()
    processes = Processes(as_list(model, nn.Module), options.get("reduce"))
    with processes.agreement() as settings:
        total_steps, budget_steps = _checked_steps(total_steps, budget_steps)
        settings.update(total_steps=total_steps, budget_steps=budget_steps)
        runner = ShortRunner(model, optimizer, loader, loss, processes, **options)
        settings.update(runner.settings())
    start_lr = max(current_lrs(runner.optimizers)) or DEFAULT_START_LR
    run_steps = budget_steps // BUDGET_RUNS
    run_steps = min(run_steps, total_steps or run_steps)
    with show_steps(progress, "short runs", "steps at most") as advance:
        search = _Search(runner, start_lr, run_steps, budget_steps, advance)
        search.explore()
    return LRFinderResult(
        *_answer(search, total_steps),
        initial_loss=search.initial_loss,
        runs=tuple(sorted(search.runs, key=lambda run: run.lr)),
        run_steps=run_steps,
        total_steps=total_steps,
        budget_steps=budget_steps,
        steps=runner.steps_done,
        eval_batches=runner.batches_evaluated,
        batches=runner.batches_read,
        task=task,
        optimizer=runner.optimizer_name,
        seconds=time.perf_counter() - started,
    )


def _checked_steps(total_steps: int | None, budget_steps: int) -> tuple[int | None, int]:
    total_steps = None if total_steps is None else operator.index(total_steps)
    budget_steps = operator.index(budget_steps)
    if total_steps is not None and total_steps < 1:
        raise SettingError(
            f"total_steps={total_steps}: expected the run's length in steps, at least 1"
        )
    if budget_steps // BUDGET_RUNS < MIN_RUN_STEPS:
        raise SettingError(
            f"budget_steps={budget_steps}: expected at least {MIN_RUN_STEPS * BUDGET_RUNS}, "
            f"for {BUDGET_RUNS} short runs of {MIN_RUN_STEPS}"
        )
    return total_steps, budget_steps


@dataclass
class _Search:
    """The short runs of a search and the gain at each position (decades from ``start_lr``)."""

    runner: ShortRunner
    start_lr: float
    run_steps: int
    budget_steps: int
    progress: Callable[[int, int], object] | None
    runs: list[ShortRun] = field(default_factory=list)
    gains: dict[float, float] = field(default_factory=dict)  # of the positions tried
    best: float = 0.0  # the position of the best gain, after `explore`
    pending: float | None = None  # the next position when a limit ended the search

    def __post_init__(self) -> None:
        self._initial_losses = [self._evaluate_batch_set(0)]
        self.initial_loss = statistics.fmean(self._initial_losses[0])
        if not math.isfinite(self.initial_loss):
            raise RunFailed(
                f"the loss is {self.initial_loss} before any training; check the data and the "
                "loss function"
            )

    def explore(self) -> None:
        """Try positions until the best one has neighbours on both sides, or a limit is met."""
        while (
            (position := next_position(self.gains, self.initial_loss)) is not None
            and self.in_range(position)
            and self.affords(1)
        ):
            self.gains[position] = self.run(position).gain
        self.best, self.pending = max(self.gains, key=self.gains.__getitem__), position
        again = around_best(self.gains)
        if position is None and self.gains[self.best] > 0 and self.affords(len(again)):
            for neighbour in again:  # on other batches, to rule out batch noise
                gain = self.run(neighbour, batch_set=1).gain
                self.gains[neighbour] = (self.gains[neighbour] + gain) / 2
            self.best = max(again, key=self.gains.__getitem__)

    def lr_at(self, position: float) -> float:
        return self.start_lr * 10**position

    def in_range(self, position: float) -> bool:
        lowest, highest = min(self.start_lr, MIN_TRIED_LR), max(self.start_lr, MAX_TRIED_LR)
        return lowest <= self.lr_at(position) <= highest

    def affords(self, runs: int) -> bool:
        evals = self.runner.batches_evaluated / self.runner.accumulate
        spent = self.runner.steps_done + evals * EVAL_COST_STEPS
        next_evals = EVAL_STEPS * (runs + (runs > 1))
        return spent + runs * self.run_steps + next_evals * EVAL_COST_STEPS <= self.budget_steps

    def run(self, position: float, batch_set: int = 0) -> ShortRun:
        if batch_set == len(self._initial_losses):
            self._initial_losses.append(self._evaluate_batch_set(batch_set))
        before = self._initial_losses[batch_set]
        # Another batch set may be harder as a whole, so gains are rescaled to the first set.
        level = statistics.fmean(before)
        scale = self.initial_loss / level if self.initial_loss > 0 < level else 1.0
        lr = self.lr_at(position)
        with self.runner.start():
            eval_batches = self._eval_batches(batch_set)
            losses = torch.stack(self._train(lr)).tolist()
            set_optimizer_mode(self.runner.optimizers, "eval")
            after = torch.stack(list(map(self.runner.evaluate, eval_batches))).tolist()
        gains = [b - a for b, a in zip(before, after, strict=True)]
        gain, noise = -math.inf, math.inf
        if all(map(math.isfinite, [*losses, *gains])):
            gain = scale * statistics.fmean(gains)
            noise = scale * statistics.stdev(gains) / math.sqrt(EVAL_STEPS)
        self.runs.append(ShortRun(lr, tuple(losses), gain, noise, batch_set))
        return self.runs[-1]

    def _train(self, lr: float) -> list[torch.Tensor]:
        """Train at ``lr``, then cool down to 0; return the losses, up to a check that fails."""
        losses: list[torch.Tensor] = []
        constant_steps = (self.run_steps + 1) // 2
        for k in range(self.run_steps):
            cooldown = (self.run_steps - k) / (self.run_steps - constant_steps + 1)
            self.runner.set_lr(lr * min(1.0, cooldown))
            losses.append(self.runner.step())
            if self.progress:
                self.progress(self.runner.steps_done, self.budget_steps)
            check_due = (k + 1) % self.runner.check_every == 0
            if check_due and not math.isfinite(losses[-1].item()):
                break
        return losses

    def _eval_batches(self, batch_set: int) -> list[list[Any]]:
        """Return the evaluation batches of a set; the training batches of the set come next."""
        for _ in range(batch_set * (self.run_steps + EVAL_STEPS)):
            self.runner.next_batches()
        return [self.runner.next_batches() for _ in range(EVAL_STEPS)]

    def _evaluate_batch_set(self, batch_set: int) -> list[float]:
        """Return the losses of the evaluation batches of a set, before any training."""
        with self.runner.start():
            eval_batches = self._eval_batches(batch_set)
            return [self.runner.evaluate(batches).item() for batches in eval_batches]


def _answer(
    search: _Search, total_steps: int | None
) -> tuple[float | None, float | None, float | None, str]:
    lrs, steps = [run.lr for run in search.runs], search.run_steps
    runs_text = f"{len(lrs)} short runs ({steps} steps each, lrs {min(lrs):.3g} to {max(lrs):.3g})"
    peak = find_peak(search.gains, search.best)
    problem = _problem(search, runs_text)
    if problem or peak is None:
        return None, None, None, f"no learning rate found: {problem}"
    factor, factor_reason = _length_factor(total_steps, search)
    low, lr, high = (search.lr_at(p) * factor for p in (peak.low, peak.position, peak.high))
    final_loss = search.initial_loss - search.gains[search.best]
    best = f"lr {search.lr_at(search.best):.3g}, loss {search.initial_loss:.4g} to {final_loss:.4g}"
    product = factor_reason and f"; {factor_reason}: {lr:.3g}"
    return lr, low, high, f"best of {runs_text}: {best}; {_fit_text(search, peak)}{product}"


def _fit_text(search: _Search, peak: Peak) -> str:
    """Return how the fitted lr follows from the gains, in steps that a reader can redo."""
    vertex, low, fitted = (
        f"{search.lr_at(position):.3g}" for position in (peak.vertex, peak.low, peak.position)
    )
    share = f"{1 - BAND_REL_TOL:.0%} of its decrease at lr {low}"
    weights = f"{vertex}^{1 - SAFETY_SHARE:g} * {low}^{SAFETY_SHARE:g}"
    return f"{_vertex_text(search, peak)}; {share}; fitted lr {weights} = {fitted}"


def _vertex_text(search: _Search, peak: Peak) -> str:
    """Return which parabola has the vertex, or why there is none and which lr replaces it."""
    neighbours = [search.best - MIN_SPACING, search.best, search.best + MIN_SPACING]
    lrs = [f"{search.lr_at(position):.3g}" for position in neighbours]
    vertex, offset = f"vertex at {search.lr_at(peak.vertex):.3g}", peak.vertex - search.best
    for lr, position in zip(lrs, neighbours, strict=True):
        if math.isinf(search.gains.get(position, math.inf)):
            end = "diverged" if position in search.gains else "was not tried"
            shift = f", {-offset:.1g} decades below the best" if offset else ""
            return f"no parabola, because lr {lr} {end}: {vertex}{shift}"
    gains = [search.gains[position] for position in neighbours]
    points = [f"{gain:.{GAIN_DIGITS}g} at lr {lr}" for gain, lr in zip(gains, lrs, strict=True)]
    note = ""
    if 2 * gains[1] <= gains[0] + gains[2]:
        note = ", because it has no maximum"
    elif abs(offset) >= MIN_SPACING / 2:
        note = ", its limit, a quarter of a decade from the best"
    decreases = f"{points[0]}, {points[1]} and {points[2]}"
    return f"parabola through the decreases {decreases}: {vertex}{note}"


def _problem(search: _Search, runs_text: str) -> str:
    """Return why a search has no answer and what to do, or an empty text if it has one."""
    lr, gain = search.lr_at(search.best), search.gains[search.best]
    if math.isinf(gain):
        return f"all of {runs_text} diverged; check why the loss or its gradients are nan"
    significant = any(run.gain > MIN_GAIN_SIGMAS * run.noise for run in search.runs)
    if not (gain > 0 and significant):
        gain_text = f"none of {runs_text} lowered the loss"
        if gain > 0:
            noise = min(run.noise for run in search.runs if run.lr == lr)
            gain_text = f"the best of {runs_text} lowered the loss by {gain:.2g} ± {noise:.2g}"
        advice = "check why the model does not learn"
        if search.run_steps == search.budget_steps // BUDGET_RUNS:  # not as long as the run itself
            advice = f"allow more budget_steps=, which makes them longer, or {advice}"
        return f"{gain_text} from {search.initial_loss:.4g}; {advice}"
    if search.pending is None:
        return ""
    next_text = (
        "the budget was spent before worse ones were seen on both sides; set the optimizer's "
        "lr to that value, or allow more budget_steps="
    )
    if not search.in_range(search.pending):
        next_text = (
            f"the search would go on to lr {search.lr_at(search.pending):.2g}, outside the range "
            "it tries; check why the loss still improves in that direction"
        )
    return f"the best of {runs_text} was lr {lr:.3g}, but {next_text}"


def _length_factor(total_steps: int | None, search: _Search) -> tuple[float, str]:
    """Return the factor that adapts the learning rate to a longer run, and its description."""
    if total_steps is None:
        return 1.0, ""
    length_ratio = max(total_steps / (HORIZON_RUNS * search.run_steps), 1.0)
    batches = search.runner.batches_per_epoch()
    passes = total_steps * search.runner.accumulate / batches if batches else 0.0
    factor = length_ratio**-LENGTH_EXPONENT * max(passes / HORIZON_PASSES, 1.0) ** -PASSES_EXPONENT
    if factor == 1:
        return factor, ""
    repeats = f" ({round(passes, 2):g} epochs)" if passes > HORIZON_PASSES else ""
    return factor, f"times {factor:.3g} for a run of {total_steps} steps{repeats}"

"""Log: the losses and learning rates of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import LogError
from ratecraft.results import Run
from ratecraft.results._base import MAX_STEPS, pluralize, short_repr
from ratecraft.schedule import Curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_LOSSES: Final = 8  # of a fit of five parameters
LOGGED_LR_REL_TOL: Final = 1e-3  # rounding error of logged lrs, relative to the peak
MAX_GAP_FRACTION: Final = 0.99  # of a log without losses in between; more is a damaged step


@dataclass(frozen=True, eq=False)
class Log:
    """Losses of a training run, and its learning rate at every step up to the last loss.

    Attributes:
        steps: number of steps done before each loss was measured, increasing.
        losses: losses.
        lrs: logged lrs, interpolated linearly; the first one also holds before it.
        schedule: resolved schedule of the whole run as lrs, instead of ``lrs``, or equal to them.
        name: name of the run.
        lr_steps: steps at which ``lrs`` were logged; ``steps`` if ``None``.
        columns: titles of the columns that "step", "loss" and "lr" were read from, if any.
        every_lr: computed learning rate of every step up to the last loss, an array.

    Raises:
        LogError: the losses, steps or learning rates are not usable.

    >>> log = Log(range(100, 1100, 100), [5 - 0.1 * k for k in range(10)], [0.1] * 10)
    >>> log.peak_lr, len(log.every_lr)
    (0.1, 1000)
    """

    steps: Sequence[int]
    losses: Sequence[float]
    lrs: Sequence[float] | None = None
    schedule: Curve | None = None
    name: str = "run"
    lr_steps: Sequence[int] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    every_lr: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np

        steps, losses = np.asarray(self.steps, float), np.asarray(self.losses, float)
        lr_steps = steps if self.lr_steps is None else np.asarray(self.lr_steps, float)
        if len(steps) != len(losses) or (self.lrs is not None and len(self.lrs) != len(lr_steps)):
            raise LogError(f"{self.name}: steps, losses and lrs must have the same length")
        check_losses(self.name, steps, losses)
        _check_lr_steps(self.name, lr_steps)
        end = int(steps[-1])
        if self.schedule is not None:
            every_lr = self._scheduled_lrs(self.schedule, lr_steps, end)
        elif self.lrs is not None:
            every_lr = np.interp(
                np.arange(end, dtype=float), lr_steps - 1, np.asarray(self.lrs, float)
            )
        else:
            raise LogError(
                f"{self.name}: no lrs were logged; pass the schedule of the run, as schedule= or "
                "--log-schedule"
            )
        if not np.isfinite(every_lr).all() or (every_lr < 0).any() or not (every_lr > 0).any():
            raise LogError(
                f"{self.name}: lrs must be finite numbers of at least 0, and not all of them 0"
            )
        object.__setattr__(self, "every_lr", every_lr)

    def __repr__(self) -> str:
        columns = [f"{quantity} from {title}" for quantity, title in self.columns.items()]
        return short_repr(
            self,
            self.name,
            f"{len(self.losses):,} losses",
            pluralize(len(self.every_lr), "step"),
            f"peak lr {self.peak_lr:.4g}",
            *columns,
        )

    @property
    def peak_lr(self) -> float:
        """Highest learning rate."""
        return float(self.every_lr.max())

    @property
    def warmup_steps(self) -> int:
        """Number of steps before the learning rate reaches its peak, within rounding error."""
        rel_tol = LOGGED_LR_REL_TOL if self.schedule is None else 1e-9
        return int((self.every_lr >= (1 - rel_tol) * self.peak_lr).argmax())

    @property
    def first_lr_step(self) -> int:
        """Step from which on the learning rates are known."""
        if self.schedule is not None:
            return 0
        return int((self.steps if self.lr_steps is None else self.lr_steps)[0])

    def _scheduled_lrs(self, curve: Curve, steps: NDArray[Any], end: int) -> NDArray[Any]:
        """Return the learning rates of the schedule, checked against the logged ones."""
        import numpy as np

        if not isinstance(curve, Curve):
            raise TypeError(
                f"{self.name}: schedule= must be a curve; pass schedule.resolve(total_steps=...)"
            )
        if curve.length < end:
            raise LogError(
                f"{self.name}: the schedule ends after {curve.length:.0f} steps, the log after "
                f"{end}; expected the schedule over the whole run"
            )
        every_lr: NDArray[Any] = curve.values(np.arange(end, dtype=float))
        if self.lrs is None:
            return every_lr
        logged = np.asarray(self.lrs, float)
        # Trainers log the lr of the last step, or that of the next one.
        scheduled = [curve.values(np.maximum(steps + k, 0.0)) for k in (-1, 0, 1)]
        gaps = np.abs(np.array(scheduled) - logged).min(axis=0)
        row = first_true(gaps > LOGGED_LR_REL_TOL * every_lr.max())
        if row is not None:
            raise LogError(
                f"{self.name}: at step {steps[row]:.0f} the log has an lr of {logged[row]:.4g}, "
                f"the schedule {scheduled[1][row]:.4g}; expected the schedule of this run, as "
                "learning rates, over the planned length (total_steps=, or --log-total-steps)"
            )
        return every_lr


def check_losses(name: str, steps: NDArray[Any], losses: NDArray[Any]) -> None:
    """Raise LogError unless these are losses above 0 at increasing steps of one run."""
    import numpy as np

    if len(losses) < MIN_LOSSES:
        raise LogError(
            f"{name}: {len(losses)} losses; a fit needs at least {MIN_LOSSES}, better 50, "
            "spread over the run"
        )
    for column, values in (("step", steps), ("loss", losses)):
        if (row := first_true(~np.isfinite(values))) is not None:
            raise LogError(
                f"{name}: the {column} of row {row + 1} is {values[row]}; leave out rows "
                "without a finite number, and runs that diverged"
            )
    if (steps < 0).any() or (steps % 1 != 0).any():
        raise LogError(f"{name}: steps must be whole numbers of at least 0")
    if (row := first_true(np.diff(steps) <= 0)) is not None:
        before, step = steps[row : row + 2]
        problem = "occurs twice" if step == before else f"comes after {before:.0f}"
        raise LogError(
            f"{name}: step {step:.0f} of row {row + 2} {problem}; expected one row for "
            "each step, in order (does the file hold two runs, or a resumed one, or are the steps "
            "counted from 0 in each epoch?)"
        )
    gaps = np.diff(steps)
    if (row := first_true(gaps > MAX_GAP_FRACTION * steps[-1])) is not None:
        before, step = steps[row : row + 2]
        raise LogError(
            f"{name}: step {step:.0f} of row {row + 2} follows step {before:.0f}; expected losses "
            "of the whole run, so one of these steps seems to be wrong: leave out its row"
        )
    if steps[-1] > MAX_STEPS:
        raise LogError(
            f"{name}: {steps[-1]:.3g} steps; are these tokens or samples? Expected at most "
            f"{MAX_STEPS:,} optimizer steps"
        )
    if (row := first_true(losses <= 0)) is not None:
        raise LogError(
            f"{name}: the loss of row {row + 1} is {losses[row]:g}; expected losses above 0"
        )


def _check_lr_steps(name: str, steps: NDArray[Any]) -> None:
    import numpy as np

    row = first_true(~(np.isfinite(steps) & (np.diff(steps, prepend=-1) > 0) & (steps >= 0)))
    if row is not None:
        before = f" after {steps[row - 1]:g}" if row else ""
        raise LogError(
            f"{name}: the step of lr {row + 1} is {steps[row]:g}{before}; expected increasing "
            "steps of at least 0, with one lr each (does the file hold two runs, or a resumed one?)"
        )


def first_true(mask: NDArray[Any]) -> int | None:
    return int(mask.argmax()) if mask.any() else None


def log_of_run(run: Run, name: str = "", *, loss: str | None = None) -> Log:
    """Return the log of a `ratecraft.results.Run`.

    It has the validation losses, or the training losses if the run was not evaluated.

    Args:
        run: run of a `Comparison`, or from `ratecraft.experiments.train`.
        name: name of the log; the schedule and the seed if empty.
        loss: "train_loss" for the training losses of a run that was evaluated.

    Raises:
        LogError: the run diverged, or has too few losses.

    >>> from ratecraft.results import Run
    >>> log = log_of_run(Run("wsd(2)", 0.01, 0, 20, 5, losses=(1.0,) * 20, evaluations=()))
    >>> log.name, log.peak_lr, log.warmup_steps
    ('wsd(2), seed 0', 0.01, 2)
    """
    name = name or f"{run.schedule}, seed {run.seed}"
    if run.diverged is not None:
        raise LogError(f"{name}: diverged at step {run.diverged}")
    if not run.has_curve:
        raise LogError(
            f"{name}: the schedule is the script's own, so its learning rates are unknown"
        )
    if loss not in (None, "train_loss"):
        raise LogError(f'{name}: loss={loss!r}; expected "train_loss", or no loss=')
    losses = {e.step: e.metrics["loss"] for e in run.evaluations if "loss" in e.metrics}
    if 0 < len(losses) < MIN_LOSSES and loss is None:
        raise LogError(
            f"{name}: {len(losses)} validation losses; a fit needs at least {MIN_LOSSES}, better "
            '50: evaluate more often, or pass loss="train_loss" (--loss train_loss) for a forecast '
            "of the training loss"
        )
    column = "loss" if losses and loss is None else "train_loss"
    if column == "train_loss":
        losses = dict(zip(run.loss_steps or range(1, len(run.losses) + 1), run.losses, strict=True))
    return Log(
        tuple(losses),
        tuple(losses.values()),
        schedule=run.curve(),
        name=name,
        columns={"loss": column},
    )

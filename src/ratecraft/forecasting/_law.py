"""Multi-power law of the loss under any schedule, fitted to logs of training runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import LogError

from ._log import MIN_LOSSES, Log

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FIT_NODES: Final = 250  # about as many groups of lr changes enter a fit
EVAL_NODES: Final = 4000  # the same for a prediction
MAX_FIT_POINTS: Final = 120  # more losses of a log are averaged in groups
MIN_TURN: Final = 1e-3  # smaller changes in one step, relative to the peak lr, are no turns
MIN_RELATIVE_LR: Final = 1e-9  # of lr / peak lr, so that its power -gamma is finite
# Published fits have beta from 0.58 to 0.60 and gamma from 0.64 to 0.66.
DEFAULT_BETA, DEFAULT_GAMMA = 0.6, 0.6
PEAK_LR_REL_TOL: Final = 0.01  # peak lrs within this relative distance are equal


@dataclass(frozen=True, slots=True)
class Law:
    """Multi-power law of the loss after t steps.

    L(t) = floor + amplitude * (S1 / 1000)^-alpha
    - drop * sum_{k<=t} (u_{k-1} - u_k) * (1 - (1 + speed * u_k^-gamma * S_k)^-beta),

    where u is lr / peak lr, S1 the sum of u up to t, S_k the sum of u from k to t, and k runs
    over the steps after the warmup.

    Attributes:
        floor: loss in the limit of infinitely many steps.
        amplitude: loss above the floor after 1000 steps at the peak lr.
        alpha: exponent of S1.
        drop: decrease of the loss, in the long run, when the lr falls from its peak to 0.
        speed: rate of that decrease after a change of the lr, per step at the peak lr.
        beta: exponent of the decrease that remains.
        gamma: exponent of u_k, by which the decrease is faster at a lower lr.

    >>> from ratecraft import wsd
    >>> curve = wsd(0).resolve(total_steps=2000)
    >>> Law(2.5, 0.9, 0.45, 0.2, 0.012).losses(curve.values(), [1000, 2000]).round(3)
    array([3.4  , 3.138])

    Source: Luo et al. 2025 (ICLR), arXiv 2503.12811.
    """

    floor: float
    amplitude: float
    alpha: float
    drop: float
    speed: float
    beta: float = DEFAULT_BETA
    gamma: float = DEFAULT_GAMMA

    def losses(self, lrs: NDArray[Any], steps: ArrayLike) -> NDArray[Any]:
        """Return the losses of a run after the given numbers of steps.

        Args:
            lrs: learning rate of every step of the run, an array of one dimension.
            steps: numbers of steps done, from 1 to the length of ``lrs``.
        """
        return _LRChanges(lrs, steps, EVAL_NODES).losses(self)


class _LRChanges:
    """Changes and cumulative sums of the lrs of a run, the inputs of the law."""

    def __init__(self, lrs: NDArray[Any], steps: ArrayLike, nodes: int = FIT_NODES) -> None:
        import numpy as np

        u = np.maximum(lrs / lrs.max(), MIN_RELATIVE_LR)
        sums = np.concatenate([[0.0], np.cumsum(u)])
        times = np.asarray(steps, dtype=int)
        self.total = sums[times]
        changes = np.diff(u, prepend=u[0])
        changes[: int(u.argmax()) + 1] = 0.0  # those of the warmup
        change_steps, group_starts = _grouped(changes, nodes)
        sizes = np.abs(changes[change_steps])
        self.drops = -np.add.reduceat(changes[change_steps], group_starts)
        weights = np.add.reduceat(sizes, group_starts)
        mean_steps = np.add.reduceat(sizes * change_steps, group_starts) / weights
        nodes_at = np.rint(mean_steps).astype(int)
        self.lrs = u[nodes_at]
        # Sum of u from each node to each time; 0 for a node after that time.
        self.since = np.maximum(sums[times][:, None] - sums[nodes_at][None, :], 0.0)

    def losses(self, law: Law) -> NDArray[Any]:
        fractions = 1 - (1 + law.speed * self.lrs**-law.gamma * self.since) ** -law.beta
        decrease = law.drop * (fractions * self.drops).sum(axis=1)
        before = law.floor + law.amplitude * (self.total / 1000) ** -law.alpha
        losses: NDArray[Any] = before - decrease
        return losses


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """A law fitted to logs, with its uncertainty.

    Attributes:
        law: law with the most likely parameters.
        peak_lr: highest learning rate of the logged runs.
        covariance: covariance of the logarithms of the fitted parameters.
        error: root mean square residual of the logarithms of the losses.
        notes: reasons why the fit is uncertain.
    """

    law: Law
    peak_lr: float
    covariance: NDArray[Any]
    error: float
    notes: tuple[str, ...]

    def slopes(self, lrs: NDArray[Any], step: int) -> NDArray[Any]:
        """Return the derivatives of a loss by the logarithms of the fitted parameters.

        Args:
            lrs: as in `Law.losses`.
            step: number of steps done, from 1 to the length of ``lrs``.
        """
        import numpy as np

        changes = _LRChanges(lrs, [step])
        count = len(self.covariance)
        point = np.log([getattr(self.law, name) for name in LAW_PARAMETERS[:count]])
        shifts = 1e-4 * np.eye(count)
        above = [changes.losses(_law(point + shift))[0] for shift in shifts]
        below = [changes.losses(_law(point - shift))[0] for shift in shifts]
        slopes: NDArray[Any] = np.subtract(above, below) / 2e-4
        return slopes


LAW_PARAMETERS: Final = ("floor", "amplitude", "alpha", "drop", "speed", "beta", "gamma")
# Starting points of the fit: floor / lowest loss, alpha, speed.
FIT_STARTS: Final = ((0.9, 0.5, 0.01), (0.6, 0.3, 0.02), (0.3, 0.2, 0.005))
# Means and standard deviations of log(speed) and log(drop / lowest loss).
SPEED_PRIOR: Final = (math.log(0.01), 1.0)
DROP_PRIOR: Final = (math.log(0.075), 0.4)
MIN_LOG_LOSS_NOISE: Final = 0.002  # standard deviation of the log of a logged loss, at least
# Neighboring losses are correlated: a log has the weight of this many independent ones.
INDEPENDENT_LOSSES: Final = 60


def fit(logs: Sequence[Log], *, full: bool = False) -> FittedLaw:
    """Fit the law to one or more runs with the same model, data and peak learning rate.

    Soft-L1 least squares of the logarithms of the losses after the warmup, with five free
    parameters. Weak priors for the speed (about 0.01 per step) and the drop (about 0.075 of the
    loss) cover what runs without a plateau and a decay do not determine.

    Args:
        logs: logs of the runs.
        full: also fit the exponents beta and gamma.

    Raises:
        LogError: there are no logs, their peak learning rates differ, or a log has too few losses
            after its warmup.

    >>> from ratecraft import wsd
    >>> curve, steps = (0.01 * wsd(50)).resolve(total_steps=1000), range(20, 1001, 20)
    >>> losses = Law(2.5, 0.9, 0.45, 0.2, 0.012).losses(curve.values(), steps)
    >>> fitted = fit([Log(steps, losses.tolist(), schedule=curve)])
    >>> round(fitted.law.floor, 1), fitted.peak_lr, fitted.error < 0.001
    (2.5, 0.01, True)

    Source: Luo et al. 2025, arXiv 2503.12811; the priors are our own.
    """
    import numpy as np
    from scipy.optimize import least_squares

    peak_lr = _common_peak_lr(logs)
    points = [_points(log) for log in logs]
    changes = [
        _LRChanges(log.every_lr, steps) for log, (steps, _) in zip(logs, points, strict=True)
    ]
    measured = [np.log(losses) for _, losses in points]
    lowest = min(float(np.exp(values).min()) for values in measured)

    def residuals(point: NDArray[Any]) -> list[NDArray[Any]]:
        law = _law(point)
        predicted = [np.log(np.maximum(run.losses(law), 1e-9 * lowest)) for run in changes]
        return [a - b for a, b in zip(predicted, measured, strict=True)]

    def weighted(point: NDArray[Any], noise: float) -> NDArray[Any]:
        terms = [math.sqrt(INDEPENDENT_LOSSES / len(run)) / noise * run for run in residuals(point)]
        priors = [
            (point[4] - SPEED_PRIOR[0]) / SPEED_PRIOR[1],
            (point[3] - math.log(lowest) - DROP_PRIOR[0]) / DROP_PRIOR[1],
        ]
        if full:
            priors += [(x - math.log(DEFAULT_BETA)) / 0.1 for x in point[5:]]
        return np.concatenate([*terms, priors])

    def solve(point: NDArray[Any], noise: float) -> Any:
        low, high = point - 12, point + 12
        # alpha is between 0.01 and 5
        low[2], high[2] = min(math.log(0.01), point[2]), max(math.log(5), point[2] + 1e-9)
        return least_squares(
            weighted, point, args=(noise,), loss="soft_l1", bounds=(low, high), max_nfev=400
        )

    def error_of(point: NDArray[Any]) -> float:
        return math.sqrt(np.mean(np.concatenate(residuals(point)) ** 2))

    first = changes[0].total[0] / 1000
    solutions = []
    for share, alpha, speed in FIT_STARTS:
        amplitude = max(math.exp(measured[0][0]) - share * lowest, 0.05 * lowest) * first**alpha
        start = np.log([share * lowest, amplitude, alpha, 0.075 * lowest, speed, 0.6, 0.6])
        solutions.append(solve(start if full else start[:5], MIN_LOG_LOSS_NOISE))
    best = min(solutions, key=lambda solution: float(solution.cost))
    error = error_of(best.x)
    if error > MIN_LOG_LOSS_NOISE:  # fit again, weighted by the measured noise
        best = solve(best.x, error)
        error = error_of(best.x)
    covariance = np.linalg.pinv(best.jac.T @ best.jac)
    return FittedLaw(_law(best.x), peak_lr, covariance, error, _weaknesses(logs, error))


def _common_peak_lr(logs: Sequence[Log]) -> float:
    if not logs:
        raise LogError("no logs; a fit needs the log of at least one run")
    for log in logs:
        if not isinstance(log, Log):
            raise TypeError(f"expected a Log, not {log!r}; read_logs(path) returns a list of them")
        if abs(log.peak_lr / logs[0].peak_lr - 1) > PEAK_LR_REL_TOL:
            raise LogError(
                f"{logs[0].name} has a peak lr of {logs[0].peak_lr:.4g}, {log.name} of "
                f"{log.peak_lr:.4g}; a fit needs runs with the same peak lr"
            )
    return logs[0].peak_lr


MAX_FIT_ERROR: Final = 0.03  # a larger `FittedLaw.error` gets a note
MIN_PLATEAU_FRACTION: Final = 0.2  # of a run at its peak lr, which a fit needs
MIN_RISE: Final = 0.005  # of the losses at the end of a log above their lowest, which gets a note
MIN_RISE_SIGMAS: Final = 4  # the same in standard errors of the difference


def _weaknesses(logs: Sequence[Log], error: float) -> tuple[str, ...]:
    plateau = max(
        float((log.every_lr[log.warmup_steps :] >= (1 - PEAK_LR_REL_TOL) * log.peak_lr).mean())
        for log in logs
    )
    # The last percent of a run, relative to its peak lr.
    final_lr = min(
        float(log.every_lr[-max(len(log.every_lr) // 100, 1) :].mean()) / log.peak_lr
        for log in logs
    )
    notes = [
        f"the lrs of {log.name} start at step {log.first_lr_step:,}; earlier ones are assumed to "
        f"be {log.every_lr[0]:.3g}: pass the schedule of that run"
        for log in logs
        if log.first_lr_step > 0.05 * len(log.every_lr)
    ]
    notes += filter(None, map(_rise, logs))
    if error > MAX_FIT_ERROR:
        notes.append(
            f"the law misses the logged losses by {error:.1%}; it has no term for noise, "
            "overfitting or instability"
        )
    if plateau < MIN_PLATEAU_FRACTION:
        notes.append(
            "no run stays at its peak lr, so the effects of time and of lr decay are hard to "
            "separate: add a run with a plateau and a decay, such as a WSD"
        )
    if final_lr > 0.5:
        notes.append(
            "no run decays its lr, so the effect of a decay is assumed from other models: add a "
            "run with a decay, such as a WSD"
        )
    return tuple(notes)


def _rise(log: Log) -> str:
    """Return a note if the losses of a log rise at its end; empty if not."""
    import numpy as np

    steps, losses = _after_warmup(log)
    width = max(len(losses) // 10, 1)
    means = np.convolve(losses, np.full(width, 1 / width), "valid")
    lowest = int(means.argmin())
    # The median of the differences says how noisy one loss is, whatever the trend.
    noise = float(np.median(np.abs(np.diff(losses)))) / 0.6745 / math.sqrt(2)
    rise = float(means[-1] - means[lowest])
    if rise <= max(MIN_RISE * means[lowest], MIN_RISE_SIGMAS * noise * math.sqrt(2 / width)):
        return ""
    name = log.columns.get("loss", "loss")
    return (
        f"the {name} of {log.name} rises by {rise / means[lowest]:.1%} after step "
        f"{steps[lowest + width // 2]:,}, as when a model overfits; the law does not model this"
    )


def _points(log: Log) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the losses of a log after its warmup, as at most `MAX_FIT_POINTS` means."""
    import numpy as np

    steps, losses = _after_warmup(log)
    if len(steps) < MIN_LOSSES:
        raise LogError(
            f"{log.name}: {len(steps)} losses after its warmup of {log.warmup_steps} steps; a "
            f"fit needs at least {MIN_LOSSES}, better 50"
        )
    groups = np.array_split(np.arange(len(steps)), min(MAX_FIT_POINTS, len(steps)))
    mean_steps = np.array([round(steps[group].mean()) for group in groups])
    return mean_steps, np.array([losses[group].mean() for group in groups])


def _after_warmup(log: Log) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    steps, losses = np.asarray(log.steps, int), np.asarray(log.losses, float)
    rows = steps > log.warmup_steps
    return steps[rows], losses[rows]


def _law(point: NDArray[Any]) -> Law:
    import numpy as np

    return Law(**dict(zip(LAW_PARAMETERS, np.exp(point).tolist(), strict=False)))


def _grouped(changes: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the steps with a change, and the index in them where each of ~``count`` groups starts.

    Groups have equal shares of the total change, and separate rises, falls and distant changes.
    """
    import numpy as np

    steps = np.flatnonzero(changes)
    if not len(steps):
        return steps, steps
    sizes = np.abs(changes[steps])
    share = np.floor((np.cumsum(sizes) - sizes / 2) / sizes.sum() * count)
    direction = np.sign(changes[steps]) * (sizes > MIN_TURN)  # 0 for rounding errors of a log
    cuts = (np.diff(share) > 0) | (np.diff(steps) > max(1, len(changes) // count))
    cuts |= direction[1:] * direction[:-1] < 0
    return steps, np.flatnonzero(np.concatenate([[True], cuts]))

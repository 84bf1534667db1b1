"""A law of the loss under any schedule, fitted to the logs of one or two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import LogError

from ._logs import FEWEST, Log

if TYPE_CHECKING:
    from numpy.typing import NDArray


NODES: Final = 250  # changes of the lr are gathered into about so many to fit a law,
READ: Final = 4000  # and into so many to read it
POINTS: Final = 120  # losses of a log that are fitted, at most
CLEAR: Final = 1e-3  # of the peak: smaller changes in one step are no turn
LOWEST: Final = 1e-9  # an lr of 0 has no power of -0.6
FLATTEST, STEEPEST = 0.6, 0.6  # beta and gamma: published fits give .58 to .60 and .64 to .66
NOISE: Final = 0.002  # of the logarithm of a loss that was logged


@dataclass(frozen=True, slots=True)
class Law:
    """The multi-power law of the loss after step t.

    L(t) = floor + amplitude * (S1 / 1000)^-alpha
    - drop * sum_{k<=t} (u_{k-1} - u_k) * (1 - (1 + speed * u_k^-gamma * S_k)^-beta),

    where u is the lr / the peak lr, S1 the sum of u up to t, S_k the sum of u from k to t,
    and k goes over the steps after the warm-up.

    Attributes:
        floor: the loss that is left however long a run is.
        amplitude: the loss above the floor after 1000 steps at the peak lr.
        alpha: how steeply that falls with S1.
        drop: by how much the loss falls in the end if the lr falls from its peak to 0.
        speed: how soon after a change of the lr that comes, per step at the peak lr.
        beta: how steeply what is still to come of it falls with S_k.
        gamma: how much sooner it comes at lower lrs.
        warmup: whether k goes over the steps of the warm-up, too.

    >>> from ratecraft import constant, wsd
    >>> law = Law(2.5, 0.9, 0.45, 0.2, 0.012)
    >>> for shape in constant(1), wsd(0):
    ...     print(law.losses(shape.resolve(total_steps=2000).values(), [1000, 2000]).round(3))
    [3.4   3.159]
    [3.4   3.138]

    Source: Luo et al. 2025 (ICLR), arXiv 2503.12811.
    """

    floor: float
    amplitude: float
    alpha: float
    drop: float
    speed: float
    beta: float = FLATTEST
    gamma: float = STEEPEST
    warmup: bool = False

    @classmethod
    def published(cls, parameters: Sequence[float], peak: float) -> Law:
        """Return the law with parameters as Luo et al. give them, of lrs as they are.

        Their sum goes over the warm-up as well, whose rises count as drops below zero.

        Args:
            parameters: L0, A, alpha, B, C, beta, gamma.
            peak: the highest lr.
        """
        floor, amplitude, alpha, drop, speed, beta, gamma = parameters
        return cls(
            floor,
            amplitude * (1000 * peak) ** -alpha,
            alpha,
            drop * peak,
            speed * peak ** (1 - gamma),
            beta,
            gamma,
            warmup=True,
        )

    def losses(self, lrs: NDArray[Any], steps: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Return the loss after some numbers of steps of a run with these lrs.

        Args:
            lrs: the lr of every step of the run, an array of one dimension.
            steps: after how many steps, from 1 to the length of ``lrs``.
        """
        return _Course(lrs, steps, self.warmup, READ).losses(self)


class _Course:
    """A run's lrs as the law reads them: sums, and its changes gathered into nodes."""

    def __init__(
        self,
        lrs: NDArray[Any],
        steps: Sequence[int] | NDArray[Any],
        warmup: bool = False,
        nodes: int = NODES,
    ) -> None:
        import numpy as np

        u = np.maximum(lrs / lrs.max(), LOWEST)
        sums = np.concatenate([[0.0], np.cumsum(u)])
        at = np.asarray(steps, dtype=int)
        self.total = sums[at]
        start = 0 if warmup else int(u.argmax())
        changes = np.diff(u, prepend=0.0 if warmup else u[0])
        changes[: start + (not warmup)] = 0.0
        places, first = _gathered(changes, nodes)
        sizes = np.abs(changes[places])
        self.drops = -np.add.reduceat(changes[places], first)
        weighed = np.add.reduceat(sizes * places, first) / np.add.reduceat(sizes, first)
        middle = np.rint(weighed).astype(int)
        self.lrs = u[middle]
        # The sum of u from node k to t, for each t and node; nothing before the node.
        self.since = np.maximum(sums[at][:, None] - sums[middle][None, :], 0.0)

    def losses(self, law: Law) -> NDArray[Any]:
        """Return the loss at each of the steps."""
        inner = 1 - (1 + law.speed * self.lrs**-law.gamma * self.since) ** -law.beta
        falls = law.drop * (inner * self.drops).sum(axis=1)
        losses: NDArray[Any] = law.floor + law.amplitude * (self.total / 1000) ** -law.alpha - falls
        return losses


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """A law, how surely its parameters are known, and what it was fitted to.

    Attributes:
        law: the most likely one.
        peak: the highest lr of the runs, which all candidates must share.
        spread: covariance of the logarithms of the fitted parameters.
        error: root mean square of what was not explained of the logarithm of the losses.
        notes: what weakens the fit, in words.
    """

    law: Law
    peak: float
    spread: NDArray[Any]
    error: float
    notes: tuple[str, ...]

    def losses(self, lrs: NDArray[Any], steps: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Return what `Law.losses` does.

        Args:
            lrs: the lr of every step of the run, an array of one dimension.
            steps: after how many steps, from 1 to the length of ``lrs``.
        """
        return self.law.losses(lrs, steps)

    def slopes(self, lrs: NDArray[Any], step: int) -> NDArray[Any]:
        """Return how the loss after ``step`` follows the logarithm of each fitted parameter.

        Args:
            lrs: the lr of every step of the run, an array of one dimension.
            step: after how many steps, from 1 to the length of ``lrs``.
        """
        import numpy as np

        course = _Course(lrs, [step], self.law.warmup)
        point = _logarithms(self.law, len(self.spread))
        delta, found = 1e-4, []
        for i in range(len(point)):
            ends = []
            for sign in (1, -1):
                moved = point.copy()
                moved[i] += sign * delta
                ends.append(course.losses(_law(moved))[0])
            found.append((ends[0] - ends[1]) / (2 * delta))
        return np.array(found)


FIELDS: Final = ("floor", "amplitude", "alpha", "drop", "speed", "beta", "gamma")
STARTS: Final = ((0.9, 0.5, 0.01), (0.6, 0.3, 0.02), (0.3, 0.2, 0.005))
PRIOR: Final = ((math.log(0.01), 1.0), (math.log(0.075), 0.4))  # of speed; of drop / lowest loss


def fit(logs: Sequence[Log], *, full: bool = False) -> FittedLaw:
    """Fit the law to one run or several of one model, data and peak lr.

    Five parameters by soft-L1 least squares of the logarithm of the loss, with weak priors for
    the speed (about 0.01 a step) and the drop (about 0.075 of the loss), which runs without a
    plateau and a decay leave open. What was logged in the warm-up is left out.

    Args:
        logs: the runs.
        full: fit the two exponents of the last term as well.

    Raises:
        LogError: no logs, logs of different peak lrs, or too few losses after the warm-up.

    >>> from ratecraft import wsd
    >>> made, steps = (0.01 * wsd(50)).resolve(total_steps=1000), range(20, 1001, 20)
    >>> losses = Law(2.5, 0.9, 0.45, 0.2, 0.012).losses(made.values(), steps)
    >>> fitted = fit([Log(steps, losses.tolist(), schedule=made)])
    >>> round(fitted.law.floor, 1), fitted.peak, fitted.error < 0.001
    (2.5, 0.01, True)

    Source: Luo et al. 2025, arXiv 2503.12811; the priors are ours.
    """
    import numpy as np
    from scipy.optimize import least_squares

    if not logs:
        raise LogError("no logs: a law is fitted to at least one run")
    for log in logs:
        if not isinstance(log, Log):
            raise TypeError(f"a Log was expected, not {log!r}; read_logs(path) gives some")
    peak = logs[0].peak
    for log in logs[1:]:
        if abs(log.peak / peak - 1) > SAME:
            raise LogError(
                f"{logs[0].name} has a peak lr of {peak:.4g}, {log.name} of {log.peak:.4g}; "
                "the law knows one peak lr: give runs of one"
            )
    seen = [_points(log) for log in logs]
    courses = [_Course(log.every_lr, at) for log, (at, _) in zip(logs, seen, strict=True)]
    measured = [np.log(losses) for _, losses in seen]
    lowest = min(float(np.exp(one).min()) for one in measured)

    def unexplained(point: NDArray[Any]) -> list[NDArray[Any]]:
        law = _law(point)
        told = [np.log(np.maximum(course.losses(law), 1e-9 * lowest)) for course in courses]
        return [a - b for a, b in zip(told, measured, strict=True)]

    def gaps(point: NDArray[Any], noise: float) -> NDArray[Any]:
        # Neighbouring losses are not independent: a log weighs as much as 60 that are.
        each = [math.sqrt(60 / len(one)) / noise * one for one in unexplained(point)]
        priors = [
            (point[4] - PRIOR[0][0]) / PRIOR[0][1],
            (point[3] - math.log(lowest) - PRIOR[1][0]) / PRIOR[1][1],
        ]
        if full:
            priors += [(x - math.log(FLATTEST)) / 0.1 for x in point[5:]]
        return np.concatenate([*each, priors])

    best: Any = None
    for share, alpha, speed in STARTS:
        first = _Course(logs[0].every_lr, seen[0][0][:1]).total[0] / 1000
        amplitude = max(math.exp(measured[0][0]) - share * lowest, 0.05 * lowest) * first**alpha
        start = np.log([share * lowest, amplitude, alpha, 0.075 * lowest, speed, 0.6, 0.6])
        point = start if full else start[:5]
        found = least_squares(
            gaps,
            point,
            args=(NOISE,),
            loss="soft_l1",
            bounds=_limits(point),
            max_nfev=400,
        )
        if best is None or found.cost < best.cost:
            best = found
    error = math.sqrt(np.mean(np.concatenate(unexplained(best.x)) ** 2))
    if error > NOISE:  # once more, by the noise that there is
        best = least_squares(
            gaps,
            best.x,
            args=(error,),
            loss="soft_l1",
            bounds=_limits(best.x),
            max_nfev=400,
        )
        error = math.sqrt(np.mean(np.concatenate(unexplained(best.x)) ** 2))
    spread = np.linalg.pinv(best.jac.T @ best.jac)
    return FittedLaw(_law(best.x), peak, spread, error, _weaknesses(logs, error))


def _limits(point: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return how far a fit may go from where it begins; no power law falls with t^-5."""
    low, high = point - 12, point + 12
    low[2], high[2] = min(math.log(0.01), point[2]), max(math.log(5), point[2] + 1e-9)
    return low, high


SAME: Final = 0.01  # of a peak lr
LOUD: Final = 0.03  # unexplained: more is told
FEW: Final = 0.2  # a stretch shorter than this share of a run tells little


def _weaknesses(logs: Sequence[Log], error: float) -> tuple[str, ...]:
    """Return what these runs cannot tell, in words."""
    plateau = max(
        float((log.every_lr[log.warmup :] >= (1 - SAME) * log.peak).mean()) for log in logs
    )
    ends = [float(log.every_lr[-max(len(log.every_lr) // 100, 1) :].mean()) for log in logs]
    notes = [
        f"the lrs of {log.name} begin at step {log.begins:,}; those before were taken "
        f"to be {log.every_lr[0]:.3g} as there: say the plan of that run"
        for log in logs
        if log.begins > 0.05 * len(log.every_lr)
    ]
    if error > LOUD:
        notes.append(
            f"the law leaves {error:.1%} of the logged losses unexplained: noise, overfitting or "
            "an instability, for which it has no term"
        )
    if plateau < FEW:
        notes.append(
            "none of the runs stays at its peak lr, so that time and decay cannot be told "
            "apart well: add a run with a plateau and a decay, such as a WSD"
        )
    if min(end / log.peak for end, log in zip(ends, logs, strict=True)) > 0.5:
        notes.append(
            "none of the runs lets its lr fall, so that what a decay gives is a guess from "
            "other models: add a run with a decay, such as a WSD"
        )
    return tuple(notes)


def _points(log: Log) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the losses of a log after its warm-up, gathered into at most `POINTS` means."""
    import numpy as np

    steps, losses = np.asarray(log.steps, int), np.asarray(log.losses, float)
    late = steps > max(log.warmup, 0)
    steps, losses = steps[late], losses[late]
    if len(steps) < FEWEST:
        raise LogError(
            f"{log.name}: {len(steps)} losses after its warm-up of {log.warmup} steps; a law "
            f"needs at least {FEWEST}, better 50"
        )
    groups = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    middle = np.array([round(steps[group].mean()) for group in groups])
    return middle, np.array([losses[group].mean() for group in groups])


def _law(point: NDArray[Any]) -> Law:
    import numpy as np

    return Law(**dict(zip(FIELDS, np.exp(point).tolist(), strict=False)))


def _logarithms(law: Law, count: int) -> NDArray[Any]:
    import numpy as np

    return np.log([getattr(law, name) for name in FIELDS[:count]])


def _gathered(changes: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the steps that change something, and where groups that act as one begin in them.

    There are about ``count`` groups. Each has a like share of all that changes; clear rises and
    falls, and what lies far apart, stay apart. What is small, as the rounding of a log, goes with
    what is beside it.
    """
    import numpy as np

    places = np.flatnonzero(changes)
    if not len(places):
        return places, places
    sizes = np.abs(changes[places])
    share = np.floor((np.cumsum(sizes) - sizes / 2) / sizes.sum() * count)
    clear = np.sign(changes[places]) * (sizes > CLEAR)
    cuts = (np.diff(share) > 0) | (np.diff(places) > max(1, len(changes) // count))
    cuts |= clear[1:] * clear[:-1] < 0
    return places, np.flatnonzero(np.concatenate([[True], cuts]))

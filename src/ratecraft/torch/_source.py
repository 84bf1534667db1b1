"""ScheduleSource: the schedules of one hyperparameter, as curves in the param groups; checks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Schedule, constant

from ._config import ScheduleConfig
from ._factors import Factors, FactorSource
from ._hyperparam import group_name, is_same_lr
from ._writer import HyperparamWriter

T = TypeVar("T")

MAX_SUSPECT_FACTOR: Final = 0.01  # a factor= that never exceeds this looks like an lr
PEAK_GRID_POINTS: Final = 512


class ScheduleSource(FactorSource):
    """The schedules of one hyperparameter, as curves in the param groups of an optimizer.

    Attributes:
        schedules: one for all groups, or one for each.
        curves: the distinct curves.
        curve_index: for each group, the index of its curve.
        min_factors: eta_min / base of each group: f becomes m + (1 - m) f; None without eta_min.
        evaluate: returns the factors at t.
    """

    evaluate: Callable[[float], Factors]

    def __init__(
        self,
        config: ScheduleConfig,
        hyperparam: str,
        group_names: Sequence[str],
        base: Sequence[float],
        current_t: Callable[[], float],
        initial_group_count: int | None = None,
    ) -> None:
        count = len(group_names) if initial_group_count is None else initial_group_count
        names, self.schedules = group_names[:count], config.schedules[hyperparam]
        is_lr = hyperparam == "lr"
        super().__init__(
            sets_lr=config.sets_lr and is_lr, for_all_groups=isinstance(self.schedules, Schedule)
        )
        self._argument = config.argument if is_lr else ""
        self._eta_min, self._current_t = config.eta_min if is_lr else None, current_t
        by_group = _by_group_name(self.schedules, names, f"{self._argument or hyperparam}=")
        distinct = list(dict.fromkeys(by_group.values()))
        self.curves = [config.resolve(schedule) for schedule in distinct]
        self.curve_index = [distinct.index(by_group[name]) for name in names]
        self.min_factors: list[float] | None = None
        if self._eta_min is not None:
            self.min_factors = _min_factors(self._eta_min, names, base[:count])
        self._choose_evaluation()
        for value in base[count:]:  # of groups that were added later
            self._add_group(value)

    def _choose_evaluation(self) -> None:
        self.uniform = len(self.curves) == 1 and self.min_factors is None
        self.evaluate = self.curves[0].cursor() if self.uniform else self._evaluate_by_group

    def _evaluate_by_group(self, t: float) -> Factors:
        return self._by_group([curve(t) for curve in self.curves])

    def _by_group(self, values: list[float]) -> list[float]:
        """Return each group's factor, from the value of each curve."""
        if self.min_factors is None:
            return [values[i] for i in self.curve_index]
        pairs = zip(self.curve_index, self.min_factors, strict=True)
        return [low + (1 - low) * values[i] for i, low in pairs]

    def _add_group(self, base: float) -> None:
        """Add a group; schedules by group leave its value unchanged."""
        if self.for_all_groups:
            self.curve_index.append(0)
        else:
            self.curves.append(constant(base if self.sets_lr else 1).resolve())
            self.curve_index.append(len(self.curves) - 1)
        if self.min_factors is not None:
            eta_min = 0.0 if isinstance(self._eta_min, Mapping) else self._eta_min or 0.0
            self.min_factors.append(min(eta_min / base, 1.0) if base else 0.0)
        self._choose_evaluation()

    def current_factors(self) -> Factors:
        """Return the factors of the current step."""
        return self.evaluate(self._current_t())

    def factors_with_new_group(self, base: float) -> Factors:
        self._add_group(base)
        return self.current_factors()

    def reorder(self, order: list[int]) -> None:
        super().reorder(order)
        self.curve_index = [self.curve_index[j] for j in order]
        if self.min_factors is not None:
            self.min_factors = [self.min_factors[j] for j in order]

    def peaks(self) -> list[float]:
        """Return each group's peak factor over the run."""
        return self._by_group([peak(curve) for curve in self.curves])

    def describe(self, group: str) -> str:
        schedule = self.schedules
        if isinstance(schedule, Mapping):
            if group not in schedule:
                return ""
            schedule = schedule[group]
        return f"{self._argument} {schedule}".lstrip()


def _by_group_name(
    given: T | Mapping[str, T], group_names: Sequence[str], argument: str
) -> Mapping[str, T]:
    """Return each group's value; refuse a dict that does not have the names of the groups."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(group_names, given)
    unknown = [name for name in given if name not in group_names]
    missing = [name for name in group_names if name not in given]
    if unknown:
        problem = f"an entry for {unknown[0]!r}, which is not a param group"
    elif missing:
        problem = f"no entry for group {missing[0]!r}"
    else:
        return given
    advice = ""
    if argument in ("lr=", "factor="):
        advice = ". For a group that keeps its lr pass factor= with constant(1)"
    raise BindingError(
        f"{argument} is a dict and has {problem}; the groups are {', '.join(group_names)}{advice}"
    )


def _min_factors(
    given: float | Mapping[str, float], group_names: Sequence[str], base: Sequence[float]
) -> list[float]:
    by_group, min_factors = _by_group_name(given, group_names, "eta_min="), []
    for group, value in zip(group_names, base, strict=True):
        eta_min = by_group[group]
        if not 0 <= eta_min <= value:
            raise BindingError(
                f"eta_min={eta_min:g} of group {group}: expected between 0 and its base lr, "
                f"{value:g}"
            )
        min_factors.append(eta_min / value if value else 0.0)
    return min_factors


def peak(curve: Curve) -> float:
    """Return the bound of an endless curve, or its largest absolute value on a refined grid."""
    if math.isinf(curve.length) and (bound := curve.bound):
        return bound
    low = 0
    high = math.ceil(curve.length) if math.isfinite(curve.length) else PEAK_GRID_POINTS
    while True:
        stride = max(-(-(high - low) // PEAK_GRID_POINTS), 1)
        grid = [*range(low, high, stride), high]
        values = [abs(curve(t)) for t in grid]
        if stride == 1:
            return max(values)
        best = grid[values.index(max(values))]
        low, high = max(low, best - stride), min(high, best + stride)


def check_lr_or_factor(source: ScheduleSource, base: list[float]) -> None:
    """Refuse an lr= that would overwrite different base lrs, and a factor= that is likely an lr."""
    equal = all(is_same_lr(value, base[0]) for value in base)
    if source.sets_lr and source.for_all_groups and not equal:
        raise BindingError(
            f"lr= sets one lr for all param groups, but they have different ones: {base}; pass "
            "factor= to keep their ratios, or lr={group: schedule}"
        )
    peaks = [peak(curve) for curve in source.curves]
    # A factor of 0 freezes a group, and a small factor next to a larger one is a ratio: both pass.
    if not source.sets_lr and 0 < max(peaks) <= MAX_SUSPECT_FACTOR:
        i = peaks.index(max(peaks))
        value, schedule = base[source.curve_index.index(i)], source.curves[i].schedule
        raise BindingError(
            f"factor={schedule!r} multiplies lr={value:g} by at most {peaks[i]:g}, so the lr never "
            f"exceeds {value * peaks[i]:.3g}; did you mean lr={schedule!r}?"
        )


def warn_of_ratios(writer: HyperparamWriter, base: list[float]) -> None:
    """Warn, at the first step, of groups whose lr is not their initial_lr in a new run."""
    for i, (lr, initial_lr) in enumerate(
        zip(writer.hyperparam.values(writer.groups), base, strict=True)
    ):
        if is_same_lr(lr, initial_lr):
            continue
        warning = f"{group_name(writer.groups[i], i)}: lr is {lr:g}"
        if lr == 0 or initial_lr == 0:
            warning += (
                f" and its initial_lr is {initial_lr:g}; their ratio is 0 or undefined, so the "
                "schedule starts from initial_lr"
            )
        else:
            warning += (
                f", which is {lr / initial_lr:g} of its initial_lr {initial_lr:g}; the ratio is "
                "kept as an external factor. To start from lr, write del group['initial_lr']; to "
                "resume a run, pass initial_step= or load a state dict"
            )
        writer.pending_warnings.append(warning)

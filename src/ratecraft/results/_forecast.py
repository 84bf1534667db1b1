"""Predicted losses of schedules that were not run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratecraft._render._axis import number
from ratecraft._render._chart import Chart, Line
from ratecraft.schedule import Curve, parse

from ._base import (
    FiniteFloat,
    NonNegativeFloat,
    PositiveSteps,
    SavedResult,
    Steps,
    pluralize,
    short_repr,
)
from ._charts import MAX_CHART_LINES, late_ys, with_margin


@dataclass(frozen=True, slots=True)
class ForecastEntry:
    """Predicted losses of one schedule.

    Attributes:
        name: name of the schedule.
        schedule: text of the schedule, whose values are learning rates.
        loss: predicted loss at the end of the run.
        low: lower end of an interval that contains the loss with a probability of 80 % or more.
        high: upper end of that interval.
        steps: steps at which ``losses`` are predicted.
        losses: predicted loss after each of ``steps``.
        notes: reasons why this prediction is uncertain.
    """

    name: str
    schedule: str
    loss: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    steps: tuple[Steps, ...]
    losses: tuple[FiniteFloat, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        interval = f"{number(self.low)} to {number(self.high)}"
        return short_repr(self, self.name, f"loss {number(self.loss)} ({interval})")

    def curve(self, total_steps: int, steps_per_epoch: float | None = None) -> Curve:
        """Return the learning rates of a run; ``steps_per_epoch`` is needed for epochs."""
        schedule = parse(self.schedule)
        return schedule.resolve(total_steps=total_steps, steps_per_epoch=steps_per_epoch)


@dataclass(frozen=True, slots=True)
class Forecast(SavedResult):
    """Losses of schedules that were not run, predicted by a law fitted to logs.

    Attributes:
        entries: predictions, lowest loss first.
        tied: pairs of names that the law cannot rank.
        total_steps: length of the runs, in steps.
        steps_per_epoch: steps per epoch, or ``None``.
        peak_lr: highest learning rate of the logged runs.
        logs: steps and losses of each logged run, by name.
        law: parameters of the fitted law.
        error: root mean square residual of the logarithms of the logged losses.
        notes: reasons why all predictions are uncertain.
    """

    entries: tuple[ForecastEntry, ...]
    tied: tuple[tuple[str, str], ...]
    total_steps: PositiveSteps
    steps_per_epoch: NonNegativeFloat | None
    peak_lr: NonNegativeFloat
    logs: Mapping[str, tuple[tuple[Steps, ...], tuple[FiniteFloat, ...]]]
    law: Mapping[str, FiniteFloat]
    error: NonNegativeFloat
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [pluralize(len(self.entries), "schedule"), pluralize(self.total_steps, "step")]
        for best in self.entries[:1]:
            parts += [f"best {best.name}", f"loss {number(best.loss)}"]
        return short_repr(self, *parts)

    def chart(self, limit: int = MAX_CHART_LINES) -> Chart:
        """Return the chart of the logged losses and up to ``limit`` forecasts, the best first."""
        logged = [Line(f"logged: {name}", *line, "faint") for name, line in self.logs.items()]
        entries = self.entries[:limit]
        predicted = [Line(entry.name, entry.steps, entry.losses) for entry in entries]
        late = late_ys(predicted, self.total_steps)
        high = max(late + [entry.high for entry in entries])
        return Chart(
            lines=[*logged, *predicted],
            title="Forecast loss",
            y_label="loss",
            y_range=with_margin(min(entry.low for entry in entries), high),
        )

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        rows = [
            (entry.name, f"{entry.loss:.4g}", f"{entry.low:.4g} to {entry.high:.4g}")
            for entry in self.entries
        ]
        return ("schedule", "final loss", "interval"), rows

    def verdict(self) -> str:
        """Return a sentence that names the best schedule and its margin."""
        best = self.entries[0]
        tied = {name for pair in self.tied if best.name in pair for name in pair}
        equal = [entry.name for entry in self.entries[1:] if entry.name in tied]
        lead = f"{best.name} would end at {best.loss:.4g} ({best.low:.4g} to {best.high:.4g})"
        if len(self.entries) == 1:
            return lead
        if len(equal) == len(self.entries) - 1:
            return f"{lead}; the law cannot rank it above any other schedule"
        if equal:
            return f"{lead}; the law cannot rank it above {' or '.join(equal)}"
        second = self.entries[1]
        return f"{lead}, {second.loss - best.loss:.2g} below {second.name}"

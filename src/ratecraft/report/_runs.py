"""What a report says of single runs: one line each, and what every epoch measured."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from ratecraft._render._axis import number
from ratecraft.results import Comparison, Evaluation, Run

from . import _html as html
from ._comparison import figure_keys

ROWS: Final = 8000  # of all epochs together: some 100 bytes each


def runs_section(comparison: Comparison) -> list[str]:
    """Return every run, folded: a table of all, and a fold for each candidate."""
    columns = _Columns(comparison)
    most = max(ROWS // max(len(comparison.runs), 1), 5)
    folds = []
    for name, key in figure_keys(comparison).items():
        tables = [
            _epochs(run, columns, most) for run in comparison.runs_for(name) if run.evaluations
        ]
        if tables:
            folds.append(html.fold(f"{key}{escape(name)}", tables))
    return [html.fold("Every run", [_overview(comparison), *folds])]


def _overview(comparison: Comparison) -> str:
    metrics = comparison.metrics()
    rows, keys = [], figure_keys(comparison)
    for name in comparison.schedules:
        for run in comparison.runs_for(name):
            cells = [f"{keys[name]}{escape(name)}", str(run.seed), number(run.lr)]
            cells += [_text(run.final(metric)) for metric in metrics]
            cells += [f"{len(run.losses)}{_fate(run)}", f"{number(run.seconds, 3)} s"]
            rows.append(html.row(cells))
    head = ["schedule", "seed", "lr", "validation loss", *metrics[1:], "steps", "time"]
    return html.table(head, rows)


def _fate(run: Run) -> str:
    if run.diverged is not None:
        return ", diverged"
    return ", stopped early" if run.stopped is not None else ""


def _text(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


class _Columns:
    """The columns that the tables of epochs have in common, so that they can be compared."""

    def __init__(self, comparison: Comparison) -> None:
        evaluations = [one for run in comparison.runs for one in run.evaluations]
        trained = {name for one in evaluations for name in one.train}
        self.measured = [
            (kind, name)
            for name in comparison.metrics()
            for kind in ("training", "validation")
            if kind == "validation" or name in trained
        ]
        self.groups = list(dict.fromkeys(name for one in evaluations for name in one.lrs))

    def head(self) -> list[str]:
        lrs = [f"lr of {name}" for name in self.groups] if len(self.groups) > 1 else ["lr"]
        return ["epoch", "step", *(f"{kind} {name}" for kind, name in self.measured), *lrs]

    def cells(self, run: Run, one: Evaluation) -> list[str]:
        sides = {"training": one.train, "validation": one.metrics}
        values = [sides[kind].get(name, math.nan) for kind, name in self.measured]
        values += [one.lrs.get(name, math.nan) for name in self.groups]
        if not self.groups:  # a result that was written before lrs were noted
            values.append(run.curve()(one.step - 1))
        epoch = number(one.step / max(run.steps_per_epoch, 1))
        return [epoch, str(one.step), *map(_text, values)]


def _epochs(run: Run, columns: _Columns, most: int) -> str:
    """Return a table of what was measured in a run, at ``most`` evaluations."""
    count = len(run.evaluations)
    kept = list(range(count))
    title = f"seed {run.seed}{_fate(run)}"
    if count > most:
        kept = sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
        title += f": {len(kept)} of {count} evaluations, all of which are in the result"
    rows = [html.row(columns.cells(run, run.evaluations[i]), texts=0) for i in kept]
    return f"<p>{title}</p>\n{html.table(columns.head(), rows, texts=0, kind='small')}"

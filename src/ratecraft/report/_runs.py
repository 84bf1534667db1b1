"""Report tables of single runs and their evaluations."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from ratecraft._render._axis import number
from ratecraft._render._html import table, table_row
from ratecraft.results import Comparison, Evaluation, Run

from . import _html as html
from ._comparison import color_keys

MAX_EVALUATION_ROWS: Final = 8000  # in the whole page, about 100 bytes each


def runs_section(comparison: Comparison) -> list[str]:
    """Return a collapsed section: a table of all runs, then the evaluations of each candidate."""
    columns = _EvaluationColumns(comparison)
    max_rows = max(MAX_EVALUATION_ROWS // max(len(comparison.runs), 1), 5)
    sections = []
    for name, key in color_keys(comparison).items():
        tables = [
            _evaluations(run, columns, max_rows)
            for run in comparison.runs_for(name)
            if run.evaluations
        ]
        if tables:
            sections.append(html.collapsible(f"{key}{escape(name)}", tables))
    return [html.collapsible("Runs", [_overview(comparison), *sections])]


def _overview(comparison: Comparison) -> str:
    metrics = comparison.metrics()
    rows, keys = [], color_keys(comparison)
    for name in comparison.schedules:
        for run in comparison.runs_for(name):
            cells = [f"{keys[name]}{escape(name)}", str(run.seed), number(run.lr)]
            cells += [_format(run.final(metric)) for metric in metrics]
            cells += [f"{len(run.losses)}{_status(run)}", f"{number(run.seconds, 3)} s"]
            rows.append(table_row(cells))
    head = ["schedule", "seed", "learning rate", "validation loss", *metrics[1:], "steps", "time"]
    return table(head, rows)


def _status(run: Run) -> str:
    if run.diverged is not None:
        return ", diverged"
    return ", stopped early" if run.stopped is not None else ""


def _format(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


class _EvaluationColumns:
    """The columns of the evaluation tables, the same for all runs of a comparison."""

    def __init__(self, comparison: Comparison) -> None:
        evaluations = [evaluation for run in comparison.runs for evaluation in run.evaluations]
        training_metrics = {name for evaluation in evaluations for name in evaluation.train}
        self.metrics = [
            (data, name)
            for name in comparison.metrics()
            for data in ("training", "validation")
            if data == "validation" or name in training_metrics
        ]
        groups = (name for evaluation in evaluations for name in evaluation.lrs)
        self.groups = list(dict.fromkeys(groups))

    def head(self) -> list[str]:
        lrs = ["learning rate"]
        if len(self.groups) > 1:
            lrs = [f"learning rate of {name}" for name in self.groups]
        return ["epoch", "step", *(f"{data} {name}" for data, name in self.metrics), *lrs]

    def cells(self, run: Run, evaluation: Evaluation) -> list[str]:
        metrics = {"training": evaluation.train, "validation": evaluation.metrics}
        values = [metrics[data].get(name, math.nan) for data, name in self.metrics]
        values += [evaluation.lrs.get(name, math.nan) for name in self.groups]
        if not self.groups:  # the result does not store learning rates
            values.append(run.curve()(evaluation.step - 1))
        epoch = number(evaluation.step / max(run.steps_per_epoch, 1))
        return [epoch, str(evaluation.step), *map(_format, values)]


def _evaluations(run: Run, columns: _EvaluationColumns, max_rows: int) -> str:
    """Return a table of a run's evaluations, evenly thinned to ``max_rows``."""
    count = len(run.evaluations)
    indices = list(range(count))
    title = f"seed {run.seed}{_status(run)}"
    if count > max_rows:
        indices = sorted({round(i * (count - 1) / (max_rows - 1)) for i in range(max_rows)})
        title += f": {len(indices)} of {count} evaluations; the result file has all"
    rows = [table_row(columns.cells(run, run.evaluations[i]), text_columns=0) for i in indices]
    listed = table(columns.head(), rows, text_columns=0, css_class="small")
    return f"<p>{title}</p>\n{listed}"

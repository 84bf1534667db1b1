"""The section that makes a comparison again: the call of `compare`, and the curves of its runs."""

import ast
import json
import math
import re
from collections.abc import Iterable
from html import escape
from operator import attrgetter
from typing import Any, Final

from ratecraft._render._html import collapsible, heading
from ratecraft.errors import RatecraftError
from ratecraft.results import Comparison, Run
from ratecraft.results._run import SCRIPT_SCHEDULE
from ratecraft.schedule import parse
from ratecraft.schedule._parser import WORDS

from ._grid import grid_points

NAMED_TASK: Final = r"digits|stdlib-text|\S+:\w+"  # that `compare` loads by its name
MAX_OPEN_RECIPES: Final = 12  # candidates whose curves are shown without a click


def reproduce_section(comparison: Comparison) -> str:
    """Return the footer: how to make the comparison again, and where it was made."""
    entries = "\n".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
        for key, value in comparison.environment.items()
    )
    curves = f"<pre><code>{escape(recipe(comparison))}</code></pre>"
    words = "These curves give the learning rate of every step:"
    if len(comparison.schedules) > MAX_OPEN_RECIPES:
        shown = collapsible("The learning rate of every step", [curves])
    else:
        shown = f"<p>{words}</p>\n{curves}"
    return (
        f"<footer>\n{heading('Reproduce')}\n"
        "<p>Seeds set the initial weights and the order of the data. "
        f"This file trains {trained_runs(comparison)}:</p>\n"
        f"<pre><code>{escape(compare_call(comparison))}</code></pre>\n{shown}\n"
        + (f"{heading('Environment')}\n<dl>\n{entries}\n</dl>\n" if entries else "")
        + "</footer>"
    )


def trained_runs(comparison: Comparison) -> str:
    """Return which runs the call of `compare` trains: it combines all settings with each other."""
    points = grid_points(comparison)
    seeds = {run.seed for run in comparison.runs}
    runs = {(name, run.seed) for name in points for run in comparison.runs_for(name)}
    columns = zip(*points.values(), strict=True)
    combinations = math.prod(len(set(column)) for column in columns) * len(seeds)
    if len(runs) < combinations:
        return "these runs, and the other combinations of their settings"
    return "the comparison again"


def compare_call(comparison: Comparison) -> str:
    """Return Python code that trains the comparison again, as `trained_runs` describes."""
    points = grid_points(comparison)
    texts = {point.schedule: comparison.schedules[name] for name, point in points.items()}
    codes = {name: _code(text) for name, text in texts.items()}
    task = _task(comparison)
    is_script = task.startswith("Script(")
    arguments = [task]
    if not is_script or "{schedule}" in task or any(map(_is_in_notation, texts.values())):
        arguments.append("{")
        arguments += [f"    {_quoted(name)}: {code}," for name, code in codes.items()]
        arguments.append("},")
    lrs = _distinct(point.lr for point in points.values())
    arguments.append(f"lrs={_plain(lrs)},")
    optimizers = _distinct(point.optimizer or None for point in points.values())
    if optimizers != [None]:
        arguments.append(f"optimizers={_plain(optimizers)},")
    seeds = _distinct(run.seed for run in comparison.runs)
    counted = seeds == list(range(len(seeds)))
    arguments.append(f"seeds={len(seeds) if counted else seeds!r},")
    lengths = _distinct(point.total_steps for point in points.values())
    if not is_script or "{total_steps}" in task:
        arguments.append(f"total_steps={_plain(lengths)},")
    if any(run.stopped is not None for run in comparison.runs):
        arguments.append("halving=True,")
    has_plateau = any(code.startswith("Plateau(") for code in codes.values())
    classes = [*["Plateau"] * has_plateau, *["Script"] * is_script]
    return "\n".join(
        [
            f"from ratecraft import {', '.join(['compare', *_imported(codes.values())])}",
            *(f"from ratecraft.experiments import {name}" for name in classes),
            "",
            'if __name__ == "__main__":  # worker processes import this file',
            "    result = compare(",
            *(f"        {argument}" for argument in arguments),
            "    )",
        ]
    )


def _task(comparison: Comparison) -> str:
    """Return the first argument. `compare` records a task's name; a function has none."""
    task = comparison.environment.get("task", "")
    if not task and re.fullmatch(NAMED_TASK, comparison.task):  # the runs of a store
        task = comparison.task
    if task.startswith("Script("):
        return f"{task},"
    description = " ".join(comparison.task.split())
    return f"{_quoted(task)}," if task else f"task,  # the function of: {description}"


def _is_in_notation(text: str) -> bool:
    return not text.startswith(SCRIPT_SCHEDULE)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _plain(values: list[Any]) -> str:
    texts = [_quoted(value) if isinstance(value, str) else repr(value) for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _code(text: str) -> str:
    """Return Python code of a schedule; one that cannot be read, as from a file, is a string."""
    if not _is_in_notation(text):
        return _quoted(text.removeprefix(SCRIPT_SCHEDULE))
    try:
        if not text.startswith("plateau("):
            return text if repr(parse(text)) == text else f"parse({_quoted(text)})"
        call: Any = ast.parse(text, mode="eval").body
        schedule = ast.unparse(call.args[0]) if call.args else "constant(1)"
        options = [f"{k.arg}={ast.literal_eval(k.value)!r}" for k in call.keywords]
        return f"Plateau({', '.join([repr(parse(schedule)), *options])})"
    except (RatecraftError, SyntaxError, ValueError, AttributeError):
        return f"parse({_quoted(text)})"


def _imported(codes: Iterable[str]) -> list[str]:
    """Return the words of the notation that some code uses."""
    trees = [ast.parse(code, mode="eval") for code in codes]
    names = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return sorted(names & {*WORDS, "parse"})


def recipe(comparison: Comparison) -> str:
    """Return Python code that builds every curve."""
    lines = ["from ratecraft import parse", ""]
    for name in comparison.schedules:
        curves: dict[str, list[Run]] = {}
        for run in filter(attrgetter("has_curve"), comparison.runs_for(name)):
            # A plateau schedule's learning rates differ by seed.
            curves.setdefault(run.realized_schedule or run.schedule, []).append(run)
        for text, runs in curves.items():
            first, seeds = runs[0], ", ".join(repr(run.seed) for run in runs)
            lines.append(f"# {' '.join(name.split())}: seeds {seeds}")
            schedule = f"({first.lr!r} * parse({text!r}))"
            sizes = f"total_steps={first.total_steps}, steps_per_epoch={first.steps_per_epoch}"
            lines.append(f"{schedule}.resolve({sizes})")
    return "\n".join(lines)

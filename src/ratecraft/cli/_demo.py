"""demo: find a learning rate for handwritten digits, and compare five schedules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ratecraft.errors import RunFailed
from ratecraft.schedule import epochs, parse

from ._compare import compare_and_print, fail_if_all_diverged
from ._console import check_counts, has_color, out
from ._files import check_output, write_comparison
from ._find import find_and_print

if TYPE_CHECKING:
    from ratecraft.experiments._plateau import Candidate


DEMO_SCHEDULES: Final = {
    "constant": "constant(1)",
    "step decay": "staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])",
    "exponential": "exponential(1, 0.01)",
    "cosine": "warmup(percent(5)).then(cosine(1, 0))",
    "WSD": "warmup(percent(5)).then(constant(1)).then(cooldown(percent(20)))",
}


def demo(*, folder: Path = Path("ratecraft-demo"), seeds: int = 3) -> None:
    """Find a learning rate for handwritten digits, compare five schedules and write a report.

    Nothing is downloaded.

    Example: `ratecraft demo --seeds 2`

    Args:
        folder: Folder for the report and the results.
        seeds: Number of seeds for each schedule.
    """
    from ratecraft.experiments import load_task
    from ratecraft.report import terminal_curve

    check_counts(seeds)
    check_output(folder / "report.html")
    task = load_task("digits")
    total_steps = epochs(10)
    _print_heading("1 Find a learning rate by short runs")
    lr_search = find_and_print(task, "digits", total_steps=total_steps)
    if lr_search.lr is None:
        raise RunFailed(lr_search.reason)
    _print_heading(f"2 Draw five schedules at lr {lr_search.lr:.3g}")
    schedules: dict[str, Candidate] = {name: parse(text) for name, text in DEMO_SCHEDULES.items()}
    curves = {
        name: (lr_search.lr * parse(text)).resolve(
            total_steps=total_steps, steps_per_epoch=task.steps_per_epoch
        )
        for name, text in DEMO_SCHEDULES.items()
    }
    out.print(terminal_curve(curves, color=has_color()), markup=False)
    _print_heading(f"3 Train each schedule with {seeds} seeds")
    result = compare_and_print(
        "digits", schedules, lrs=lr_search.lr, seeds=seeds, total_steps=total_steps
    )
    lr_search.save(folder / "lr-finder.json")
    write_comparison(
        result,
        folder / "comparison.json",
        [folder / "report.html"],
        lr_search=lr_search,
        title="Five schedules on handwritten digits",
    )
    fail_if_all_diverged(result)


def _print_heading(text: str) -> None:
    out.print(f"\n[bold]{text}[/bold]")

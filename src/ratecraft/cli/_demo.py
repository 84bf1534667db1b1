"""demo: find a learning rate for handwritten digits, and compare five schedules."""

from pathlib import Path
from typing import Final

from ratecraft.errors import RunFailed
from ratecraft.schedule import epochs, parse

from ._compare import compare_and_print, fail_on_bad_runs
from ._console import out, print_plot
from ._find import find_and_print
from ._options import check_counts, check_output, load_task, write_outputs

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
    from ratecraft.report import terminal_curve

    check_counts(seeds)
    check_output(folder / "report.html")
    task, length = load_task("digits"), epochs(10)
    schedules = {name: parse(text) for name, text in DEMO_SCHEDULES.items()}
    out.print("\n1 Find a learning rate by short runs", style="bold")
    lr_search = find_and_print(task, length)
    lr = lr_search.lr
    if lr is None:
        raise RunFailed(lr_search.reason)
    out.print(f"\n2 Draw five schedules at lr {lr:.3g}", style="bold")
    curves = {
        name: (lr * schedule).resolve(total_steps=length, steps_per_epoch=task.steps_per_epoch)
        for name, schedule in schedules.items()
    }
    print_plot(terminal_curve, curves)
    out.print(f"\n3 Train each schedule with {seeds} seeds", style="bold")
    result = compare_and_print("digits", schedules, lrs=lr, seeds=seeds, total_steps=length)
    lr_search.save(folder / "lr-finder.json")
    write_outputs(
        result,
        folder / "comparison.json",
        [folder / "report.html"],
        comparison=result,
        lr_search=lr_search,
        title="Five schedules on handwritten digits",
    )
    fail_on_bad_runs(result)

"""find."""

import re
from pathlib import Path

from command_line import ratecraft

from ratecraft.results import load
from ratecraft.results._lr_search import runs_table


def test_find_and_compare_run_a_task_from_a_file(folder: Path) -> None:
    done = ratecraft(
        folder, *("find", "my_task.py:task", "--save", "r.json", "-o", "r.svg", "-n", "epochs(5)")
    )
    assert done.returncode == 0, done.stderr
    result = load(folder / "r.json")
    interval = f"(almost as good: {result.lr_low:.3g} to {result.lr_high:.3g})"
    assert f"\nlr: {result.lr:.3g} {interval}\n" in done.stdout
    assert f"SGD: {result.cost}\n{runs_table(result)}\n" in done.stdout
    assert f"\n{result.reason}\nlr: " in done.stdout
    assert re.search("[\u2801-\u28ff]", done.stdout)
    assert (result.seed, result.optimizer, result.budget_steps) == (0, "SGD", 200)
    assert result.total_steps == 5 * 8
    assert "<svg" in (folder / "r.svg").read_text()
    adamw = ratecraft(
        folder,
        *("find", "my_task.py:task", "--optimizer", "torch.optim.AdamW", "--budget-steps", "90"),
    )
    assert re.search(r"AdamW: \d+ of 90 steps in \d+ short runs", adamw.stdout)
    done = ratecraft(
        folder,
        *("compare", "my_task.py:task", "constant(1)", "cosine(1, 0)", "-n", "epochs(5)"),
        *("--seeds", "2", "--workers", "2", "--save", "c.json", "-o", "c.html"),
    )
    assert done.returncode == 0, done.stderr
    comparison = load(folder / "c.json")
    assert comparison.verdict() in done.stdout.replace("\n", " ")
    assert len(comparison.runs) == 4
    assert comparison.runs[0].lr == result.lr
    assert comparison.verdict() in (folder / "c.html").read_text()


def test_range_test_prints_the_suggestion_and_its_reason(folder: Path) -> None:
    done = ratecraft(
        folder,
        *("find", "my_task.py:task", "--range-test", "--linear", "--low", "1e-4", "--high", "1"),
        *("--steps", "120", "--save", "s.json", "-o", "s.svg"),
    )
    assert done.returncode == 0, done.stderr
    result = load(folder / "s.json")
    assert f"suggested lr: {result.suggestion:.3g}" in done.stdout
    assert result.reason in done.stdout.replace("\n", " ")
    assert result.cost in done.stdout
    assert (result.low, result.high, result.planned_steps) == (1e-4, 1.0, 120)
    assert result.spacing == "linear"
    assert "<svg" in (folder / "s.svg").read_text()


def test_find_seeds_every_random_number_generator(folder: Path) -> None:
    outputs = {ratecraft(folder, "find", "my_task.py:noisy").stdout for _ in range(2)}
    assert len({re.search("lr: .*", output)[0] for output in outputs}) == 1

"""Compare the learning rates that different finders suggest by their regret.

    python benchmarks/regret/regret.py                 print the tables from answers.json
    python benchmarks/regret/regret.py detail RULE     print the answers of a rule for each task
    python benchmarks/regret/regret.py train RULE      its regret, by training at its answers
    python benchmarks/regret/regret.py run [RULE ...]  run all or the named rules, and save answers

The regret of a learning rate is (L(lr) - L*) / (L0 - L*), where L is the final validation loss of
a run with that peak learning rate, the mean of three seeds, L* the loss of the best learning rate
and L0 the loss before training. 0 is optimal, 1 is no better than not training. Between two
trained learning rates L is linear in log lr; a diverged run counts as untrained; a rule without an
answer has regret 1. "Seeds agree" is the share of tasks on which all answers lie within half a
decade. Rules see the training data only, with three seeds that differ from those of truth.json.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from alternatives import Outcome, control_variate_test, line_search, steepest
from peers import answers
from tasks import HELD_OUT, PLATEAU, TASKS, Entry, entry_named
from truth import LENGTHS, losses, mean

from ratecraft._training._snapshot import seed_everything
from ratecraft.experiments import Task
from ratecraft.experiments._train import create_model_and_optimizer
from ratecraft.finder import find_lr, range_test
from ratecraft.results import LRRangeTestResult

HERE = Path(__file__).parent
TRUTH, ANSWERS = HERE / "truth.json", HERE / "answers.json"
SEEDS = (0, 1, 2)
MAX_CLOSE_REGRET = 0.05  # an answer with at most this regret is close to the best


class Answer(NamedTuple):
    """The learning rates that a rule suggests for one task and seed, and its cost in steps."""

    short: float | None
    long: float | None
    cost: float
    band: tuple[float, float] | None = None


def seeded(finder: Callable[..., Any]) -> Callable[[Entry, Task, int], Answer]:
    """Return a rule: a finder that starts from a seeded model and optimizer."""

    def rule(entry: Entry, task: Task, seed: int) -> Answer:
        seed_everything(seed)
        model, optimizer = create_model_and_optimizer(task)
        return finder(entry, model, optimizer, task.train, task.loss)  # type: ignore[no-any-return]

    return rule


def short_runs(entry: Entry, *training: Any) -> Answer:
    results = [find_lr(*training, total_steps=entry.steps * times) for times in LENGTHS.values()]
    first = results[0]
    band = None if first.lr is None else (first.lr_low, first.lr_high)
    cost = first.steps + first.eval_batches / 3
    return Answer(results[0].lr, results[1].lr, cost, band)


def alternative(find: Callable[..., Outcome]) -> Callable[..., Answer]:
    def finder(entry: Entry, *training: Any) -> Answer:
        lr, cost = find(*training)
        return Answer(lr, lr, cost)

    return finder


def range_test_rule(rule: Callable[[LRRangeTestResult], float | None]) -> Callable[..., Answer]:
    def finder(entry: Entry, *training: Any) -> Answer:
        result = range_test(*training, steps=100)
        lr = rule(result)
        return Answer(lr, lr, len(result.lrs))

    return finder


def default(entry: Entry, model: Any, optimizer: torch.optim.Optimizer, *data: Any) -> Answer:
    lr = optimizer.param_groups[0]["lr"]
    return Answer(lr, lr, 0)


RULES: dict[str, Callable[[Entry, Task, int], Answer]] = {
    "find_lr": seeded(short_runs),
    "control variate, minimum/4": seeded(alternative(control_variate_test)),
    "Armijo line search": seeded(alternative(line_search)),
    "range test, minimum/10": seeded(range_test_rule(lambda result: result.suggestion)),
    "range test, steepest": seeded(
        range_test_rule(lambda result: steepest(result.lrs, result.smoothed))
    ),
    "the optimizer's own": seeded(default),
}


def run_rules(job: tuple[str, int, tuple[str, ...]]) -> dict[str, Answer]:
    """Return the answers of the rules for a task and a seed."""
    torch.set_num_threads(1)
    name, seed, rules = job
    entry = entry_named(name)
    task = entry.build()
    given = {rule: RULES[rule](entry, task, seed) for rule in rules if rule in RULES}
    if not set(rules) <= set(RULES):
        for rule, answer in answers(task, seed).items():
            given[rule] = Answer(answer.lr, answer.lr, answer.steps)
    return given


def run_all(rules: tuple[str, ...]) -> None:
    """Run the rules on every task with every seed, and save their answers."""
    saved = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    jobs = [(entry.name, seed, rules) for entry in TASKS for seed in SEEDS]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for (name, seed, _), given in zip(jobs, pool.imap(run_rules, jobs), strict=True):
            for rule, answer in given.items():
                seeds = saved.setdefault(rule, {}).setdefault(name, {})
                seeds[str(seed)] = [None if x is None else _rounded(x) for x in answer]
            print(f"{name} {seed}", file=sys.stderr)
    ANSWERS.write_text(json.dumps(saved, separators=(",", ":")) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_rounded(x) for x in value]
    return float(f"{value:.4g}")


def regret(task: dict[str, Any], length: str, lr: float | None) -> float:
    """Return the regret of a learning rate on a task; 1 if it is None."""
    if lr is None:
        return 1.0
    start = task["untrained"]
    points = [
        (x, mean(seeds, start))
        for x, seeds in zip(task[length]["log10_lrs"], task[length]["losses"], strict=True)
    ]
    log_lr, best = math.log10(lr), min(loss for _, loss in points)
    (x, loss), *rest = points
    for right, right_loss in rest:
        if log_lr <= x:
            break
        share = min((log_lr - x) / (right - x), 1.0)
        if log_lr < right:
            loss += share * (right_loss - loss)
            break
        x, loss = right, right_loss
    return (loss - best) / (start - best)


class Score(NamedTuple):
    """The regret of a rule: mean over tasks, standard error, share of close answers, maximum."""

    mean: float
    error: float
    close: float
    worst: float


def score(regrets: dict[str, list[float]]) -> Score:
    """Return the mean over tasks, its standard error, the share within 5 %, and the worst."""
    tasks = [statistics.fmean(seeds) for seeds in regrets.values()]
    flat = [value for seeds in regrets.values() for value in seeds]
    return Score(
        statistics.fmean(tasks),
        statistics.stdev(tasks) / math.sqrt(len(tasks)),
        sum(value <= MAX_CLOSE_REGRET for value in flat) / len(flat),
        max(flat),
    )


def agreement(given: dict[str, dict[str, list[Any]]]) -> float:
    """Return the share of tasks on which the answers of all seeds lie within half a decade."""
    agree = 0
    for seeds in given.values():
        lrs = [answer[0] for answer in seeds.values()]
        agree += None not in lrs and max(lrs) / min(lrs) <= math.sqrt(10)
    return agree / len(given)


def table(saved: dict[str, Any], truth: dict[str, Any], held_out: bool) -> None:
    """Print the scores of all rules on the held-out tasks, or on the others; best first."""
    rows = []
    for rule, given in saved.items():
        chosen = {name: seeds for name, seeds in given.items() if (name in HELD_OUT) == held_out}
        scores = [
            score({
                name: [regret(truth[name], length, answer[i]) for answer in seeds.values()]
                for name, seeds in chosen.items()
            })
            for i, length in enumerate(LENGTHS)
        ]  # fmt: skip
        cost = statistics.fmean(a[2] for seeds in chosen.values() for a in seeds.values())
        rows.append((*scores, rule, cost, agreement(chosen)))
    title = f"{'held out' if held_out else 'the others'}: {len(chosen)} tasks, {len(SEEDS)} seeds"
    print(f"| {title} | regret | within 5 % | worst | 8 x longer run | within 5 % | steps "
          "| seeds agree |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for short, long, rule, cost, agree in sorted(rows):
        print(
            f"| {rule} | {short.mean:.3f} ± {short.error:.3f} | {short.close:.0%} "
            f"| {short.worst:.2f} | {long.mean:.3f} ± {long.error:.3f} | {long.close:.0%} "
            f"| {cost:.0f} | {agree:.0%} |"
        )


def detail(saved: dict[str, Any], truth: dict[str, Any], rule: str) -> None:
    """Print the answers of a rule for each task, with their regrets."""
    for name, seeds in saved[rule].items():
        label = "held out" if name in HELD_OUT else "plateau" if name == PLATEAU else ""
        for i, length in enumerate(LENGTHS):
            lrs = [answer[i] for answer in seeds.values()]
            regrets = " ".join(f"{regret(truth[name], length, lr):.3f}" for lr in lrs)
            cells = " ".join("none" if lr is None else f"{lr:.2g}" for lr in lrs)
            print(f"{name:40} {label:9} {length:6} {cells:26} {regrets}")


def trained(job: tuple[str, float]) -> list[float | None]:
    """Return the final validation loss of a task's short run at a learning rate, for each seed."""
    torch.set_num_threads(1)
    return losses(job[0], "short", math.log10(job[1]))


def train_all(saved: dict[str, Any], truth: dict[str, Any], rule: str) -> None:
    """Train at a rule's answers to the held-out tasks; print measured and interpolated regret."""
    jobs = [(name, answer[0]) for name, seeds in saved[rule].items() if name in HELD_OUT
            for answer in seeds.values() if answer[0] is not None]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        finals = pool.map(trained, jobs, chunksize=1)
    measured, interpolated = [], []
    for (name, lr), final in zip(jobs, finals, strict=True):
        task = truth[name]
        points = [mean(seeds, task["untrained"]) for seeds in task["short"]["losses"]]
        best = min(points)
        loss = mean(final, task["untrained"])
        measured.append((loss - best) / (task["untrained"] - best))
        interpolated.append(regret(task, "short", lr))
    print(f"{rule}, {len(jobs)} answers: trained {statistics.fmean(measured):.3f}, "
          f"interpolated {statistics.fmean(interpolated):.3f}")  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run the command given by the arguments; see the module docstring."""
    if arguments[:1] == ["run"]:
        run_all(tuple(arguments[1:]) or (*RULES, "peers"))
    saved = json.loads(ANSWERS.read_text())
    truth = json.loads(TRUTH.read_text())["tasks"]
    if arguments[:1] == ["train"]:
        train_all(saved, truth, arguments[1])
    elif arguments[:1] == ["detail"]:
        detail(saved, truth, arguments[1])
    else:
        table(saved, truth, held_out=True)
        print()
        table(saved, truth, held_out=False)


if __name__ == "__main__":
    main(sys.argv[1:])

"""StepOptions much of what training can gain is given away by each way of choosing an lr.

    python benchmarks/regret/regret.py                 the table, from the answers on file
    python benchmarks/regret/regret.py detail RULE     a rule's answers task by task
    python benchmarks/regret/regret.py train RULE      its regret by training at the very answers
    python benchmarks/regret/regret.py ask [RULE ...]  ask all rules, or some, anew

The regret of an lr is (L(lr) - L*) / (L0 - L*): L is the last validation loss of a run with
that peak lr, the mean of three seeds, L* the loss of the best lr and L0 the one before any
training; between two lrs that were trained L is linear in log lr, and a diverged run counts
as untrained. No answer has regret 1. "Seeds agree" is the share of tasks on which all answers lie
within half a decade. Rules see the training data alone, and other initial weights
and orders of the data than the truth: three of each.
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
from peers import answers
from tasks import HELD_OUT, PLATEAU, TASKS, Entry, entry
from truth import LENGTHS, losses, mean

from ratecraft._training._snapshot import seed_everything
from ratecraft.experiments import Task
from ratecraft.experiments._train import start
from ratecraft.finder import find_lr, line_search, range_test

HERE = Path(__file__).parent
TRUTH, ANSWERS = HERE / "truth.json", HERE / "answers.json"
SEEDS = (0, 1, 2)
CLOSE = 0.05

LRs = dict[str, float | None]  # for the short run and for the long one


class Answer(NamedTuple):
    """What a rule said for one task and seed, and what it cost in steps."""

    short: float | None
    long: float | None
    cost: float
    band: tuple[float, float] | None = None


def ours(test: Callable[..., Any]) -> Callable[[Entry, Task, int], Answer]:
    """Return a rule of ours as a function of task and seed."""

    def ask(one: Entry, task: Task, seed: int) -> Answer:
        seed_everything(seed)
        model, optimizer = start(task)
        return test(one, model, optimizer, task.train, task.loss)  # type: ignore[no-any-return]

    return ask


def found(one: Entry, *world: Any) -> Answer:
    results = [find_lr(*world, total_steps=one.steps * times) for times in LENGTHS.values()]
    first = results[0]
    band = None if first.lr is None else (first.lr_low, first.lr_high)
    cost = first.steps + first.eval_batches / 3
    return Answer(results[0].lr, results[1].lr, cost, band)


def armijo(one: Entry, *world: Any) -> Answer:
    result = line_search(*world)
    return Answer(result.lr, result.lr, result.steps + result.eval_batches / 3)


def swept(rule: str, **settings: Any) -> Callable[..., Answer]:
    def test(one: Entry, *world: Any) -> Answer:
        result = range_test(*world, **settings)
        lr = result.suggest(rule).lr
        return Answer(lr, lr, len(result.lrs) + settings.get("control", 0) / 3)

    return test


def default(one: Entry, model: Any, optimizer: torch.optim.Optimizer, *world: Any) -> Answer:
    lr = optimizer.param_groups[0]["lr"]
    return Answer(lr, lr, 0)


RULES: dict[str, Callable[[Entry, Task, int], Answer]] = {
    "find_lr": ours(found),
    "control variate, minimum/4": ours(swept("minimum/4", control=16, steps=100)),
    "Armijo line search": ours(armijo),
    "range test, minimum/10": ours(swept("minimum/10", steps=100)),
    "range test, steepest": ours(swept("steepest", steps=100)),
    "the optimizer's own": ours(default),
}


def ask(job: tuple[str, int, tuple[str, ...]]) -> dict[str, Answer]:
    """Return what some rules say to a task with a seed."""
    torch.set_num_threads(1)
    name, seed, rules = job
    one = entry(name)
    task = one.build()
    said = {rule: RULES[rule](one, task, seed) for rule in rules if rule in RULES}
    if not set(rules) <= set(RULES):
        for rule, answer in answers(task, seed).items():
            said[rule] = Answer(answer.lr, answer.lr, answer.steps)
    return said


def ask_all(rules: tuple[str, ...]) -> None:
    """Ask the rules for every task and seed, and write what they said."""
    known = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    jobs = [(one.name, seed, rules) for one in TASKS for seed in SEEDS]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for (name, seed, _), said in zip(jobs, pool.imap(ask, jobs), strict=True):
            for rule, answer in said.items():
                place = known.setdefault(rule, {}).setdefault(name, {})
                place[str(seed)] = [None if x is None else _short(x) for x in answer]
            print(f"{name} {seed}", file=sys.stderr)
    ANSWERS.write_text(json.dumps(known, separators=(",", ":")) + "\n")


def _short(value: Any) -> Any:
    return [_short(x) for x in value] if isinstance(value, tuple | list) else float(f"{value:.4g}")


def regret(task: dict[str, Any], length: str, lr: float | None) -> float:
    """Return what an lr gives away of what the best one gains."""
    if lr is None:
        return 1.0
    start = task["untrained"]
    points = [
        (x, mean(some, start))
        for x, some in zip(task[length]["log10_lrs"], task[length]["losses"], strict=True)
    ]
    place, best = math.log10(lr), min(loss for _, loss in points)
    (x, loss), *others = points
    for right, other in others:
        if place <= x:
            break
        share = min((place - x) / (right - x), 1.0)
        if place < right:
            loss += share * (other - loss)
            break
        x, loss = right, other
    return (loss - best) / (start - best)


class Score(NamedTuple):
    """What a rule gave away over some tasks."""

    mean: float
    error: float
    close: float
    worst: float


def score(regrets: dict[str, list[float]]) -> Score:
    """Return the mean over tasks, its standard error, the share within 5 %, and the worst."""
    tasks = [statistics.fmean(some) for some in regrets.values()]
    every = [one for some in regrets.values() for one in some]
    return Score(
        statistics.fmean(tasks),
        statistics.stdev(tasks) / math.sqrt(len(tasks)),
        sum(one <= CLOSE for one in every) / len(every),
        max(every),
    )


def agreement(said: dict[str, dict[str, list[Any]]]) -> float:
    """Return on how many tasks all seeds' answers lie within half a decade."""
    agree = 0
    for seeds in said.values():
        lrs = [answer[0] for answer in seeds.values()]
        agree += None not in lrs and max(lrs) / min(lrs) <= math.sqrt(10)
    return agree / len(said)


def table(known: dict[str, Any], truth: dict[str, Any], held_out: bool) -> None:
    """Print every rule's scores over the tasks that were held out, or the others; best first."""
    rows = []
    for rule, said in known.items():
        chosen = {name: seeds for name, seeds in said.items() if (name in HELD_OUT) == held_out}
        scores = [
            score({
                name: [regret(truth[name], length, answer[i]) for answer in seeds.values()]
                for name, seeds in chosen.items()
            })
            for i, length in enumerate(LENGTHS)
        ]  # fmt: skip
        cost = statistics.fmean(a[2] for seeds in chosen.values() for a in seeds.values())
        rows.append((*scores, rule, cost, agreement(chosen)))
    which = f"{'held out' if held_out else 'the others'}: {len(chosen)} tasks, {len(SEEDS)} seeds"
    print(f"| {which} | regret | within 5 % | worst | 8 x longer run | within 5 % | steps "
          "| seeds agree |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for short, long, rule, cost, agree in sorted(rows):
        print(
            f"| {rule} | {short.mean:.3f} ± {short.error:.3f} | {short.close:.0%} "
            f"| {short.worst:.2f} | {long.mean:.3f} ± {long.error:.3f} | {long.close:.0%} "
            f"| {cost:.0f} | {agree:.0%} |"
        )


def detail(known: dict[str, Any], truth: dict[str, Any], rule: str) -> None:
    """Print a rule's answers task by task."""
    for name, seeds in known[rule].items():
        mark = "held out" if name in HELD_OUT else "plateau" if name == PLATEAU else ""
        for i, length in enumerate(LENGTHS):
            told = [answer[i] for answer in seeds.values()]
            lost = " ".join(f"{regret(truth[name], length, lr):.3f}" for lr in told)
            lrs = " ".join("none" if lr is None else f"{lr:.2g}" for lr in told)
            print(f"{name:40} {mark:9} {length:6} {lrs:26} {lost}")


def trained(job: tuple[str, float]) -> list[float | None]:
    """Return the last validation losses of a task's short run at an lr, seed by seed."""
    torch.set_num_threads(1)
    return losses(job[0], "short", math.log10(job[1]))


def train_all(known: dict[str, Any], truth: dict[str, Any], rule: str) -> None:
    """Train at a rule's answers to the tasks held out, and print its regret beside the table's."""
    jobs = [(name, answer[0]) for name, seeds in known[rule].items() if name in HELD_OUT
            for answer in seeds.values() if answer[0] is not None]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        finals = pool.map(trained, jobs, chunksize=1)
    lost, read = [], []
    for (name, lr), final in zip(jobs, finals, strict=True):
        task = truth[name]
        points = [mean(some, task["untrained"]) for some in task["short"]["losses"]]
        best = min(points)
        loss = mean(final, task["untrained"])
        lost.append((loss - best) / (task["untrained"] - best))
        read.append(regret(task, "short", lr))
    print(f"{rule}, {len(jobs)} answers: trained {statistics.fmean(lost):.3f}, "
          f"between the lrs of the truth {statistics.fmean(read):.3f}")  # fmt: skip


def main(words: list[str]) -> None:
    """Do what the command line says."""
    if words[:1] == ["ask"]:
        ask_all(tuple(words[1:]) or (*RULES, "peers"))
    known = json.loads(ANSWERS.read_text())
    truth = json.loads(TRUTH.read_text())["tasks"]
    if words[:1] == ["train"]:
        train_all(known, truth, words[1])
    elif words[:1] == ["detail"]:
        detail(known, truth, words[1])
    else:
        table(known, truth, held_out=True)
        print()
        table(known, truth, held_out=False)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Write gallery.md and its figures: every shape and every classical schedule.

Run it from anywhere: ``python docs/gallery.py`` writes them, and with ``--check`` it lists the
files that differ. Each curve is computed from the text that the page shows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch

from ratecraft import Curve, Schedule, parse
from ratecraft.cli._demo import DEMO_SCHEDULES
from ratecraft.report import Chart, Line, svg_chart
from ratecraft.torch import PlateauLR, ScheduleLR

DOCS: Final = Path(__file__).parent
PAGE: Final = DOCS / "gallery.md"
IMAGES: Final = DOCS / "images" / "gallery"
BANNER: Final = DOCS / "images" / "schedules.svg"

STEPS: Final = 100
EPOCH: Final = 10
SAMPLES: Final = 32
TOKENS: Final = 1000
WIDTH, HEIGHT = 340, 190
METRIC: Final = "metric"  # the label of a line that is no lr, and is drawn faint

# No background, and colours that can be read on white and on black, whatever the page around does.
STYLE: Final = (
    "<style>rect{fill:none}text{fill:#808080}"
    'path[stroke="#e4e4e4"]{stroke:#808080;stroke-opacity:.25}'
    'path[stroke="#0072b2"]{stroke:#1f87c9}</style>'
)

HEAD: Final = f"""# Gallery of learning-rate schedules

Each entry has a figure, the schedule that it shows, and the same schedule in torch.
You can draw any of them, or set the learning rate of an optimizer with it:

```sh
ratecraft show "warmup(10).then(cosine(1, 0))" --total-steps 100
```

```python
import torch

from ratecraft import ScheduleLR, cosine, warmup

optimizer = torch.optim.AdamW(torch.nn.Linear(8, 1).parameters(), lr=1e-3)
ScheduleLR(optimizer, factor=warmup(10).then(cosine(1, 0)), total_steps=100)
```

* A figure shows {STEPS} steps, unless its axis shows more.
* An epoch has {EPOCH} steps, and a step has {SAMPLES} samples and {TOKENS} tokens.
* The optimizer has `lr=1` unless the code sets it, so factor and learning rate are one number.
* In torch's code, `k` is the step, and the scheduler's `step()` runs after every optimizer step.
* If torch has no class for a schedule, its code is a `LambdaLR` with a formula.
  If that takes more than one line, the entry has no torch code.
* A test runs the torch code and compares every learning rate with the notation.

<!-- Written by gallery.py: change that file, not this page. -->
"""


class Entry(NamedTuple):
    """A figure, its notation, and torch code with the same learning rates.

    Attributes:
        file: name of the figure, without its suffix.
        name: title of the figure.
        notation: the notation, or one for each line of the figure by its label.
        torch: an expression that makes a scheduler, statements that make the optimizer (and the
            scheduler), or one that sets the lr before step ``k`` in ``epoch``; empty if that
            takes more than a line.
        note: a sentence about it.
        steps: length of the run.
        log: draw the lr on a logarithmic axis.
        heading: heading of the entry, if not the title of the figure.
    """

    file: str
    name: str
    notation: str | Mapping[str, str]
    torch: str = ""
    note: str = ""
    steps: int = STEPS
    log: bool = False
    heading: str = ""

    @property
    def lines(self) -> dict[str, str]:
        """The notation of each line, by its label; a single line has no label."""
        return {"": self.notation} if isinstance(self.notation, str) else dict(self.notation)


class Family(NamedTuple):
    """A heading, an introduction, and entries."""

    name: str
    intro: str
    entries: tuple[Entry, ...]


def resolved(schedule: Schedule, steps: int) -> Curve:
    """Return a schedule over a run of the gallery."""
    return schedule.resolve(
        total_steps=steps, steps_per_epoch=EPOCH, samples_per_step=SAMPLES, tokens_per_step=TOKENS
    )


def followed(schedule: Schedule, metric: str) -> Schedule:
    """Return the factor that a PlateauLR with a schedule had at each step, given a metric."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = PlateauLR(
        ScheduleLR(optimizer, factor=schedule, total_steps=STEPS), factor=0.5, patience=10
    )
    for loss in resolved(parse(metric), STEPS):
        optimizer.step()
        scheduler.step(loss)
    decided = scheduler.as_schedule()
    if not isinstance(decided, Schedule):
        raise TypeError("one param group gives one schedule")
    return decided


def metric_driven() -> Family:
    """Return the entries whose notation is what a PlateauLR did."""
    metric = (
        "exponential(1, 0.5, over=20).then(constant(0.5, over=35)).then(exponential(0.45, 0.3))"
    )
    planned = "warmup(10).then(cosine(1, 0.1))"
    alone = followed(parse("constant(1)"), metric)
    beside = followed(parse(planned), metric)
    return Family(
        "Driven by a metric",
        "The factor of a plateau is known only after the run.\n"
        "`PlateauLR.as_schedule()` returns it as a schedule.\n"
        "Here the metric is a formula, and is reported after every step.",
        (
            Entry(
                "plateau",
                "ReduceLROnPlateau",
                {METRIC: metric, "lr": repr(alone)},
                "ReduceLROnPlateau(optimizer, factor=0.5, patience=10)",
                "The notation is what the plateau did in this run.",
            ),
            Entry(
                "plateau_cosine",
                "A plateau times warmup and cosine",
                {
                    "schedule": planned,
                    "plateau": repr(beside),
                    "product": f"{planned} * {beside!r}",
                },
                note="`PlateauLR` multiplies a schedule, and gets the same metric.",
                heading="A plateau times warmup and cosine",
            ),
        ),
    )


def families() -> tuple[Family, ...]:
    """Return everything on the page, in its order."""
    return (*OPEN_LOOP, metric_driven(), COMPOSITIONS)


OPEN_LOOP: Final = (
    Family(
        "Fixed and stepped",
        "The learning rate stays at one level, or jumps between levels.\n"
        "`repeat(decay=)` never ends, and a `staircase` has the levels that you list.\n"
        "`lengths=` gives the length of each level.",
        (
            Entry(
                "fixed",
                "Fixed lr",
                "constant(0.1)",
                "optimizer = SGD(model.parameters(), lr=0.1)",
                heading="Fixed learning rate",
            ),
            Entry(
                "per_layer",
                "LRs by layer",
                {"body": "constant(0.01)", "head": "constant(0.1)"},
                "optimizer = SGD(\n"
                "    [\n"
                '        {"params": body, "lr": 0.01},\n'
                '        {"params": head, "lr": 0.1},\n'
                "    ]\n"
                ")",
                'Pass one schedule for each param group: `lr={"body": ..., "head": ...}`.',
                heading="A learning rate for each param group",
            ),
            Entry(
                "manual",
                "Decay by hand, every 3 epochs",
                "constant(1, over=epochs(3)).repeat(decay=0.5)",
                'for group in optimizer.param_groups:\n    group["lr"] = 0.5 ** (epoch // 3)',
            ),
            Entry(
                "list",
                "A list, an lr for each epoch",
                "staircase([1, 0.8, 0.8, 0.5, 0.4, 0.3, 0.1], every=epochs(1))",
                "LambdaLR(optimizer, lambda k: [1, 0.8, 0.8, 0.5, 0.4, 0.3, 0.1][min(k // 10, 6)])",
                heading="A list with a learning rate for each epoch",
            ),
            Entry(
                "staircase_lengths",
                "A list of lengths and lrs",
                "staircase([0.1, 1, 0.01], lengths=[epochs(2), epochs(5), epochs(3)])",
                "LambdaLR(optimizer, lambda k: 0.1 if k < 20 else 1 if k < 70 else 0.01)",
                heading="A list of lengths and learning rates",
            ),
            Entry(
                "step",
                "StepLR",
                "constant(1, over=30).repeat(decay=0.5)",
                "StepLR(optimizer, 30, gamma=0.5)",
                heading="StepLR: step decay",
            ),
            Entry(
                "multistep",
                "MultiStepLR",
                "staircase([1, 0.1, 0.01], at=[30, 80])",
                "MultiStepLR(optimizer, [30, 80])",
                heading="MultiStepLR: milestones",
            ),
            Entry(
                "constant_lr",
                "ConstantLR",
                "staircase([0.3, 1], at=[20])",
                "ConstantLR(optimizer, 0.3, total_iters=20)",
            ),
        ),
    ),
    Family(
        "Decays",
        "A shape between two ends stretches to its length.\n"
        "`decay`, `exp_decay`, `inverse_sqrt` and `power_law` do not: a longer run "
        "shows more of them.",
        (
            Entry(
                "linear",
                "Linear (LambdaLR)",
                "linear(1, 0)",
                "LambdaLR(optimizer, lambda k: 1 - k / 100)",
                heading="Linear decay",
            ),
            Entry(
                "linear_lr",
                "LinearLR",
                "linear(1, 0.1, over=50)",
                "LinearLR(optimizer, 1, 0.1, total_iters=50)",
            ),
            Entry(
                "polynomial",
                "Polynomial (LambdaLR)",
                "polynomial(1, 0, 2)",
                "LambdaLR(optimizer, lambda k: (1 - k / 100) ** 2)",
                heading="Polynomial decay",
            ),
            Entry(
                "poly",
                "PolynomialLR, poly",
                "polynomial(1, 0, 0.9)",
                "PolynomialLR(optimizer, 100, power=0.9)",
                heading="PolynomialLR (poly)",
            ),
            Entry(
                "cosine",
                "CosineAnnealingLR",
                "cosine(1, 0)",
                "CosineAnnealingLR(optimizer, 100)",
                heading="Cosine decay: CosineAnnealingLR",
            ),
            Entry(
                "cosine_floor",
                "Cosine to a tenth",
                "cosine(1, 0.1)",
                "CosineAnnealingLR(optimizer, 100, eta_min=0.1)",
                heading="Cosine decay to a tenth of the learning rate",
            ),
            Entry(
                "exponential_lr",
                "ExponentialLR",
                "decay(0.97)",
                "ExponentialLR(optimizer, 0.97)",
                heading="Exponential decay: ExponentialLR",
            ),
            Entry(
                "decay_epoch",
                "ExponentialLR, by epoch",
                "constant(1, over=epochs(1)).repeat(decay=0.8)",
                "StepLR(optimizer, 10, gamma=0.8)",
                "`decay(0.8, every=epochs(1))` falls within each epoch, too.",
                heading="Exponential decay once per epoch",
            ),
            Entry(
                "exp_decay",
                "e^(-kt)",
                "exp_decay(0.05)",
                "LambdaLR(optimizer, lambda k: math.exp(-0.05 * k))",
                heading="Exponential decay e^(-kt)",
            ),
            Entry(
                "exponential",
                "Exponential between two ends",
                "exponential(1, 0.01)",
                "ExponentialLR(optimizer, 0.01 ** (1 / 100))",
                heading="Exponential decay between two ends",
            ),
            Entry(
                "one_minus_sqrt",
                "1 - sqrt",
                "one_minus_sqrt(1, 0)",
                "LambdaLR(optimizer, lambda k: 1 - (k / 100) ** 0.5)",
                heading="1-sqrt decay",
            ),
            Entry(
                "sqrt",
                "Square root",
                "sqrt(1, 0)",
                "PolynomialLR(optimizer, 100, power=0.5)",
                heading="Square root decay",
            ),
            Entry(
                "square",
                "Square",
                "square(1, 0)",
                "LambdaLR(optimizer, lambda k: 1 - (k / 100) ** 2)",
                heading="Square decay",
            ),
            Entry(
                "rex",
                "REX",
                "rex(1, 0)",
                "LambdaLR(optimizer, lambda k: (1 - k / 100) / (1 - k / 200))",
                heading="REX schedule",
            ),
            Entry(
                "tanh",
                "tanh",
                "tanh(1, 0)",
                "LambdaLR(optimizer, lambda k: (1 - math.tanh(k / 10 - 7)) / 2)",
                heading="tanh decay",
            ),
            Entry(
                "inverse_sqrt",
                "Inverse square root",
                "inverse_sqrt(10)",
                "LambdaLR(optimizer, lambda k: (10 / (k + 10)) ** 0.5)",
                heading="Inverse square root decay",
            ),
            Entry(
                "power_law",
                "Power law",
                "power_law(-0.8, 20)",
                "LambdaLR(optimizer, lambda k: 1 if k < 20 else (k / 20) ** -0.8)",
                heading="Power law decay",
            ),
        ),
    ),
    Family(
        "Warmup",
        "A warmup rises to 1 and stays there, so you can multiply it with another "
        "schedule or let one follow.\n"
        "If it starts at 0, step 0 trains nothing.\n"
        "To avoid that, write `start=0.1`, or pass `midpoint=True` to `ScheduleLR`.",
        (
            Entry(
                "warmup",
                "Linear warmup",
                "warmup(30)",
                "LambdaLR(optimizer, lambda k: min(1, k / 30))",
                heading="Linear warmup",
            ),
            Entry(
                "warmup_start",
                "From a tenth",
                "warmup(30, start=0.1)",
                "LinearLR(optimizer, 0.1, total_iters=30)",
                heading="Warmup from a tenth",
            ),
            Entry(
                "warmup_cosine",
                "Cosine warmup",
                'warmup(30, shape="cosine")',
                "LambdaLR(optimizer, lambda k: (1 - math.cos(math.pi * min(1, k / 30))) / 2)",
                heading="Cosine-shaped warmup",
            ),
            Entry(
                "warmup_exponential",
                "Exponential warmup",
                'warmup(30, start=0.01, shape="exponential")',
                "LambdaLR(optimizer, lambda k: 0.01 ** (1 - min(1, k / 30)))",
                heading="Exponential warmup",
            ),
            Entry(
                "warmup_constant",
                "Constant warmup",
                'warmup(30, start=0.1, shape="constant").then(constant(1))',
                "ConstantLR(optimizer, 0.1, total_iters=30)",
                heading="Constant warmup",
            ),
            Entry(
                "warmup_hold",
                "Held before it rises",
                "warmup(40, start=0.1, hold=15)",
                "LambdaLR(optimizer, lambda k: 0.1 + 0.9 * min(1, max(0, k - 15) / 25))",
                heading="Warmup after a hold",
            ),
            Entry(
                "untuned_warmup",
                "Untuned: the length from Adam's beta2",
                "warmup(untuned_warmup(0.95))",
                "LambdaLR(optimizer, lambda k: min(1, k * (1 - 0.95) / 2))",
                heading="Untuned warmup: the length from Adam's beta2",
            ),
            Entry(
                "warmup_then_cosine",
                "Warmup, then cosine",
                "warmup(10, start=0.01).then(cosine(1, 0))",
                "SequentialLR(\n"
                "    optimizer,\n"
                "    [\n"
                "        LinearLR(optimizer, 0.01, total_iters=10),\n"
                "        CosineAnnealingLR(optimizer, 90),\n"
                "    ],\n"
                "    [10],\n"
                ")",
                heading="Warmup, then cosine",
            ),
            Entry(
                "warmup_milestones",
                "Warmup, then milestones",
                "warmup(10, start=0.1).then(staircase([1, 0.1, 0.01], at=[30, 60]))",
                "SequentialLR(\n"
                "    optimizer,\n"
                "    [\n"
                "        LinearLR(optimizer, 0.1, total_iters=10),\n"
                "        MultiStepLR(optimizer, [30, 60]),\n"
                "    ],\n"
                "    [10],\n"
                ")",
                "The milestones count from the end of the warmup.",
                heading="Warmup, then milestones",
            ),
            Entry(
                "warmup_times_milestones",
                "Warmup times milestones",
                "warmup(10, start=0.1) * staircase([1, 0.1, 0.01], at=[30, 60])",
                "ChainedScheduler(\n"
                "    [\n"
                "        LinearLR(optimizer, 0.1, total_iters=10),\n"
                "        MultiStepLR(optimizer, [30, 60]),\n"
                "    ]\n"
                ")",
                "The milestones count from the start, as in `drop_in.WarmupMultiFactorScheduler`.",
                heading="Warmup times milestones",
            ),
        ),
    ),
    Family(
        "Cycles",
        "`repeat` makes cycles of any schedule.\n"
        "`repeat(4)` divides the run into four cycles.\n"
        "If a cycle has its own length, `repeat()` continues until the run ends.\n"
        "`grow` stretches each cycle, and `decay` lowers it.",
        (
            Entry(
                "restarts",
                "CosineAnnealingWarmRestarts",
                "restarts(25)",
                "CosineAnnealingWarmRestarts(optimizer, 25)",
                heading="Cosine annealing with warm restarts",
            ),
            Entry(
                "restarts_grow",
                "Warm restarts, T_mult=2",
                "restarts(10, grow=2)",
                "CosineAnnealingWarmRestarts(optimizer, 10, T_mult=2)",
                steps=150,
                heading="Warm restarts with T_mult=2",
            ),
            Entry(
                "restarts_floor",
                "Warm restarts, eta_min",
                "restarts(25, end=0.2)",
                "CosineAnnealingWarmRestarts(optimizer, 25, eta_min=0.2)",
                heading="Warm restarts with eta_min",
            ),
            Entry(
                "restarts_n",
                "Restarts that share the run and fall",
                "restarts(n=3, grow=2, decay=0.7)",
                steps=140,
                heading="Warm restarts that share the run and fall",
            ),
            Entry(
                "half_cycles",
                "Cosine wave",
                "cosine(1, 0, 5)",
                "CosineAnnealingLR(optimizer, 20)",
                "`cosine(1, 0, 5)` has five half cycles.",
            ),
            Entry(
                "triangular",
                "Cyclical",
                "triangular(20)",
                "CyclicLR(optimizer, 0.1, 1, 20)",
                heading="Cyclical learning rate: CyclicLR",
            ),
            Entry(
                "triangular2",
                "Cyclical, triangular2",
                "triangular2(20)",
                'CyclicLR(optimizer, 0.1, 1, 20, mode="triangular2")',
                steps=160,
                heading="CyclicLR, triangular2",
            ),
            Entry(
                "exp_range",
                "Cyclical, exp_range",
                "exp_range(0.98, 20)",
                'CyclicLR(optimizer, 0.1, 1, 20, mode="exp_range", gamma=0.98)',
                steps=160,
                heading="CyclicLR, exp_range",
            ),
            Entry(
                "triangular_sides",
                "Cyclical, two sides",
                "triangular(10, 40)",
                "CyclicLR(optimizer, 0.1, 1, 10, 40)",
                heading="CyclicLR with two sides",
            ),
            Entry(
                "repeat",
                "repeat",
                "linear(1, 0).repeat(4)",
                "LambdaLR(optimizer, lambda k: 1 - k % 25 / 25)",
                heading="Repeated linear decay",
            ),
            Entry(
                "repeat_grow_decay",
                "repeat, grow, decay",
                "linear(1, 0).repeat(4, grow=1.5, decay=0.7)",
                steps=130,
                heading="Repeated cycles that grow and fall",
            ),
            Entry(
                "repeat_warmup",
                "A warmup in each cycle",
                "warmup(5).then(cosine(1, 0)).repeat(4)",
                heading="A warmup in each cycle",
            ),
        ),
    ),
    Family(
        "Schedules for a whole run",
        "These functions make the schedule of a whole run from simpler parts.\n"
        "For example, `wsd(10)` is "
        "`warmup(10).then(constant(1)).then(one_minus_sqrt(1, 0, over=percent(20)))`.",
        (
            Entry(
                "one_cycle",
                "OneCycle",
                "one_cycle()",
                "OneCycleLR(optimizer, 1, total_steps=101, pct_start=31 / 101)",
                "It reaches its end after 100 steps, and `OneCycleLR` at its last step, as in "
                "the next entry.",
                heading="OneCycle schedule",
            ),
            Entry(
                "one_cycle_lr",
                "OneCycleLR, as torch counts",
                "cosine(0.04, 1, over=percent(30) - 1).then(cosine(1, 4e-6, over=percent(70)))",
                "OneCycleLR(optimizer, 1, total_steps=100)",
            ),
            Entry(
                "one_cycle_three",
                "OneCycle, three phases, linear",
                'one_cycle(shape="linear", three_phase=True)',
                "OneCycleLR(\n"
                "    optimizer,\n"
                "    1,\n"
                "    total_steps=101,\n"
                "    pct_start=31 / 101,\n"
                '    anneal_strategy="linear",\n'
                "    three_phase=True,\n"
                ")",
                heading="OneCycleLR with three phases, linear",
            ),
            Entry(
                "wsd",
                "WSD",
                "wsd(10)",
                "LambdaLR(optimizer, lambda k: min(1, k / 10, 1 - (max(0, k - 80) / 20) ** 0.5))",
                "The cooldown takes the last 20 percent of the run.",
                heading="WSD schedule: warmup, stable, decay",
            ),
            Entry(
                "wsd_shapes",
                "WSD and its cooldowns",
                {
                    shape: f'wsd(10, percent(40), "{shape}", end=0.01)'
                    for shape in ("linear", "cosine", "exponential", "1-sqrt", "square")
                },
                heading="WSD with other cooldowns",
            ),
            Entry(
                "cooldown",
                "Cooldown alone",
                "constant(1).then(cooldown(30, end=0.1))",
                "LambdaLR(optimizer, lambda k: 1 - 0.9 * max(0, k - 70) / 30)",
                heading="Cooldown without a warmup",
            ),
            Entry(
                "trapezoid",
                "Trapezoid",
                "trapezoid(10, 30)",
                "LambdaLR(optimizer, lambda k: min(1, k / 10, (100 - k) / 30))",
                heading="Trapezoid schedule",
            ),
            Entry(
                "knee",
                "Knee",
                "knee(percent(50), 10)",
                "LambdaLR(optimizer, lambda k: min(1, k / 10, (100 - k) / 40))",
                "After the warmup, it stays at the peak for half of the run.",
                heading="Knee schedule",
            ),
            Entry(
                "linear_to_zero",
                "Straight to zero",
                "linear_to_zero(10)",
                "LambdaLR(optimizer, lambda k: min(k / 10, (100 - k) / 90))",
                heading="Linear decay to zero",
            ),
            Entry(
                "warmup_inverse_sqrt",
                "Warmup, then inverse square root",
                "warmup(20).then(inverse_sqrt(20))",
                "LambdaLR(optimizer, lambda k: min(k / 20, (20 / max(k, 1)) ** 0.5))",
                heading="Warmup, then inverse square root",
            ),
            Entry(
                "noam",
                "Noam",
                "noam(20, 512)",
                "LambdaLR(optimizer, lambda k: 512**-0.5 * min(max(k, 1) ** -0.5, k * 20**-1.5))",
                "The values are the learning rate itself, computed from the width of the model.",
                heading="Noam schedule",
            ),
            Entry("power_scheduler", "Power scheduler", "power_scheduler(10, 40)"),
            Entry(
                "range_test",
                "Range test",
                "exponential(0.0001, 1)",
                "LambdaLR(optimizer, lambda k: 0.0001 ** (1 - k / 100))",
                "[`range_test`](how-to/lr-range-test.md) runs it and restores the model "
                "afterwards.",
                log=True,
                heading="LR range test",
            ),
        ),
    ),
)

COMPOSITIONS: Final = Family(
    "Combinations",
    "You can combine any schedules.\n"
    "`custom(function)` and `multiplicative(function)` contain a Python function, "
    "so they have no text and no figure here.",
    (
        Entry(
            "chain",
            "StepLR times ExponentialLR",
            {
                "step": "constant(1, over=30).repeat(decay=0.5)",
                "decay": "decay(0.98)",
                "product": "constant(1, over=30).repeat(decay=0.5) * decay(0.98)",
            },
            "ChainedScheduler(\n"
            "    [\n"
            "        StepLR(optimizer, 30, gamma=0.5),\n"
            "        ExponentialLR(optimizer, 0.98),\n"
            "    ]\n"
            ")",
            "Chained schedulers multiply.",
        ),
        Entry(
            "times_cosine",
            "Warmup times cosine",
            "warmup(20, start=0.1) * cosine(1, 0)",
            "ChainedScheduler(\n"
            "    [\n"
            "        LinearLR(optimizer, 0.1, total_iters=20),\n"
            "        CosineAnnealingLR(optimizer, 100),\n"
            "    ]\n"
            ")",
            "The cosine falls during the warmup, too.",
            heading="Warmup times cosine",
        ),
        Entry(
            "scale",
            "Scaled",
            "0.3 * warmup(10, start=0.01).then(cosine(1, 0))",
            "optimizer = SGD(model.parameters(), lr=0.3)\n"
            "scheduler = SequentialLR(\n"
            "    optimizer,\n"
            "    [\n"
            "        LinearLR(optimizer, 0.01, total_iters=10),\n"
            "        CosineAnnealingLR(optimizer, 90),\n"
            "    ],\n"
            "    [10],\n"
            ")",
            "The number multiplies the whole schedule, so it is the peak learning rate.",
            heading="Peak learning rate in the schedule",
        ),
        Entry(
            "clip",
            "clip",
            "(2 * cosine(1, 0)).clip(low=0.2, high=1)",
            "LambdaLR(optimizer, lambda k: min(1, max(0.2, 1 + math.cos(math.pi * k / 100))))",
            heading="Clipped with clip",
        ),
        Entry(
            "rescale",
            "rescale",
            "linear(1, 0).repeat(4).rescale(0.3, 1)",
            "LambdaLR(optimizer, lambda k: 1 - 0.7 * (k % 25) / 25)",
            heading="Mapped to another range with rescale",
        ),
        Entry(
            "over",
            "over, repeat",
            "wsd(5).over(50).repeat(2)",
            "LambdaLR(optimizer, "
            "lambda k: min(1, k % 50 / 5, 1 - (max(0, k % 50 - 40) / 10) ** 0.5))",
            "The cooldown takes 20 percent of its own cycle.",
            heading="A schedule of fixed length, repeated",
        ),
        Entry(
            "reversed",
            "reversed",
            "polynomial(1, 0, 3).reversed()",
            "LambdaLR(optimizer, lambda k: (k / 100) ** 3)",
            heading="Reversed in time",
        ),
        Entry(
            "thaw",
            "Frozen, then warmed up",
            "constant(0, over=epochs(3)).then(warmup(epochs(1))).then(cosine(1, 0))",
            note="Use it for one param group while the [other groups](how-to/per-layer.md) "
            "train from the start.",
        ),
        Entry(
            "units",
            "Lengths in five units",
            "(\n"
            "    constant(0.1, over=steps(10))\n"
            "    .then(warmup(epochs(2), start=0.1))\n"
            "    .then(constant(1, over=samples(960)))\n"
            "    .then(cosine(1, 0.3, over=tokens(20_000)))\n"
            "    .then(linear(0.3, 0, over=percent(20)))\n"
            ")",
        ),
    ),
)


def points(curve: Curve) -> tuple[list[float], list[float]]:
    """Return the curve at every step and at the end, with both sides of each jump."""
    times: list[float] = []
    values: list[float] = []
    for k in range(len(curve) + 1):
        for value in dict.fromkeys((curve.left(k), curve(k))):
            times.append(float(k))
            values.append(float(f"{value:.9g}"))  # other machines round the last digits otherwise
    return times, values


def figure(entry: Entry) -> str:
    """Return an entry's figure as SVG."""
    lines = [
        Line(
            label,
            *points(resolved(parse(notation), entry.steps)),
            "faint" if label == METRIC else "solid",
        )
        for label, notation in entry.lines.items()
    ]
    highest = max(value for line in lines for value in line.ys)
    chart = Chart(
        lines=lines,
        title=entry.name,
        y_label="learning rate",
        log_y=entry.log,
        y_range=None if entry.log else (0, 1.05 * highest),
    )
    legend_height = (0, 20, 40)[(len(lines) > 1) + (len(lines) > 3)]
    return styled(svg_chart(chart, width=WIDTH, height=HEIGHT + legend_height))


def styled(svg: str) -> str:
    """Return a picture with the gallery's colours."""
    first, rest = svg.split("\n", 1)
    return f"{first}\n{STYLE}\n{rest}\n"


def banner() -> str:
    """Return the figure that the front pages show: the schedules of the demo."""
    curves = {name: parse(text).resolve(total_steps=450) for name, text in DEMO_SCHEDULES.items()}
    lines = [Line(name, *points(curve)) for name, curve in curves.items()]
    return styled(svg_chart(Chart(lines=lines, y_label="learning rate", y_range=(0, 1.05))))


def block(entry: Entry) -> str:
    """Return an entry as Markdown: a heading, the figure, the notation and the torch code."""
    heading = entry.heading or entry.name
    notation = [
        f"{notation}  # {label}" if label else notation for label, notation in entry.lines.items()
    ]
    parts = [
        f"### {heading}",
        f"![Learning rate by step: {heading}](images/gallery/{entry.file}.svg)",
        entry.note,
        fenced("\n".join(notation)),
    ]
    if entry.torch:
        parts += ["In torch:", fenced(entry.torch)]
    return "\n\n".join(part for part in parts if part)


def fenced(code: str) -> str:
    """Return code as a Markdown block; ``python`` blocks are those that a test of the docs runs."""
    return f"```py\n{code}\n```"


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for family in families():
        blocks = [block(entry) for entry in family.entries]
        parts.append("\n\n".join([f"## {family.name}", family.intro, *blocks]) + "\n")
    return "\n".join(parts)


def written() -> dict[Path, str]:
    """Return the text of every file of the gallery."""
    entries = [entry for family in families() for entry in family.entries]
    figures = {IMAGES / f"{entry.file}.svg": figure(entry) for entry in entries}
    if len(figures) != len(entries):
        raise ValueError("two entries have the same file")
    return {PAGE: page(), BANNER: banner(), **figures}


def differences(files: Mapping[Path, str]) -> list[str]:
    """Return how the files on disk differ from these, a line for each."""
    problems = []
    for path, text in files.items():
        name = path.relative_to(DOCS).as_posix()
        if not path.exists():
            problems.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != text:
            problems.append(f"{name} differs")
    for path in sorted(IMAGES.glob("*")):
        if path not in files:
            problems.append(f"{path.relative_to(DOCS).as_posix()} is no entry's")
    return problems


def main() -> int:
    """Write the gallery, or with --check list the differences."""
    files = written()
    if sys.argv[1:] == ["--check"]:
        problems = differences(files)
        if problems:
            sys.stdout.write("\n".join([*problems, "run python docs/gallery.py\n"]))
        return 1 if problems else 0
    if sys.argv[1:]:
        sys.stdout.write("python docs/gallery.py [--check]\n")
        return 2
    IMAGES.mkdir(parents=True, exist_ok=True)
    for path in IMAGES.glob("*.svg"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

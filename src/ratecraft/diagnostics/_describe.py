"""Looking at an optimizer: what drives which group, and what a scheduler is going to do."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau

from ratecraft.errors import BindingError
from ratecraft.results import Breakdown
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR
from ratecraft.torch._writer import innermost_optimizer, writers_of
from ratecraft.torch.drop_in._schedulers import asked

FIRST: Final = 3  # names of parameters that the table shows
NUMBERS: Final = 6  # columns before the first of words


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """One param group.

    Attributes:
        name: its name, or its number.
        tensors: how many parameters it has.
        weights: how many numbers they hold.
        base: its own lr, which factors multiply.
        lr: its present lr.
        decay: its weight decay; None if its optimizer knows none.
        parameters: their names, as far as they are known.
        external_factor: by how much others than ratecraft multiply it.
        schedules: what drives it, by field.
    """

    name: str
    tensors: int
    weights: int
    base: float
    lr: float
    external_factor: float = 1.0
    schedules: dict[str, str] = field(default_factory=dict)
    decay: float | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What `describe` returns; prints as a table, and shows as one in a notebook.

    Attributes:
        groups: one for each param group, in the optimizer's order.
    """

    groups: tuple[GroupDescription, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table: a row of headings, and one for each group."""
        rows: list[tuple[str, ...]] = [
            ("group", "tensors", "weights", "base", "lr", "decay", "schedule", "parameters")
        ]
        for group in self.groups:
            said = [text if name == "lr" else f"{name}: {text}" for name, text in
                    group.schedules.items()]  # fmt: skip
            if group.carried != 1:
                said.append(f"times {group.external_factor:.6g} by others")
            names = list(group.parameters[:FIRST])
            if len(group.parameters) > FIRST:
                names.append("...")
            rows.append((
                group.name, f"{group.tensors:,}", f"{group.weights:,}", f"{group.base:.6g}",
                f"{group.lr:.6g}", "-" if group.decay is None else f"{group.decay:.6g}",
                "; ".join(said) or "none", ", ".join(names),
            ))  # fmt: skip
        if not any(row[-1] for row in rows[1:]):
            rows = [row[:-1] for row in rows]
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width) if 0 < i < NUMBERS else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *rows = self.rows()
        cells = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
        cells += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def describe(optimizer: Optimizer, model: torch.nn.Module | None = None) -> Description:
    """Return every param group's name, size, base lr, present lr and what drives it.

    Args:
        optimizer: any torch optimizer; the schedules are those of `ScheduleLR`.
        model: the model, for the names of its parameters, where the optimizer was not given
            them by ``model.named_parameters()``.

    >>> from ratecraft import cosine
    >>> net = torch.nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD([
    ...     {"params": [net.weight], "lr": 0.1, "name": "weight"},
    ...     {"params": [net.bias], "lr": 0.2, "name": "bias"},
    ... ])
    >>> _ = ScheduleLR(optimizer, factor=cosine(1, 0.1), total_steps=100)
    >>> print(describe(optimizer))
    group   tensors  weights  base  lr  decay  schedule
    weight        1        6   0.1   0.1      0  factor cosine(1, 0.1)
    bias          1        2   0.2   0.2      0  factor cosine(1, 0.1)
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"describe() looks at a torch optimizer, not {type(optimizer).__name__}")
    writers = {
        what: led for what, led in writers_of(innermost_optimizer(optimizer)).items() if led.sources
    }
    for writer in writers.values():
        writer.sync()
    known = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    groups = []
    for i, group in enumerate(optimizer.param_groups):
        name = str(group.get("name", i))
        base, external_factor = float(group.get("initial_lr", group["lr"])), 1.0
        schedules = {}
        for what, writer in writers.items():
            texts = [text for source in writer.sources if (text := source.text(name))]
            if texts:
                schedules[what] = " and ".join(texts)
            if what == "lr":
                base, external_factor = writer.own[i], writer.external_factor[i]
        weights = sum(p.numel() for p in group["params"])
        names = [known[id(p)] for p in group["params"] if id(p) in known]
        decay = group.get("weight_decay")
        groups.append(
            GroupDescription(
                name, len(group["params"]), weights, base, float(group["lr"]), external_factor, schedules,
                None if decay is None else float(decay),
                tuple(names or group.get("param_names", ())),
            )
        )  # fmt: skip
    return Description(tuple(groups))


def breakdown(*schedulers: Any, steps: int, group: str | int = 0) -> Breakdown:
    """Return each scheduler's own factor beside their product, from step 0 on.

    The product is what these schedulers make of a group's base lr, each stepped once a step;
    what others do is not in it. `ratecraft.report.plot_breakdown` draws it.

    Args:
        schedulers: of one optimizer: `ScheduleLR`, drop-in ones or torch's own, in any number;
            a chain counts as its parts, a `PlateauLR` as schedule and plateau, the latter as
            decided so far.
        steps: how many steps.
        group: the param group, by name or place.

    Raises:
        TypeError: a scheduler that cannot be asked.
        BindingError: no scheduler, several optimizers, two schedulers that write lrs, or no
            such group.

    >>> from ratecraft.torch.drop_in import ExponentialLR, StepLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> seen = breakdown(StepLR(optimizer, 3, 0.5), ExponentialLR(optimizer, 0.9), steps=5)
    >>> seen.factors["StepLR"]
    (1.0, 1.0, 1.0, 0.5, 0.5)
    >>> [round(lr, 6) for lr in seen.lrs]
    [0.1, 0.09, 0.081, 0.03645, 0.032805]
    """
    parts = [part for scheduler in schedulers for part in _parts(scheduler)]
    optimizers = {id(innermost_optimizer(part.optimizer)) for part in parts}
    if len(optimizers) != 1:
        raise BindingError(
            f"breakdown() looks at the schedulers of one optimizer; given {len(optimizers)}"
        )
    groups = parts[0].optimizer.param_groups
    names = [str(one.get("name", i)) for i, one in enumerate(groups)]
    if isinstance(group, int) and 0 <= group < len(names):
        group = names[group]
    if str(group) not in names:
        raise BindingError(f"no group is called {group!r}; the groups are {', '.join(names)}")
    i = names.index(str(group))
    base = float(groups[i].get("initial_lr", groups[i]["lr"]))
    saying = [asked(part) for part in parts]
    absolute = [part for part in saying if getattr(part, "is_absolute", False)]
    if len(absolute) > 1:
        kinds = " and ".join(type(part).__name__ for part in absolute)
        raise BindingError(f"{kinds} both write lrs, and have no product")
    factors: dict[str, tuple[float, ...]] = {}
    for part in saying:
        said = [part.factors(k) for k in range(steps)]
        values = [one[i] if isinstance(one, list) else one for one in said]
        if absolute and part is absolute[0]:
            values = [value / base if base else value for value in values]
        factors[_label(part, names[i], factors)] = tuple(map(float, values))
    rows = zip(*factors.values(), strict=True)
    lrs = tuple((base if base or not absolute else 1.0) * math.prod(row) for row in rows)
    return Breakdown(names[i], base, factors, lrs)


def _parts(scheduler: Any) -> Iterator[Any]:
    """Yield the schedulers that multiply in one."""
    if isinstance(scheduler, PlateauLR):
        yield scheduler.scheduler
        yield scheduler
    elif isinstance(scheduler, ChainedScheduler):
        for part in scheduler._schedulers:
            yield from _parts(part)
    elif isinstance(scheduler, LRScheduler):
        yield scheduler
    else:
        raise TypeError(f"breakdown() looks at torch schedulers, not {type(scheduler).__name__}")


def _label(scheduler: Any, group: str, taken: dict[str, tuple[float, ...]]) -> str:
    """Return what a part is called; a number tells those of one name apart."""
    name = type(scheduler).__name__
    if isinstance(scheduler, ScheduleLR):
        name = scheduler.text(group)
    count = sum(label == name or label.startswith(f"{name} (") for label in taken)
    return f"{name} ({count + 1})" if count else name


def preview(
    scheduler: Any, steps: int, *, metrics: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """Return the lrs that a torch scheduler is going to give, without touching its optimizer.

    A copy of the scheduler steps an optimizer of the same param groups without the parameters.

    Args:
        scheduler: any ``torch.optim.lr_scheduler``, or a `ScheduleLR`.
        steps: how many steps to look ahead, from where the scheduler is.
        metrics: for ReduceLROnPlateau: what its ``step`` will be given, one for each step.

    Returns:
        For each param group, by name or number (both, where names are alike), the lr at each
        of the steps; the first is the present lr.

    Raises:
        TypeError: no scheduler.
        BindingError: a ReduceLROnPlateau without metrics.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> step = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    >>> preview(step, 5)
    {'0': [1.0, 1.0, 0.5, 0.5, 0.25]}
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise BindingError(f"preview(): steps={steps!r} must be an int >= 0")
    if isinstance(scheduler, ScheduleLR):
        return scheduler.preview(steps)
    if not isinstance(scheduler, LRScheduler | ReduceLROnPlateau):
        raise TypeError(f"preview() looks at a torch scheduler, not {type(scheduler).__name__}")
    if isinstance(scheduler, ReduceLROnPlateau) and metrics is None:
        raise BindingError("a ReduceLROnPlateau follows a metric: give metrics=, one a step")
    if metrics is not None and len(metrics) < steps:
        raise BindingError(f"{len(metrics)} metrics for {steps} steps: give one for each")
    twin = on_stand_in(scheduler)
    stand_in = twin.optimizer
    names = [str(group.get("name", i)) for i, group in enumerate(stand_in.param_groups)]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names)]
    lrs: dict[str, list[float]] = {name: [] for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stand-in never steps, which torch warns about
        for k in range(steps):
            for seen, group in zip(lrs.values(), stand_in.param_groups, strict=True):
                seen.append(float(group["lr"]))
            if isinstance(twin, ReduceLROnPlateau):
                twin.step((metrics or [])[k])
            elif k < steps - 1:
                twin.step()
    return lrs


def on_stand_in(scheduler: Any) -> Any:
    """Return a copy of a torch scheduler on an optimizer of the same groups without parameters."""
    optimizer = scheduler.optimizer
    bare = [
        {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
        | {"params": [torch.nn.Parameter(torch.zeros(()))]}
        for group in optimizer.param_groups
    ]
    stand_in = torch.optim.SGD(bare, lr=0.0)
    stand_in.defaults = dict(optimizer.defaults)  # CyclicLR looks whether momentum is in there
    return copy.deepcopy(scheduler, {id(optimizer): stand_in} | _held_by_functions(scheduler))


def _held_by_functions(scheduler: Any) -> dict[int, Any]:
    """Return the models and the like that a scheduler's functions hold, which nobody copies."""
    held: dict[int, Any] = {}
    for part in getattr(scheduler, "_schedulers", [scheduler]):
        for function in getattr(part, "lr_lambdas", []):
            inner = [getattr(function, "__self__", None)]
            inner += getattr(function, "__dict__", {}).values()
            if isinstance(function, functools.partial):
                inner += [*function.args, *function.keywords.values()]
            large = (torch.nn.Module, torch.Tensor, Optimizer)
            held |= {id(one): one for one in inner if isinstance(one, large)}
    return held

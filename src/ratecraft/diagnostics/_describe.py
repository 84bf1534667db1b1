"""Read an optimizer's param groups and schedulers: what sets each lr, and the next lrs."""

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
from ratecraft.torch.drop_in._schedulers import as_drop_in

MAX_PARAMETER_NAMES: Final = 3  # shown per group in the table
FIRST_TEXT_COLUMN: Final = 6  # of the table; the columns between the name and this are numbers


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """One param group.

    Attributes:
        name: the group's name or number.
        num_tensors: the number of parameters.
        numel: the number of elements in them.
        base_lr: the group's base lr, which factors multiply.
        lr: the current lr.
        external_factor: the product of lr changes made by code outside ratecraft.
        schedules: the text of the schedule of each scheduled hyperparameter.
        weight_decay: the weight decay; None if the optimizer has none.
        parameter_names: the names of the parameters, if known.
    """

    name: str
    num_tensors: int
    numel: int
    base_lr: float
    lr: float
    external_factor: float = 1.0
    schedules: dict[str, str] = field(default_factory=dict)
    weight_decay: float | None = None
    parameter_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """The result of `describe`; prints as a table, and displays as one in a notebook.

    Attributes:
        groups: the param groups in the optimizer's order.
    """

    groups: tuple[GroupDescription, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table as text: a header row, then a row per group."""
        rows: list[tuple[str, ...]] = [
            ("group", "tensors", "weights", "base", "lr", "decay", "schedule", "parameters")
        ]
        for group in self.groups:
            texts = [
                text if name == "lr" else f"{name}: {text}"
                for name, text in group.schedules.items()
            ]
            if group.external_factor != 1:
                texts.append(f"external factor {group.external_factor:.6g}")
            names = list(group.parameter_names[:MAX_PARAMETER_NAMES])
            if len(group.parameter_names) > MAX_PARAMETER_NAMES:
                names.append("...")
            rows.append((
                group.name, f"{group.num_tensors:,}", f"{group.numel:,}", f"{group.base_lr:.6g}",
                f"{group.lr:.6g}",
                "-" if group.weight_decay is None else f"{group.weight_decay:.6g}",
                "; ".join(texts) or "none", ", ".join(names),
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
                cell.rjust(width) if 0 < i < FIRST_TEXT_COLUMN else cell.ljust(width)
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
    """Return the name, size, base lr, current lr and schedules of every param group.

    Args:
        optimizer: any torch optimizer. Only ratecraft's schedulers are listed.
        model: the model, for the names of the parameters. Not needed if the optimizer was built
            from ``model.named_parameters()``.

    Raises:
        TypeError: ``optimizer`` is not a torch optimizer.

    >>> import torch
    >>> from ratecraft import cosine
    >>> from ratecraft.diagnostics import describe
    >>> from ratecraft.torch import ScheduleLR
    >>> net = torch.nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD([
    ...     {"params": [net.weight], "lr": 0.1, "name": "weight"},
    ...     {"params": [net.bias], "lr": 0.2, "name": "bias"},
    ... ])
    >>> _ = ScheduleLR(optimizer, factor=cosine(1, 0.1), total_steps=100)
    >>> print(describe(optimizer))
    group   tensors  weights  base   lr  decay  schedule
    weight        1        6   0.1  0.1      0  factor cosine(1, 0.1)
    bias          1        2   0.2  0.2      0  factor cosine(1, 0.1)
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"describe() takes a torch optimizer, not {type(optimizer).__name__}")
    writers = {
        hyperparam: writer
        for hyperparam, writer in writers_of(innermost_optimizer(optimizer)).items()
        if writer.sources
    }
    for writer in writers.values():
        writer.sync()
    known = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    groups = []
    for i, group in enumerate(optimizer.param_groups):
        name = str(group.get("name", i))
        base_lr, external_factor = float(group.get("initial_lr", group["lr"])), 1.0
        schedules = {}
        for hyperparam, writer in writers.items():
            texts = [text for source in writer.sources if (text := source.describe(name))]
            if texts:
                schedules[hyperparam] = " and ".join(texts)
            if hyperparam == "lr":
                base_lr, external_factor = writer.base[i], writer.external_factor[i]
        names = [known[id(p)] for p in group["params"] if id(p) in known]
        weight_decay = group.get("weight_decay")
        groups.append(
            GroupDescription(
                name=name,
                num_tensors=len(group["params"]),
                numel=sum(p.numel() for p in group["params"]),
                base_lr=base_lr,
                lr=float(group["lr"]),
                external_factor=external_factor,
                schedules=schedules,
                weight_decay=None if weight_decay is None else float(weight_decay),
                parameter_names=tuple(names or group.get("param_names", ())),
            )
        )
    return Description(tuple(groups))


def breakdown(*schedulers: Any, steps: int, group: str | int = 0) -> Breakdown:
    """Return the factor of each scheduler and their product with the base lr, from step 0.

    Each scheduler is taken to be stepped once per optimizer step. Lr changes by other code are
    not included. `ratecraft.report.plot_breakdown` draws the result.

    Args:
        schedulers: schedulers of one optimizer: `ScheduleLR`, drop-in schedulers, or torch's own.
            A ``ChainedScheduler`` counts as its parts; a `PlateauLR` as its schedule and its
            plateau, the latter with the reductions made so far.
        steps: the number of steps.
        group: the param group's name or number.

    Raises:
        TypeError: a scheduler without a closed form, such as torch's ``ReduceLROnPlateau``.
        BindingError: no scheduler, schedulers of several optimizers, two schedulers that set the
            lr itself, or an unknown group.

    >>> import torch
    >>> from ratecraft.diagnostics import breakdown
    >>> from ratecraft.torch.drop_in import ExponentialLR, StepLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> parts = breakdown(StepLR(optimizer, 3, 0.5), ExponentialLR(optimizer, 0.9), steps=5)
    >>> parts.factors["StepLR"]
    (1.0, 1.0, 1.0, 0.5, 0.5)
    >>> [round(lr, 6) for lr in parts.lrs]
    [0.1, 0.09, 0.081, 0.03645, 0.032805]
    """
    parts = [part for scheduler in schedulers for part in _parts(scheduler)]
    optimizers = {id(innermost_optimizer(part.optimizer)) for part in parts}
    if len(optimizers) != 1:
        raise BindingError(
            f"breakdown() takes the schedulers of one optimizer; got those of {len(optimizers)}"
        )
    groups = parts[0].optimizer.param_groups
    names = [str(group.get("name", i)) for i, group in enumerate(groups)]
    if isinstance(group, int) and 0 <= group < len(names):
        group = names[group]
    if str(group) not in names:
        raise BindingError(f"no param group is named {group!r}; the groups are {', '.join(names)}")
    i = names.index(str(group))
    base = float(groups[i].get("initial_lr", groups[i]["lr"]))
    closed_forms = [as_drop_in(part) for part in parts]
    absolute = [part for part in closed_forms if getattr(part, "sets_lr", False)]
    if len(absolute) > 1:
        classes = " and ".join(type(part).__name__ for part in absolute)
        raise BindingError(f"{classes} both set the lr itself, so they have no product")
    factors: dict[str, tuple[float, ...]] = {}
    for part in closed_forms:
        by_step = [part.factors(k) for k in range(steps)]
        values = [value[i] if isinstance(value, list) else value for value in by_step]
        if absolute and part is absolute[0]:
            values = [value / base if base else value for value in values]
        factors[_label(part, names[i], factors)] = tuple(map(float, values))
    rows = zip(*factors.values(), strict=True)
    lrs = tuple((base if base or not absolute else 1.0) * math.prod(row) for row in rows)
    return Breakdown(names[i], base, factors, lrs)


def _parts(scheduler: Any) -> Iterator[Any]:
    """Yield the schedulers whose factors multiply to this one's."""
    if isinstance(scheduler, PlateauLR):
        yield scheduler.scheduler
        yield scheduler
    elif isinstance(scheduler, ChainedScheduler):
        for part in scheduler._schedulers:
            yield from _parts(part)
    elif isinstance(scheduler, LRScheduler):
        yield scheduler
    else:
        raise TypeError(f"breakdown() takes torch schedulers, not {type(scheduler).__name__}")


def _label(scheduler: Any, group: str, labels: dict[str, tuple[float, ...]]) -> str:
    """Return a unique label: the schedule's text or the class name, numbered if it is taken."""
    name = type(scheduler).__name__
    if isinstance(scheduler, ScheduleLR):
        name = scheduler.describe(group)
    count = sum(label == name or label.startswith(f"{name} (") for label in labels)
    return f"{name} ({count + 1})" if count else name


def preview(
    scheduler: Any, steps: int, *, metrics: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """Return the next lrs of a torch scheduler without changing it or its optimizer.

    A copy of the scheduler runs on an optimizer with the same param groups and dummy parameters.

    Args:
        scheduler: any ``torch.optim.lr_scheduler``, or a `ScheduleLR`.
        steps: the number of steps, counted from the scheduler's current step.
        metrics: for ``ReduceLROnPlateau``: the metric passed to each call of ``step``, at least
            ``steps`` of them.

    Returns:
        The lrs of each param group, by name or number (by both if two names are equal). The first
        is the current lr.

    Raises:
        TypeError: ``scheduler`` is not a torch scheduler.
        BindingError: ``steps`` is not an int >= 0, or ``metrics`` is missing or too short.

    >>> import torch
    >>> from ratecraft.diagnostics import preview
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    >>> preview(scheduler, 5)
    {'0': [1.0, 1.0, 0.5, 0.5, 0.25]}
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise BindingError(f"preview(): steps={steps!r} must be an int >= 0")
    if isinstance(scheduler, ScheduleLR):
        return scheduler.preview(steps)
    if not isinstance(scheduler, LRScheduler | ReduceLROnPlateau):
        raise TypeError(f"preview() takes a torch scheduler, not {type(scheduler).__name__}")
    if isinstance(scheduler, ReduceLROnPlateau) and metrics is None:
        raise BindingError("ReduceLROnPlateau follows a metric: pass metrics=, one per step")
    if metrics is not None and len(metrics) < steps:
        raise BindingError(f"{len(metrics)} metrics for {steps} steps: pass one per step")
    copied = copy_on_dummy_optimizer(scheduler)
    dummy_optimizer = copied.optimizer
    names = [str(group.get("name", i)) for i, group in enumerate(dummy_optimizer.param_groups)]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names)]
    lrs: dict[str, list[float]] = {name: [] for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns because the dummy optimizer never steps
        for k in range(steps):
            for group_lrs, group in zip(lrs.values(), dummy_optimizer.param_groups, strict=True):
                group_lrs.append(float(group["lr"]))
            if isinstance(copied, ReduceLROnPlateau):
                copied.step((metrics or [])[k])
            elif k < steps - 1:
                copied.step()
    return lrs


def copy_on_dummy_optimizer(scheduler: Any) -> Any:
    """Return a copy of a torch scheduler on an optimizer with the same groups but dummy weights."""
    optimizer = scheduler.optimizer
    groups = [
        {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
        | {"params": [torch.nn.Parameter(torch.zeros(()))]}
        for group in optimizer.param_groups
    ]
    dummy_optimizer = torch.optim.SGD(groups, lr=0.0)
    # CyclicLR reads "momentum" from the defaults.
    dummy_optimizer.defaults = dict(optimizer.defaults)
    memo = {id(optimizer): dummy_optimizer} | _objects_in_lambdas(scheduler)
    return copy.deepcopy(scheduler, memo)


def _objects_in_lambdas(scheduler: Any) -> dict[int, Any]:
    """Return models, tensors and optimizers that ``lr_lambdas`` refer to, as a deepcopy memo.

    With them in the memo, deepcopy does not copy them.
    """
    memo: dict[int, Any] = {}
    for part in getattr(scheduler, "_schedulers", [scheduler]):
        for function in getattr(part, "lr_lambdas", []):
            referenced = [getattr(function, "__self__", None)]
            referenced += getattr(function, "__dict__", {}).values()
            if isinstance(function, functools.partial):
                referenced += [*function.args, *function.keywords.values()]
            large = (torch.nn.Module, torch.Tensor, Optimizer)
            memo |= {id(value): value for value in referenced if isinstance(value, large)}
    return memo

"""Read an optimizer's param groups and schedulers: what sets each lr, and the next lrs."""

import copy
import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau

from ratecraft._render._html import table, table_row
from ratecraft.errors import BindingError
from ratecraft.results import Breakdown
from ratecraft.results._base import pluralize, short_repr
from ratecraft.torch._hyperparam import group_names, innermost_optimizer
from ratecraft.torch._plateau import PlateauLR
from ratecraft.torch._scheduler import ScheduleLR
from ratecraft.torch._writers import writers_of
from ratecraft.torch.drop_in._composites import as_drop_in

MAX_NAMES: Final = 3  # that a table or a message shows
COLUMNS: Final = ("group", "tensors", "weights", "base", "lr", "decay", "schedule", "parameters")
ALIGNMENTS: Final = "<>>>>><<"  # of the columns


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
    parameter_names: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Description:
    """The result of `describe`: the param groups; prints as a table, also in a notebook."""

    groups: tuple[GroupDescription, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table as text, the column names first."""
        rows: list[tuple[str, ...]] = [COLUMNS]
        for group in self.groups:
            texts = [
                text if hyperparam == "lr" else f"{hyperparam}: {text}"
                for hyperparam, text in group.schedules.items()
            ]
            if group.external_factor != 1:
                texts.append(f"external factor {group.external_factor:.6g}")
            sizes = f"{group.num_tensors:,}", f"{group.numel:,}"
            lrs = f"{group.base_lr:.6g}", f"{group.lr:.6g}"
            decay = "-" if group.weight_decay is None else f"{group.weight_decay:.6g}"
            names = first_names(group.parameter_names)
            rows.append((group.name, *sizes, *lrs, decay, "; ".join(texts) or "none", names))
        has_names = any(row[-1] for row in rows[1:])
        return rows if has_names else [row[:-1] for row in rows]

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        cells = zip(ALIGNMENTS, widths, strict=False)
        template = "  ".join(f"{{:{alignment}{width}}}" for alignment, width in cells)
        return "\n".join(template.format(*row).rstrip() for row in rows)

    def __repr__(self) -> str:
        names = first_names([group.name for group in self.groups])
        return short_repr(self, f"{pluralize(len(self.groups), 'param group')} ({names})")

    def _repr_html_(self) -> str:
        head, *rows = self.rows()
        return table(head, [table_row(map(escape, row)) for row in rows])


def first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")


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
    all_writers = writers_of(innermost_optimizer(optimizer))
    writers = {name: writer for name, writer in all_writers.items() if writer.sources}
    for writer in writers.values():
        writer.sync()
    lr_writer = writers.get("lr")
    known = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    names = group_names(optimizer.param_groups)
    groups = []
    for i, (name, group) in enumerate(zip(names, optimizer.param_groups, strict=True)):
        texts = {
            hyperparam: " and ".join(filter(None, [s.describe(name) for s in writer.sources]))
            for hyperparam, writer in writers.items()
        }
        weight_decay = group.get("weight_decay")
        parameter_names = [known[id(p)] for p in group["params"] if id(p) in known]
        groups.append(
            GroupDescription(
                name=name,
                num_tensors=len(group["params"]),
                numel=sum(p.numel() for p in group["params"]),
                base_lr=lr_writer.base[i] if lr_writer else _base_lr(group),
                lr=float(group["lr"]),
                external_factor=lr_writer.external_factor[i] if lr_writer else 1.0,
                schedules={hyperparam: text for hyperparam, text in texts.items() if text},
                weight_decay=None if weight_decay is None else float(weight_decay),
                parameter_names=tuple(parameter_names or group.get("param_names", ())),
            )
        )
    return Description(tuple(groups))


def _base_lr(group: dict[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def breakdown(*schedulers: Any, steps: int, group: str | int = 0) -> Breakdown:
    """Return the factor of each scheduler and their product with the base lr, from step 0.

    It assumes that each scheduler is stepped once per optimizer step, and leaves out changes by
    other code. `ratecraft.report.plot_breakdown` draws the result.

    Args:
        schedulers: those of one optimizer: `ScheduleLR`, drop-in schedulers, or torch's own. A
            ``ChainedScheduler`` counts as its parts; a `PlateauLR` as its schedule and its
            plateau, with the reductions made so far.
        steps: the number of steps.
        group: the param group's name or number.

    Raises:
        TypeError: a scheduler without a closed form, such as torch's ``ReduceLROnPlateau``.
        BindingError: no scheduler, schedulers of several optimizers, two schedulers that set the
            lr itself, or an unknown group.

    >>> import torch
    >>> from ratecraft.torch.drop_in import ExponentialLR, StepLR
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> parts = breakdown(StepLR(optimizer, 3, 0.5), ExponentialLR(optimizer, 0.9), steps=5)
    >>> parts.factors["StepLR"]
    (1.0, 1.0, 1.0, 0.5, 0.5)
    >>> [round(lr, 6) for lr in parts.lrs]
    [0.1, 0.09, 0.081, 0.03645, 0.032805]
    """
    parts = [part for scheduler in schedulers for part in _factors_of(scheduler)]
    optimizers = {id(innermost_optimizer(part.optimizer)) for part in parts}
    if len(optimizers) != 1:
        raise BindingError(
            f"breakdown() takes the schedulers of one optimizer; got those of {len(optimizers)}"
        )
    groups = parts[0].optimizer.param_groups
    names = group_names(groups)
    if isinstance(group, int) and 0 <= group < len(names):
        group = names[group]
    if str(group) not in names:
        raise BindingError(f"no param group is named {group!r}; the groups are {', '.join(names)}")
    i = names.index(str(group))
    base = _base_lr(groups[i])
    closed_forms = [as_drop_in(part) for part in parts]
    absolute = [part for part in closed_forms if getattr(part, "sets_lr", False)]
    if len(absolute) > 1:
        classes = " and ".join(type(part).__name__ for part in absolute)
        raise BindingError(f"{classes} both set the lr itself, so they have no product")
    unit = (base or 1.0) if absolute else base  # the lr at which all factors are 1
    factors: dict[str, tuple[float, ...]] = {}
    for part in closed_forms:
        by_step = [part.factors(k) for k in range(steps)]
        divisor = unit if part in absolute else 1.0
        factors[_label(part, names[i], factors)] = tuple(
            float(value[i] if isinstance(value, list) else value) / divisor for value in by_step
        )
    lrs = tuple(unit * math.prod(row) for row in zip(*factors.values(), strict=True))
    return Breakdown(names[i], base, factors, lrs)


def _factors_of(scheduler: Any) -> Iterator[Any]:
    """Yield the schedulers whose factors multiply to this one's."""
    for part in chain_parts(scheduler):
        if not isinstance(part, LRScheduler):
            raise TypeError(f"breakdown() takes torch schedulers, not {type(part).__name__}")
        if isinstance(part, PlateauLR):
            yield part.scheduler
        yield part


def chain_parts(scheduler: Any) -> Iterator[Any]:
    """Yield the schedulers in a ``ChainedScheduler``; for another scheduler, itself."""
    if isinstance(scheduler, ChainedScheduler):
        for part in scheduler._schedulers:
            yield from chain_parts(part)
    else:
        yield scheduler


def _label(scheduler: Any, group: str, labels: dict[str, tuple[float, ...]]) -> str:
    """Return a unique label: the schedule's text or the class name, numbered if it is taken."""
    is_schedule = isinstance(scheduler, ScheduleLR)
    name = scheduler.describe(group) if is_schedule else type(scheduler).__name__
    count = sum(label == name or label.startswith(f"{name} (") for label in labels)
    return f"{name} ({count + 1})" if count else name


def preview(
    scheduler: Any, steps: int, *, metrics: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """Return the next lrs of a torch scheduler without changing it or its optimizer.

    They are those of each param group, by name or number (by both if two names are equal). The
    first is the current lr.

    Args:
        scheduler: any ``torch.optim.lr_scheduler``, or a `ScheduleLR`.
        steps: the number of steps, counted from the scheduler's current step.
        metrics: for ``ReduceLROnPlateau``: the metric of each step.

    Raises:
        TypeError: ``scheduler`` is not a torch scheduler.
        BindingError: ``steps`` is not an int >= 0, or ``metrics`` is missing or too short.

    >>> import torch
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
    rows: list[list[float]] = []
    with copy_on_dummy_optimizer(scheduler) as copied:
        for k in range(steps):
            rows.append([float(group["lr"]) for group in copied.optimizer.param_groups])
            if isinstance(copied, ReduceLROnPlateau):
                copied.step((metrics or [])[k])
            elif k < steps - 1:
                copied.step()
    names = group_names(scheduler.optimizer.param_groups)
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names)]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


@contextmanager
def copy_on_dummy_optimizer(scheduler: Any) -> Iterator[Any]:
    """Yield a copy of a torch scheduler on an optimizer with the same groups but dummy weights."""
    optimizer = scheduler.optimizer
    groups = [
        copy.deepcopy({**group, "params": []}) | {"params": [torch.nn.Parameter(torch.zeros(()))]}
        for group in optimizer.param_groups
    ]
    dummy_optimizer = torch.optim.SGD(groups, lr=0.0)
    dummy_optimizer.defaults = dict(optimizer.defaults)  # CyclicLR reads "momentum" there
    memo = {id(optimizer): dummy_optimizer} | _objects_in_lambdas(scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns because the dummy optimizer never steps
        yield copy.deepcopy(scheduler, memo)


def _objects_in_lambdas(scheduler: Any) -> dict[int, Any]:
    """Return models, tensors and optimizers of ``lr_lambdas``, as a memo: deepcopy keeps them."""
    memo: dict[int, Any] = {}
    for part in getattr(scheduler, "_schedulers", [scheduler]):
        for function in getattr(part, "lr_lambdas", []):
            attributes = getattr(function, "__dict__", {})
            values = [getattr(function, "__self__", None), *attributes.values()]
            if isinstance(function, functools.partial):
                values += [*function.args, *function.keywords.values()]
            large = (torch.nn.Module, torch.Tensor, Optimizer)
            memo |= {id(value): value for value in values if isinstance(value, large)}
    return memo

"""HyperparamWriter: writes one hyperparameter as base x factors x external factor, per group.

Each scheduler (`ScheduleLR` or drop-in) registers one `FactorSource` with the writer of every
hyperparameter that it schedules. Every write recomputes the product from the base value, so
rounding errors do not accumulate. Before it writes, the writer compares the groups with the values
it wrote last: if other code (another scheduler, the user) changed a value, the ratio becomes that
group's external factor.
"""

from __future__ import annotations

import logging
import math
import operator
import re
import weakref
from collections.abc import Iterable
from typing import Any, Final, TypeVar, cast

import torch
from torch.optim import Optimizer

from ratecraft.errors import BindingError

log = logging.getLogger("ratecraft.torch")

T = TypeVar("T")
Factors = float | list[float]

HYPERPARAM_PATTERN: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
WRITERS_ATTRIBUTE: Final = "_ratecraft_writers"  # of the optimizer
FLOAT32_REL_TOL: Final = 1e-6  # what an lr may lose in a float32 tensor
SAVED_VALUE_REL_TOL: Final = 1e-9  # a saved value this close to the product is used as saved


class FactorSource:
    """The factor of one scheduler: one for all groups, or one for each.

    Attributes:
        sets_lr: whether it gives learning rates, not factors; base counts as 1.
        for_all_groups: whether one schedule is for all groups, including groups added later.
        uniform: whether the factor is the same for all groups.
        factors: the current factor or factors.
    """

    def __init__(self, *, sets_lr: bool = False, for_all_groups: bool = True) -> None:
        self.sets_lr, self.for_all_groups = sets_lr, for_all_groups
        self.uniform = False
        self.factors: Factors = 1.0

    def factors_with_new_group(self, base: float) -> Factors:
        """Return the factors after a group with the given base value was added."""
        return [*self.factors, 1.0] if isinstance(self.factors, list) else self.factors

    def describe(self, group: str) -> str:
        """Return the schedule of a named group in the schedule notation; empty if it has none."""
        return ""


class HyperparamWriter:
    """The values of one hyperparameter in all param groups of an optimizer.

    Attributes:
        hyperparam: its name: a key of the param groups, or an item such as ``betas[0]``.
        key: the key in the param groups.
        base: each group's base value, which factors multiply.
        effective_base: the same, or 1 for every group if a source gives learning rates.
        external_factor: the product of all changes by other code, for each group, including the
            ratio of a group added later.
    """

    def __init__(self, optimizer: Optimizer, hyperparam: str) -> None:
        # The optimizer holds its writers. A strong reference back would keep the optimizer and
        # all its schedulers alive until the next garbage collection.
        self._optimizer, self.hyperparam = weakref.ref(optimizer), hyperparam
        parts = HYPERPARAM_PATTERN.fullmatch(hyperparam)
        self.key = parts[1] if parts else hyperparam
        self.index = int(parts[2]) if parts and parts[2] else None
        self.sources: list[FactorSource] = []
        self.effective_base: list[float] = []
        self.base: list[float] = []
        self.external_factor: list[float] = []
        self._scale: list[float] = []
        self._written: list[Any] = []  # what the groups held after the last write
        self._written_floats: list[float] = []  # the same as floats, if any of them is a tensor
        self._versions: list[int] | None = None  # of tensors, which change in place
        self._warned_at_zero = False
        self._expected: tuple[FactorSource, Factors, list[Any]] | None = None
        self.pending_warnings: list[str] = []  # logged at the first step; a loaded state drops them
        # What set_factor() writes without a look at each value's type.
        self._is_plain = False  # plain numbers
        self._sole_source: FactorSource | None = None  # of a single group with a plain number

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's param groups."""
        return cast(Optimizer, self._optimizer()).param_groups

    @staticmethod
    def of(optimizer: Optimizer, hyperparam: str) -> HyperparamWriter:
        """Return the writer of a hyperparameter, or a new one, which `add` registers."""
        writer = writers_of(optimizer).get(hyperparam)
        # A writer whose sources were all removed is reused only if nothing has changed since.
        if writer is not None and (writer.sources or writer._is_untouched()):
            writer.sync()
            return writer
        writer = HyperparamWriter(optimizer, hyperparam)
        for i, group in enumerate(optimizer.param_groups):
            writer.check(group, i)
        return writer

    def _is_untouched(self) -> bool:
        """Return whether the groups hold what was written last, and have the same bases."""
        groups = self.groups
        if len(groups) != len(self.base):
            return False
        written = zip(self.written_values(), self._written, strict=True)
        if self.current_values() != [_rounded(number, value) for number, value in written]:
            return False
        return self.hyperparam != "lr" or [g.get("initial_lr") for g in groups] == self.base

    def check(self, group: dict[str, Any], i: int) -> None:
        """Refuse a group that does not have the hyperparameter."""
        value: Any = group.get(self.key)
        if self.index is not None:
            has_item = isinstance(value, tuple | list) and self.index < len(value)
            value = value[self.index] if has_item else None
        if not _is_number(value):
            names = [name for name, content in group.items() if _is_number(content)]
            for name, content in group.items():
                if isinstance(content, tuple):
                    names += [f"{name}[{j}]" for j in range(len(content))]
            raise BindingError(
                f"{group_name(group, i)} has no number {self.hyperparam!r} to schedule; "
                f"it has {', '.join(names)}"
            )

    # Adding and removing sources ----------------------------------------------------------

    def check_source(self, source: FactorSource) -> None:
        """Refuse a second source that sets the lr, or different values for one shared tensor."""
        values = [self._value_in(group) for group in self.groups]
        tensors = [id(value) for value in values if isinstance(value, torch.Tensor)]
        if len(set(tensors)) < len(tensors) and not source.uniform:
            raise BindingError(
                f"param groups share one {self.hyperparam} tensor and cannot have different "
                "values; give each group a tensor of its own"
            )
        if source.sets_lr and any(other.sets_lr for other in self.sources):
            raise BindingError(
                f"the {self.hyperparam} of this optimizer is already set by a scheduler that "
                "writes lrs (lr=, CyclicLR, OneCycleLR); pass the second schedule as factor=, or "
                "remove() the first scheduler"
            )

    def add(self, source: FactorSource, base: list[float], external_factor: list[float]) -> None:
        """Add a source; ``base`` and ``external_factor`` are used if it is the first one."""
        if not self.base:
            self.base, self.external_factor = list(base), list(external_factor)
            self._record_written()
        optimizer = cast(Optimizer, self._optimizer())
        writers = vars(optimizer).setdefault(WRITERS_ATTRIBUTE, {})
        if not writers and "_optimizer_step_pre_hooks" in vars(optimizer):
            optimizer.register_load_state_dict_pre_hook(_before_load)
            optimizer.register_load_state_dict_post_hook(_after_load)
            hook = torch.compiler.disable(_before_step)  # type: ignore[no-untyped-call]
            optimizer.register_step_pre_hook(hook)
        writers[self.hyperparam] = self
        self.detect_external_changes()  # relative to the factors that were in force
        self.sources.append(source)
        self._record_written()
        self._rescale()

    def remove(self, source: FactorSource) -> None:
        """Remove a source; the values stay until the next write."""
        has_all_groups = len(self.groups) >= len(self.base)
        if has_all_groups:
            self.sync()
        self.sources.remove(source)
        if has_all_groups:
            self._record_written(self.written_values())
            self._rescale()

    def _rescale(self) -> None:
        sets_lr = any(source.sets_lr for source in self.sources)
        self.effective_base = [1.0] * len(self.base) if sets_lr else list(self.base)
        factors = zip(self.effective_base, self.external_factor, strict=True)
        self._scale = [base * external_factor for base, external_factor in factors]

    def sync(self) -> None:
        """Detect external changes and add new groups."""
        groups, before = self.groups, len(self.base)
        if len(groups) < before:
            raise BindingError(
                f"the optimizer has {len(groups)} param groups, and had {before} when its "
                "scheduler was built; remove() the scheduler and build a new one"
            )
        self.detect_external_changes()
        if len(groups) > before:
            new_groups = list(enumerate(groups))[before:]
            for i, group in new_groups:
                self.check(group, i)
            numbers = self.written_values()
            numbers += [self._add_group(group, i) for i, group in new_groups]
            self._rescale()
            self._record_written(numbers)

    def _add_group(self, group: dict[str, Any], i: int) -> float:
        """Add a group and return its value; its base is `initial_lr`, if set, or that value."""
        value = self._value_in(group)
        current = base = float(value)
        external_factor, origin = 1.0, ""
        ids = [id(other) for other in self._written]
        if isinstance(value, torch.Tensor) and id(value) in ids:
            # The optimizer's default tensor, which this writer fills: its value is not a base. The
            # new group gets a copy of it, and the base and external factor of the group that has
            # the same tensor.
            j = ids.index(id(value))
            base, external_factor = self.base[j], self.external_factor[j]
            group[self.key] = value.clone()
            origin = (
                f"the {self.hyperparam} tensor of {group_name(self.groups[j], j)}: it gets a "
                f"copy, and that group's base {base:g} and external factor {external_factor:g}"
            )
        elif self.base[0] and any(
            source.sets_lr and source.for_all_groups for source in self.sources
        ):
            # One lr= for all groups ignores the base, so the new group keeps its ratio instead.
            external_factor = base / self.base[0]
            origin = (
                f"{self.hyperparam} {base:g}, where the first group has a base of "
                f"{self.base[0]:g}: it keeps that ratio, {external_factor:g}, to the scheduled lr"
            )
        if external_factor == 1.0:
            log.info("%s was added with %s %g", group_name(group, i), self.hyperparam, base)
        else:
            log.warning("%s was added with %s", group_name(group, i), origin)
        if self.hyperparam == "lr":
            base = float(group.setdefault("initial_lr", base))
        self.base.append(base)
        self.external_factor.append(external_factor)
        for source in self.sources:
            source.factors = source.factors_with_new_group(base)
        return current

    # Reading ------------------------------------------------------------------------------

    def _value_in(self, group: dict[str, Any]) -> Any:
        return group[self.key] if self.index is None else group[self.key][self.index]

    def current_values(self) -> list[float]:
        """Return what each group holds now."""
        return [float(self._value_in(group)) for group in self.groups]

    def initial_values(self, *, fresh: bool) -> tuple[list[float], list[float]]:
        """Return each group's base and external factor, which is lr / initial_lr for a new run."""
        if self.base:
            return self.base, self.external_factor
        current = self.current_values()
        if self.hyperparam != "lr":
            return current, [1.0] * len(current)
        base = [float(g.get("initial_lr", lr)) for g, lr in zip(self.groups, current, strict=True)]
        external_factor = [
            lr / value if fresh and lr and value and not is_same_lr(lr, value) else 1.0
            for lr, value in zip(current, base, strict=True)
        ]
        return base, external_factor

    def written_values(self) -> list[float]:
        """Return what each group held after the last write."""
        return list(map(float, self._written) if self._versions is None else self._written_floats)

    def copy_written(self) -> list[Any]:
        """Return what was written last, with tensors copied."""
        return list(self._written) if self._versions is None else copied(self._written)

    def _record_written(self, numbers: list[float] | None = None) -> None:
        """Record what the groups hold; passing ``numbers`` avoids reading them from a device."""
        self._written = [self._value_in(group) for group in self.groups[: len(self.base)]]
        tensors = any(isinstance(value, torch.Tensor) for value in self._written)
        self._versions = [_version(value) for value in self._written] if tensors else None
        self._written_floats = numbers or list(map(float, self._written)) if tensors else []
        self._is_plain = not tensors and self.index is None
        is_sole = self._is_plain and len(self._written) == len(self.sources) == 1
        self._sole_source = self.sources[0] if is_sole and self.sources[0].uniform else None

    def detect_external_changes(self) -> None:
        """Multiply changes by other code since the last write into the external factor."""
        current = [self._value_in(group) for group in self.groups[: len(self.base)]]
        if self._versions is None:
            if current == self._written:
                return
        elif [_version(value) for value in current] == self._versions and all(
            map(operator.is_, current, self._written)
        ):
            return
        if self._expected is not None and current == self._expected[2]:
            # Ignite reads the lrs with get_lr() and writes them itself.
            source, factors, _ = self._expected
            source.factors = factors
            self._record_written()
            return
        product = self._product()
        for i, (value, before) in enumerate(zip(current, self.written_values(), strict=True)):
            number = float(value)
            if number != _rounded(before, value):
                self._fold_change(i, number, product[i] if isinstance(product, list) else product)
        self._rescale()
        self._record_written()

    def _fold_change(self, i: int, current: float, product: float) -> None:
        name = group_name(self.groups[i], i)
        if self.effective_base[i] * product != 0:
            self.external_factor[i] = current / (self.effective_base[i] * product)
            log.debug("%s: other code set %s to %g: its external factor is %g from now on",
                      name, self.hyperparam, current, self.external_factor[i])  # fmt: skip
        elif self.effective_base[i] == 0:
            self.base[i] = current / product if product else current
            if self.hyperparam == "lr":
                self.groups[i]["initial_lr"] = self.base[i]
            log.info("%s: %s was 0 and was set by other code; its base is now %g",
                     name, self.hyperparam, self.base[i])  # fmt: skip
        elif not self._warned_at_zero:
            self._warned_at_zero = True
            log.warning(
                "%s: %s was set to %g while the schedule is at 0, so the intended multiplier is "
                "unknown; the change is ignored", name, self.hyperparam, current,
            )  # fmt: skip

    # Writing ------------------------------------------------------------------------------

    def _product(self, source: FactorSource | None = None, factors: Factors = 1.0) -> Factors:
        """Return the product of all sources, with ``factors`` for those of ``source``."""
        if self.sources == [source]:
            return factors
        return product_of_factors(
            [factors if other is source else other.factors for other in self.sources]
        )

    def values(self, source: FactorSource | None = None, factors: Factors = 1.0) -> list[float]:
        """Return the value that each group should have, with ``factors`` for ``source``."""
        product = self._product(source, factors)
        if isinstance(product, list):
            return [a * b for a, b in zip(self._scale, product, strict=True)]
        return [scale * product for scale in self._scale]

    def set_factor(
        self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]
    ) -> None:
        """Set one source's factors and write the new values to the param groups."""
        # Runs after every step, so it makes few lookups and calls: benchmarks/step_speed.py.
        key = self.key
        if source is self._sole_source and len(groups) == 1:
            group = groups[0]
            if group[key] is self._written[0]:
                group[key] = value = self._scale[0] * factors  # type: ignore[operator]  # uniform
                self._written = [value]
                source.factors = factors
                return
        if self._is_plain and len(groups) == len(self._written):
            values = self.values(source, factors)
            for group, before, value in zip(groups, self._written, values):  # noqa: B905  # slow
                if group[key] is not before:
                    break
                group[key] = value
            else:
                self._written = values
                source.factors = factors
                return
            for group, before, value in zip(groups, self._written, values, strict=True):
                if group[key] is value:  # undo the writes before the change by other code
                    group[key] = before
        has_new_groups = len(groups) > len(self.base)
        self.sync()
        if not has_new_groups:  # otherwise sync() has set the factors, new groups included
            source.factors = factors
        self.write()

    def expect_write(self, source: FactorSource, factors: Factors, values: list[Any]) -> None:
        """Record values that a caller may write itself; they do not count as an external change."""
        self._expected = source, factors, list(values)

    def write(self, values: list[float] | None = None) -> None:
        """Write every group's value: ``values``, or those that follow from the factors."""
        values = self.values() if values is None else values
        for group, value in zip(self.groups, values, strict=True):
            current = self._value_in(group)
            if isinstance(current, torch.Tensor):
                current.fill_(value)  # in place: a compiled step holds a reference to this tensor
            elif self.index is None:
                group[self.key] = value
            else:
                items = list(group[self.key])
                items[self.index] = value
                group[self.key] = type(group[self.key])(items)
        self._record_written(values)

    # Saving -------------------------------------------------------------------------------

    def state(self) -> dict[str, list[float]]:
        """Return base, external factor and value of each group as plain data."""
        self.sync()
        return {
            "base": list(self.base),
            "external_factor": list(self.external_factor),
            "value": self.written_values(),
        }

    def check_state(self, state: Any) -> None:
        """Refuse a saved state that does not fit this optimizer, before anything is changed."""
        groups = len(self.groups)
        for key in ("base", "external_factor", "value"):
            values = state.get(key) if isinstance(state, dict) else None
            if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
                raise BindingError(f"the saved state has no list {key!r} for {self.hyperparam!r}")
            if len(values) != groups:
                raise BindingError(
                    f"the saved state has {len(values)} param groups, and this optimizer has "
                    f"{groups}"
                )

    def restore(self, state: dict[str, list[float]]) -> None:
        """Load a saved state and write its values, bit for bit if they match the factors."""
        self.pending_warnings = []
        self.base, self.external_factor = list(state["base"]), list(state["external_factor"])
        if self.hyperparam == "lr":
            for group, base in zip(self.groups, self.base, strict=True):
                if not isinstance(group.get("initial_lr"), torch.Tensor):
                    group["initial_lr"] = base
        self._rescale()
        # The external factor was computed from the value, so the product may differ by rounding.
        pairs = zip(state["value"], self.values(), strict=True)
        self.write(
            [
                saved if math.isclose(saved, value, rel_tol=SAVED_VALUE_REL_TOL) else value
                for saved, value in pairs
            ]
        )


def product_of_factors(factors: list[Factors]) -> Factors:
    """Return the product of factors: a number if it is the same for all groups."""
    product: Factors = factors[0] if factors else 1.0
    for factor in factors[1:]:
        if isinstance(product, list):
            right = factor if isinstance(factor, list) else [factor] * len(product)
            product = [a * b for a, b in zip(product, right, strict=True)]
        elif isinstance(factor, list):
            product = [product * b for b in factor]
        else:
            product *= factor
    return product


def writers_of(optimizer: Optimizer) -> dict[str, HyperparamWriter]:
    """Return an optimizer's writers by hyperparameter."""
    writers: dict[str, HyperparamWriter] = vars(optimizer).get(WRITERS_ATTRIBUTE, {})
    return writers


def _before_load(optimizer: Optimizer, _: Any) -> None:
    """Before ``optimizer.load_state_dict``: detect external changes made so far."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.sync()


def _after_load(optimizer: Optimizer) -> None:
    """After ``optimizer.load_state_dict``: write the scheduled values over the loaded ones."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.write(writer.written_values())


def _before_step(optimizer: Optimizer, *_: Any) -> None:
    """Before a step: log pending warnings, and add new groups and write their values."""
    groups = optimizer.param_groups
    writers = writers_of(optimizer).values()
    for writer in writers:
        for message in writer.pending_warnings:
            log.warning(message)
        writer.pending_warnings = []
        if len(groups) == len(writer.base) or not writer.sources:
            continue
        for i in range(len(writer.base), len(groups)):
            for other in writers:
                other.check(groups[i], i)
        writer.sync()
        writer.write()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | torch.Tensor) and not isinstance(value, bool)


def _rounded(number: float, current: Any) -> float:
    """Return a number rounded to the dtype of a tensor, without reading from its device."""
    if not isinstance(current, torch.Tensor):
        return number
    return torch.tensor(number, dtype=current.dtype, device="cpu").item()


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else -1


def copied(values: Iterable[Any]) -> list[Any]:
    """Return the values, with tensors copied."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in values]


def is_same_lr(a: float, b: float) -> bool:
    """Return whether two lrs are equal, up to what one loses in a float32 tensor."""
    return math.isclose(a, b, rel_tol=FLOAT32_REL_TOL)


def group_name(group: dict[str, Any], i: int) -> str:
    """Return a param group's name for messages: its ``"name"``, or its index."""
    return repr(group["name"]) if "name" in group else f"group {i}"


def group_names(groups: list[dict[str, Any]]) -> list[str]:
    """Return the names of param groups, by which schedules address them: the index if unnamed."""
    return [str(group.get("name", i)) for i, group in enumerate(groups)]


def by_group(groups: list[dict[str, Any]], values: list[T]) -> T | dict[str, T]:
    """Return the value that all groups have, or a dict with each group's value by name."""
    if all(value == values[0] for value in values):
        return values[0]
    return dict(zip(group_names(groups), values, strict=True))


def innermost_optimizer(optimizer: Optimizer, *, counted: bool = False) -> Optimizer:
    """Return the optimizer that makes the step, inside wrappers such as Accelerate's."""
    inner: Any = optimizer
    while isinstance(inner, Optimizer):
        if "_optimizer_step_post_hooks" in vars(inner):
            return inner
        inner = getattr(inner, "optimizer", None)
    if counted:
        raise BindingError(
            f"{type(optimizer).__name__} has no step hooks, so its steps cannot be counted; "
            'pass clock="step" and call step() after each step'
        )
    return optimizer

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
import re
import weakref
from typing import Any, Final, NamedTuple, cast

import torch
from torch.optim import Optimizer

from ratecraft.errors import BindingError

log = logging.getLogger("ratecraft.torch")

Factors = float | list[float]

HYPERPARAM_PATTERN: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
WRITERS_ATTRIBUTE: Final = "_ratecraft_writers"  # of the optimizer
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


class ExpectedWrite(NamedTuple):
    """Values that a caller computed and may write itself, and the factors that they follow from."""

    source: FactorSource
    factors: Factors
    values: list[Any]


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
        self._expected: ExpectedWrite | None = None
        self.pending_warnings: list[str] = []  # logged at the first step; a loaded state drops them
        # What allows the fast path: plain numbers, and a single source with one factor for all.
        self._is_plain = False
        self._only_source: FactorSource | None = None
        self._group_count = 0

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's param groups."""
        return cast(Optimizer, self._optimizer()).param_groups

    @staticmethod
    def of(optimizer: Optimizer, hyperparam: str) -> HyperparamWriter:
        """Return the optimizer's writer of a hyperparameter, or a new one, which `add` registers.

        A writer whose sources were all removed is reused only if nothing has changed since.

        Raises:
            BindingError: a group does not have the hyperparameter, or it is not a number.
        """
        writer = writers_of(optimizer).get(hyperparam)
        if writer is not None and (writer.sources or writer.is_untouched()):
            writer.sync()
            return writer
        writer = HyperparamWriter(optimizer, hyperparam)
        for i, group in enumerate(optimizer.param_groups):
            writer.check(group, i)
        return writer

    def is_untouched(self) -> bool:
        """Return whether the groups hold what was written last, and have the same bases."""
        groups = self.groups
        if len(groups) != len(self.base) or self.current_values() != self.rounded_values():
            return False
        if self.hyperparam != "lr":
            return True
        return [group.get("initial_lr") for group in groups] == self.base

    def check(self, group: dict[str, Any], i: int) -> None:
        """Refuse a group that does not have the hyperparameter."""
        value = group.get(self.key)
        if self.index is not None and isinstance(value, tuple | list) and self.index < len(value):
            value = value[self.index]
        elif self.index is not None:
            value = None
        if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor):
            numbers = [
                name
                for name, content in group.items()
                if isinstance(content, int | float | torch.Tensor) and not isinstance(content, bool)
            ]
            numbers += [
                f"{name}[{j}]"
                for name, content in group.items()
                if isinstance(content, tuple)
                for j in range(len(content))
            ]
            raise BindingError(
                f"{group_name(group, i)} has no number {self.hyperparam!r} to schedule; "
                f"it has {', '.join(numbers)}"
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

    def current_values(self) -> list[float]:
        """Return what each group holds now."""
        return [float(self._value_in(group)) for group in self.groups]

    def written_values(self) -> list[float]:
        """Return what each group held after the last write."""
        written = self._written_floats if self._versions is not None else map(float, self._written)
        return list(written)

    def has_tensors(self) -> bool:
        """Return whether a group held a tensor at the last write."""
        return self._versions is not None

    def copy_written(self) -> list[Any]:
        """Return what was written last, with tensors copied."""
        if self._versions is None:
            return list(self._written)
        return [v.clone() if isinstance(v, torch.Tensor) else v for v in self._written]

    def rounded_values(self) -> list[float]:
        """Return what was written last, rounded to each group's dtype."""
        return [
            _rounded(number, value)
            for number, value in zip(self.written_values(), self._written, strict=True)
        ]

    def add(self, source: FactorSource, base: list[float], external_factor: list[float]) -> None:
        """Add a source; ``base`` and ``external_factor`` are used if it is the first one."""
        if not self.base:
            self.base, self.external_factor = list(base), list(external_factor)
            self._record_written(self.groups)
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
        self._record_written(self.groups)
        self._rescale()

    def remove(self, source: FactorSource) -> None:
        """Remove a source; the values stay until the next write."""
        has_all_groups = len(self.groups) >= len(self.base)
        if has_all_groups:
            self.sync()
        self.sources.remove(source)
        if has_all_groups:
            self._record_written(self.groups, self.written_values())
            self._rescale()

    def _rescale(self) -> None:
        sets_lr = any(source.sets_lr for source in self.sources)
        self.effective_base = [1.0] * len(self.base) if sets_lr else list(self.base)
        self._scale = [
            base * external_factor
            for base, external_factor in zip(self.effective_base, self.external_factor, strict=True)
        ]

    def sync(self) -> None:
        """Detect external changes and add new groups.

        Raises:
            BindingError: a group was removed from the optimizer.
        """
        now, before = len(self.groups), len(self.base)
        if now < before:
            raise BindingError(
                f"the optimizer has {now} param groups, and had {before} when its scheduler was "
                "built; remove() the scheduler and build a new one"
            )
        self.detect_external_changes()
        if now > before:
            numbers = self.written_values()
            for i in range(before, now):
                self.check(self.groups[i], i)
            for i in range(before, now):
                numbers.append(self._add_group(self.groups[i], i))
            self._rescale()
            self._record_written(self.groups, numbers)

    def _add_group(self, group: dict[str, Any], i: int) -> float:
        """Add a group that joined later; its base is `initial_lr` if set, else its current value.

        Return the current value.
        """
        value, written = self._value_in(group), self._written
        current = base = float(value)
        external_factor = 1.0
        is_tensor = isinstance(value, torch.Tensor)
        same_tensor = [j for j, other in enumerate(written) if is_tensor and value is other]
        if same_tensor:
            # The optimizer's default tensor, which this writer fills: its value is not a base. The
            # new group gets a copy of it, and the base and external factor of the group that has
            # the same tensor.
            base = self.base[same_tensor[0]]
            external_factor = self.external_factor[same_tensor[0]]
            group[self.key] = value.clone()
        elif (
            any(source.sets_lr and source.for_all_groups for source in self.sources)
            and self.base[0]
        ):
            # One lr= for all groups ignores the base, so the new group keeps its ratio instead.
            external_factor = base / self.base[0]
        name = group_name(group, i)
        if external_factor == 1.0:
            log.info("%s was added with %s %g", name, self.hyperparam, base)
        elif same_tensor:
            log.warning(
                "%s was added with the %s tensor of %s: it gets a copy, and that group's base %g "
                "and external factor %g", name, self.hyperparam,
                group_name(self.groups[same_tensor[0]], same_tensor[0]), base, external_factor,
            )  # fmt: skip
        else:
            log.warning(
                "%s was added with %s %g, where the first group has a base of %g: it keeps that "
                "ratio, %g, to the scheduled lr", name, self.hyperparam, base, self.base[0],
                external_factor,
            )  # fmt: skip
        if self.hyperparam == "lr":
            base = float(group.setdefault("initial_lr", base))
        self.base.append(base)
        self.external_factor.append(external_factor)
        for source in self.sources:
            source.factors = source.factors_with_new_group(base)
        return current

    # Reading and writing ------------------------------------------------------------------

    def _value_in(self, group: dict[str, Any]) -> Any:
        return group[self.key] if self.index is None else group[self.key][self.index]

    def _record_written(
        self, groups: list[dict[str, Any]], numbers: list[float] | None = None
    ) -> None:
        """Record what the groups hold; passing ``numbers`` avoids reading them from a device."""
        self._written = [self._value_in(group) for group in groups]
        tensors = any(isinstance(value, torch.Tensor) for value in self._written)
        self._versions = [_version(value) for value in self._written] if tensors else None
        self._written_floats = numbers or list(map(float, self._written)) if tensors else []
        self._group_count = len(groups)
        self._is_plain = not tensors and self.index is None
        only = self.sources[0] if len(self.sources) == 1 else None
        self._only_source = only if self._is_plain and only and only.uniform else None

    def detect_external_changes(self) -> None:
        """Multiply changes by other code since the last write into the external factor."""
        groups = self.groups[: len(self.base)]
        current = [self._value_in(group) for group in groups]
        if self._versions is None:
            if current == self._written:
                return
        elif [_version(value) for value in current] == self._versions and all(
            a is b for a, b in zip(current, self._written, strict=True)
        ):
            return
        if self._expected is not None and current == self._expected.values:
            # Ignite reads the lrs with get_lr() and writes them itself.
            self._expected.source.factors = self._expected.factors
            self._record_written(groups)
            return
        product = self._product()
        for i, (value, before) in enumerate(zip(current, self.written_values(), strict=True)):
            number = float(value)
            if number != _rounded(before, value):
                factor = product[i] if isinstance(product, list) else product
                self._fold_change(i, number, factor)
        self._rescale()
        self._record_written(groups)

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
            log.info(
                "%s: %s was 0 and was set by other code; its base is now %g",
                name, self.hyperparam, self.base[i],
            )  # fmt: skip
        elif not self._warned_at_zero:
            self._warned_at_zero = True
            log.warning(
                "%s: %s was set to %g while the schedule is at 0, so the intended multiplier is "
                "unknown; the change is ignored", name, self.hyperparam, current,
            )  # fmt: skip

    def _product_with(self, source: FactorSource, factors: Factors) -> Factors:
        """Return the product of all sources if ``source`` had these factors."""
        before = source.factors
        try:
            source.factors = factors
            return self._product()
        finally:
            source.factors = before

    def _product(self) -> Factors:
        """Return the product of all sources: a number if it is the same for all groups."""
        return product_of_factors([source.factors for source in self.sources])

    def set_factor(
        self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]
    ) -> None:
        """Set one source's factors and write the new values to the param groups."""
        # Runs after every step, so it makes few lookups and calls: benchmarks/step_speed.py.
        if source is self._only_source and self._group_count == len(groups) == 1:
            group, key = groups[0], self.key
            if group[key] is self._written[0]:
                group[key] = value = self._scale[0] * factors  # type: ignore[operator]  # uniform
                self._written = [value]
                source.factors = factors
                return
        if self._is_plain and len(groups) == self._group_count:
            self._write_plain(source, factors, groups)
        else:
            self._sync_and_write(source, factors)

    def _write_plain(
        self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]
    ) -> None:
        """Write plain numbers, in one pass that also detects changes by other code."""
        alone = len(self.sources) == 1
        product = factors if alone else self._product_with(source, factors)
        key = self.key
        values: list[Any] = []
        # strict=True is slow here.
        if isinstance(product, list):
            rows = zip(groups, self._scale, self._written, product)  # noqa: B905
            for group, scale, before, factor in rows:
                if group[key] is not before:
                    self._undo_and_sync(source, factors, values)
                    return
                group[key] = value = scale * factor
                values.append(value)
        else:
            for group, scale, before in zip(groups, self._scale, self._written):  # noqa: B905
                if group[key] is not before:
                    self._undo_and_sync(source, factors, values)
                    return
                group[key] = value = scale * product
                values.append(value)
        self._written = values
        source.factors = factors

    def _undo_and_sync(self, source: FactorSource, factors: Factors, written: list[float]) -> None:
        """Undo the writes so far; then detect the change by other code and write again."""
        for group, before in zip(self.groups, self._written[: len(written)], strict=False):
            group[self.key] = before
        self._sync_and_write(source, factors)

    def _sync_and_write(self, source: FactorSource, factors: Factors) -> None:
        groups = self.groups
        has_new_groups = len(groups) > len(self.base)
        self.sync()
        if not has_new_groups:  # otherwise sync() has set the factors, new groups included
            source.factors = factors
        self._write_values(groups, self.values())

    def expect_write(self, source: FactorSource, factors: Factors, values: list[Any]) -> None:
        """Record values that a caller may write itself; they do not count as an external change."""
        self._expected = ExpectedWrite(source, factors, values)

    def values_with(self, source: FactorSource, factors: Factors) -> list[float]:
        """Return each group's value if ``source`` had these factors, without writing it."""
        before = source.factors
        try:
            source.factors = factors
            return self.values()
        finally:
            source.factors = before

    def values(self) -> list[float]:
        """Return the value that each group should have now."""
        product = self._product()
        if isinstance(product, list):
            return [a * b for a, b in zip(self._scale, product, strict=True)]
        return [scale * product for scale in self._scale]

    def _write_values(self, groups: list[dict[str, Any]], values: list[float]) -> None:
        for group, value in zip(groups, values, strict=True):
            current = self._value_in(group)
            if isinstance(current, torch.Tensor):
                current.fill_(value)  # in place: a compiled step holds a reference to this tensor
            elif self.index is None:
                group[self.key] = value
            else:
                items = list(group[self.key])
                items[self.index] = value
                group[self.key] = type(group[self.key])(items)
        self._record_written(groups, values)

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
        groups = self.groups
        self.base, self.external_factor = list(state["base"]), list(state["external_factor"])
        if self.hyperparam == "lr":
            for group, base in zip(groups, self.base, strict=True):
                if not isinstance(group.get("initial_lr"), torch.Tensor):
                    group["initial_lr"] = base
        self._rescale()
        # The external factor was computed from the value, so the product may differ by rounding.
        values = [
            saved if math.isclose(saved, value, rel_tol=SAVED_VALUE_REL_TOL) else value
            for saved, value in zip(state["value"], self.values(), strict=True)
        ]
        self._write_values(groups, values)

    def rewrite(self) -> None:
        """Write the last written values again, over those that replaced them."""
        self._write_values(self.groups, self.written_values())

    def write(self) -> None:
        """Compute and write every group's value."""
        self._write_values(self.groups, self.values())


def product_of_factors(factors: list[Factors]) -> Factors:
    """Return the product of factors: a number if it is the same for all groups."""
    product: Factors = 1.0
    for factor in factors:
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
            writer.rewrite()


def _before_step(optimizer: Optimizer, *_: Any) -> None:
    """Before a step: log pending warnings, and add new groups and write their values."""
    groups = optimizer.param_groups
    for writer in writers_of(optimizer).values():
        if writer.pending_warnings:
            for message in writer.pending_warnings:
                log.warning(message)
            writer.pending_warnings = []
        if len(groups) == len(writer.base) or not writer.sources:
            continue
        for i in range(len(writer.base), len(groups)):
            for other in writers_of(optimizer).values():
                other.check(groups[i], i)
        writer.sync()
        writer.write()


def _rounded(number: float, current: Any) -> float:
    """Return a number rounded to the dtype of a tensor, without reading from its device."""
    if not isinstance(current, torch.Tensor):
        return number
    return torch.tensor(number, dtype=current.dtype, device="cpu").item()


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else -1


def group_name(group: dict[str, Any], i: int) -> str:
    """Return a param group's name for messages: its ``"name"``, or its index."""
    return repr(group["name"]) if "name" in group else f"group {i}"


def innermost_optimizer(optimizer: Optimizer, *, counted: bool = False) -> Optimizer:
    """Return the optimizer that makes the step, inside wrappers such as Accelerate's.

    Raises:
        BindingError: ``counted``, but the optimizer has no step hooks to count with.
    """
    inner: Any = optimizer
    while "_optimizer_step_post_hooks" not in vars(inner):
        inner = getattr(inner, "optimizer", None)
        if isinstance(inner, Optimizer):
            continue
        if counted:
            raise BindingError(
                f"{type(optimizer).__name__} has no step hooks, so its steps cannot be counted; "
                'pass clock="step" and call step() after each step'
            )
        return optimizer
    return cast(Optimizer, inner)

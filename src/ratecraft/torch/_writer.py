"""HyperparamWriter: writes one hyperparameter as base x factors x external factor, per group.

Each scheduler (`ScheduleLR` or drop-in) registers one `FactorSource` with the writer of every
hyperparameter that it schedules. Every write recomputes the product from the base value, so
rounding errors do not accumulate. Before it writes, the writer compares the groups with the values
it wrote last: if other code (another scheduler, the user) changed a value, the ratio becomes that
group's external factor.
"""

import logging
import math
import operator
import weakref
from typing import Any, Final, cast

import torch
from torch.optim import Optimizer

from ratecraft.errors import BindingError

from ._factors import Factors, FactorSource, product_of_factors, scaled
from ._hyperparam import (
    Hyperparam,
    copied,
    group_keys,
    group_name,
    is_same_lr,
    rounded,
    version,
)

log = logging.getLogger("ratecraft.torch")

SAVED_VALUE_REL_TOL: Final = 1e-9  # a saved value this close to the product is used as saved


class HyperparamWriter:
    """The values of one hyperparameter in all param groups of an optimizer.

    Attributes:
        hyperparam: which one.
        sources: the factors, one of each scheduler.
        base: each group's base value, which factors multiply.
        effective_base: the same, or 1 for every group if a source gives learning rates.
        external_factor: the product of all changes by other code, for each group, including the
            ratio of a group added later.
        expected_write: source, factors and values that a caller of get_lr() may write itself.
        pending_warnings: warnings for the first step, which a loaded state drops.
        is_released: whether torch's SWALR sets the values now, and this writer no longer does.
    """

    def __init__(self, optimizer: Optimizer, hyperparam: str) -> None:
        # The optimizer holds its writers. A strong reference back would keep the optimizer and
        # all its schedulers alive until the next garbage collection.
        self._optimizer, self.hyperparam = weakref.ref(optimizer), Hyperparam(hyperparam)
        self._key = self.hyperparam.key
        self._read_key = operator.itemgetter(self._key)
        self.sources: list[FactorSource] = []
        self.base: list[float] = []
        self.effective_base: list[float] = []
        self.external_factor: list[float] = []
        self.group_keys: list[int] = []  # in their order
        self._scale: list[float] = []  # effective base x external factor
        self._written: list[Any] = []  # what the groups held after the last write
        self._numbers: list[float] = []  # the same as floats, if any of them is a tensor
        self._versions: list[int] | None = None  # if any is a tensor, which changes in place
        self._is_plain = False  # whether the groups hold plain numbers
        self._has_one_value = False  # whether all groups get the same value
        self._warned_at_zero = self.is_released = False
        self.expected_write: tuple[FactorSource, Factors, list[Any]] | None = None
        self.pending_warnings: list[str] = []

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, which refers to this writer, and so exists."""
        return cast(Optimizer, self._optimizer())

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's param groups."""
        return self.optimizer.param_groups

    # Adding and removing sources ----------------------------------------------------------

    def check_source(self, source: FactorSource) -> None:
        """Refuse a second source that sets the lr, or different values for one shared tensor."""
        name = self.hyperparam.name
        values = [self.hyperparam.read(group) for group in self.groups]
        tensors = [id(value) for value in values if isinstance(value, torch.Tensor)]
        if len(set(tensors)) < len(tensors) and not source.uniform:
            raise BindingError(
                f"param groups share one {name} tensor and cannot have different "
                "values; give each group a tensor of its own"
            )
        if source.sets_lr and any(other.sets_lr for other in self.sources):
            raise BindingError(
                f"the {name} of this optimizer is already set by a scheduler that "
                "writes lrs (lr=, CyclicLR, OneCycleLR); pass the second schedule as factor=, or "
                "remove() the first scheduler"
            )

    def add(self, source: FactorSource, base: list[float], external_factor: list[float]) -> None:
        """Add a source; ``base`` and ``external_factor`` are used if it is the first one."""
        if not self.base:
            self.base, self.external_factor = list(base), list(external_factor)
            self.group_keys = group_keys(self.groups)
            self._record_written()
        self.detect_external_changes()  # relative to the factors that were in force
        self.sources.append(source)
        self._rescale()

    def remove(self, source: FactorSource) -> None:
        """Remove a source; the values stay until the next write."""
        if len(self.groups) >= len(self.base):
            self.sync()
        self.sources.remove(source)
        self._rescale()

    def _rescale(self) -> None:
        sets_lr = any(source.sets_lr for source in self.sources)
        self.effective_base = [1.0] * len(self.base) if sets_lr else list(self.base)
        self._scale = scaled(self.effective_base, self.external_factor)
        self.compare_groups()

    def compare_groups(self) -> None:
        """Find out whether all groups get the same value."""
        is_uniform = all(map(operator.attrgetter("uniform"), self.sources))
        self._has_one_value = self._is_plain and is_uniform and len(set(self._scale)) == 1

    def sync(self) -> None:
        """Detect external changes and add new groups."""
        groups, before = self.groups, len(self.base)
        if len(groups) < before:
            raise BindingError(
                f"the optimizer has {len(groups)} param groups, and had {before} when its "
                "scheduler was built; remove() the scheduler and build a new one"
            )
        self._follow_order(groups)
        self.detect_external_changes()
        if len(groups) > before:
            new_groups = list(enumerate(groups))[before:]
            for i, group in new_groups:
                self.hyperparam.check(group, i)
            numbers = [
                *self.written_values(),
                *(self._add_group(group, i) for i, group in new_groups),
            ]
            self.group_keys = group_keys(groups)
            self._record_written(numbers)
            self._rescale()
            self.write()

    def _follow_order(self, groups: list[dict[str, Any]]) -> None:
        """Follow param groups that were put into another order since the last write."""
        keys = group_keys(groups[: len(self.base)])
        if keys == self.group_keys:
            return
        if sorted(keys) == sorted(self.group_keys):
            order = [self.group_keys.index(key) for key in keys]
            self.base = [self.base[j] for j in order]
            self.external_factor = [self.external_factor[j] for j in order]
            self._written = [self._written[j] for j in order]
            self._numbers = [self._numbers[j] for j in order] if self._numbers else []
            if self._versions is not None:
                self._versions = [self._versions[j] for j in order]
            for source in self.sources:
                source.reorder(order)
            self._rescale()
        self.group_keys = keys

    def _add_group(self, group: dict[str, Any], i: int) -> float:
        """Add a group and return its value; its base is `initial_lr`, if set, or that value."""
        value, name = self.hyperparam.read(group), self.hyperparam.name
        current = base = float(value)
        external_factor, origin = 1.0, ""
        ids = [id(other) for other in self._written]
        if isinstance(value, torch.Tensor) and id(value) in ids:
            # The optimizer's default tensor, which this writer fills: its value is not a base. The
            # new group gets a copy of it, and the base and external factor of the group that has
            # the same tensor.
            j = ids.index(id(value))
            base, external_factor = self.base[j], self.external_factor[j]
            group[self.hyperparam.key] = value.clone()
            origin = (
                f"the {name} tensor of {group_name(self.groups[j], j)}: it gets a "
                f"copy, and that group's base {base:g} and external factor {external_factor:g}"
            )
        elif self.base[0] and any(
            source.sets_lr and source.for_all_groups for source in self.sources
        ):
            # One lr= for all groups ignores the base, so the new group keeps its ratio instead.
            external_factor = base / self.base[0]
            origin = (
                f"{name} {base:g}, where the first group has a base of "
                f"{self.base[0]:g}: it keeps that ratio, {external_factor:g}, to the scheduled lr"
            )
        if external_factor == 1.0:
            log.info("%s was added with %s %g", group_name(group, i), name, base)
        else:
            log.warning("%s was added with %s", group_name(group, i), origin)
        if name == "lr":
            is_set = "initial_lr" in group
            base = float(group.setdefault("initial_lr", base))
        if not (name == "lr" and is_set):
            for source in self.sources:
                base = source.base_of_new_group(base, self.base[0])
        self.base.append(base)
        self.external_factor.append(external_factor)
        for source in self.sources:
            source.factors = source.factors_with_new_group(base)
        return current

    # Reading ------------------------------------------------------------------------------

    def initial_values(self, *, fresh: bool) -> tuple[list[float], list[float]]:
        """Return each group's base and external factor, which is lr / initial_lr for a new run."""
        if self.base:
            return self.base, self.external_factor
        current = self.hyperparam.values(self.groups)
        if self.hyperparam.name != "lr":
            return current, [1.0] * len(current)
        base = [float(g.get("initial_lr", lr)) for g, lr in zip(self.groups, current, strict=True)]
        external_factor = [
            lr / value if fresh and lr and value and not is_same_lr(lr, value) else 1.0
            for lr, value in zip(current, base, strict=True)
        ]
        return base, external_factor

    def written_values(self) -> list[float]:
        """Return what each group held after the last write."""
        return list(map(float, self._written) if self._versions is None else self._numbers)

    def copy_written(self) -> list[Any]:
        """Return what was written last, with tensors copied."""
        return list(self._written) if self._is_plain else copied(self._written)

    def detect_external_changes(self) -> None:
        """Multiply changes by other code since the last write into the external factor."""
        if self.is_released:
            return
        groups = self.groups[: len(self.base)]
        current = list(map(self.hyperparam.read, groups))
        is_same = all(map(operator.is_, current, self._written))
        if is_same and self._versions is not None:
            is_same = [version(value) for value in current] == self._versions
        if not is_same:
            self._fold_changes(current, groups)
            self._record_written()

    def _fold_changes(self, current: list[Any], groups: list[dict[str, Any]]) -> None:
        """Multiply the changes in the groups' current values into the external factor."""
        if self.expected_write is not None and current == self.expected_write[2]:
            # Ignite reads the lrs with get_lr() and writes them itself.
            source, factors, _ = self.expected_write
            source.factors = factors
            return
        product = (
            self.sources[0].factors
            if len(self.sources) == 1
            else product_of_factors([source.factors for source in self.sources])
        )
        numbers = self._written if self._versions is None else self._numbers
        for i, (value, before) in enumerate(zip(current, numbers, strict=True)):
            number = float(value)
            if "swa_lr" in groups[i] and self._is_step_of_swalr(i, number, float(before)):
                self._release()
                return
            if isinstance(value, torch.Tensor):
                self._is_plain = False
                is_same = number == rounded(before, value)
            else:
                is_same = number == before
            if is_same:
                continue
            factor = product[i] if isinstance(product, list) else product
            if self.effective_base[i] * factor:
                self.external_factor[i] = number / (self.effective_base[i] * factor)
                self._scale[i] = self.effective_base[i] * self.external_factor[i]
            else:
                self._change_at_zero(i, number, factor)
        self.compare_groups()

    def _is_step_of_swalr(self, i: int, current: float, before: float) -> bool:
        """Return whether a change moved the lr towards the ``swa_lr`` of torch's SWALR."""
        swa_lr = self.groups[i]["swa_lr"]
        is_between = min(before, swa_lr) <= current <= max(before, swa_lr)
        return bool(self.hyperparam.name == "lr" and current != before and is_between)

    def _release(self) -> None:
        """Stop writing: from its first step on, SWALR sets the lr."""
        self.is_released, self._is_plain, self._has_one_value = True, False, False
        log.info("SWALR sets the lr from now on; the schedule no longer does")

    def _change_at_zero(self, i: int, current: float, factor: float) -> None:
        """Take a change of a value that was 0: as the base if that is 0, else not at all."""
        name = group_name(self.groups[i], i)
        if self.effective_base[i] == 0:
            self.base[i] = current / factor if factor else current
            if self.hyperparam.name == "lr":
                self.groups[i]["initial_lr"] = self.base[i]
            self._rescale()
            log.info("%s: %s was 0 and was set by other code; its base is now %g",
                     name, self.hyperparam.name, self.base[i])  # fmt: skip
        elif not self._warned_at_zero:
            self._warned_at_zero = True
            log.warning(
                "%s: %s was set to %g while the schedule is at 0, so the intended multiplier is "
                "unknown; the change is ignored", name, self.hyperparam.name, current,
            )  # fmt: skip

    # Writing ------------------------------------------------------------------------------

    def values(self, source: FactorSource | None = None, factors: Factors = 1.0) -> list[float]:
        """Return the value that each group should have, with ``factors`` for ``source``."""
        parts = [factors if other is source else other.factors for other in self.sources]
        return scaled(self._scale, parts[0] if len(parts) == 1 else product_of_factors(parts))

    def set_factor(
        self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]
    ) -> None:
        """Set one source's factors and write the new values to the param groups."""
        # Runs after every step, so it makes few lookups and calls: benchmarks/step_speed.py.
        key, written = self._key, self._written
        if self._has_one_value and len(groups) == (count := len(written)):
            before = written[0]
            if count == 1 and len(self.sources) == 1:  # without loops, which cost a tenth
                group = groups[0]
                if group[key] is before:
                    source.factors = factors
                    group[key] = written[0] = self._scale[0] * factors  # type: ignore[operator]
                    return
            for group in groups:
                if group[key] is not before:
                    break
            else:
                source.factors = factors
                if len(self.sources) > 1:
                    factors = product_of_factors([other.factors for other in self.sources])
                value = self._scale[0] * factors  # type: ignore[operator]  # one for all groups
                for group in groups:
                    group[key] = value
                self._written = [value] * count
                return
        if self._is_plain and len(groups) == len(written):
            current = list(map(self._read_key, groups))
            if not all(map(operator.is_, current, written)):
                self._follow_order(groups)
                self._fold_changes(current, groups)
            if self._is_plain:  # still: no tensor has replaced a number
                source.factors = factors
                self._written = values = self.values()
                for group, value in zip(groups, values):  # noqa: B905  # strict= costs time
                    group[key] = value
                return
        has_new_groups = len(groups) > len(self.base)
        self.sync()
        if not has_new_groups:  # otherwise sync() has set the factors, new groups included
            source.factors = factors
        self.write()

    def write(self, values: list[float] | None = None) -> None:
        """Write every group's value: ``values``, or those that follow from the factors."""
        if self.is_released:
            return
        values = self.values() if values is None else values
        for group, value in zip(self.groups, values, strict=True):
            self.hyperparam.write(group, value)
        self._record_written(values)

    def write_initial_lrs(self) -> None:
        """Set each group's ``initial_lr``, which other schedulers start from, to its base lr."""
        if self.hyperparam.name == "lr":
            for group, base in zip(self.groups, self.base, strict=False):
                if not isinstance(group.get("initial_lr"), torch.Tensor):
                    group["initial_lr"] = base

    def _record_written(self, numbers: list[float] | None = None) -> None:
        """Record what the groups hold; passing ``numbers`` avoids reading them from a device."""
        read = self.hyperparam.read
        self._written = [read(group) for group in self.groups[: len(self.base)]]
        tensors = any(isinstance(value, torch.Tensor) for value in self._written)
        self._numbers = numbers or list(map(float, self._written)) if tensors else []
        self._versions = [version(value) for value in self._written] if tensors else None
        is_scheduled = self.hyperparam.index is None and not self.is_released
        self._is_plain = not tensors and is_scheduled

    # Saving -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return base, external factor and value of each group as plain data."""
        self.sync()
        is_released = self.is_released
        return {
            "base": list(self.base),
            "external_factor": list(self.external_factor),
            "value": self.hyperparam.values(self.groups) if is_released else self.written_values(),
            "released": is_released,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load a saved state and write its values, bit for bit if they match the factors."""
        self.pending_warnings, self.is_released = [], bool(state.get("released", False))
        self.base, self.external_factor = list(state["base"]), list(state["external_factor"])
        self.write_initial_lrs()
        if self.is_released:
            for group, value in zip(self.groups, state["value"], strict=True):
                self.hyperparam.write(group, value)
            self._record_written()
            self._rescale()
            return
        self._rescale()
        # The external factor was computed from the value, so the product may differ by rounding.
        pairs = zip(state["value"], self.values(), strict=True)
        self.write(
            [
                saved if math.isclose(saved, value, rel_tol=SAVED_VALUE_REL_TOL) else value
                for saved, value in pairs
            ]
        )

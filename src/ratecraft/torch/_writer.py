"""One writer per optimizer and field: lr = base x factors x what others did, written afresh.

Every `ScheduleLR` on an optimizer has a *source* in the writer of each field it drives. A write
multiplies a few numbers afresh, so nothing drifts; and it first looks at what it finds: if
somebody else changed a value since the last write (a scheduler that multiplies, a person), that
ratio is carried on.
"""

from __future__ import annotations

import logging
import math
import re
import weakref
from typing import Any, Final, cast

import torch
from torch.optim import Optimizer

from ratecraft.errors import BindingError

log = logging.getLogger("ratecraft.torch")

Factors = float | list[float]

FIELD: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
LEDGERS: Final = "_ratecraft_ledgers"
NEAR: Final = 1e-9  # relative: a saved value this near to the product is the product


class FactorSource:
    """One scheduler's part in a writer: a factor for all groups, or one for each.

    Attributes:
        absolute: the factor is the value itself, so that the base plays no part.
        shared: one schedule speaks for all groups, also for those that are added later.
        uniform: it says the same factor for all groups.
        factors: what this source says now.
    """

    def __init__(self, *, absolute: bool = False, shared: bool = True) -> None:
        self.absolute, self.shared = absolute, shared
        self.uniform = False
        self.factors: Factors = 1.0

    def join(self, own: float) -> Factors:
        """Return the factors with a group that was added late, whose own value is given."""
        return [*self.factors, 1.0] if isinstance(self.factors, list) else self.factors

    def text(self, group: str) -> str:
        """Return the notation of what drives a named group, for a description."""
        return ""


class HyperparamWriter:
    """The values of one field in all param groups of an optimizer.

    Attributes:
        base: each group's own value, which factors multiply; 1 where a source is absolute.
        own: each group's own value, also where a source is absolute.
        external_factor: what others multiplied it by.
    """

    def __init__(self, optimizer: Optimizer, field: str) -> None:
        # The optimizer holds its writers. A reference back would keep it alive until the next
        # collection, and every scheduler with it.
        self._optimizer, self.field = weakref.ref(optimizer), field
        parts = FIELD.fullmatch(field)
        self.name = parts[1] if parts else field
        self.index = int(parts[2]) if parts and parts[2] else None
        self.sources: list[FactorSource] = []
        self.base: list[float] = []
        self.own: list[float] = []
        self.external_factor: list[float] = []
        self._scale: list[float] = []
        self._written: list[Any] = []  # what the groups held after the last write
        self._tensors: list[float] = []  # the same as numbers, where they are tensors
        self._versions: list[int] | None = None  # of tensors, whose changes keep their identity
        self._told_zero = False
        self._expected: tuple[FactorSource, Factors, list[Any]] | None = None
        self.doubts: list[str] = []  # told at the first step, unless a state is loaded before
        # What makes a write quick: plain numbers, and an only source that says one factor for all.
        self._plain = False
        self._alone: FactorSource | None = None
        self._count = 0

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's param groups."""
        return cast(Optimizer, self._optimizer()).param_groups

    @staticmethod
    def of(optimizer: Optimizer, field: str) -> HyperparamWriter:
        """Return the writer of a field; the optimizer holds it, so that both end together.

        One that nobody speaks in any more is taken up again only if nothing has changed since.

        Raises:
            BindingError: a group has no such field, or it holds no number.
        """
        writer = writers_of(optimizer).get(field)
        if writer is not None and (writer.sources or writer.is_untouched()):
            writer.sync()
            return writer
        writer = HyperparamWriter(optimizer, field)
        for i, group in enumerate(optimizer.param_groups):
            writer.check(group, i)
        return writer

    def is_untouched(self) -> bool:
        """Return whether the groups hold what was written, and their bases are the same."""
        groups = self.groups
        if len(groups) != len(self.own) or self.found() != self.rounded():
            return False
        if self.field != "lr":
            return True
        return [group.get("initial_lr") for group in groups] == self.own

    def check(self, group: dict[str, Any], i: int) -> None:
        """Refuse a group that has no such field."""
        value = group.get(self.name)
        if self.index is not None and isinstance(value, tuple | list) and self.index < len(value):
            value = value[self.index]
        elif self.index is not None:
            value = None
        if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor):
            numbers = [
                name
                for name, held in group.items()
                if isinstance(held, int | float | torch.Tensor) and not isinstance(held, bool)
            ]
            numbers += [
                f"{name}[{j}]"
                for name, held in group.items()
                if isinstance(held, tuple)
                for j in range(len(held))
            ]
            raise BindingError(
                f"{group_name(group, i)} has no number {self.field!r} to schedule; "
                f"it has {', '.join(numbers)}"
            )

    # Joining ------------------------------------------------------------------------------

    def check_voice(self, source: FactorSource) -> None:
        """Refuse a second source that is absolute, or one that a shared tensor cannot follow."""
        held = [self._held(group) for group in self.groups]
        tensors = [id(value) for value in held if isinstance(value, torch.Tensor)]
        if len(set(tensors)) < len(tensors) and not source.uniform:
            raise BindingError(
                f"param groups share one {self.field} tensor and cannot have different values; "
                f"give each group a tensor of its own"
            )
        if source.absolute and any(other.absolute for other in self.sources):
            raise BindingError(
                f"{self.field}: this optimizer's {self.field} is innermost_optimizer by a schedule with lr= "
                "already; give the second one as factor=, or remove() the first"
            )

    def found(self) -> list[float]:
        """Return what each group holds."""
        return [float(self._held(group)) for group in self.groups]

    def numbers(self) -> list[float]:
        """Return what each group held after the last write."""
        return list(self._tensors if self._versions is not None else map(float, self._written))

    def has_tensors(self) -> bool:
        """Return whether a group held a tensor at the last write."""
        return self._versions is not None

    def copies(self) -> list[Any]:
        """Return the same as the groups hold it, tensors as copies."""
        if self._versions is None:
            return list(self._written)
        return [v.clone() if isinstance(v, torch.Tensor) else v for v in self._written]

    def rounded(self) -> list[float]:
        """Return the same as the groups' types hold it."""
        return [_rounded(n, held) for n, held in zip(self.numbers(), self._written, strict=True)]

    def add(self, source: FactorSource, base: list[float], external_factor: list[float]) -> None:
        """Let a source in; the first one's ``base`` and ``carried`` open the writer."""
        if not self.own:
            self.own, self.external_factor = list(base), list(external_factor)
            self._remember(self.groups)
        optimizer = cast(Optimizer, self._optimizer())
        writers = vars(optimizer).setdefault(LEDGERS, {})
        if not writers and "_optimizer_step_pre_hooks" in vars(optimizer):
            optimizer.register_load_state_dict_pre_hook(_loading)
            optimizer.register_load_state_dict_post_hook(_loaded)
            hook = torch.compiler.disable(_stepping)  # type: ignore[no-untyped-call]
            optimizer.register_step_pre_hook(hook)
        writers[self.field] = self
        self.absorb()  # under the factors that were in force
        self.sources.append(source)
        self._remember(self.groups)
        self._rescale()

    def remove(self, source: FactorSource) -> None:
        """Take a source out; the values stay as they are until the next write."""
        fits = len(self.groups) >= len(self.own)
        if fits:
            self.sync()
        self.sources.remove(source)
        if fits:
            self._remember(self.groups, self.numbers())
            self._rescale()

    def _rescale(self) -> None:
        absolute = any(source.absolute for source in self.sources)
        self.base = [1.0] * len(self.own) if absolute else list(self.own)
        self._scale = [
            base * external_factor
            for base, external_factor in zip(self.base, self.external_factor, strict=True)
        ]

    def sync(self) -> None:
        """Take in what happened since the last write: changes by others, and late groups.

        Raises:
            BindingError: a group went away.
        """
        now, before = len(self.groups), len(self.own)
        if now < before:
            raise BindingError(
                f"the optimizer has {now} param groups, and had {before} when its scheduler was "
                "built; remove() it and build another"
            )
        self.absorb()
        if now > before:
            numbers = self.numbers()
            for i in range(before, now):
                self.check(self.groups[i], i)
            for i in range(before, now):
                numbers.append(self._join(self.groups[i], i))
            self._rescale()
            self._remember(self.groups, numbers)

    def _join(self, group: dict[str, Any], i: int) -> float:
        """Let in a group that was added late: its own value is its base. Return that value."""
        held, others = self._held(group), self._written
        found = own = float(held)
        ratio = 1.0
        shared = [j for j, other in enumerate(others) if held is other]
        if shared and isinstance(held, torch.Tensor):
            # The optimizer's default tensor, which we fill: what it holds is no base. The group
            # gets a tensor of its own, and the base and the rest from the group beside it.
            own, ratio = self.own[shared[0]], self.external_factor[shared[0]]
            group[self.name] = held.clone()
        elif any(source.absolute and source.shared for source in self.sources) and self.own[0]:
            # Under one lr= for all there is no base to multiply: what a group keeps is its ratio.
            ratio = own / self.own[0]
        name = group_name(group, i)
        if ratio != 1.0:
            log.warning(
                "%s joined with %s %g beside %g: it keeps that ratio, %g, to the scheduled lr",
                name, self.field, own, self.own[0], ratio,
            )  # fmt: skip
        else:
            log.info("%s joined with %s %g", name, self.field, own)
        if self.field == "lr":
            own = float(group.setdefault("initial_lr", own))
        self.own.append(own)
        self.external_factor.append(ratio)
        for source in self.sources:
            source.factors = source.join(own)
        return found

    # Reading and writing ------------------------------------------------------------------

    def _held(self, group: dict[str, Any]) -> Any:
        return group[self.name] if self.index is None else group[self.name][self.index]

    def _remember(self, groups: list[dict[str, Any]], numbers: list[float] | None = None) -> None:
        """Note what the groups hold; ``numbers``, where known, spare a device the question."""
        self._written = [self._held(group) for group in groups]
        tensors = any(isinstance(value, torch.Tensor) for value in self._written)
        self._versions = [_version(value) for value in self._written] if tensors else None
        self._tensors = numbers or list(map(float, self._written)) if tensors else []
        self._count = len(groups)
        self._plain = not tensors and self.index is None
        only = self.sources[0] if len(self.sources) == 1 else None
        self._alone = only if self._plain and only and only.uniform else None

    def absorb(self) -> None:
        """Carry on what somebody else did since the last write: the found ratio, taken afresh."""
        groups = self.groups[: len(self.own)]
        found = [self._held(group) for group in groups]
        if self._versions is None:
            if found == self._written:
                return
        elif [_version(value) for value in found] == self._versions and all(
            a is b for a, b in zip(found, self._written, strict=True)
        ):
            return
        if self._expected is not None and found == self._expected[2]:
            # Ignite asks for the lrs and writes them itself.
            self._expected[0].factors = self._expected[1]
            self._remember(groups)
            return
        product = self._multiplied()
        for i, (value, before) in enumerate(zip(found, self.numbers(), strict=True)):
            number = float(value)
            if number != _rounded(before, value):
                self._carry(i, number, product[i] if isinstance(product, list) else product)
        self._rescale()
        self._remember(groups)

    def _carry(self, i: int, found: float, product: float) -> None:
        name = group_name(self.groups[i], i)
        if self.base[i] * product != 0:
            self.external_factor[i] = found / (self.base[i] * product)
            log.debug("%s: %s was set to %g beside us: a factor of %g is carried on",
                      name, self.field, found, self.external_factor[i])  # fmt: skip
        elif self.base[i] == 0:
            self.own[i] = found / product if product else found
            if self.field == "lr":
                self.groups[i]["initial_lr"] = self.own[i]
            log.info("%s: %s was 0 and is %g now, its new base", name, self.field, self.own[i])
        elif not self._told_zero:
            self._told_zero = True
            log.warning(
                "%s: %s was set to %g while the schedule is at 0; by how much that was meant to "
                "multiply it cannot be seen, and it is not carried on", name, self.field, found,
            )  # fmt: skip

    def _multiplied_with(self, source: FactorSource, factors: Factors) -> Factors:
        """Return the product if this source said that."""
        said = source.factors
        try:
            source.factors = factors
            return self._multiplied()
        finally:
            source.factors = said

    def _multiplied(self) -> Factors:
        """Return the product of all sources: a number while they agree over the groups."""
        return multiplied([source.factors for source in self.sources])

    def say(self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]) -> None:
        """Let a source say its factors now, and write every group's value afresh."""
        # Few names and few calls, since this runs after every step: benchmarks/step_speed.py.
        if source is self._alone and self._count == len(groups) == 1:
            group, name = groups[0], self.name
            if group[name] is self._written[0]:
                group[name] = value = self._scale[0] * factors  # type: ignore[operator]  # uniform
                self._written = [value]
                source.factors = factors
                return
        if self._plain and len(groups) == self._count:
            self._say_plainly(source, factors, groups)
        else:
            self._say_slowly(source, factors)

    def _say_plainly(
        self, source: FactorSource, factors: Factors, groups: list[dict[str, Any]]
    ) -> None:
        """Write plain numbers, in one pass that notices who else was here."""
        alone = len(self.sources) == 1
        product = factors if alone else self._multiplied_with(source, factors)
        name = self.name
        values: list[Any] = []
        if isinstance(product, list):
            rows = zip(groups, self._scale, self._written, product)  # noqa: B905 - slow
            for group, scale, before, share in rows:
                if group[name] is not before:
                    self._look_closely(source, factors, values)
                    return
                group[name] = value = scale * share
                values.append(value)
        else:
            for group, scale, before in zip(groups, self._scale, self._written):  # noqa: B905 - slow
                if group[name] is not before:
                    self._look_closely(source, factors, values)
                    return
                group[name] = value = scale * product
                values.append(value)
        self._written = values
        source.factors = factors

    def _look_closely(self, source: FactorSource, factors: Factors, written: list[float]) -> None:
        """Somebody was here: go back to where this pass began, and carry on what they did."""
        for group, before in zip(self.groups, self._written[: len(written)], strict=False):
            group[self.name] = before
        self._say_slowly(source, factors)

    def _say_slowly(self, source: FactorSource, factors: Factors) -> None:
        groups = self.groups
        late = len(groups) > len(self.own)
        self.sync()
        if not late:  # else every source was asked for factors with the late group
            source.factors = factors
        self._put(groups, self.values())

    def expect(self, source: FactorSource, factors: Factors, values: list[Any]) -> None:
        """Note values that somebody asked for and may write: found there, they are our own."""
        self._expected = source, factors, values

    def asked(self, source: FactorSource, factors: Factors) -> list[float]:
        """Return what each group would get if this source said that; nothing is written."""
        said = source.factors
        try:
            source.factors = factors
            return self.values()
        finally:
            source.factors = said

    def values(self) -> list[float]:
        """Return what belongs into each group now."""
        product = self._multiplied()
        if isinstance(product, list):
            return [a * b for a, b in zip(self._scale, product, strict=True)]
        return [scale * product for scale in self._scale]

    def _put(self, groups: list[dict[str, Any]], values: list[float]) -> None:
        for group, value in zip(groups, values, strict=True):
            held = self._held(group)
            if isinstance(held, torch.Tensor):
                held.fill_(value)  # in place: a compiled step holds on to this tensor
            elif self.index is None:
                group[self.name] = value
            else:
                items = list(group[self.name])
                items[self.index] = value
                group[self.name] = type(group[self.name])(items)
        self._remember(groups, values)

    # Saving -------------------------------------------------------------------------------

    def state(self) -> dict[str, list[float]]:
        """Return the writer as plain data, with what others have done up to now."""
        self.sync()
        return {
            "base": list(self.own),
            "external_factor": list(self.external_factor),
            "now": self.numbers(),
        }

    def check_state(self, state: Any) -> None:
        """Refuse a saved writer that is not about this optimizer, before anything is changed."""
        groups = len(self.groups)
        for key in ("base", "external_factor", "now"):
            values = state.get(key) if isinstance(state, dict) else None
            if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
                raise BindingError(f"the saved state has no {key!r} for {self.field!r}")
            if len(values) != groups:
                raise BindingError(
                    f"the saved state is of {len(values)} param groups, and this optimizer has "
                    f"{groups}"
                )

    def restore(self, state: dict[str, list[float]]) -> None:
        """Take over a saved writer and write: the saved values to the last bit, where they fit."""
        self.doubts = []
        groups = self.groups
        self.own, self.external_factor = list(state["base"]), list(state["external_factor"])
        if self.field == "lr":
            for group, own in zip(groups, self.own, strict=True):
                if not isinstance(group.get("initial_lr"), torch.Tensor):
                    group["initial_lr"] = own
        self._rescale()
        # A value that somebody else wrote is base x product x carried up to a rounding only.
        values = [
            saved if math.isclose(saved, value, rel_tol=NEAR) else value
            for saved, value in zip(state["now"], self.values(), strict=True)
        ]
        self._put(groups, values)

    def rewrite(self) -> None:
        """Write what belongs there over what was put in its place."""
        self._put(self.groups, self.numbers())

    def write(self) -> None:
        """Write every group's value afresh."""
        self._put(self.groups, self.values())


def multiplied(said: list[Factors]) -> Factors:
    """Return the product of factors: a number while they agree over the groups."""
    product: Factors = 1.0
    for factors in said:
        if isinstance(product, list):
            right = factors if isinstance(factors, list) else [factors] * len(product)
            product = [a * b for a, b in zip(product, right, strict=True)]
        elif isinstance(factors, list):
            product = [product * b for b in factors]
        else:
            product *= factors
    return product


def writers_of(optimizer: Optimizer) -> dict[str, HyperparamWriter]:
    """Return an optimizer's writers by field."""
    writers: dict[str, HyperparamWriter] = vars(optimizer).get(LEDGERS, {})
    return writers


def _loading(optimizer: Optimizer, _: Any) -> None:
    """Before ``optimizer.load_state_dict``: what others did up to now is theirs."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.sync()


def _loaded(optimizer: Optimizer) -> None:
    """After ``optimizer.load_state_dict``: what it holds is old, and nobody's deed."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.rewrite()


def _stepping(optimizer: Optimizer, *_: Any) -> None:
    """Before a step: a late group is trained at its scheduled value from the first on."""
    groups = optimizer.param_groups
    for writer in writers_of(optimizer).values():
        if writer.doubts:
            for doubt in writer.doubts:
                log.warning(doubt)
            writer.doubts = []
        if len(groups) == len(writer.own) or not writer.sources:
            continue
        for i in range(len(writer.own), len(groups)):
            for other in writers_of(optimizer).values():
                other.check(groups[i], i)
        writer.sync()
        writer.write()


def _rounded(number: float, like: Any) -> float:
    """Return what a number becomes in a tensor of that type, without asking its device."""
    if not isinstance(like, torch.Tensor):
        return number
    return torch.tensor(number, dtype=like.dtype, device="cpu").item()


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else -1


def group_name(group: dict[str, Any], i: int) -> str:
    """Return how a param group is called in messages: by its name if it has one."""
    return repr(group["name"]) if "name" in group else f"group {i}"


def innermost_optimizer(optimizer: Optimizer, *, counted: bool = False) -> Optimizer:
    """Return the optimizer whose step really steps: Accelerate's stands around it.

    Raises:
        BindingError: its steps are to be ``counted``, and it has no step hooks.
    """
    inner: Any = optimizer
    while "_optimizer_step_post_hooks" not in vars(inner):
        inner = getattr(inner, "optimizer", None)
        if isinstance(inner, Optimizer):
            continue
        if counted:
            raise BindingError(
                f"{type(optimizer).__name__} has no step hooks, so its steps cannot be counted; "
                'write clock="step" and call step() after each step'
            )
        return optimizer
    return cast(Optimizer, inner)

"""The writers of an optimizer, one for each scheduled hyperparameter, and the hooks they need."""

import logging
import weakref
from typing import Any, Final, cast

from torch.optim import Optimizer

from ._factors import FactorSource
from ._hyperparam import group_keys, has_load_hooks, has_step_hooks, rounded
from ._step_hooks import add_step_hooks
from ._writer import HyperparamWriter

log = logging.getLogger("ratecraft.torch")

WRITERS_ATTRIBUTE: Final = "_ratecraft_writers"  # of the optimizer


def writers_of(optimizer: Optimizer) -> dict[str, HyperparamWriter]:
    """Return an optimizer's writers by hyperparameter."""
    writers: dict[str, HyperparamWriter] = vars(optimizer).get(WRITERS_ATTRIBUTE, {})
    return writers


def writer_of(optimizer: Optimizer, hyperparam: str) -> HyperparamWriter:
    """Return the writer of a hyperparameter, or a new one, which `add_source` registers."""
    writer = writers_of(optimizer).get(hyperparam)
    if writer is not None and (writer.sources or _is_untouched(writer)):
        writer.sync()
        return writer
    writer = HyperparamWriter(optimizer, hyperparam)
    for i, group in enumerate(optimizer.param_groups):
        writer.hyperparam.check(group, i)
    return writer


def _is_untouched(writer: HyperparamWriter) -> bool:
    """Return whether the groups hold what was written last, and have the same bases."""
    groups, hyperparam = writer.groups, writer.hyperparam
    if len(groups) != len(writer.base):
        return False
    written = [
        rounded(number, hyperparam.read(group))
        for number, group in zip(writer.written_values(), groups, strict=True)
    ]
    if hyperparam.values(groups) != written:
        return False
    return hyperparam.name != "lr" or [g.get("initial_lr") for g in groups] == writer.base


def add_source(
    writer: HyperparamWriter,
    source: FactorSource,
    base: list[float],
    external_factor: list[float],
) -> None:
    """Add a source to a writer, and the writer and its hooks to the optimizer.

    ``base`` and ``external_factor`` are used if it is the first source.
    """
    optimizer = writer.optimizer
    writers = vars(optimizer).setdefault(WRITERS_ATTRIBUTE, {})
    if not writers and has_load_hooks(optimizer):
        optimizer.register_load_state_dict_pre_hook(_before_load)
        optimizer.register_load_state_dict_post_hook(_after_load)
    if not writers and has_step_hooks(optimizer):
        scheduled = weakref.ref(optimizer)  # which may contain the one that makes the step

        def before_step(*_: Any) -> None:
            _before_step(cast(Optimizer, scheduled()))

        add_step_hooks(optimizer, before=before_step)
    writers[writer.hyperparam.name] = writer
    writer.add(source, base, external_factor)


def _before_load(optimizer: Optimizer, _: Any) -> None:
    """Before ``optimizer.load_state_dict``: detect external changes made so far."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.sync()


def _after_load(optimizer: Optimizer) -> None:
    """After ``optimizer.load_state_dict``: write the scheduled values over the loaded ones."""
    for writer in writers_of(optimizer).values():
        if writer.sources:
            writer.write_initial_lrs()
            writer.write(writer.written_values())


def _before_step(optimizer: Optimizer) -> None:
    """Before a step: log pending warnings, and add new groups and write their values."""
    groups = optimizer.param_groups
    writers = writers_of(optimizer).values()
    for writer in writers:
        for message in writer.pending_warnings:
            log.warning(message)
        writer.pending_warnings = []
        if not writer.sources or len(groups) < len(writer.base):
            continue  # DeepSpeed steps one group at a time, and hides the others
        if groups and group_keys(groups[:1]) != writer.group_keys[:1]:
            writer.sync()
        if len(groups) == len(writer.base):
            continue
        for i in range(len(writer.base), len(groups)):
            for other in writers:
                other.hyperparam.check(groups[i], i)
        writer.sync()
        writer.write()

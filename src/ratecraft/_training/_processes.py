"""What the processes of a distributed search share: settings, errors and the mean loss."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ratecraft.errors import SettingError, TaskError

INTEGER_OF_SIZE: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SHOWN_VALUES: Final = 4  # different values of a setting, and ranks of a value, in a message


class Processes:
    """The processes that take the steps of a search together, or this process alone.

    A search is distributed if a model is, or contains, a DistributedDataParallel or a module of
    ``fully_shard``, or with ``reduce=True``. Its group is that of DistributedDataParallel, or all
    processes.

    Attributes:
        is_sharded: whether ``fully_shard`` splits the parameters.
        is_parallel: whether a backward pass of the model waits for other processes.
        reduce: whether losses are averaged over the processes.
        size: the number of processes.
    """

    def __init__(self, models: list[nn.Module], reduce: bool | None) -> None:
        parallel = [
            module
            for model in models
            for module in model.modules()
            if isinstance(module, DistributedDataParallel)
        ]
        self.is_sharded = any(map(_sharded_modules, models))
        self.is_parallel = bool(parallel) or self.is_sharded
        self.reduce = self.is_parallel if reduce is None else reduce
        if self.reduce and not (distributed.is_available() and distributed.is_initialized()):
            raise SettingError(
                "reduce=True: there are no other processes; call "
                "torch.distributed.init_process_group first, or leave reduce= out"
            )
        self._group = parallel[0].process_group if parallel else None
        self._device = next((p.device for each in models for p in each.parameters()), None)
        self.size = 1
        if self.is_parallel or self.reduce:
            self.size = distributed.get_world_size(self._group)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        # Objects travel through the current device, which must not be the same in two processes.
        on_cuda = self._device is not None and self._device.type == "cuda"
        with torch.cuda.device(self._device) if on_cuda else nullcontext():
            distributed.all_gather_object(values, value, self._group)
        return values

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over the processes, bit for bit the same in each."""
        if self.reduce:
            distributed.all_reduce(value, group=self._group)
            value /= self.size
        return value

    @contextmanager
    def agreement(self) -> Iterator[dict[str, Any]]:
        """Yield a dict for settings; at the end raise in all processes if one cannot go on.

        Every process gets an error if the settings differ between processes, or if the block
        raised an error in one of them. Nothing in the block may wait for another process.
        """
        settings: dict[str, Any] = {}
        if self.size == 1:
            yield settings
            return
        error = None
        try:
            yield settings
        except Exception as caught:
            error = caught
        text = None if error is None else f"{type(error).__name__}: {error}"
        reports = self.gather((text, {name: repr(value) for name, value in settings.items()}))
        if error is not None:
            raise error
        ranks = distributed.get_process_group_ranks(self._group or distributed.group.WORLD)
        for rank, (failure, _) in zip(ranks, reports, strict=True):
            if failure is not None:
                raise TaskError(f"the process of rank {rank} failed with {failure}")
        # An optimizer of another class has other hyperparameters.
        names = dict.fromkeys(name for _, texts in reports for name in texts)
        values = {name: [texts.get(name, "missing") for _, texts in reports] for name in names}
        differences = [
            f"{name}: {_values_by_rank(texts, ranks)}"
            for name, texts in values.items()
            if len(set(texts)) > 1
        ]
        if differences:
            raise SettingError(
                "the processes of a distributed search have different settings "
                f"({'; '.join(differences)}): expected the same in every process"
            )


def _values_by_rank(texts: list[str], ranks: list[int]) -> str:
    """Return each value with its ranks, such as "4000 (rank 0), 3600 (ranks 1, 2)"."""
    ranks_of: dict[str, list[int]] = {}
    for text, rank in zip(texts, ranks, strict=True):
        ranks_of.setdefault(text, []).append(rank)
    parts = []
    for text, equal in list(ranks_of.items())[:SHOWN_VALUES]:
        shown = ", ".join(map(str, equal[:SHOWN_VALUES])) + ", ..." * (len(equal) > SHOWN_VALUES)
        parts.append(f"{text} (rank{'s' * (len(equal) > 1)} {shown})")
    return ", ".join(parts) + ", ..." * (len(ranks_of) > SHOWN_VALUES)


def reshard(models: Iterable[nn.Module]) -> None:
    """Put the split parameters back into modules of ``fully_shard``.

    A forward pass puts whole ones into the outermost module, until the next backward pass.
    """
    for model in models:
        for module in _sharded_modules(model):
            module.reshard()


def _sharded_modules(model: nn.Module) -> list[Any]:
    """Return the modules to which ``fully_shard`` was applied."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # takes .3 s to import, and is then needed
    if fsdp is None:
        return []
    return [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]


def model_settings(models: Iterable[nn.Module]) -> dict[str, str]:
    """Return digests of the structure and of whole weights, which DDP expects to be the same."""
    parameters = [item for model in models for item in model.named_parameters()]
    structure = [(name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in parameters]
    checksums = [
        _checksum(p.detach())
        for _, p in parameters
        if p.layout is torch.strided and not hasattr(p, "to_local")
    ]
    return {
        "digest of the parameters' names and shapes": _digest(structure),
        "digest of the weights": _digest(checksums),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def _checksum(tensor: torch.Tensor) -> int:
    """Return the sum of a tensor's elements, read as integers: one changed bit changes it."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return int(real.view(INTEGER_OF_SIZE[real.element_size()]).sum(dtype=torch.int64))

"""PlateauLR: a schedule and a factor that follows a metric, as one scheduler."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from torch.optim import lr_scheduler

from ratecraft.errors import BindingError
from ratecraft.schedule import Duration

from ._scheduler import ScheduleLR
from .drop_in import ReduceLROnPlateau


class PlateauLR(ReduceLROnPlateau):
    """A schedule, times a factor that falls whenever a metric has stopped to improve.

    The lr before step k is curve(k) x factor. The schedule goes on with every step, by its
    own clock; ``step(metric)`` is called whenever there is a metric, once an epoch or once a
    validation. It *is* a torch ``ReduceLROnPlateau``, so Lightning and the Hugging Face Trainer,
    which hand a metric to nothing else, hand it to this; and one state holds both parts.

    In distributed training every process must give the same metric: reduce it first.

    Args:
        scheduler: the schedule's `ScheduleLR`, which keeps its clock.
        mode: "min" if the metric is to fall, "max" if it is to rise.
        factor: what the factor is multiplied by at each decision.
        patience: how many metrics in a row may be no better.
        threshold: by how much a metric must be better to count.
        threshold_mode: "rel": that share of the best one; "abs": that much.
        cooldown: how many metrics are passed over after a decision.
        min_lr: the schedule's highest lr is not taken below this; one number, or one a group.
        eps: a fall of the highest lr by less than this is left out.
        verbose: log every change.

    Attributes:
        scheduler: the `ScheduleLR`.
        reduced: the present factor of each param group.
        decisions: what was decided so far, as plain data: "at" (steps, or what the clock
            counts), "metric", "best" and "factors".

    Raises:
        TypeError: no `ScheduleLR`.

    >>> import torch
    >>> from ratecraft import cosine, warmup
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = ScheduleLR(optimizer, factor=warmup(4), total_steps=100)
    >>> scheduler = PlateauLR(schedule, factor=0.5, patience=0)
    >>> for loss in [2.0, 1.0, 1.0]:
    ...     for _ in range(3):
    ...         optimizer.step()
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"], scheduler.as_schedule()
    (0.05, staircase([1, 0.5], at=[9]))
    """

    __slots__ = ("scheduler",)  # not in __dict__, which torch takes for the state

    def __init__(
        self,
        scheduler: ScheduleLR,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
        verbose: bool = False,
    ) -> None:
        if not isinstance(scheduler, ScheduleLR):
            raise TypeError(
                f"PlateauLR takes a ScheduleLR, not {type(scheduler).__name__}; without a "
                "schedule take ratecraft.torch.drop_in.ReduceLROnPlateau(optimizer)"
            )
        self.scheduler = scheduler
        bound = list(min_lr) if isinstance(min_lr, Sequence) else min_lr
        super().__init__(
            scheduler.optimizer, mode, factor, patience, threshold, threshold_mode, cooldown,
            bound, eps, verbose,
        )  # fmt: skip

    def _at(self) -> float:
        return self.scheduler.position

    def _length(self, at: float) -> int | Duration:
        unit = self.scheduler.config.counts
        return int(at) if unit == "steps" else Duration(**{unit: at})

    def _highest(self) -> list[float]:
        return self.scheduler.highest()

    def get_last_lr(self) -> list[Any]:
        """Return the lrs that the groups have now."""
        return self.scheduler.get_last_lr()

    def remove(self) -> None:
        """Stop driving the optimizer; its lrs stay as they are now."""
        self.scheduler.remove()
        if self._is_heard():
            self._writer.remove(self._source)

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied: a copy would drive nothing."""
        raise TypeError(
            "a PlateauLR belongs to its optimizer and cannot be copied or pickled; build another "
            "one and load_state_dict() into it"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both parts as plain data, which loads with ``weights_only=True``."""
        state = super().state_dict()
        return state | {"_last_lr": self.get_last_lr(), "schedule": self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a saved state and write the lrs that belong there.

        Nothing is changed where this raises.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            ScheduleChanged: the state's schedule is another one, as `ScheduleLR.load_state_dict` says.
            BindingError: no state of a PlateauLR.
        """
        state = copy.deepcopy(dict(state_dict))
        schedule, reduced = state.pop("schedule", None), state.get("reduced")
        if schedule is None or not isinstance(reduced, list):
            hint = "; it is a ScheduleLR's: .scheduler.load_state_dict() takes it" * (
                "plan" in state
            )
            raise BindingError(f"this is no state of a PlateauLR{hint}")
        for name in ("external_factor", "base"):  # the schedule's part says them
            state.pop(name, None)
        before = self._source.factors
        self._source.factors = list(reduced)
        try:
            self.scheduler.load_state_dict(schedule)
        except BaseException:
            self._source.factors = before
            raise
        lr_scheduler.ReduceLROnPlateau.load_state_dict(self, state)

"""merge: combine the stores of several comparisons."""

from __future__ import annotations

from pathlib import Path

from ratecraft.errors import SettingError

from ._console import out
from ._options import check_output


def merge(target: Path, *sources: Path) -> None:
    """Copy the runs of several stores, such as those of shards, into one store.

    Example: `ratecraft merge all.db shard-1.db shard-2.db`

    Args:
        target: The store to copy to; created if it does not exist.
        sources: The stores to copy from; they are not changed.
    """
    from ratecraft.experiments import merge as merge_stores

    if not sources:
        raise SettingError("merge needs stores: ratecraft merge all.db shard-1.db shard-2.db")
    check_output(target)
    out.print(f"{target}: {merge_stores(target, *sources)} new runs")

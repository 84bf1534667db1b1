"""New names of commands and options that have been renamed."""

from __future__ import annotations

from typing import Final

TOTAL_STEPS: Final = {"--total": "--total-steps", "-t": "-n"}
STEPS_PER_EPOCH: Final = {"--epoch": "--steps-per-epoch"}
RENAMED: Final = {
    "": {"predict": "forecast"},
    "show": {**TOTAL_STEPS, **STEPS_PER_EPOCH},
    "check": {**TOTAL_STEPS, **STEPS_PER_EPOCH},
    "doctor": TOTAL_STEPS,
    "find": {
        **TOTAL_STEPS,
        "--updates": "--budget-steps, or --steps with --range-test",
        "--classic": "--range-test",
    },
    "forecast": {
        **TOTAL_STEPS,
        **STEPS_PER_EPOCH,
        "--plan": "--log-schedule",
        "--plan-total": "--log-total-steps",
    },
    "train": {**TOTAL_STEPS, "--rate": "--lr", "--rates": "--lr"},
    "compare": {**TOTAL_STEPS, "--rate": "--lrs", "--rates": "--lrs"},
}
"""Command -> old option -> new option; "" has the renamed commands."""


def renamed(command: str, name: str) -> str | None:
    """Return "old is new" if a name, such as "--total", "--total=5" or "-t5", is an old one."""
    is_short = name.startswith("-") and not name.startswith("--")
    old = name[:2] if is_short else name.partition("=")[0]
    new = RENAMED.get(command, {}).get(old)
    return None if new is None else f"{old} is {new}"

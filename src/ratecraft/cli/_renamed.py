"""Hints for commands and options that have been renamed."""

from __future__ import annotations

from typing import Final

RENAMED_COMMANDS: Final = {"predict": "forecast"}
TOTAL_STEPS: Final = {"--total": "--total-steps", "-t": "-n"}
STEPS_PER_EPOCH: Final = {"--epoch": "--steps-per-epoch"}
RENAMED_OPTIONS: Final = {
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
"""Old option -> new option, by command."""


def renamed_command(name: str) -> str | None:
    """Return a one-line hint if a command has been renamed."""
    if name not in RENAMED_COMMANDS:
        return None
    return f"unknown command: {name} is {RENAMED_COMMANDS[name]}"


def renamed_option(command: str, option: str) -> str | None:
    """Return a one-line hint if an option has been renamed.

    Args:
        command: the command that the option was given to.
        option: the option as it was written: "--total", "--total=5", "-t" or "-t5".
    """
    old = option.split("=", 1)[0] if option.startswith("--") else option[:2]
    new = RENAMED_OPTIONS.get(command, {}).get(old)
    return None if new is None else f"unknown option: {old} is {new}"


def renamed_key(name: str) -> str | None:
    """Return the new name of a renamed key in the TOML file of compare."""
    option = f"--{name.replace('_', '-')}"
    new = RENAMED_OPTIONS["compare"].get(option)
    return None if new is None else new.removeprefix("--").replace("-", "_")

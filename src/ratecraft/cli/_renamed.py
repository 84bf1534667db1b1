"""Hints for commands and options that have been renamed."""

from __future__ import annotations

from typing import Final

RENAMED_COMMANDS: Final = {"predict": "forecast"}
RENAMED_OPTIONS: Final = {"--total": "--total-steps", "-t": "-n", "--epoch": "--steps-per-epoch"}
"""Old option -> new option, in every command."""
RENAMED_OPTIONS_OF: Final = {
    "find": {
        "--updates": "--budget-steps, or --steps with --range-test",
        "--classic": "--range-test",
    },
    "train": {"--rate": "--lr", "--rates": "--lr"},
    "compare": {"--rate": "--lrs", "--rates": "--lrs"},
    "forecast": {"--plan": "--log-schedule", "--plan-total": "--log-total-steps"},
}
"""Old option -> new option, in one command."""


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
    new = RENAMED_OPTIONS_OF.get(command, {}).get(old) or RENAMED_OPTIONS.get(old)
    return None if new is None else f"unknown option: {old} is {new}"


def renamed_key(name: str) -> str | None:
    """Return the new name of a renamed key in the TOML file of compare."""
    option = f"--{name.replace('_', '-')}"
    new = RENAMED_OPTIONS_OF["compare"].get(option) or RENAMED_OPTIONS.get(option)
    return None if new is None else new.removeprefix("--").replace("-", "_")

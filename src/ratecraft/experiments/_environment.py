"""The versions and the machine of a comparison, which can change its numbers."""

import os
import platform
import shutil
import subprocess
from typing import Final

import numpy
import torch

from ratecraft._version import __version__

GIT_SECONDS: Final = 10.0  # for git, which may wait for a slow disk
# Configuration of a checkout can name programs that git runs: without these, reading the state
# of someone else's checkout would execute them.
SAFE_OPTIONS: Final = (
    "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false",
    "-c", f"core.hooksPath={os.devnull}", "-c", "core.untrackedCache=false",
)  # fmt: skip
# Git downloads nothing, since a remote can name a program, too.
SAFE_ENVIRONMENT: Final = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
STATUS: Final = (
    "status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no",
    "--ignore-submodules=all",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return the versions and the machine, which can change the numbers."""
    facts = {
        "ratecraft": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    if commit := _git_commit():
        facts["git commit"] = commit
    return facts


def _git_commit() -> str:
    """Return the commit of the current folder, with "-dirty" if a file differs; empty if none."""
    try:
        # Filters run on changed files. A checkout chooses their names, so all are turned off.
        # A name may hold any byte but 0, also a line end of Unicode.
        filters = _git("config", "-z", "--name-only", "--get-regexp", r"^filter\.")
        keys = sorted(set(filters.stdout.split(b"\0")) - {b""})
        if filters.returncode > 1 or any(b"=" in key for key in keys):  # -c cannot turn these off
            return ""
        unset = [key + (b"=false" if key.endswith(b".required") else b"=") for key in keys]
        status = _git(*(part for option in unset for part in ("-c", option)), *STATUS)
    except (OSError, subprocess.TimeoutExpired):  # without git
        return ""
    lines = status.stdout.decode(errors="replace").splitlines()
    ids = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    if status.returncode or ids in ([], ["(initial)"]):
        return ""
    changed = any(not line.startswith("#") for line in lines)
    return ids[0][:12] + ("-dirty" if changed else "")


def _git(*arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("git")
    # Windows, or "." in PATH, would run a git of the checkout.
    if program is None or not os.path.isabs(program):
        raise FileNotFoundError("git")
    return subprocess.run(  # noqa: S603 - git
        [program, *SAFE_OPTIONS, *arguments],
        capture_output=True, check=False,
        env=os.environ | SAFE_ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=GIT_SECONDS,
    )  # fmt: skip

"""info: versions, devices and optional packages."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Final

from ratecraft._version import __version__

from ._console import out

EXTRAS: Final = {
    "torch": ("torch", "ScheduleLR, find_lr, training"),
    "plot": ("matplotlib", "figures (.png, .svg, .pdf)"),
    "digits": ("scikit-learn", "the task digits, and the demo"),
    "tensorboard": ("tensorboard", "forecasts from TensorBoard logs"),
    "ray": ("ray", "compare --engine ray"),
}
"""Extra -> (package that it installs, what needs the package)."""
INTEGRATED_PACKAGES: Final = (
    "lightning", "transformers", "accelerate", "pytorch-ignite", "schedulefree", "prodigyopt",
)  # fmt: skip
"""Packages that ratecraft works with if they are installed."""


def info() -> None:
    """Print versions, devices, installed optional packages, and how to install the missing ones.

    Example: `ratecraft info`
    """
    out.print(f"ratecraft {__version__}")
    out.print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    uses = dict(EXTRAS.values())
    for package in ("numpy", "scipy", *uses, *INTEGRATED_PACKAGES):
        if version := _version(package):
            out.print(f"{package} {version}" + (f": {uses[package]}" if package in uses else ""))
    out.print(f"devices: {_devices()}")
    for extra, (package, use) in EXTRAS.items():
        if _version(package) is None:
            out.print(f"missing: pip install 'ratecraft[{extra}]' for {use}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, torch is not installed"
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return ", ".join(devices)

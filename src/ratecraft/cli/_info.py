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
    out.print(f"ratecraft {__version__}", markup=False)
    out.print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in ("numpy", "scipy"):
        out.print(f"{name} {metadata.version(name)}", markup=False)
    missing = []
    for extra, (package, use) in EXTRAS.items():
        version = _version(package)
        if version is None:
            missing.append(f"pip install 'ratecraft[{extra}]' for {use}")
        else:
            out.print(f"{package} {version}: {use}", markup=False)
    for package in INTEGRATED_PACKAGES:
        if version := _version(package):
            out.print(f"{package} {version}", markup=False)
    devices = ", ".join(_devices()) or "unknown, torch is not installed"
    out.print(f"devices: {devices}", markup=False)
    for command in missing:
        out.print(f"missing: {command}", markup=False)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices

"""info: versions, devices, what is installed, and what would be better with more."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Final

from ratecraft._version import __version__

from ._console import out

EXTRAS: Final = {
    "torch": ("torch", "driving optimizers, finding lrs, training"),
    "plot": ("matplotlib", "figures as .png, .svg and .pdf"),
    "digits": ("scikit-learn", "the task digits, and the demo"),
    "tensorboard": ("tensorboard", "reading TensorBoard's logs in predict"),
    "ray": ("ray", "compare --engine ray"),
}
"""By extra: the package that it installs, and what that is for."""
USED: Final = (
    "lightning", "transformers", "accelerate", "pytorch-ignite", "schedulefree", "prodigyopt",
)  # fmt: skip
"""What works together with ratecraft where it is there."""


def info() -> None:
    """Say which versions and devices there are, what is installed, and what is missing for what."""
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
    for package in USED:
        if version := _version(package):
            out.print(f"{package} {version}", markup=False)
    out.print(f"devices: {', '.join(_devices()) or 'none, since there is no torch'}", markup=False)
    for line in missing:
        out.print(f"missing: {line}", markup=False)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found

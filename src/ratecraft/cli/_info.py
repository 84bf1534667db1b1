"""info: versions, devices and optional packages."""

import importlib.util
import platform
from importlib import metadata
from typing import Final

from ratecraft._version import __version__

from ._console import out

OPTIONAL_USES: Final = {  # package -> what needs it
    "torch": "ScheduleLR, find_lr, training",
    "matplotlib": "figures (.png, .svg, .pdf)",
    "scikit-learn": "the task digits, and the demo",
    "tensorboard": "forecasts from TensorBoard logs",
    "ray": "compare --engine ray",
}
INTEGRATED_PACKAGES: Final = (  # that ratecraft works with if they are installed
    "lightning", "transformers", "accelerate", "pytorch-ignite", "schedulefree", "prodigyopt",
)  # fmt: skip


def info() -> None:
    """Print versions, devices, installed optional packages, and how to install the missing ones.

    Example: `ratecraft info`
    """
    out.print(f"ratecraft {__version__}")
    out.print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("numpy", "scipy", *OPTIONAL_USES, *INTEGRATED_PACKAGES):
        if version := _version(package):
            use = OPTIONAL_USES.get(package)
            out.print(f"{package} {version}" + (f": {use}" if use else ""))
    out.print(f"devices: {_devices()}")
    for package, use in OPTIONAL_USES.items():
        if _version(package) is None:
            out.print(f"missing: pip install {package} for {use}")


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

"""info: versions, devices and optional packages."""

import importlib.util
import platform
from typing import Final

from ratecraft._version import __version__

from ._console import out, print_json

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


def info(*, json: bool = False) -> None:
    """Print versions, devices, installed optional packages, and how to install the missing ones.

    Example: `ratecraft info`

    Args:
        json: Print one line of JSON.
    """
    packages = ("numpy", "scipy", *OPTIONAL_USES, *INTEGRATED_PACKAGES)
    versions = {package: version for package in packages if (version := _version(package))}
    missing = {package: use for package, use in OPTIONAL_USES.items() if package not in versions}
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    devices = _devices()
    if json:
        versions = {"ratecraft": __version__, "python": python} | versions
        print_json(
            {"system": system, "versions": versions, "devices": devices, "missing": [*missing]}
        )
        return
    out.print(f"ratecraft {__version__}")
    out.print(f"python {python} on {system}")
    for package, version in versions.items():
        use = OPTIONAL_USES.get(package)
        out.print(f"{package} {version}" + (f": {use}" if use else ""))
    out.print(f"devices: {', '.join(devices) or 'unknown, torch is not installed'}")
    for package, use in missing.items():
        out.print(f"missing: pip install {package} for {use}")


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """Return the devices that torch can use; empty without torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices

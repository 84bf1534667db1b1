"""Loss curves of language models under nine schedules, from a folder outside the repository."""

import os
from pathlib import Path

import pytest

from ratecraft import constant, cosine, exponential, linear, warmup
from ratecraft.forecasting import read_logs

FOLDER = Path(
    os.environ.get("RATECRAFT_CURVES")
    or Path(__file__).parents[3] / "shared" / "data" / "llm_loss_curves"
)
PEAK_LR, SIZES = 3e-4, ("25M", "100M")

UP = warmup(2160)
SCHEDULES = {
    "constant_24000": (UP.then(constant(1)), 24000),
    "constant_72000": (UP.then(constant(1)), 72000),
    "cosine_24000": (UP.then(cosine(1, 0.1)), 24000),
    "cosine_72000": (UP.then(cosine(1, 0.1)), 72000),
    "wsd_20000_24000": (UP.then(constant(1)).then(exponential(1, 0.1, over=4000)), 24000),
    "wsdld_20000_24000": (UP.then(constant(1)).then(linear(1, 0.1, over=4000)), 24000),
    "wsdcon_18": (UP.then(constant(1, over=5840)).then(constant(0.6)), 16000),
    "wsdcon_9": (UP.then(constant(1, over=5840)).then(constant(0.3)), 16000),
    "wsdcon_3": (UP.then(constant(1, over=5840)).then(constant(0.1)), 16000),
}


def real_logs(size):
    """Return the nine logs of a model size, by name; skip the test if there are none."""
    if not FOLDER.is_dir():
        pytest.skip(f"no loss curves in {FOLDER}; set RATECRAFT_CURVES to their folder")
    return {
        name: read_logs(FOLDER / size / f"{name}.csv", schedule=PEAK_LR * schedule, total_steps=n)[
            0
        ]
        for name, (schedule, n) in SCHEDULES.items()
    }

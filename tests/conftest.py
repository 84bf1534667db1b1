"""One thread for each test process; Hypothesis profiles, of which "nightly" searches further."""

import os

from hypothesis import HealthCheck, settings

# Set before torch is loaded. As many tests run at once as there are cores, and with more threads
# than cores they wait for each other: the digits alone would take eight times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

slow = [HealthCheck.too_slow]
settings.register_profile(
    "steady", max_examples=200, derandomize=True, deadline=None, suppress_health_check=slow
)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=slow)
settings.load_profile(os.environ.get("RATECRAFT_HYPOTHESIS", "steady"))

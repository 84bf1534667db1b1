"""Hypothesis profiles: the default one is the same every time, "nightly" searches further."""

import os

from hypothesis import HealthCheck, settings

slow = [HealthCheck.too_slow]
settings.register_profile(
    "steady", max_examples=200, derandomize=True, deadline=None, suppress_health_check=slow
)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=slow)
settings.load_profile(os.environ.get("RATECRAFT_HYPOTHESIS", "steady"))

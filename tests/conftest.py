"""What holds for all tests: a slow machine is no failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default an example that takes more than 0.2 s fails: on a busy machine any of them can.
settings.register_profile("ridgeline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ridgeline")

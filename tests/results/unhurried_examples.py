"""Examples of hypothesis without a deadline: by default one that takes more than 0.2 s fails, as any can where it is busy.

Imported by the ``conftest.py`` of every folder with such tests, before they are collected.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("ridgeline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ridgeline")

"""These tests have examples of hypothesis, none of which is in a hurry."""

import unhurried_examples  # noqa: F401

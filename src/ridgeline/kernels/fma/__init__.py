"""Operator ``fma`` and its implementations."""

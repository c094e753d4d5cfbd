"""Operator ``stream`` and its implementations."""

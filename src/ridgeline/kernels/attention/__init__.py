"""Operator ``attention`` and its implementations."""

"""Operator ``line_selector`` and its implementations."""

"""Operator ``all_to_all`` and its implementations."""

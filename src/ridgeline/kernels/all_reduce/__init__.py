"""Operator ``all_reduce`` and its implementations."""

"""Operator ``paged_attention`` and its implementations."""

"""Operator ``tree_attention`` and its implementations."""

"""Operator ``gemm`` and its implementations."""

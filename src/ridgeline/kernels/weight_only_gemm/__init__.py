"""Operator ``weight_only_gemm`` and its implementations."""

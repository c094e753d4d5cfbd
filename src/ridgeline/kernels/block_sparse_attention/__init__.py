"""Operator ``block_sparse_attention``, its implementations, and what builds their index."""

"""Attention on quantised Q, K and V: what quantises them, the operator and its implementations."""

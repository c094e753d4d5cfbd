"""Idealized runtimes: T(p, o) of any backend, fitted from few measured points.

Narayanan et al., "Cheaply Evaluating Inference Efficiency Metrics for Autoregressive Transformer APIs", 2023:
T(p, o) = alpha(p) + (o - 1) beta. Here beta may grow with the context, both with the batch, alpha is interpolated by a
monotone map of its trend, and every prediction has an interval.
"""

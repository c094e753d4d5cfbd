"""Models that run here, with random weights, through the registered kernels."""

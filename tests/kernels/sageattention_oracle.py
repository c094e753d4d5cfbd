"""sageattention 1.0.6 (PyPI) in Triton's interpreter beside ours, on the same inputs: prints JSON. See its test.

It runs with TRITON_INTERPRET=1. sageattention asserts that tensors are on a GPU and sets the CUDA device; both are taken
out of the functions that are called here, at run time.
"""

from __future__ import annotations

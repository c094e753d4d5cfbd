"""C++ kernels, compiled at first use (``build``) and wrapped for ctypes (``stream``, ``fma``)."""

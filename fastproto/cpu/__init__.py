"""The ops for the CPU, by the same names: numba kernels, and blocked matrix products in PyTorch."""

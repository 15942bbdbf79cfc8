"""The ops for the CPU, by the same names: numba kernels, and blocks of a matrix product in PyTorch."""

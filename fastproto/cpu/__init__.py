"""Implementations for the processor: blocks of a matrix product in PyTorch, row loops compiled by numba."""

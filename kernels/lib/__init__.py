"""Device code and plans that several kernels share."""

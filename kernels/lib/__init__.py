"""Device code, launch plans and tile sizes that several kernels share."""

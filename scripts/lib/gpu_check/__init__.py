"""Checks and timings on a CUDA machine: ``command`` runs the steps, the other files define them by topic."""

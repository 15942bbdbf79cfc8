"""Checks and timings on a CUDA machine; ``command`` runs the steps, the other files hold them by topic."""

"""The public operations: one file each, which checks the input, chooses a backend and registers the operator."""

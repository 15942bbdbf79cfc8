"""The public operations: one file for each, which checks its input, chooses an implementation and registers it."""

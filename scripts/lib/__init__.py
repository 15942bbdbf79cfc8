"""Code of the scripts; the files beside this folder only start it."""

"""The tables and pictures of README.md and docs/: one file per JSON file of benchmarks/results.

``pages`` finds the marks of the tables and fills them, ``pictures`` draws, ``command`` is ``scripts/report``.
"""

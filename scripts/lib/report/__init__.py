"""The tables and pictures of README.md and docs/: one file for each JSON file of benchmarks/results.

``pages`` finds the tables' marks and fills them, ``pictures`` draws, ``command`` is ``scripts/report``.
"""

"""The tables and pictures of README.md and docs/, made from the JSON files of benchmarks/results.

``pages`` finds the marks of the tables and fills them, ``command`` is ``scripts/report``. What shows the benchmarks is
made by :mod:`benchmarks.pages`.
"""

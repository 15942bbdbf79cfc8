"""``scripts/reproduce``: tables of cells, one cell a training run, and what is computed without training.

:mod:`tables` says which cells a table has, :mod:`schedule` trains them, :mod:`records` keeps what they reached.
"""

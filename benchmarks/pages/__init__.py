"""Tables, plots and pages from the JSON files of the benchmarks. Imports no PyTorch, and matplotlib only to draw."""

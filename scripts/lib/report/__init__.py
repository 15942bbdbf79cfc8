"""The README's tables, one file for each JSON file of benchmarks/results; ``command`` puts them into the README."""

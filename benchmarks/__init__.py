"""The benchmarks: ``pytest benchmarks`` in the repository, ``fastproto-bench`` where fastproto is installed.

``bench_OP.py`` states what is compared, ``conftest.py`` is the pytest plugin that times it, ``pages/`` makes tables and
plots from the JSON file and imports no PyTorch. Installed as ``fastproto_benchmarks``.
"""

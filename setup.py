"""The packages, found by rule: everything else about the build is in pyproject.toml, which cannot say this.

``kernels/`` is installed as ``fastproto_kernels`` and ``benchmarks/`` as ``fastproto_benchmarks``; ``packages.find``
knows a package by the name of its folder only.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fastproto", "fastproto.*"]),
        *(
            package
            for folder in ("kernels", "benchmarks")
            for package in (f"fastproto_{folder}", *(f"fastproto_{folder}.{name}" for name in find_packages(folder)))
        ),
    ]
)

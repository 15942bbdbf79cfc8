"""The packages, found by rule: everything else about the build is in pyproject.toml, which cannot say this.

``kernels/`` is installed as ``fastproto_kernels``; ``packages.find`` knows a package by the name of its folder only.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["fastproto", "fastproto.*"]),
        "fastproto_kernels",
        *(f"fastproto_kernels.{name}" for name in find_packages("kernels")),
    ]
)

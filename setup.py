"""Sources live under ``handler/``; everything else about the package is in pyproject.toml."""

from setuptools import find_packages, setup

setup(package_dir={"": "handler"}, packages=find_packages("handler"))

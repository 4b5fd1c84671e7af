"""Finds the packages, so that none is forgotten. All else is in pyproject.toml."""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

folders = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
inside = [f"{package}.{name}" for package, folder in folders.items() for name in find_packages(folder)]
setup(packages=[*folders, *inside])

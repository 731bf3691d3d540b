"""The package is described in pyproject.toml; this file is for tools that look for one of its name."""

from setuptools import setup

setup()

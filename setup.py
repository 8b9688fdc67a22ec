"""Everything about the package is in pyproject.toml; this file lets tools that call it find that."""

from setuptools import setup

setup()

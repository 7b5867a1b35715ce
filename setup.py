"""Only what pyproject.toml cannot say: the agent's native part is built by cffi."""

from setuptools import setup

setup(cffi_modules=["uffdlab/agent/_native_build.py:ffibuilder"])

"""Only what pyproject.toml cannot say: the native parts are built by cffi."""

from setuptools import setup

setup(cffi_modules=["uffdlab/agent/_native_build.py:ffibuilder", "uffdlab/bulk/_build.py:ffibuilder"])

"""Python and Jupyter."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys

from uffdlab.doctor.line import Line, State

_LEAST = (3, 11)
_EXTENSIONS = ("uffdlab.bulk._bulk", "uffdlab.agent._native")


def python(name: str) -> Line:
    """Check the version of Python, and whether the native parts can be loaded."""
    found = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info[:2] < _LEAST:
        return Line(name, State.MISSING, found, f"use Python {'.'.join(map(str, _LEAST))} or later")
    for module in _EXTENSIONS:
        try:
            importlib.import_module(module)
        except ImportError as error:
            return Line(
                name,
                State.MISSING,
                f"{found}; {module} cannot be loaded: {error}",
                "install uffdlab again for this Python",
            )
    return Line(name, State.OK, found)


def jupyter(name: str) -> Line:
    """Check whether JupyterLab and a kernel for notebooks are installed for this Python."""
    versions = {}
    for package in ("jupyterlab", "ipykernel", "ipywidgets", "anywidget"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            todo = f"{sys.executable} -m pip install {package}"
            return Line(name, State.OPTIONAL, f"{package} is not installed for {sys.executable}: no notebooks", todo)
    return Line(name, State.OK, ", ".join(f"{package} {version}" for package, version in versions.items()))

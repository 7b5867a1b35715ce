"""Finds the folders that come with the code: kernel-patch, notebooks and vm.

They lie beside the package in a checkout, and in ``uffdlab/data`` in an installed wheel (see setup.py).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def installed() -> bool:
    """Return whether this is an installed wheel, and no checkout."""
    return (_PACKAGE / "data").is_dir()


def data_folder(name: str) -> Path:
    """Return the absolute path of the folder `name`: ``"kernel-patch"``, ``"notebooks"`` or ``"vm"``.

    The files are for reading: the folder of an installed wheel may belong to another user.
    """
    return (_PACKAGE / "data" if installed() else _PACKAGE.parent) / name

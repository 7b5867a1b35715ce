"""The files and folders that commands write to: one that cannot be written is found before anything starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click


@contextmanager
def opened(path: Path, option: str = "--output") -> Iterator[TextIO]:
    """Open a text file to write; what it had is lost.

    Parameters
    ----------
    path : Path
    option : str
        Where the user named it.

    Raises
    ------
    click.BadParameter
        It cannot be written.
    """
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint=option) from error
    with file:
        yield file


def require_writable(path: Path, option: str) -> None:
    """Check that a file can be written later.  What it has stays until then.

    Raises
    ------
    click.BadParameter
        It cannot.
    """
    there = path.exists()
    try:
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint=option) from error


def make_folder(path: Path, option: str) -> None:
    """Make a folder, unless it is there, and check that files can be made in it.

    Raises
    ------
    click.BadParameter
        They cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise click.BadParameter(
            f"the folder {path} cannot be written to: {error.strerror}; choose another one", param_hint=option
        ) from error

"""A JSON array whose elements are written one by one, as they become known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import click


@contextmanager
def json_array(file: IO[str] | None = None) -> Iterator[Callable[[object], None]]:
    """Yield a function that writes an element at once.

    The array is closed at the end, also after an error or Ctrl-C.  An error before the first element writes nothing.

    Parameters
    ----------
    file : file, optional
        By default standard output.
    """
    begun = False

    def write(element: object) -> None:
        nonlocal begun
        click.echo(("," if begun else "[") + "\n" + json.dumps(element, indent=1), file=file, nl=False)
        begun = True

    try:
        yield write
        if not begun:
            click.echo("[", file=file, nl=False)
            begun = True
    finally:
        if begun:
            click.echo("\n]", file=file)

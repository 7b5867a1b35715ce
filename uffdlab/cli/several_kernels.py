"""Commands that do the same on several kernels: what ends one kernel's turn does not end the others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from uffdlab.cli import exit_status
from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    from uffdlab.lab import Lab

_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class Failure:
    """A kernel that has no result.

    Attributes
    ----------
    kernel : str
    error : str
        The message, which was also printed.
    exit_status : int
        What it means for the command; see :mod:`uffdlab.cli.exit_status`.
    """

    kernel: str
    error: str
    exit_status: int

    def as_data(self) -> dict[str, object]:
        """Return it in the types of JSON."""
        return {"kernel": self.kernel, "ok": False, "error": self.error, "exit_status": self.exit_status}


def on_each(kernels: Sequence[str], examine: Callable[[Lab], _Outcome]) -> Iterator[_Outcome | Failure]:
    """Return an iterator over what `examine` returns for a lab on each kernel, or a Failure.

    The names are checked at once.  The next kernel starts when the next outcome is asked for.  A Failure has been
    printed to stderr.  Ctrl-C says which kernels are done.

    Raises
    ------
    click.UsageError
        There is no such kernel, or a setting is wrong.
    """
    from uffdlab.kernels.lookup import require_known

    for name in kernels:
        with exit_status.from_errors(name):
            require_known(name)
    return _outcomes(kernels, examine)


def _outcomes(kernels: Sequence[str], examine: Callable[[Lab], _Outcome]) -> Iterator[_Outcome | Failure]:
    done: list[str] = []
    for name in kernels:
        try:
            outcome = _on(name, examine)
        except KeyboardInterrupt as stopped:
            if len(kernels) > 1:
                stopped.add_note(f"Done: {', '.join(done) or 'none'}. Not done: {', '.join(kernels[len(done) :])}.")
            raise
        done.append(name)
        yield outcome


def _on(name: str, examine: Callable[[Lab], _Outcome]) -> _Outcome | Failure:
    from uffdlab.lab import Lab

    booted = False
    try:
        with Lab(name) as lab:
            booted = True
            return examine(lab)
    except UffdlabError as error:
        status = exit_status.of(error, booted=booted)
        if status == exit_status.BAD_USAGE:
            raise click.UsageError(str(error)) from error
        message = exit_status.message_of(error, name)
        click.echo(message, err=True)
        return Failure(name, message, status)

"""Exit statuses, the same for every command, and the one map from errors to them.

======  ================================================================================================
0       success
1       a check or a test failed, or the kernel under test did
2       bad usage (from click)
124     a program in the guest missed its deadline; 124, 126 and 127 as in sh(1), env(1) and timeout(1)
125     a kernel could not be built or booted: for `git bisect run` that means "cannot be tested"
126     the guest cannot execute the program
127     the program does not exist in the guest
130     Ctrl-C
======  ================================================================================================
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from uffdlab.errors import (
    HostUnsupported,
    KernelError,
    MachineError,
    ProgramError,
    UffdlabError,
    UnknownKernel,
    UsageError,
)

FAILED = 1
BAD_USAGE = 2
NO_KERNEL = 125
INTERRUPTED = 128 + signal.SIGINT
_PROGRAM = {"no-program": 127, "not-executable": 126, "program-late": 124}


def of(error: UffdlabError, *, booted: bool = False) -> int:
    """Return the exit status for an error.

    Parameters
    ----------
    booted : bool
        Whether the kernel under test had booted: if the machine is lost after that, the kernel failed.
    """
    if isinstance(error, UnknownKernel | UsageError):
        return BAD_USAGE
    if isinstance(error, ProgramError):
        return _PROGRAM.get(error.kind, FAILED)
    if isinstance(error, KernelError | MachineError | HostUnsupported) and not booted:
        return NO_KERNEL
    return FAILED


def combined(statuses: Iterable[int]) -> int:
    """Return the exit status for several kernels: 1 if something failed on one of them, else 125, else 0.

    A check that does not hold is a result, and a kernel that could not be tested does not hide it.
    """
    found = set(statuses)
    return next((status for status in (BAD_USAGE, FAILED, NO_KERNEL) if status in found), 0)


def message_of(error: UffdlabError, subject: str) -> str:
    """Return the message of an error and its notes, after the subject unless the message begins with it."""
    text = str(error)
    if subject and not text.startswith(f"{subject}: "):
        text = f"{subject}: {text}"
    return "\n".join([text, *getattr(error, "__notes__", ())])


@contextmanager
def from_errors(subject: str = "", *, booted: bool = False, hint: str = "") -> Iterator[None]:
    """Turn a UffdlabError into the end of the command, with its message and exit status.

    Parameters
    ----------
    subject : str
        Printed before the message unless the message begins with it; a kernel's name.
    booted : bool
        As for :func:`of`.
    hint : str
        Printed after the message if the usage is bad.
    """
    try:
        yield
    except UffdlabError as error:
        status = of(error, booted=booted)
        if status == BAD_USAGE:
            raise click.UsageError(str(error) + hint) from error
        click.echo(message_of(error, subject), err=True)
        raise click.exceptions.Exit(status) from error

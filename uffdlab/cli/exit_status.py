"""Exit statuses, the same for every command, and the one map from errors to them.

======  ================================================================================================
0       everything is as it should be
1       something is not: a check, a test, the kernel under test
2       bad usage, as click has it
124     a program in the guest missed its deadline; 124, 126 and 127 are those of a shell, env(1), timeout(1)
125     a kernel could not be built or booted: `git bisect run` takes that for "cannot be tested"
126     what was to run in the guest is no program for it
127     there is no such program in the guest
130     Ctrl-C
======  ================================================================================================
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
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
        Whether the kernel under test had booted: a machine that is lost then is the kernel's failure.
    """
    if isinstance(error, UnknownKernel | UsageError):
        return BAD_USAGE
    if isinstance(error, ProgramError):
        return _PROGRAM.get(error.kind, FAILED)
    if isinstance(error, KernelError | MachineError | HostUnsupported) and not booted:
        return NO_KERNEL
    return FAILED


@contextmanager
def from_errors(subject: str = "", *, booted: bool = False, hint: str = "") -> Iterator[None]:
    """End the command with an error's message and status.

    Parameters
    ----------
    subject : str
        What the message is about, a kernel's name; goes before the message unless that begins so.
    booted : bool
        As for :func:`of`.
    hint : str
        Goes after the message if the usage is bad.
    """
    try:
        yield
    except UffdlabError as error:
        status, message = of(error, booted=booted), str(error)
        if status == BAD_USAGE:
            raise click.UsageError(message + hint) from error
        if subject and not message.startswith(f"{subject}: "):
            message = f"{subject}: {message}"
        click.echo("\n".join([message, *getattr(error, "__notes__", ())]), err=True)
        raise click.exceptions.Exit(status) from error

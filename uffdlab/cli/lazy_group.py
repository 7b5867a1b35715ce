"""A group whose commands are imported when they are called, so that `uffdlab --help` is fast."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

from uffdlab.cli import exit_status
from uffdlab.cli.interruptible import InterruptibleGroup

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@dataclass(frozen=True)
class LazyCommand:
    """The module of a command, and its help in one line."""

    module: str
    attribute: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command and return it."""
        command = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(InterruptibleGroup):
    """A group that imports each command when it is called.

    Parameters
    ----------
    lazy : dict of str to LazyCommand
        The commands by their names.
    """

    def __init__(self, *arguments: Any, lazy: dict[str, LazyCommand], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line; see :meth:`click.Command.main`.  Output that cannot be written is no traceback."""
        _open_closed_streams()
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            if error.filename is not None or error.errno not in _NO_ROOM:
                raise
            # Else Python would try to write the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"uffdlab: the output cannot be written: {error.strerror}", err=True)
            raise SystemExit(exit_status.FAILED) from error

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(self.lazy)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with this name, or None."""
        return self.lazy[cmd_name].load() if cmd_name in self.lazy else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Return the commands that begin with `incomplete` without loading them, and the options."""
        found = [
            CompletionItem(name, help=command.short_help)
            for name, command in sorted(self.lazy.items())
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.short_help) for name, command in sorted(self.lazy.items())])


def _open_closed_streams() -> None:
    # Else a file of ours, or of QEMU, would get the number of a stream that the caller has closed.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number

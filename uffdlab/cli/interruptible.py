"""What all commands have in common: how they end on Ctrl-C, and with an error of the package.

On Ctrl-C the exit status is 130, as in a shell; click exits with 1, which here means that a check failed.
"""

from __future__ import annotations

import click

from uffdlab.cli import exit_status


class InterruptibleGroup(click.Group):
    """A group whose commands exit with 130 on Ctrl-C, and print an error of the package without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; see :meth:`click.Command.invoke`."""
        try:
            with exit_status.from_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            click.echo("\n".join([f"\n{ctx.info_name}: stopped", *getattr(stopped, "__notes__", ())]), err=True)
            raise click.exceptions.Exit(exit_status.INTERRUPTED) from None

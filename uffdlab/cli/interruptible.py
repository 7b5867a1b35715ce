"""Commands that end with 130 on Ctrl-C, as a shell has it; click's own is 1, which here says that a check failed."""

from __future__ import annotations

import click

from uffdlab.cli import exit_status


class InterruptibleGroup(click.Group):
    """A group whose commands end so."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(f"\n{ctx.info_name}: stopped", err=True)
            raise click.exceptions.Exit(exit_status.INTERRUPTED) from None

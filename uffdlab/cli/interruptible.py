"""Commands that end with 130 on Ctrl-C, as a shell has it; click's own is 1, which here says that a check failed."""

from __future__ import annotations

import signal

import click


class InterruptibleCommand(click.Command):
    """A command of that kind; of a group, all the commands in it."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(f"\n{ctx.info_name}: stopped", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None


class InterruptibleGroup(InterruptibleCommand, click.Group):
    """A group of that kind."""

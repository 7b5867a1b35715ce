"""``uffdlab capabilities``: what kernels can do with a userfaultfd."""

from __future__ import annotations

import click

from uffdlab.cli import exit_status
from uffdlab.lab import Lab
from uffdlab.target.capabilities import FORMS


@click.command()
@click.argument("kernel", nargs=-1, required=True)
@click.option("--form", type=click.Choice(list(FORMS)), default="text", show_default=True)
def capabilities(kernel: tuple[str, ...], form: str) -> None:
    """Show what each KERNEL can do with a userfaultfd, side by side, found by probing."""
    found = []
    for name in kernel:
        with exit_status.from_errors(name), Lab(name) as lab:
            found.append(lab.capabilities)
    click.echo(FORMS[form](found))

"""``uffdlab witness-audit``: compare every witness with the others."""

from __future__ import annotations

import sys

import click

from uffdlab.cli import exit_status
from uffdlab.lab import Lab
from uffdlab.scenarios.witness_audit import examine, table


@click.command()
@click.argument("kernel", nargs=-1, required=True)
def witness_audit(kernel: tuple[str, ...]) -> None:
    """Compare all witnesses on each KERNEL, for each kind of memory and registration mode; print a Markdown table.

    Exit status: 0 they agree and every bit that is falsified on purpose is detected, 1 otherwise, 2 bad usage, 125 a
    kernel could not be built or booted.
    """
    cases = []
    for name in kernel:
        with exit_status.from_errors(name), Lab(name) as lab:
            cases += list(examine(lab))
    click.echo(table(cases))
    wrong = [f"{case.kernel} {case.memory} {case.mode}: {each}" for case in cases for each in case.disagreements]
    wrong += [
        f"{c.kernel} {c.memory} {c.mode}: {c.falsified - c.caught} falsified entries not found"
        for c in cases
        if c.falsified != c.caught
    ]
    if wrong:
        click.echo("\n".join(wrong), err=True)
        sys.exit(exit_status.FAILED)

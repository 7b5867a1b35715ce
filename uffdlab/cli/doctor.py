"""``uffdlab doctor``: what this host has and lacks."""

from __future__ import annotations

import json
import sys

import click

from uffdlab import doctor as checks
from uffdlab.cli import exit_status
from uffdlab.cli.parameters import as_json


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check what this host has and lacks for labs; say what to do.

    A line is ok, optional (labs run without it) or missing. Nothing is installed or fetched. Exit status: 0 labs can
    run, 1 something is missing.
    """
    lines = []
    for line in checks.examine():
        lines.append(line)
        if not as_json:
            click.echo(f"{line.state.value:<9} {line.name:<17} {line.found}")
            if line.todo:
                click.echo(f"{'':<27} → {line.todo}")
    missing = [line.name for line in lines if line.state is checks.State.MISSING]
    if as_json:
        found = [
            {"name": line.name, "state": line.state.value, "found": line.found, "todo": line.todo} for line in lines
        ]
        click.echo(json.dumps({"ok": not missing, "lines": found}, indent=1))
    else:
        click.echo(f"Missing: {', '.join(missing)}." if missing else "Labs can run here.")
    sys.exit(exit_status.FAILED if missing else 0)

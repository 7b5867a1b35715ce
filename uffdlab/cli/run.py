"""``uffdlab run``: run a scenario on kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from uffdlab.cli import exit_status
from uffdlab.lab import Lab
from uffdlab.scenarios import SCENARIOS
from uffdlab.scenarios.reports import FORMS


@click.command()
@click.argument("scenario", type=click.Choice(list(SCENARIOS)))
@click.argument("kernel", nargs=-1, required=True)
@click.option("--form", type=click.Choice(list(FORMS)), default="text", show_default=True)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead of the terminal."
)
def run(scenario: str, kernel: tuple[str, ...], form: str, output: Path | None) -> None:
    """Run SCENARIO on each KERNEL (a name or a path).

    Exit status: 0 all checks hold, 1 one does not, 2 bad usage, 125 a kernel could not be built or booted (for use with
    `git bisect run`).
    """
    if output and not output.parent.is_dir():
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    texts = []
    good = True
    for name in kernel:
        with exit_status.from_errors(name), Lab(name) as lab:
            result = SCENARIOS[scenario](lab)
        good = good and result.ok
        texts.append(FORMS[form](result))
    text = "\n".join(texts) if form != "json" or len(texts) == 1 else "[" + ",\n".join(texts) + "]"
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    else:
        click.echo(text)
    sys.exit(0 if good else exit_status.FAILED)

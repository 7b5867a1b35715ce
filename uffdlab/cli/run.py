"""``uffdlab run``: run a scenario on kernels."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status
from uffdlab.cli.json_array import json_array
from uffdlab.cli.output_file import opened
from uffdlab.cli.parameters import SCENARIOS, KernelName, as_json
from uffdlab.cli.several_kernels import Failure, on_each

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.scenarios import Result


@click.command(
    epilog="Examples: uffdlab run minor_wp 6.1-series; "
    "uffdlab run minor_wp debian/bookworm ./vmlinux --json --output results.json"
)
@click.argument("scenario", type=click.Choice(SCENARIOS))
@click.argument("kernel", type=KernelName(path=True), nargs=-1, required=True)
@click.option("--form", type=click.Choice(["text", "ktap"]), default="text", show_default=True,
              help="KTAP is the kernel's test format.")  # fmt: skip
@as_json
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead of the terminal."
)
def run(scenario: str, kernel: tuple[str, ...], form: str, as_json: bool, output: Path | None) -> None:
    """Run SCENARIO on each KERNEL (a name or a path) and print its result as soon as it is there.

    A kernel that fails does not stop the others. Exit status: 0 all checks hold, 1 one does not or a kernel crashed, 2
    bad usage, 125 a kernel could not be built or booted (for use with `git bisect run`), 130 Ctrl-C.
    """
    from uffdlab import scenarios
    from uffdlab.scenarios import reports

    def experiment(lab: Lab) -> Result:
        return scenarios.SCENARIOS[scenario](lab)

    statuses = []
    with ExitStack() as stack:
        outcomes = on_each(kernel, experiment)
        file = stack.enter_context(opened(output)) if output else None
        write_json = stack.enter_context(json_array(file)) if as_json else None
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                statuses.append(outcome.exit_status)
                if write_json:
                    write_json({"scenario": scenario, **outcome.as_data()})
                continue
            statuses.append(0 if outcome.ok else exit_status.FAILED)
            if write_json:
                write_json(reports.to_dict(outcome))
            else:
                click.echo(reports.FORMS[form](outcome), file=file)
    sys.exit(exit_status.combined(statuses))

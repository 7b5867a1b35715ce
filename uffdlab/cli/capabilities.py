"""``uffdlab capabilities``: what kernels can do with a userfaultfd."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status
from uffdlab.cli.parameters import KernelName, as_json
from uffdlab.cli.several_kernels import Failure, on_each

if TYPE_CHECKING:
    from uffdlab.target.capabilities import Capabilities


@click.command(epilog="Example: uffdlab capabilities debian/bookworm debian/trixie")
@click.argument("kernel", type=KernelName(path=True), nargs=-1, required=True)
@click.option("--form", type=click.Choice(["text", "markdown", "html"]), default="text", show_default=True)
@as_json
def capabilities(kernel: tuple[str, ...], form: str, as_json: bool) -> None:
    """Show what each KERNEL can do with a userfaultfd, side by side, found by probing.

    A kernel that fails is left out of the table. Exit status: 0 success, 1 a kernel crashed, 2 bad usage, 125 a kernel
    could not be built or booted, 130 Ctrl-C.
    """
    outcomes: list[Capabilities | Failure] = []
    try:
        for outcome in on_each(kernel, lambda lab: lab.capabilities):
            outcomes.append(outcome)  # noqa: PERF402 - what is there is shown after Ctrl-C, too
    except KeyboardInterrupt:
        if outcomes:
            _show(outcomes, form, as_json)
        raise
    _show(outcomes, form, as_json)
    sys.exit(exit_status.combined(each.exit_status for each in outcomes if isinstance(each, Failure)))


def _show(outcomes: list[Capabilities | Failure], form: str, as_json: bool) -> None:
    from uffdlab.target.capabilities import FORMS

    found = [each for each in outcomes if not isinstance(each, Failure)]
    if as_json:
        click.echo(json.dumps([each.as_data() for each in outcomes], indent=1))
    elif found:
        click.echo(FORMS[form](found))

"""``uffdlab witness-audit``: compare every witness with the others."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from uffdlab.cli import exit_status
from uffdlab.cli.json_array import json_array
from uffdlab.cli.parameters import KernelName, as_json
from uffdlab.cli.several_kernels import Failure, on_each

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.scenarios.witness_audit import Audit


@click.command(epilog="Example: uffdlab witness-audit 6.1-series debian/trixie")
@click.argument("kernel", type=KernelName(path=True), nargs=-1, required=True)
@as_json
def witness_audit(kernel: tuple[str, ...], as_json: bool) -> None:
    """Compare all witnesses on each KERNEL, for each kind of memory and registration mode; print a Markdown table.

    A kernel that fails does not stop the others. Exit status: 0 they agree and every bit that is falsified on purpose
    is detected, 1 otherwise, 2 bad usage, 125 a kernel could not be built or booted, 130 Ctrl-C.
    """
    from uffdlab.scenarios.witness_audit import examine, table

    def audit(lab: Lab) -> tuple[str, list[Audit]]:
        return lab.kernel, list(examine(lab))

    statuses, wrong = [], []
    begun = False
    with ExitStack() as stack:
        outcomes = on_each(kernel, audit)
        write_json = stack.enter_context(json_array()) if as_json else None
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                statuses.append(outcome.exit_status)
                if write_json:
                    write_json(outcome.as_data())
                continue
            name, cases = outcome
            found = _wrong(cases)
            statuses.append(exit_status.FAILED if found else 0)
            wrong += found
            if write_json:
                write_json({"kernel": name, "ok": not found, "cases": [_as_data(case) for case in cases]})
            else:
                lines = table(cases).splitlines()
                click.echo("\n".join(lines[2:] if begun else lines))
                begun = True
    if wrong:
        click.echo("\n".join(wrong), err=True)
    sys.exit(exit_status.combined(statuses))


def _as_data(case: Audit) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(case).items() if name != "kernel"}


def _wrong(cases: list[Audit]) -> list[str]:
    wrong = [f"{case.kernel} {case.memory} {case.mode}: {each}" for case in cases for each in case.disagreements]
    wrong += [
        f"{c.kernel} {c.memory} {c.mode}: {c.falsified - c.caught} falsified entries not found"
        for c in cases
        if c.falsified != c.caught
    ]
    return wrong

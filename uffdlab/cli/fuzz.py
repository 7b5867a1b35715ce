"""``uffdlab fuzz``: random calls on a kernel, each compared with a model of what it should do."""

from __future__ import annotations

import sys

import click

from uffdlab.cli import exit_status
from uffdlab.cli.parameters import KernelName, MachineName
from uffdlab.fuzz.rules import MEMORIES


@click.command(epilog="Example: uffdlab fuzz 6.1-series --seconds 600 --memory shmem --memory hugetlb")
@click.argument("kernel", type=KernelName(path=True), required=False)
@click.option("--machine", type=MachineName(), help="local, ssh:user@host or vagrant; else a guest in QEMU.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to run.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed makes the same calls.")
@click.option(
    "--memory",
    type=click.Choice(MEMORIES),
    multiple=True,
    help="A kind of memory; may be given several times. Without it, all.",
)
def fuzz(kernel: str | None, machine: str | None, seconds: float, seed: int, memory: tuple[str, ...]) -> None:
    """Make random calls on KERNEL and compare each with a model of what it should do.

    Without KERNEL, the calls go to the running kernel of the chosen machine. Exit status: 0 the kernel and the model
    agree, 1 they do not, 2 bad usage, 125 the kernel could not be built or booted.
    """
    from uffdlab.fuzz.run import Mismatch, play_randomly, shrink
    from uffdlab.lab import Lab

    with exit_status.from_errors(kernel or ""), Lab(kernel, machine=machine) as lab:
        about = f"{lab.kernel}, seed {seed}"
        try:
            count = play_randomly(lab, seconds, seed, memory or MEMORIES)
        except Mismatch as found:
            click.echo(f"{about}: {shrink(lab, found)}")
            sys.exit(exit_status.FAILED)
    unknown = f", on {count.unknown} more unknown" if count.unknown else ""
    click.echo(f"{about}: {count.calls} calls on {count.regions} regions as they should be{unknown}")

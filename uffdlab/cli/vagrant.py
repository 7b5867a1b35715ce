"""``uffdlab vagrant``: the VM of vm/Vagrantfile by hand."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from uffdlab.errors import UffdlabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uffdlab.machines.vagrant.vm import VagrantVm


@click.group()
def vagrant() -> None:
    """The VM of vm/Vagrantfile, which Lab(machine="vagrant") uses."""


@vagrant.command()
@click.argument("kernel", default="6.1-series")
def up(kernel: str) -> None:
    """Bring it up with KERNEL, or switch it to that; the kernel is built and a box fetched or made if need be."""
    from uffdlab.machines.vagrant.machine import start  # noqa: PLC0415 - so that `uffdlab --help` is fast

    with _errors():
        name, machine = start(kernel, tell=click.echo)
        with machine:
            click.echo(f"the VM runs {name}: Linux {machine.hello['release']}; `uffdlab vagrant destroy` removes it")


@vagrant.command()
def status() -> None:
    """Say in what state it is, and which kernel it was booted with."""
    with _errors():
        vm = _vm()
        state = vm.state()
        click.echo(f"{state}, {vm.kernel_name}" if state == "running" and vm.kernel_name else state)


@vagrant.command()
def halt() -> None:
    """Shut it down; its disk stays."""
    with _errors():
        _vm().halt()


@vagrant.command()
def destroy() -> None:
    """Remove it and its disk.  The box stays: `vagrant box list`, `vagrant box remove`."""
    with _errors():
        _vm().destroy()


def _vm() -> VagrantVm:
    from uffdlab.machines.vagrant.vm import VagrantVm  # noqa: PLC0415

    return VagrantVm()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except UffdlabError as error:
        click.echo(str(error), err=True)
        sys.exit(1)

"""``uffdlab vagrant``: control the VM of vm/Vagrantfile by hand."""

from __future__ import annotations

import click

from uffdlab.cli import exit_status
from uffdlab.cli.parameters import KernelName


@click.group()
def vagrant() -> None:
    """The VM of vm/Vagrantfile, which Lab(machine="vagrant") uses."""


@vagrant.command()
@click.argument("kernel", type=KernelName(), default="6.1-series")
def up(kernel: str) -> None:
    """Start the VM with KERNEL, or switch it to KERNEL; build the kernel and fetch or make a box if needed."""
    from uffdlab.machines.vagrant.machine import start

    with exit_status.from_errors():
        name, machine = start(kernel, tell=click.echo)
        with machine:
            click.echo(f"the VM runs {name}: Linux {machine.hello.release}; `uffdlab vagrant destroy` removes it")


@vagrant.command()
def status() -> None:
    """Print the state of the VM and the kernel it was booted with."""
    from uffdlab.machines.vagrant.vm import VagrantVm

    with exit_status.from_errors():
        vm = VagrantVm()
        state = vm.state()
        click.echo(f"{state}, {vm.kernel_name}" if state == "running" and vm.kernel_name else state)


@vagrant.command()
def halt() -> None:
    """Shut the VM down; its disk stays."""
    from uffdlab.machines.vagrant.vm import VagrantVm

    with exit_status.from_errors():
        VagrantVm().halt()


@vagrant.command()
def destroy() -> None:
    """Remove the VM and its disk.  The box stays: `vagrant box list`, `vagrant box remove`."""
    from uffdlab.machines.vagrant.vm import VagrantVm

    with exit_status.from_errors():
        VagrantVm().destroy()

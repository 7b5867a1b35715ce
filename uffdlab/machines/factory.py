"""Choosing a machine by its name, with the options that each kind takes."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import fields

from uffdlab import settings
from uffdlab.errors import UsageError
from uffdlab.processes import limits

if TYPE_CHECKING:
    from uffdlab.machines import Machine

_log = logging.getLogger("uffdlab.machines")

DEFAULT_KERNEL = "6.1-series"
_PTE_READER = "modules/90-pte_reader.ko"  # in the guest, which loads modules in the order of their names
_KINDS = "'qemu', 'local', 'ssh:user@host', 'vagrant'"


class Options(Struct, frozen=True):
    """The options of a machine that is started for a lab; None or empty if the caller did not give them.

    Attributes
    ----------
    cpus : int or None
        1 if None.
    memory_mib : int or None
        1024 if None.
    hugepages : int
        Pages of 2 MiB that are reserved at boot.
    command_line : str
        Added to the kernel's command line.
    pte_reader : bool
        Whether a kernel that has no PTE reader built in gets it as a module.
    """

    cpus: int | None = None
    memory_mib: int | None = None
    hugepages: int = 0
    command_line: str = ""
    pte_reader: bool = False

    def given(self) -> list[str]:
        """Return the names of the options that the caller gave."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


@limits.reported()
def start(kernel: str | os.PathLike[str] | None, machine: str | None, options: Options) -> tuple[str, Machine]:
    """Start a machine.

    Parameters
    ----------
    kernel : str, path or None
        The kernel to run, by default that of the machine, or 6.1-series in QEMU.
    machine : str or None
        The kind of machine, by default ``$UFFDLAB_MACHINE``, or ``"qemu"`` if that is empty.
    options : Options

    Returns
    -------
    kernel : str
        The kernel's name.
    machine : Machine

    Raises
    ------
    UsageError
        There is no such kind of machine, or it does not take this kernel or option.
    KernelError, MachineError, HostUnsupported
        The machine did not start.
    """
    if kernel is not None and not isinstance(kernel, (str, os.PathLike)):
        raise UsageError(f"kernel={kernel!r}: a kernel is a name, such as '6.1-series', or a path")
    wanted = machine or settings.machine()
    if wanted == "qemu":
        return _qemu(kernel, options)
    if wanted == "local":
        from uffdlab.machines import local  # noqa: PLC0415 - import only the kind that is used

        _refuse_options(wanted, kernel, options)
        return _warned(local.start())
    if wanted.startswith("ssh:"):
        from uffdlab.machines import ssh  # noqa: PLC0415

        _refuse_options(wanted, kernel, options)
        return _warned(ssh.start(wanted.removeprefix("ssh:")))
    if wanted == "vagrant":
        return _vagrant(kernel, options)
    raise UsageError(f"there is no machine {wanted!r}; the kinds are {_KINDS}")


def _qemu(kernel: str | os.PathLike[str] | None, options: Options) -> tuple[str, Machine]:
    from uffdlab import kernels  # noqa: PLC0415
    from uffdlab.machines.qemu import start  # noqa: PLC0415

    if options.hugepages < 0:
        raise UsageError(f"hugepages={options.hugepages}: it must be a number of 2 MiB pages, 0 or more")
    reserved = f"hugepagesz=2M hugepages={options.hugepages}" if options.hugepages else ""
    image = kernels.get(kernel or DEFAULT_KERNEL)
    module = kernels.pte_reader(kernel or DEFAULT_KERNEL) if options.pte_reader else None
    machine = start.start(
        image,
        cpus=options.cpus if options.cpus is not None else 1,
        memory_mib=options.memory_mib if options.memory_mib is not None else 1024,
        append=f"{reserved} {options.command_line}".strip(),
        extra={_PTE_READER: module} if module is not None else None,
    )
    return image.name, machine


def _vagrant(kernel: str | os.PathLike[str] | None, options: Options) -> tuple[str, Machine]:
    from uffdlab.machines.vagrant.machine import start  # noqa: PLC0415

    refused = [name for name in options.given() if name not in {"cpus", "memory_mib"}]
    if refused:
        raise UsageError(
            f"machine='vagrant' does not take {', '.join(refused)}; leave it out. A kernel that is built for the VM "
            "has the PTE reader"
        )
    return start(
        kernel or DEFAULT_KERNEL,
        cpus=options.cpus if options.cpus is not None else 1,
        memory_mib=options.memory_mib if options.memory_mib is not None else 1024,
    )


def _refuse_options(machine: str, kernel: Any, options: Options) -> None:
    if kernel is not None:
        raise UsageError(
            f"machine={machine!r} runs a kernel of its own, not {kernel!r}: leave the kernel out, "
            f"Lab(machine={machine!r}), or leave the machine out to have this kernel in QEMU"
        )
    given = options.given()
    if given:
        raise UsageError(
            f"{', '.join(given)}: machine={machine!r} does not take these, they are for a guest in QEMU; leave them out"
        )


def _warned(machine: Machine) -> tuple[str, Machine]:
    _log.warning(
        "this lab uses the kernel of a running machine (%s) and can crash it. The witnesses are pagemap and "
        "PAGEMAP_SCAN; raw entries can only be read if the PTE reader of kernel-patch is loaded",
        machine.hello.release,
    )
    return f"Linux {machine.hello.release}", machine

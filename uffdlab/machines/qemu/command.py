"""QEMU's command: all that makes one guest's start differ from another's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from uffdlab.machines import clock

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.machines.qemu import initramfs

PORT, TARGET_PORT = "uffdlab.agent", "uffdlab.target"  # as uffdlab.agent.init looks for them

# What speeds up a boot under emulation and is of no importance to page faults: mitigations, page-table isolation
# (with it the page tables of user mode are half hidden), calibration, address randomization, and the self-tests of the
# crypto code, which cost Debian's kernels almost a second.  random.trust_cpu: without randomness Python does not start.
# A word without "=" or "." that a kernel does not know would reach init as an argument.
_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic random.trust_cpu=on "
    "mitigations=off pti=off tsc=reliable no_timer_check nokaslr cryptomgr.notests LD_LIBRARY_PATH=/usr/lib"
)


# RAM is in a file of ours, which we copy: QEMU is to save and load its devices alone.  QEMU 7.2 takes no option for it.
IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_RESTORE = "-chardev socket,id=orders,fd={given.orders} -mon chardev=orders,mode=control -incoming defer"


class Descriptors(NamedTuple):
    """What QEMU inherits: the files of kernel, initramfs and RAM, and its ends of sockets, two to be restored by."""

    image: int = 0
    initramfs: int = 0
    ram: int = 0
    agent: int = 0
    console: int = 0
    monitor: int = 0
    target: int = 0
    orders: int | None = None
    incoming: int | None = None


@dataclass(frozen=True)
class Settings:
    """All that makes one machine's start differ from another's.

    Attributes
    ----------
    program : str
        QEMU, by its path.
    image : Path
        The kernel.
    kernel_key : str
        Hash of the kernel.
    initramfs : Initramfs
    accelerator : str
        ``"tcg"`` or ``"kvm"``.
    cpus : int
    memory_mib : int
    append : str
        Added to the kernel's command line.
    """

    program: str
    image: Path
    kernel_key: str
    initramfs: initramfs.Initramfs
    accelerator: str
    cpus: int
    memory_mib: int
    append: str

    @property
    def cpu(self) -> str:
        """The CPU model: all that the accelerator can do, but four levels of page tables.

        And under emulation no CMPXCHG16B: QEMU 7.2 may leave an operand in the flags after it, and an interrupt that
        comes then brings the kernel down (one boot of 6.12 in ten, in its allocator).  Nor does the emulated CPU say
        that ``rep movsb`` is the fast way to copy: it is done byte by byte.
        """
        return "host,la57=off" if self.accelerator == "kvm" else "max,la57=off,cx16=off,erms=off,fsrm=off"

    @property
    def command_line(self) -> str:
        """The kernel's command line, but for what is measured anew at each boot."""
        return f"{_COMMAND_LINE} {self.append}".strip()

    @property
    def boot_line(self) -> str:
        """The kernel's command line."""
        mhz = clock.counter_mhz() if self.accelerator == "tcg" else None  # KVM tells its guests
        told = (f"tsc_early_khz={mhz}000",) if mhz else ()
        return " ".join((*told, *(("nolapic_timer",) if self._has_hpet else ()), self.command_line))

    @property
    def _has_hpet(self) -> bool:
        # Linux measures for 0.1 s how fast the local APIC's timer counts; an HPET says so itself.  KVM's guests have a
        # better one than both, and several CPUs would have to share it.
        return self.accelerator == "tcg" and self.cpus == 1

    def arguments(self, given: Descriptors, *, restore: bool) -> list[str]:
        """Return QEMU's command.

        Parameters
        ----------
        given : Descriptors
            What it inherits.
        restore : bool
            Whether to wait for the saved state of its devices in place of booting.
        """
        ram = f"memory-backend-file,id=ram,size={self.memory_mib}M,mem-path=/proc/self/fd/{given.ram},share=on"
        hpet = "on" if self._has_hpet else "off"
        accelerator = "kvm" if self.accelerator == "kvm" else "tcg,thread=multi,tb-size=128"
        return [
            *(self.program, "-name", "uffdlab"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-machine", f"q35,memory-backend=ram,sata=off,smbus=off,vmport=off,hpet={hpet}"),
            *("-accel", accelerator, "-cpu", self.cpu, "-smp", str(self.cpus), "-m", f"{self.memory_mib}M"),
            *("-object", ram),
            # By their descriptors: the folders above them may be closed to the user that QEMU runs as.
            *("-kernel", f"/proc/self/fd/{given.image}", "-initrd", f"/proc/self/fd/{given.initramfs}"),
            *("-append", self.command_line if restore else self.boot_line),
            *("-chardev", f"socket,id=console,fd={given.console}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=monitor,fd={given.monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"socket,id=agent,fd={given.agent}", "-chardev", f"socket,id=target,fd={given.target}"),
            *("-device", "virtio-serial-pci,max_ports=3"),  # of which the first is for consoles alone
            *("-device", f"virtserialport,chardev=agent,name={PORT}"),
            *("-device", f"virtserialport,chardev=target,name={TARGET_PORT}"),
            *("-device", "virtio-rng-pci"),
            *(_RESTORE.format(given=given).split() if restore else ()),
        ]

    @staticmethod
    def orders(given: Descriptors) -> bytes:
        """Return what a QEMU that is to restore a state has to find in its monitor of that name, before it even starts.

        It takes the state of its devices from the descriptor for that, as soon as it comes.
        """
        commands = (
            {"execute": "qmp_capabilities"},
            {"execute": "migrate-set-capabilities", "arguments": IGNORE_SHARED},
            {"execute": "migrate-incoming", "arguments": {"uri": f"fd:{given.incoming}"}},
        )
        return b"".join(json.dumps(command).encode() for command in commands)

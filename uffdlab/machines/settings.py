"""QEMU's command: all that makes one guest's start differ from another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from uffdlab.machines import clock

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.machines import initramfs

PORT, TARGET_PORT = "uffdlab.agent", "uffdlab.target"  # as uffdlab.agent.init looks for them

# What speeds up a boot under emulation and is of no importance to page faults: mitigations, page-table isolation
# (with it the page tables of user mode are half hidden), calibration, address randomization, and the self-tests of the
# crypto code, which cost Debian's kernels almost a second.  random.trust_cpu: without randomness Python does not start.
# A word without "=" or "." that a kernel does not know would reach init as an argument.
_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic random.trust_cpu=on "
    "mitigations=off pti=off tsc=reliable no_timer_check nokaslr cryptomgr.notests LD_LIBRARY_PATH=/usr/lib"
)


class Descriptors(NamedTuple):
    """What QEMU inherits: the files of kernel, initramfs and RAM, and its ends of four sockets."""

    image: int = 0
    initramfs: int = 0
    ram: int = 0
    agent: int = 0
    console: int = 0
    monitor: int = 0
    target: int = 0


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
        return f"tsc_early_khz={mhz}000 {self.command_line}" if mhz else self.command_line

    def arguments(self, given: Descriptors, *, restore: bool) -> list[str]:
        """Return QEMU's command.

        Parameters
        ----------
        given : Descriptors
            What it inherits.
        restore : bool
            Whether to wait for a saved state in place of booting.
        """
        ram = f"memory-backend-file,id=ram,size={self.memory_mib}M,mem-path=/proc/self/fd/{given.ram},share=on"
        accelerator = "kvm" if self.accelerator == "kvm" else "tcg,thread=multi,tb-size=128"
        return [
            *(self.program, "-name", "uffdlab"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-machine", "q35,memory-backend=ram,sata=off,smbus=off,vmport=off,hpet=off"),
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
            *(("-incoming", "defer") if restore else ()),
        ]

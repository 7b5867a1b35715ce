"""QEMU's command line, made from the settings of a guest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from uffdlab.machines import clock

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.machines.qemu import initramfs

PORT, TARGET_PORT = "uffdlab.agent", "uffdlab.target"  # the same names as in uffdlab.agent.init

# Most of these speed up a boot under emulation and do not matter for page faults: no mitigations, no page-table
# isolation (which hides half of the user-mode page tables), no calibration, no address randomization, and no self-tests
# of the crypto code, which take Debian's kernels almost a second.  random.trust_cpu: Python does not start without
# randomness.  The kernel passes an unknown parameter without "=" or "." to init as an argument.
_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic random.trust_cpu=on "
    "mitigations=off pti=off tsc=reliable no_timer_check nokaslr cryptomgr.notests LD_LIBRARY_PATH=/usr/lib"
)


# The lab copies the RAM file itself, so QEMU saves and loads only its devices.  QEMU 7.2 has no option for that.
IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_RESTORE = "-chardev socket,id=orders,fd={given.orders} -mon chardev=orders,mode=control -incoming defer"


class Descriptors(NamedTuple):
    """The descriptors that QEMU inherits: kernel, initramfs, RAM, and its ends of sockets; two are for restoring."""

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
    """The settings of one machine.

    Attributes
    ----------
    program : str
        The path of QEMU.
    image : Path
        The kernel image.
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
        """The CPU model: all that the accelerator supports, but with four levels of page tables.

        Under emulation it has no CMPXCHG16B: QEMU 7.2 may leave an operand in the flags after it, and an interrupt at
        that moment crashes the kernel (one boot of 6.12 in ten, in its allocator).  It also does not advertise a fast
        ``rep movsb``, which QEMU emulates byte by byte.
        """
        return "host,la57=off" if self.accelerator == "kvm" else "max,la57=off,cx16=off,erms=off,fsrm=off"

    @property
    def command_line(self) -> str:
        """The kernel's command line, without what is measured at each boot."""
        return f"{_COMMAND_LINE} {self.append}".strip()

    @property
    def boot_line(self) -> str:
        """The kernel's command line."""
        mhz = clock.counter_mhz() if self.accelerator == "tcg" else None  # KVM passes it to its guests
        frequency = (f"tsc_early_khz={mhz}000",) if mhz else ()
        return " ".join((*frequency, *(("nolapic_timer",) if self._has_hpet else ()), self.command_line))

    @property
    def _has_hpet(self) -> bool:
        # Without an HPET, Linux measures the frequency of the local APIC's timer for 0.1 s.  KVM's guests have a better
        # timer than both, and several CPUs would have to share an HPET.
        return self.accelerator == "tcg" and self.cpus == 1

    def arguments(self, given: Descriptors, *, restore: bool) -> list[str]:
        """Return QEMU's command line.

        Parameters
        ----------
        given : Descriptors
            The descriptors that QEMU inherits.
        restore : bool
            Whether QEMU waits for the saved state of its devices instead of booting.
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
            # By descriptor, since QEMU's user may not be able to search the folders of these files.
            *("-kernel", f"/proc/self/fd/{given.image}", "-initrd", f"/proc/self/fd/{given.initramfs}"),
            *("-append", self.command_line if restore else self.boot_line),
            *("-chardev", f"socket,id=console,fd={given.console}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=monitor,fd={given.monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"socket,id=agent,fd={given.agent}", "-chardev", f"socket,id=target,fd={given.target}"),
            *("-device", "virtio-serial-pci,max_ports=3"),  # the first is only for consoles
            *("-device", f"virtserialport,chardev=agent,name={PORT}"),
            *("-device", f"virtserialport,chardev=target,name={TARGET_PORT}"),
            *("-device", "virtio-rng-pci"),
            *(_RESTORE.format(given=given).split() if restore else ()),
        ]

    @staticmethod
    def orders(given: Descriptors) -> bytes:
        """Return the commands that a restoring QEMU reads from its ``orders`` monitor; write them before it starts.

        It then loads the state of its devices from the descriptor ``incoming`` as soon as that is sent.
        """
        commands = (
            {"execute": "qmp_capabilities"},
            {"execute": "migrate-set-capabilities", "arguments": IGNORE_SHARED},
            {"execute": "migrate-incoming", "arguments": {"uri": f"fd:{given.incoming}"}},
        )
        return b"".join(json.dumps(command).encode() for command in commands)

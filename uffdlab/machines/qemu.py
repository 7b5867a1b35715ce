"""QEMU as a machine: no root, no network, nothing on disk, and gone when its owner is."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import secrets
import shutil
import socket
import sys
import time
import weakref
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import errors
from uffdlab.machines import accel, clock, initramfs, modules, saved
from uffdlab.machines.console import Console
from uffdlab.machines.kept import KeptMachine, late, lost
from uffdlab.machines.process import KeptProcess
from uffdlab.machines.qmp import Monitor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uffdlab.kernels import Kernel
    from uffdlab.machines import PhysicalMemory
    from uffdlab.machines.memory import SharedMemory

PROGRAM = "qemu-system-x86_64"
PORT = "uffdlab.agent"  # as uffdlab.agent.init looks for it

_LEAST_MIB, _MOST_MIB = 128, 1 << 20
_MOST_CPUS = 64
_NEEDED_MIB = 160  # what a small guest and QEMU use up, measured
_RESTORE_DEADLINE = 5.0  # seconds
_MIGRATION_DEADLINE = 10.0
_BOOTS = 3  # until the guest's clock runs as it should

_log = logging.getLogger("uffdlab.machines")

# What speeds up a boot under emulation and is of no importance to page faults: mitigations, page-table isolation
# (with it the page tables of user mode are half hidden), calibration, address randomization, and the self-tests of the
# crypto code, which cost Debian's kernels almost a second.  random.trust_cpu: without randomness Python does not start.
# A word without "=" or "." that a kernel does not know would reach init as an argument.
_COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic random.trust_cpu=on "
    "mitigations=off pti=off tsc=reliable no_timer_check nokaslr cryptomgr.notests LD_LIBRARY_PATH=/usr/lib"
)


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

    def arguments(self, *, ram: int, agent: int, console: int, monitor: int, restore: bool) -> list[str]:
        """Return QEMU's command for these descriptors.

        Parameters
        ----------
        ram, agent, console, monitor : int
            The RAM file, and QEMU's ends of three sockets.
        restore : bool
            Whether to wait for a saved state in place of booting.
        """
        accelerator = "kvm" if self.accelerator == "kvm" else "tcg,thread=multi,tb-size=128"
        return [
            *(self.program, "-name", "uffdlab"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-machine", "q35,memory-backend=ram,sata=off,smbus=off,vmport=off,hpet=off"),
            *("-accel", accelerator, "-cpu", self.cpu, "-smp", str(self.cpus), "-m", f"{self.memory_mib}M"),
            *("-object", f"memory-backend-file,id=ram,size={self.memory_mib}M,mem-path=/proc/self/fd/{ram},share=on"),
            *("-kernel", str(self.image), "-initrd", str(self.initramfs.path)),
            *("-append", self.command_line if restore else self.boot_line),
            *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"socket,id=agent,fd={agent}"),
            *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={PORT}"),
            *("-device", "virtio-rng-pci"),
            *(("-incoming", "defer") if restore else ()),
        ]


class QemuMachine(KeptMachine):
    """One running guest.  :func:`start` makes them."""

    name = "qemu"
    _program = "QEMU"

    def __init__(self, settings: Settings, *, restore: bool = False) -> None:
        self.settings = settings
        self.restored = restore
        self._physical: SharedMemory | None = None
        console = Console()
        with ExitStack() as undo:
            below = undo.enter_context(ExitStack())
            self._ram = _ram_file(settings.memory_mib)
            below.callback(os.close, self._ram)
            # The state of QEMU's devices: it reads it from here, or may be asked to write it here.
            self._devices = os.memfd_create("uffdlab-devices", os.MFD_CLOEXEC)
            below.callback(os.close, self._devices)
            ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
            for end in (*ours, *theirs):
                undo.callback(end.close)
            agent, serial, monitor = (end.fileno() for end in theirs)
            arguments = settings.arguments(ram=self._ram, agent=agent, console=serial, monitor=monitor, restore=restore)
            process = KeptProcess(arguments, [self._ram, agent, serial, monitor], ours[1], log=console)
            undo.callback(process.kill)
            super().__init__(process, ours[0], console, below)
            here = weakref.ref(self)
            self.monitor = Monitor(ours[2], lost=partial(lost, here), late=partial(late, here))
            below.callback(self.monitor.close)
            undo.pop_all()
        for end in theirs:
            end.close()

    # --- the Machine protocol

    @property
    def physical(self) -> PhysicalMemory:
        """The guest's RAM."""
        with self._closing:
            self._check()
            if self._physical is None:
                from uffdlab.machines.memory import SharedMemory  # noqa: PLC0415 - numpy takes 100 ms

                here = weakref.ref(self)
                self._physical = SharedMemory(
                    self._ram, self.settings.memory_mib << 20, self.monitor, lambda: _check(here)
                )
            return self._physical

    def close(self) -> None:
        """End the machine.  Closing a closed machine does nothing."""
        super().close()
        with self._closing:
            physical, self._physical = self._physical, None
        if physical is not None:
            physical.close()

    # --- coming up

    def wake(self, state: saved.SavedState) -> None:
        """Make of a machine that waits for it what was saved, and give it the time and randomness of its own.

        Raises
        ------
        Unusable, MachineError, AgentError
            It came to nothing; close the machine.
        """
        state.load(self._ram, self._devices)  # while QEMU starts
        self._client.greeted()
        self._ignore_shared_memory()
        self.monitor.give_file(self._devices, "devices")
        self.monitor.execute("migrate-incoming", {"uri": "fd:devices"})
        self._wait_for_migration("restoring")
        self.monitor.execute("cont")  # it was saved stopped
        self._client.call("agent.after_restore", (secrets.token_bytes(64), time.time_ns()), _RESTORE_DEADLINE)
        self._hello = state.facts

    def save(self, name: str) -> None:
        """Keep the machine as it is now under `name` in the cache; it goes on afterwards.

        Raises
        ------
        MachineError
            QEMU cannot save it.
        HostUnsupported
            The cache cannot be written to.
        """
        with self.monitor.paused():
            self._ignore_shared_memory()
            self.monitor.give_file(self._devices, "devices")
            self.monitor.execute("migrate", {"uri": "fd:devices"})
            self._wait_for_migration("saving")
            devices = os.pread(self._devices, os.fstat(self._devices).st_size, 0)
            saved.save(name, ram=self._ram, device_state=devices, facts=self._hello)

    def _ignore_shared_memory(self) -> None:
        # RAM is in a file of ours, which we copy: QEMU is to save its devices alone.
        capability = {"capability": "x-ignore-shared", "state": True}
        self.monitor.execute("migrate-set-capabilities", {"capabilities": [capability]})

    def _wait_for_migration(self, what: str) -> None:
        until = time.monotonic() + _MIGRATION_DEADLINE
        while (status := self.monitor.execute("query-migrate").get("status")) != "completed":
            if status in {"failed", "cancelled"} or time.monotonic() > until:
                raise errors.MachineError(f"{what} the state of QEMU's devices came to nothing: {status}")
            time.sleep(0.001)

    # --- how it ends

    def _crash(self) -> errors.UffdlabError | None:
        panic = self._console.panic()
        if not panic:
            return None
        return errors.GuestPanic(f"the guest's kernel crashed: {panic}", console=self._console.crash())

    def disown(self) -> None:
        """In a forked child: let go of everything without ending the parent's machine."""
        super().disown()
        self.monitor.disown()
        os.close(self._ram)
        os.close(self._devices)


def _check(here: weakref.ref[QemuMachine]) -> None:
    machine = here()
    if machine is None:
        raise errors.LabClosed("the machine was closed")
    machine._check()  # noqa: SLF001
    machine._client.check()  # noqa: SLF001 - what a guest that has ended left in its RAM is not what it says


def _ram_file(memory_mib: int) -> int:
    available = _available_mib()
    if available is not None and available < _NEEDED_MIB:
        raise errors.HostUnsupported(
            f"{available} MiB of memory are available, a guest needs {_NEEDED_MIB}: close other programs or labs",
            missing="memory",
        )
    descriptor = os.memfd_create("uffdlab-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, memory_mib << 20)
        # Whoever maps a file that is cut short gets SIGBUS.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError as error:
        os.close(descriptor)
        raise errors.HostUnsupported(
            f"{memory_mib} MiB for the guest's memory: {error.strerror}. Ask for less: memory_mib=…", missing="memory"
        ) from error
    return descriptor


def _available_mib() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) >> 10
    return None


def find_program() -> str:
    """Return QEMU's path.

    Raises
    ------
    HostUnsupported
        This is not x86-64 Linux, or there is no QEMU.
    """
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "AMD64"}:
        raise errors.HostUnsupported(
            f"uffdlab runs its guests on x86-64 Linux; this is {platform.machine()} {sys.platform}", missing="x86-64"
        )
    found = shutil.which(PROGRAM)
    if found is None:
        raise errors.HostUnsupported(
            f"{PROGRAM} is not in PATH; install it: apt-get install qemu-system-x86", missing="qemu"
        )
    return str(Path(found).resolve())


def start(
    kernel: Kernel,
    *,
    cpus: int = 1,
    memory_mib: int = 1024,
    append: str = "",
    deadline: float = 60.0,
    cold: bool = False,
    extra: Mapping[str, Path | bytes] | None = None,
) -> QemuMachine:
    """Start a machine and wait until its agent answers.

    Each combination of kernel and parameters is booted once; its state is saved then, and later starts restore it.

    Parameters
    ----------
    kernel : Kernel
        As :func:`uffdlab.kernels.get` gives it.
    cpus, memory_mib : int
        The guest's CPUs, and its memory in MiB.
    append : str
        Added to the kernel's command line, where it wins over what is there already.
    deadline : float
        Seconds for the agent to say hello.
    cold : bool
        Boot, and save nothing.
    extra : mapping, optional
        More files for the guest, by their path there: bytes, or a file of the host.

    Raises
    ------
    HostUnsupported
        This host cannot run it; says what to install.
    UsageError
        Parameters without meaning.
    MachineTimeout, GuestPanic, MachineLost
        It did not come up; has the console's last lines.
    """
    _validate(kernel, cpus, memory_mib, append)
    program = find_program()
    files = {**modules.beside(kernel.image), **(extra or {})}
    archive = initramfs.get(files)

    def settings(accelerator: str) -> Settings:
        return Settings(program, kernel.image, kernel.key, archive, accelerator, cpus, memory_mib, append)

    def boot(accelerator: str, seconds: float) -> QemuMachine:
        return _boot(settings(accelerator), seconds)

    accelerator, probed = accel.choose(program, boot)
    if probed is not None:
        return probed
    chosen = settings(accelerator)
    if cold:
        return boot(accelerator, deadline)
    restored = _restore(chosen)
    if restored is not None:
        return restored
    machine = boot(accelerator, deadline)
    try:
        _save(machine, chosen)
    except BaseException:
        machine.close()
        raise
    return machine


def _validate(kernel: Kernel, cpus: int, memory_mib: int, append: str) -> None:
    if not 1 <= cpus <= _MOST_CPUS:
        raise errors.UsageError(f"cpus={cpus}: a guest has 1 to {_MOST_CPUS} CPUs")
    if not _LEAST_MIB <= memory_mib <= _MOST_MIB:
        raise errors.UsageError(f"memory_mib={memory_mib}: a guest has {_LEAST_MIB} to {_MOST_MIB} MiB of memory")
    if "--" in append.split() or not append.isprintable():
        raise errors.UsageError(f"append={append!r}: what follows -- goes to init, which is ours; leave it out")
    if not kernel.image.is_file():
        raise errors.KernelError(f"{kernel.name}: there is no image at {kernel.image}", kernel=kernel.name)


def _boot(settings: Settings, deadline: float) -> QemuMachine:
    for _ in range(_BOOTS):
        machine = QemuMachine(settings)
        try:
            machine.wait_for_hello(deadline)
            rate = clock.rate(lambda guest=machine: guest.call("agent.clock"))  # type: ignore[misc]
        except BaseException:
            machine.close()
            raise
        if abs(rate - 1) <= clock.TOLERANCE:
            return machine
        machine.close()
        _log.info("the guest's clock runs %.3g times as fast as ours, booting another one", rate)
    raise errors.MachineError(
        f"the guest's clock runs {rate:.3g} times as fast as the host's, after each of {_BOOTS} boots: the host is too "
        "busy for a guest to find out how fast its processor counts; try again when it is less so"
    )


def _state_key(settings: Settings) -> str:
    # Everything that a restored machine must have in common with the saved one.
    program = Path(settings.program).stat()
    return saved.key(
        settings.kernel_key,
        _stamp(settings.image),
        settings.initramfs.key,
        (settings.program, program.st_mtime_ns, program.st_size),
        settings.memory_mib,
        settings.arguments(ram=0, agent=0, console=0, monitor=0, restore=True),
        _host_cpu(),
    )


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]


def _host_cpu() -> str:
    # Under KVM, and for what emulation passes through, the processor matters.
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line
    return ""


def _restore(settings: Settings) -> QemuMachine | None:
    # Anything odd about the state costs a boot, never an error.
    name = _state_key(settings)
    state = saved.find(name)
    if state is None:
        return None
    machine = None
    try:
        machine = QemuMachine(settings, restore=True)
        machine.wake(state)
    except (errors.MachineError, errors.AgentError, saved.Unusable) as error:
        _log.info("the saved state %s is of no use, booting instead: %s", name, error)
        saved.discard(name)
    except BaseException:
        if machine is not None:
            machine.close()
        raise
    else:
        return machine
    if machine is not None:
        machine.close()
    return None


def _save(machine: QemuMachine, settings: Settings) -> None:
    # A machine that cannot be saved is still a machine.
    try:
        machine.save(_state_key(settings))
    except (errors.MachineError, errors.HostUnsupported) as error:
        _log.warning("the booted machine could not be saved, so the next one boots again: %s", error)

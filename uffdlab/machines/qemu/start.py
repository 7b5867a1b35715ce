"""Starting guests in QEMU: each kernel with its parameters is booted once and restored afterwards."""

from __future__ import annotations

import logging
import platform
import shutil
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import errors
from uffdlab.kernels import progress
from uffdlab.machines import clock
from uffdlab.machines.qemu import initramfs, kernel_modules, saved_state
from uffdlab.machines.qemu.accelerator import choose
from uffdlab.machines.qemu.command import Descriptors, Settings
from uffdlab.machines.qemu.machine import QemuMachine
from uffdlab.processes import limits, system_packages
from uffdlab.settings import saved_guests
from uffdlab.uapi.protocol.agent import ReadClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uffdlab.kernels import Kernel

PROGRAM = "qemu-system-x86_64"

_LEAST_MIB, _MOST_MIB = 128, 1 << 20
_MOST_CPUS = 64
_BOOTS = 3  # at most, until the guest's clock runs at the right rate

_log = logging.getLogger("uffdlab.machines")


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
            f"{PROGRAM} is not in PATH; install it: {system_packages.how_to_install(PROGRAM)}", missing="qemu"
        )
    return str(Path(found).resolve())


@limits.reported()
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

    Each combination of kernel and parameters is booted once.  Its state is saved, and later starts restore it.

    Parameters
    ----------
    kernel : Kernel
        A result of :func:`uffdlab.kernels.get`.
    cpus, memory_mib : int
        The guest's CPUs, and its memory in MiB.
    append : str
        Added to the kernel's command line, where it overrides the defaults.
    deadline : float
        Seconds to wait for the agent's hello.
    cold : bool
        Whether to boot without restoring or saving a state, as if saved guests may take no room.
    extra : mapping, optional
        More files for the guest by their path there: bytes, or a file of the host.

    Raises
    ------
    HostUnsupported
        This host cannot run it.  The message says what to install.
    UsageError
        A parameter is not valid.
    MachineTimeout, GuestPanic, MachineLost
        The machine did not start.  The error has the console's last lines.
    """
    _validate(kernel, cpus, memory_mib, append)
    cold = cold or not saved_guests()
    program = find_program()
    files = {**kernel_modules.beside(kernel.image), **(extra or {})}
    archive = _archive(kernel.name, files)

    def settings(accelerator: str) -> Settings:
        return Settings(program, kernel.image, kernel.key, archive, accelerator, cpus, memory_mib, append)

    def boot(accelerator: str, seconds: float) -> QemuMachine:
        if cold:
            return _boot(settings(accelerator), seconds)
        began, shown = time.monotonic(), progress.automatic()
        shown.start(kernel.name, f"boots under {accelerator}; later labs restore this machine")
        try:
            machine = _boot(settings(accelerator), seconds)
            shown.finish(f"booted under {accelerator} in {time.monotonic() - began:.1f} s")
        finally:
            shown.close()
        return machine

    accelerator, probed = choose(program, boot)
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


def _archive(name: str, files: Mapping[str, Path | bytes]) -> initramfs.Initramfs:
    shown, began = progress.automatic(), 0.0

    def on_make() -> None:
        nonlocal began
        began = time.monotonic()
        shown.start(name, "makes the guest's initramfs from this Python; later labs use it too")

    try:
        archive = initramfs.get(files, on_make=on_make)
        if began:
            shown.finish(f"initramfs made in {time.monotonic() - began:.1f} s")
    finally:
        shown.close()
    return archive


def _validate(kernel: Kernel, cpus: int, memory_mib: int, append: str) -> None:
    if not 1 <= cpus <= _MOST_CPUS:
        raise errors.UsageError(f"cpus={cpus}: a guest has 1 to {_MOST_CPUS} CPUs")
    if not _LEAST_MIB <= memory_mib <= _MOST_MIB:
        raise errors.UsageError(f"memory_mib={memory_mib}: a guest has {_LEAST_MIB} to {_MOST_MIB} MiB of memory")
    if "--" in append.split() or not append.isprintable():
        raise errors.UsageError(f"append={append!r}: the kernel passes what follows -- to the lab's init; leave it out")
    if not kernel.image.is_file():
        raise errors.KernelError(f"{kernel.name}: there is no image at {kernel.image}", kernel=kernel.name)


def _boot(settings: Settings, deadline: float) -> QemuMachine:
    for _ in range(_BOOTS):
        machine = QemuMachine(settings)
        try:
            machine.wait_for_hello(deadline)
            rate = clock.rate(partial(machine.ask, ReadClock()))
        except BaseException:
            machine.close()
            raise
        if abs(rate - 1) <= clock.TOLERANCE:
            return machine
        machine.close()
        _log.info("the guest's clock runs %.3g times as fast as the host's, booting another one", rate)
    raise errors.MachineError(
        f"the guest's clock runs {rate:.3g} times as fast as the host's, after each of {_BOOTS} boots: the host is too "
        "busy for a guest to measure the frequency of its processor; try again when it is less busy"
    )


def _state_key(settings: Settings) -> str:
    # Includes everything in which a restored machine must equal the saved one.
    program = Path(settings.program).stat()
    return saved_state.key(
        settings.kernel_key,
        _stamp(settings.image),
        settings.initramfs.key,
        (settings.program, program.st_mtime_ns, program.st_size),
        settings.memory_mib,
        settings.arguments(Descriptors(), restore=True),
        _host_cpu(),
    )


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]


def _host_cpu() -> str:
    # The processor matters under KVM, and for features that emulation passes through.
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line
    return ""


def _restore(settings: Settings) -> QemuMachine | None:
    # A bad state leads to a boot, not to an error.  A lack of resources is an error, and the state stays.
    name = _state_key(settings)
    machine = None
    try:
        state = saved_state.find(name)
        if state is None:
            return None
        machine = QemuMachine(settings, restore=True)
        machine.wake(state)
    except saved_state.Unusable as error:
        _log.info("the saved state %s is deleted, booting instead: %s", name, error)
        saved_state.discard(name)
    except (errors.MachineError, errors.AgentError) as error:
        # The state of the following boot replaces it.
        _log.info("the saved state %s did not start, booting instead: %s", name, error)
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
    # A machine that cannot be saved can still be used.
    try:
        machine.save(_state_key(settings))
    except (errors.MachineError, errors.AgentError, errors.HostUnsupported) as error:
        _log.warning("the booted machine could not be saved, so the next one boots again: %s", error)

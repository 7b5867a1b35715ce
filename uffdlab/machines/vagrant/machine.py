"""The Vagrant VM as a machine: a Debian that runs the kernel under test, with its agent reached by ssh."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import tarfile
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import cachedir, errors, kernels
from uffdlab.kernels.catalogue import Built, load
from uffdlab.kernels.progress import automatic
from uffdlab.machines import clock
from uffdlab.machines.python_modules import modules
from uffdlab.machines.qemu import accelerator
from uffdlab.machines.qemu.start import PROGRAM
from uffdlab.machines.rpc import heartbeat
from uffdlab.machines.stream import StreamMachine
from uffdlab.machines.vagrant.vm import VagrantVm, Wanted
from uffdlab.processes.console import Console
from uffdlab.uapi.protocol.agent import ReadClock

if TYPE_CHECKING:
    from collections.abc import Callable

# This flavour adds what a Debian needs: drivers for a network card and a disk, and what systemd needs.
_FLAVOUR = "vagrant"
_ARCHIVES_KEPT = 3
_PACKAGED = (".py", ".so")
_HOST_MODULES = {"msgpack", "_cffi_backend"}
_HELLO = 240.0  # seconds; under emulation, on a busy host, starting Python alone has taken more than 60


class VagrantMachine(StreamMachine):
    """An agent in the VM.  Closing it ends the agent; the VM keeps running."""

    def __init__(self, vm: VagrantVm, key: str, in_use: int) -> None:
        self._in_use = in_use
        self._done = weakref.finalize(self, os.close, in_use)
        self._vm = vm
        # As root, for the PTE reader and for huge pages.  Only the agent writes to the stream.
        agent = (
            f"sudo -n env PYTHONPATH=/opt/uffdlab/{key} python3 -m uffdlab.agent.stdio {heartbeat.INPUT_DEADLINE:.0f}"
        )
        super().__init__(vm.ssh(agent), "vagrant")
        self._resources.callback(heartbeat.start(self._client))

    def close(self) -> None:
        """End the agent and release the VM, so that another lab can use it with another kernel."""
        super().close()
        if self._done.alive:
            fcntl.flock(self._in_use, fcntl.LOCK_UN)  # a child that was just forked also has the descriptor
        self._done()

    def _crash(self) -> errors.UffdlabError | None:
        console = Console()
        console.feed(self._vm.console())
        panic = console.panic()
        if not panic:
            return None
        return errors.GuestPanic(f"the guest's kernel crashed: {panic}", console=console.crash())

    def disown(self) -> None:
        """Release everything in a forked child without ending the parent's agent."""
        super().disown()
        self._done()


def start(
    kernel: str | os.PathLike[str],
    *,
    cpus: int = 1,
    memory_mib: int = 1024,
    vm: VagrantVm | None = None,
    tell: Callable[[str], object] | None = None,
) -> tuple[str, VagrantMachine]:
    """Start the VM with a kernel, unless it runs that already, and start an agent in it.

    Parameters
    ----------
    kernel : str or path
        The name of a kernel that is built here: it is built with the additional drivers that a Debian needs.  Or the
        path of an image that has these built in (``kernel-patch/config/vagrant.config`` lists them).
    cpus, memory_mib : int
        The guest's CPUs, and its memory in MiB.
    vm : VagrantVm, optional
        The VM, by default that of this checkout.
    tell : callable
        Called with each step of Vagrant, a line.  By default progress is shown, if there is anything to do.

    Returns
    -------
    kernel : str
        The kernel's name.
    machine : VagrantMachine

    Raises
    ------
    HostUnsupported
        There is no Vagrant, no ssh or no box.
    KernelError
        The kernel cannot be found or built, or is only available as a package.
    MachineError
        The VM or the agent did not start, its clock runs wrong, or another lab uses the VM with another kernel.
    """
    if cpus < 1 or memory_mib < 256:
        raise errors.UsageError(f"cpus={cpus}, memory_mib={memory_mib}: a Debian needs at least one CPU and 256 MiB")
    vm = vm or VagrantVm()
    name, wanted = want(kernel, cpus=cpus, memory_mib=memory_mib)
    progress = _LateProgress(name)
    try:
        machine = VagrantMachine(vm, wanted.agent_key, vm.bring_up(wanted, tell or progress)).wait_until_started(_HELLO)
        progress.finish(machine.hello.release)
    finally:
        progress.close()
    try:
        rate = clock.rate(partial(machine.ask, ReadClock()))
        if abs(rate - 1) > clock.TOLERANCE:
            raise errors.MachineError(
                f"the VM's clock runs {rate:.3g} times as fast as the host's, which was too busy when it booted: halt "
                "it (uffdlab vagrant halt) and start again"
            )
    except BaseException:
        machine.close()
        raise
    return name, machine


class _LateProgress:
    """Progress that is shown from the first step on, and so not at all for a VM that runs already."""

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel
        self._progress = automatic()
        self._started = 0.0

    def __call__(self, line: str) -> None:
        if not self._started:
            self._started = time.monotonic()
            self._progress.start(self._kernel, line)
        self._progress.stage(line)

    def finish(self, release: str) -> None:
        """Show that the VM runs."""
        if self._started:
            self._progress.finish(f"Linux {release} runs in the VM, {time.monotonic() - self._started:.0f} s")

    def close(self) -> None:
        """Remove the progress bar, also after an error."""
        self._progress.close()


def want(kernel: str | os.PathLike[str], *, cpus: int = 1, memory_mib: int = 1024) -> tuple[str, Wanted]:
    """Return the kernel's name and what the VM must be to run it.  The kernel is built if needed."""
    name, found = _kernel(kernel)
    archive, key = pack_agent()
    accelerator = _accelerator()
    mhz = clock.counter_mhz() if accelerator == "tcg" else None  # KVM passes it to its guests
    return name, Wanted(
        kernel=str(found.image),
        kernel_name=name,
        kernel_key=found.key,
        release=found.release,
        memory_mib=memory_mib,
        cpus=cpus,
        accelerator=accelerator,
        tsc_khz=1000 * mhz if mhz else None,
        agent=str(archive),
        agent_key=key,
    )


def _kernel(asked: str | os.PathLike[str]) -> tuple[str, kernels.Kernel]:
    catalogue = load()
    if asked not in catalogue:  # a path; get() raises for anything else
        found = kernels.get(asked)
        return found.name, found
    flavoured = f"{asked}+{_FLAVOUR}"
    if flavoured not in catalogue:
        built = ", ".join(each.name for each in catalogue if isinstance(each, Built))
        raise errors.KernelError(
            f"{asked} is a package or has another flavour, so it cannot be built with the drivers for disk and network "
            f"that the Vagrant VM needs: choose {built}, or the path of an image that has them",
            kernel=str(asked),
        )
    return str(asked), kernels.get(flavoured)


def pack_agent() -> tuple[Path, str]:
    """Pack the package for the guest's provisioner; return the archive and the hash of its content.

    The archive holds the agent's third-party modules under ``host_modules``, for a box that lacks them.
    """
    package = Path(__file__).resolve().parents[2]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path in sorted(path for path in package.rglob("*") if path.suffix in _PACKAGED and path.is_file()):
            archive.add(path, f"uffdlab/{path.relative_to(package)}", filter=_plain)
        for name, path, packaged in modules("msgpack.fallback", "_cffi_backend"):
            if name.partition(".")[0] in _HOST_MODULES:
                place = Path("host_modules", *name.split("."))
                whole = place / path.name if packaged else place.with_name(path.name)
                archive.add(path, str(whole), filter=_plain)
    key = hashlib.sha256(data.getvalue()).hexdigest()[:16]
    folder = cachedir.folder("vagrant")
    found = folder / f"uffdlab-{key}.tar"
    if not found.exists():
        with cachedir.publish(found) as file:
            file.write(data.getvalue())
    cachedir.touch(found)
    cachedir.prune(folder, "uffdlab-*.tar", _ARCHIVES_KEPT)
    return found, key


def _accelerator() -> str:
    program = shutil.which(PROGRAM)  # VirtualBox has none
    return accelerator.known(str(Path(program).resolve())) if program else "tcg"


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    # The archive must not depend on the owner or the times of the files.
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry

"""One guest in QEMU: without root, network or files on disk.  It ends when its owner does."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import stat
import time
import weakref
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from msgspec.structs import asdict

from uffdlab import errors
from uffdlab.machines.base import BaseMachine, late_error, lost_error
from uffdlab.machines.qemu import accelerator, saved_state
from uffdlab.machines.qemu.command import IGNORE_SHARED, Descriptors
from uffdlab.machines.qemu.qmp import Monitor
from uffdlab.machines.rpc import decoding
from uffdlab.machines.rpc.framing import Malformed
from uffdlab.processes import identity
from uffdlab.processes.console import Console
from uffdlab.processes.supervised import SupervisedProcess
from uffdlab.uapi.protocol.agent import AfterRestore, LoadModules

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.machines import PhysicalMemory
    from uffdlab.machines.qemu.command import Settings
    from uffdlab.machines.qemu.ram import SharedMemory
    from uffdlab.processes.identity import Identity

_NEEDED_MIB = 160  # measured use of a small guest and QEMU
_RESTORE_DEADLINE = 5.0  # seconds
_MIGRATION_DEADLINE = 10.0
_SAVING_DEADLINE = 60.0  # of a command to QEMU, which may have to wait for a CPU


class QemuMachine(BaseMachine):
    """One running guest.  :func:`uffdlab.machines.qemu.start.start` makes it."""

    name = "qemu"
    _program = "QEMU"

    def __init__(self, settings: Settings, *, restore: bool = False) -> None:
        self.settings = settings
        self.restored = restore
        self._physical: SharedMemory | None = None
        self._debugged = False
        console = Console()
        with ExitStack() as undo:
            resources = undo.enter_context(ExitStack())
            self._ram = _ram_file(settings.memory_mib)
            resources.callback(os.close, self._ram)
            ours, theirs = zip(*(_socketpair(undo) for _ in range(6 if restore else 4)), strict=True)
            device = accelerator.DEVICE if settings.accelerator == "kvm" else None
            user = identity.unprivileged(Path(settings.program), device)
            with _opened(settings.image, user) as image, _opened(settings.initramfs.path, user) as archive:
                given = Descriptors(image.fileno(), archive.fileno(), self._ram, *(end.fileno() for end in theirs))
                inherited = [each for each in given if each is not None]
                arguments = settings.arguments(given, restore=restore)
                process = SupervisedProcess(arguments, inherited, ours[1], log=console, bounded=True, identity=user)
            undo.callback(process.kill)
            self._waking = ExitStack()  # closed when the machine is restored
            resources.callback(self._waking.close)
            self._held = resources.enter_context(ExitStack())  # the lock on its saved state
            if restore:
                orders, self._incoming = (self._waking.enter_context(end) for end in ours[4:])
                orders.sendall(settings.orders(given))
            super().__init__(process, ours[0], console, resources, ours[3])
            reference = weakref.ref(self)
            self.monitor = Monitor(
                ours[2], make_lost_error=partial(lost_error, reference), make_late_error=partial(late_error, reference)
            )
            resources.callback(self.monitor.close)
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
                from uffdlab.machines.qemu.ram import SharedMemory  # noqa: PLC0415 - numpy takes 100 ms

                reference = weakref.ref(self)
                self._physical = SharedMemory(
                    self._ram, self.settings.memory_mib << 20, self.monitor, lambda: _check(reference)
                )
            return self._physical

    @property
    def ram_bytes(self) -> int:
        """How much of the guest's RAM is allocated on this host, in bytes."""
        with self._closing:
            self._check()
            return os.fstat(self._ram).st_blocks * 512

    def close(self) -> None:
        """End the machine.  Closing a closed machine does nothing."""
        super().close()
        with self._closing:
            physical, self._physical = self._physical, None
        if physical is not None:
            physical.close()

    def gdb(self) -> str:
        """Open QEMU's stub for gdb, if it is not open yet, and return the commands that attach gdb to it.

        Raises
        ------
        MachineError
            QEMU refused it, or has ended.
        """
        with self._closing:
            self._check()
            if not self._debugged:
                self._listen_for_gdb()
                self._debugged = True
        image = self.settings.image
        with image.open("rb") as file:
            symbols = str(image) if file.read(4) == b"\x7fELF" else ""
        return (
            f"gdb {symbols} -ex 'target remote {self._stub}'\n".replace("  ", " ")
            + ("" if symbols else f"# {image.name} is compressed and has no symbols; `file` loads those of a vmlinux\n")
            + "# The guest is stopped until gdb's `continue`, and continues after `detach`. Addresses are as linked."
        )

    @property
    def _stub(self) -> str:
        return str(self._process.folder / "gdb")

    def _listen_for_gdb(self) -> None:
        # The lab creates the socket, since QEMU's user cannot.
        self._process.folder.mkdir(mode=0o700, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            with suppress(FileNotFoundError):
                Path(self._stub).unlink()
            listener.bind(self._stub)
            Path(self._stub).chmod(0o600)
            listener.listen(1)
            self.monitor.give_file(listener.fileno(), "gdb")
        backend = {"addr": {"type": "fd", "data": {"str": "gdb"}}, "server": True, "wait": False}
        self.monitor.execute("chardev-add", {"id": "gdb", "backend": {"type": "socket", "data": backend}})
        answer = self.monitor.human("gdbserver chardev:gdb")
        if "Waiting for gdb" not in answer:
            raise errors.MachineError(f"QEMU opened no stub for gdb: {answer.strip()}")

    # --- saving and restoring

    def wake(self, state: saved_state.SavedState) -> None:
        """Restore a saved state in a machine that waits for it, then set its time and reseed its randomness.

        Raises
        ------
        Unusable, MachineError, AgentError, OSError
            The state could not be restored.  Close the machine.
        """
        try:
            self._hello = decoding.facts(state.facts)
        except Malformed as error:
            raise saved_state.Unusable(str(error)) from None
        with self._waking:
            devices = state.load(self._ram)  # meanwhile QEMU starts; it continues when it has these
            more = self._patience(_RESTORE_DEADLINE)
            with self._incoming, suppress(OSError):  # QEMU has ended, or hangs: the call below raises
                self._give(devices, more)
            self._client.greeted()
            self._hold(state.path.stem)
            self._client.ask(AfterRestore(secrets.token_bytes(64), time.time_ns()), _RESTORE_DEADLINE, more)

    def _give(self, devices: bytes, more: Callable[[float], float]) -> None:
        began, left = time.monotonic(), memoryview(devices)
        self._incoming.settimeout(_RESTORE_DEADLINE)
        while left:
            try:
                left = left[self._incoming.send(left) :]
            except TimeoutError:
                if more(time.monotonic() - began) <= 0:
                    raise

    def save(self, name: str) -> None:
        """Save the machine's present state in the cache under `name`.  The machine continues afterwards.

        Raises
        ------
        MachineError, AgentError
            QEMU cannot save it, or the agent cannot load the modules that later labs need.
        HostUnsupported
            The cache cannot be written to.
        """
        self._check()
        self._client.ask(LoadModules(), _MIGRATION_DEADLINE, self._patience(_MIGRATION_DEADLINE))
        with open(os.memfd_create("uffdlab-devices", os.MFD_CLOEXEC), "rb") as devices:  # noqa: PTH123 - it has no path
            self.monitor.give_file(devices.fileno(), "devices")
            self.monitor.execute("migrate-set-capabilities", IGNORE_SHARED, deadline=_SAVING_DEADLINE)
            # QEMU stops the running machine for this, so a restored one runs without a command.
            self.monitor.execute("migrate", {"uri": "fd:devices"}, deadline=_SAVING_DEADLINE)
            try:
                self._wait_for_migration()
                devices.seek(0)
                saved_state.save(name, ram=self._ram, device_state=devices.read(), facts=asdict(self.hello))
                self._hold(name)
            finally:
                self.monitor.execute("cont", deadline=_SAVING_DEADLINE)

    def _hold(self, name: str) -> None:
        # A reset of the lab restores this state again.
        descriptor = saved_state.hold(name)
        if descriptor is not None:
            self._held.callback(os.close, descriptor)

    def _wait_for_migration(self) -> None:
        began, more = time.monotonic(), self._patience(_MIGRATION_DEADLINE)
        while (status := self.monitor.execute("query-migrate", deadline=_SAVING_DEADLINE).get("status")) != "completed":
            waited = time.monotonic() - began
            late = waited > _MIGRATION_DEADLINE and more(waited) <= 0
            if status in {"failed", "cancelled"} or late:
                raise errors.MachineError(f"QEMU did not save the state of its devices: {status}")
            time.sleep(0.001)

    # --- ending

    def _gone(self, reason: str) -> errors.UffdlabError:
        error = super()._gone(reason)
        stderr = self._process.stderr()
        if "Too many open files" in stderr:
            return errors.HostUnsupported(f"{error}. Close other labs, or raise the limit (ulimit -n)", missing="files")
        if "Cannot allocate memory" in stderr:
            size = self.settings.memory_mib
            return errors.HostUnsupported(
                f"{error}. This host does not give QEMU {size} MiB for its guest and what it needs itself: "
                "ask for less, memory_mib=…, close other labs, or raise the limit (ulimit -v, memory.max)",
                missing="memory",
            )
        return error

    def _crash(self) -> errors.UffdlabError | None:
        panic = self._console.panic()
        if not panic:
            return None
        return errors.GuestPanic(f"the guest's kernel crashed: {panic}", console=self._console.crash())

    def disown(self) -> None:
        """Release everything in a forked child without ending the parent's machine."""
        super().disown()
        self.monitor.disown()
        os.close(self._ram)
        self._waking.close()
        self._held.close()


def _check(reference: weakref.ref[QemuMachine]) -> None:
    machine = reference()
    if machine is None:
        raise errors.LabClosed("the machine was closed")
    machine._check()  # noqa: SLF001
    machine._client.check()  # noqa: SLF001 - the RAM of a guest that has ended is not valid


def _socketpair(undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        undo.callback(end.close)
    return pair


def _opened(path: Path, user: Identity | None) -> BinaryIO:
    # Opens a file that QEMU can open again by its descriptor.  One that QEMU's user cannot read is copied.
    file = path.open("rb")
    if user is None or os.fstat(file.fileno()).st_mode & stat.S_IROTH:
        return file
    with file:
        copy = open(os.memfd_create(f"uffdlab-{path.name}"[:200], os.MFD_CLOEXEC), "w+b")  # noqa: PTH123, SIM115
        try:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
        except BaseException:
            copy.close()
            raise
    return copy


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
        # Accessing a mapping of a truncated file raises SIGBUS.
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

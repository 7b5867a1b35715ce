"""The VM of vm/Vagrantfile: started with a kernel, reached by ssh, halted, destroyed.

Unlike a guest in QEMU it keeps running after its user has ended, as Vagrant's machines do: ``uffdlab vagrant destroy``
removes it.  Its files are in ``vm/.vagrant``, beside Vagrant's own::

    lab.json      what the Vagrantfile must start: the box, the kernel, memory, CPUs, the agent's archive
    booted.json   what was started, and the boot id of the guest
    ssh-config    how to reach it by ssh
    known_hosts   the guest's host key, stored at its first start, under the id of the VM
    work.lock     locked while the VM is changed, until the vagrant that does it has ended
    use.lock      a shared lock of each lab that uses the VM
    vagrant.log   the output of the last vagrant command
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uffdlab import cachedir, errors, settings
from uffdlab.cachedir import write_atomically
from uffdlab.data_folders import data_folder, installed
from uffdlab.machines.vagrant.box import OWN, Boxes
from uffdlab.machines.vagrant.box import folder as box_folder
from uffdlab.processes import system_packages
from uffdlab.processes.job import Job, JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UP = 1800.0  # seconds for vagrant up, reload, halt: emulation and fetching a box are slow
_ASK = 120.0  # seconds for a query
_SSH_DEADLINE = 90.0  # seconds for a command by ssh; a VM that does not answer is booted again
_CLEANUP = 120.0  # seconds for an interrupted vagrant to clean up
_CONSOLE = 256 << 10  # bytes; a guest may write any amount
_TAIL = 25  # lines of vagrant's output in an error
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")
_BACKTRACE = re.compile(r"\s+from /.*:\d+:in ")  # of a Ruby exception; its message comes before
_INSPECT = "cat /proc/sys/kernel/random/boot_id; uname -r; ls /opt/uffdlab"
_KEY_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"


@dataclass(frozen=True)
class Wanted:
    """The wanted state of the VM.

    Attributes
    ----------
    kernel : str
        The path of the image.
    kernel_name, kernel_key, release : str
        Name, hash and release of the kernel.  `release` is empty if it is not known.
    memory_mib, cpus : int
    accelerator : str
        ``"tcg"`` or ``"kvm"``.
    tsc_khz : int or None
        The frequency of the guest's time-stamp counter.  An emulated guest measures it wrong on a busy host.
    agent, agent_key : str
        The path of the archive with the package for the guest, and its hash.
    """

    kernel: str
    kernel_name: str
    kernel_key: str
    release: str
    memory_mib: int
    cpus: int
    accelerator: str
    tsc_khz: int | None
    agent: str
    agent_key: str

    def same_boot(self, booted: dict[str, Any]) -> bool:
        """Return whether a VM that was booted with these facts need not be booted again."""
        names = ("kernel_key", "memory_mib", "cpus", "accelerator")
        return all(booted.get(name) == getattr(self, name) for name in names)


@dataclass(frozen=True)
class GuestState:
    """The state of the guest: the boot id, ``uname -r``, and the keys of the archives that are unpacked there."""

    boot_id: str
    release: str
    agents: tuple[str, ...]


class _Unreachable(Exception):
    """ssh cannot run a command in the guest.  The message says why."""


class VagrantVm:
    """The VM of one Vagrantfile.

    Parameters
    ----------
    folder : Path, optional
        The folder of the Vagrantfile, by default the ``vm`` that comes with uffdlab.
    data : Path, optional
        Vagrant's data folder, by default ``$VAGRANT_DOTFILE_PATH``, or else ``.vagrant`` in `folder`.  An installed
        wheel's `folder` may belong to another user: there it is ``vagrant-vm`` in the cache folder.

    Raises
    ------
    HostUnsupported
        There is no Vagrantfile, no vagrant or no ssh.
    """

    def __init__(self, folder: Path | None = None, data: Path | None = None) -> None:
        self.folder = folder or data_folder("vm")
        if not (self.folder / "Vagrantfile").is_file():
            raise errors.HostUnsupported(
                f"{self.folder / 'Vagrantfile'} is not there: install uffdlab again",
                missing="Vagrantfile",
            )
        for program in ("vagrant", "ssh"):
            if shutil.which(program) is None:
                by_apt = system_packages.manager() == "apt"
                how = f"{data_folder('vm') / 'install-packages'} vagrant" if by_apt else ""
                raise errors.HostUnsupported(
                    f"{program} is not in PATH; install it: {how or system_packages.how_to_install(program)}",
                    missing=program,
                )
        default = cachedir.folder("vagrant-vm") if folder is None and installed() else ".vagrant"
        self.data = data or Path(os.environ.get("VAGRANT_DOTFILE_PATH") or default)
        if not self.data.is_absolute():
            self.data = self.folder / self.data
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held: tuple[int, ...] = ()  # the lock while the VM is changed

    # --- public methods

    def bring_up(self, wanted: Wanted, tell: Callable[[str], object] = lambda _line: None) -> int:
        """Start the VM as wanted; return a descriptor that locks it in that state until it is closed.

        Raises
        ------
        MachineError
            The VM did not start, a lab uses it with another kernel, or it was made from another box.
        HostUnsupported
            No box can be fetched or made.
        """
        with self._changing():
            self._check_box()
            try:
                seen = self._inspect()
            except _Unreachable:
                seen = None  # it is halted, or hangs: boot it
            booted = self._booted()
            up = seen is not None and booted.get("boot_id") == seen.boot_id and wanted.same_boot(booted)
            if not up or wanted.agent_key not in (seen.agents if seen else ()):
                with self._unused(f"to run {wanted.kernel_name}") if not up else contextlib.nullcontext():
                    self._change(wanted, boot=not up, answers=seen is not None, tell=tell)
            return self._use()

    def halt(self) -> None:
        """Shut the VM down and keep its disk.  Does nothing if there is no VM."""
        with self._changing(), self._unused("to halt it"):
            self._vagrant("halt")
            (self.data / "booted.json").unlink(missing_ok=True)

    def destroy(self) -> None:
        """Remove the VM and its disk.  Does nothing if there is no VM."""
        with self._changing(), self._unused("to destroy it"):
            self._vagrant("destroy", "--force")
            for name in ("booted.json", "ssh-config", "known_hosts", "lab.json"):
                (self.data / name).unlink(missing_ok=True)

    def state(self) -> str:
        """Return its state as Vagrant names it: ``running``, ``poweroff``, ``shutoff``, ``not_created`` …"""
        for line in self._vagrant("status", "--machine-readable", deadline=_ASK, changes=False).splitlines():
            fields = line.split(",")
            if fields[2:3] == ["state"]:
                return fields[3]
        raise errors.MachineError(f"vagrant status printed no state; see {self.data / 'vagrant.log'}")

    @property
    def kernel_name(self) -> str:
        """The name of the kernel that was booted last; empty if there is none."""
        return str(self._booted().get("kernel_name", ""))

    def console(self) -> bytes:
        """Return the end of the guest's console output since its boot; only the QEMU provider stores that."""
        for path in (self.data / "machines" / "default").glob("*/console.log"):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _CONSOLE))
                return file.read()
        return b""

    def ssh(self, *command: str) -> list[str]:
        """Return the arguments that run a command in the guest.  :meth:`bring_up` must have been called before."""
        return [
            *("ssh", "-F", str(self.data / "ssh-config"), "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"),
            *("-o", "StrictHostKeyChecking=accept-new", "-o", f'UserKnownHostsFile="{self.data / "known_hosts"}"'),
            # Another VM may get this address and port later.  A new VM has a new id and a new host key.
            *("-o", f"HostKeyAlias=vagrant-{self._id()}", "-o", "CheckHostIP=no"),
            # Vagrant's configuration silences ssh, but its errors are needed here.
            *("-o", "LogLevel=INFO", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6"),
            *("default", *command),
        ]

    # --- starting

    def _change(self, wanted: Wanted, *, boot: bool, answers: bool, tell: Callable[[str], object]) -> None:
        state = self.state()  # also raises if the provider is missing, before a box is fetched or made
        if state != "not_created":
            self._start(wanted, self._box(), state, boot=boot, answers=answers, tell=tell)
            return
        boxes = Boxes(self.folder / "build-box", self._run, tell)
        box = boxes.choose()
        try:
            self._start(wanted, box, state, boot=True, answers=False, tell=tell)
        except errors.MachineError as error:
            if not boxes.replaceable(box):
                raise
            tell(f"the VM did not start from {box}: removing it")
            self._vagrant("destroy", "--force")  # fails if the reason was not the box but a missing libvirt
            boxes.refuse(error)
            self._start(wanted, boxes.choose(), state, boot=True, answers=False, tell=tell)

    def _start(
        self, wanted: Wanted, box: str, state: str, *, boot: bool, answers: bool, tell: Callable[[str], object]
    ) -> None:
        if state == "not_created":
            (self.data / "known_hosts").unlink(missing_ok=True)
        if boot:
            (self.data / "booted.json").unlink(missing_ok=True)
        write_atomically(self.data / "lab.json", json.dumps({"box": box, **asdict(wanted)}, indent=1).encode())
        if not boot and state == "running":
            tell("vagrant provision")
            self._vagrant("provision", tell=tell)
        elif state == "running" and answers:
            tell("vagrant reload")
            self._vagrant("reload", "--provision", tell=tell)
        else:
            if state == "running":  # libvirt's provider would try to shut it down, and fail
                tell("vagrant halt")
                self._vagrant("halt", "--force", tell=tell)
            tell("vagrant up")
            self._vagrant("up", "--provision", tell=tell)
        config = self._vagrant("ssh-config", deadline=_ASK)
        write_atomically(self.data / "ssh-config", config.encode())
        try:
            seen = self._inspect()
            wrong = _difference(seen, wanted)
        except _Unreachable as unreachable:
            wrong = f"ssh does not connect: {unreachable}"
        if wrong:
            raise errors.MachineError(
                f"vagrant started the VM, but {wrong}; see {self.data / 'vagrant.log'}, "
                "`cd vm && vagrant ssh`, or make it again: uffdlab vagrant destroy"
            )
        write_atomically(self.data / "booted.json", json.dumps({**asdict(wanted), "boot_id": seen.boot_id}).encode())

    def _check_box(self) -> None:
        # A VM has the disk of the box from which it was made.
        if not any((self.data / "machines" / "default").glob("*/id")):
            return
        made, again = self._box(), "remove the VM (uffdlab vagrant destroy); the next start makes it again"
        asked = settings.box() or made
        if made != asked:
            raise errors.MachineError(f"the VM was made from the box {made}, and UFFDLAB_BOX is {asked}: {again}")
        catalog = box_folder() / "catalog.json"
        if made != OWN or not catalog.is_file():
            return
        offered = json.loads(catalog.read_text())["versions"][0]["version"]
        version = self._box_notes().get("version", offered)
        if version != offered:
            raise errors.MachineError(
                f"the VM was made from version {version} of the box {made}, and the box here has version {offered}: "
                f"{again}"
            )

    def _box(self) -> str:
        # The box of the existing VM.  Vagrant has no notes of a VM that never started completely.
        name = self._box_notes().get("name") or _facts(self.data / "lab.json").get("box")
        return str(name or OWN)

    def _box_notes(self) -> dict[str, Any]:
        # Vagrant's notes of the box, which remain when the VM is removed.
        for path in (self.data / "machines" / "default").glob("*/id"):
            return _facts(path.with_name("box_meta"))
        return {}

    # --- its state

    def _booted(self) -> dict[str, Any]:
        return _facts(self.data / "booted.json")

    def _inspect(self) -> GuestState:
        if not (self.data / "ssh-config").exists():
            raise _Unreachable("it was never reached by ssh")
        try:
            done = subprocess.run(
                self.ssh(_INSPECT), capture_output=True, timeout=_SSH_DEADLINE, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            raise _Unreachable(f"nothing came back in {_SSH_DEADLINE:.0f} s") from None
        output, stderr = (each.decode(errors="replace") for each in (done.stdout, done.stderr))
        if _KEY_CHANGED in stderr:
            raise errors.MachineError(
                "the VM's ssh host key is not the one of its first start: another host answers at its "
                f"address, or the key was changed in it. If you know why, remove {self.data / 'known_hosts'}; if not, "
                "make the VM again: uffdlab vagrant destroy"
            )
        fields = output.split()
        if len(fields) < 2:
            raise _Unreachable(_end_of(stderr) or f"ssh ended with status {done.returncode}")
        return GuestState(fields[0], fields[1], tuple(fields[2:]))

    def _id(self) -> str:
        # Vagrant's id of the existing VM.
        for path in sorted((self.data / "machines" / "default").glob("*/id")):
            return path.read_text().strip()
        return "none"

    # --- vagrant

    def _vagrant(
        self,
        *arguments: str,
        deadline: float = _UP,
        tell: Callable[[str], object] = lambda _line: None,
        changes: bool = True,
    ) -> str:
        status, output = self._run(["vagrant", *arguments], deadline, tell, changes=changes)
        if status:
            raise errors.MachineError(
                f"vagrant {' '.join(arguments)} ended with status {status}; its last lines (all: "
                f"{self.data / 'vagrant.log'}):\n{_end_of(output)}",
                console=_end_of(self.console().decode(errors="replace")),
            )
        return output

    def _run(
        self,
        command: list[str | Path],
        deadline: float,
        tell: Callable[[str], object],
        *,
        lines: bool = False,
        changes: bool = True,
        on_tick: Callable[[], None] | None = None,
    ) -> tuple[int, str]:
        output: list[str] = []

        def line(text: str) -> None:
            output.append(text)
            if lines:
                tell(text)

        environment = {
            **os.environ,
            settings.CACHE.variable: str(cachedir.root()),  # for vm/build-box
            "VAGRANT_CWD": str(self.folder),
            "VAGRANT_DOTFILE_PATH": str(self.data),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }
        with (
            (self.data / "vagrant.log").open("wb") as log,
            # SIGINT as from Ctrl-C: Vagrant then removes a VM that it has not started completely.  The supervisor holds
            # the lock until that is done, also if this process has ended.
            Job(
                command,
                env=environment,
                log=log,
                stop_signal=signal.SIGINT,
                grace=_CLEANUP,
                held=self._held if changes else (),
            ) as child,
        ):
            try:
                return child.wait(deadline, on_line=line, on_tick=on_tick), "\n".join(output)
            except KeyboardInterrupt:
                tell("interrupted: cleaning up")
                raise
            except JobTimeout:
                raise errors.MachineTimeout(
                    f"{' '.join(map(str, command))} had not finished after {deadline:.0f} s; its last lines:\n"
                    f"{_end_of(chr(10).join(output))}"
                ) from None

    # --- locks

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        until = time.monotonic() + _UP
        with self._lock_file("work.lock") as descriptor:
            while not _try_lock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > until:
                    raise errors.MachineTimeout(
                        f"another process has held {self.data / 'work.lock'} for {_UP / 60:.0f} minutes: "
                        "does a vagrant hang?"
                    )
                time.sleep(0.1)
            self._held = (descriptor,)
            try:
                yield
            finally:
                self._held = ()

    @contextlib.contextmanager
    def _unused(self, purpose: str) -> Iterator[None]:
        with self._lock_file("use.lock") as descriptor:
            if not _try_lock(descriptor, fcntl.LOCK_EX):
                raise errors.MachineError(
                    f"the Vagrant VM runs {self.kernel_name or 'a kernel'} for a lab that is open: close that {purpose}"
                )
            yield

    def _use(self) -> int:
        descriptor = os.open(self.data / "use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # does not wait: an exclusive lock is only taken with work.lock held
        return descriptor

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        descriptor = os.open(self.data / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _facts(path: Path) -> dict[str, Any]:
    # Returns an empty dict if the file is missing or not valid.
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _difference(seen: GuestState, wanted: Wanted) -> str:
    # Returns the difference from the wanted state; empty if there is none.
    if wanted.release and seen.release != wanted.release:
        return f"it runs Linux {seen.release}, not {wanted.release}"
    return "" if wanted.agent_key in seen.agents else "it does not have the package"


def _end_of(text: str) -> str:
    lines = [_CONTROL.sub("", line).rstrip() for line in text.splitlines()]
    return "\n".join([line for line in lines if line and not _BACKTRACE.match(line)][-_TAIL:])

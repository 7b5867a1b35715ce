"""Lab: one kernel under test with one target process; the object that users begin with."""

from __future__ import annotations

import importlib
import os
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from uffdlab import open_labs
from uffdlab.arguments import checked
from uffdlab.errors import UsageError
from uffdlab.machines.connection import DEADLINE, Connection
from uffdlab.machines.factory import Options
from uffdlab.machines.programs import DEADLINE as _PROGRAM_DEADLINE
from uffdlab.machines.programs import MOST_OUTPUT, Programs
from uffdlab.processes.console import Log
from uffdlab.target.mapping_size import page_count
from uffdlab.target.process import TargetProcess
from uffdlab.target.region import MappedPages, PageRange, Region, map_region, mapped_pages
from uffdlab.target.timeline import Timeline
from uffdlab.target.userfaultfd import Userfaultfd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from uffdlab.machines import Machine
    from uffdlab.machines.programs import Execution
    from uffdlab.observations.cross_examination import CrossExamination
    from uffdlab.observations.page_walk import PageWalks
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.observations.write_probe import WriteProbe
    from uffdlab.target.capabilities import Capabilities
    from uffdlab.target.child import Child
    from uffdlab.target.touch import Touch
    from uffdlab.uapi import Feature
    from uffdlab.uapi.protocol.base import Method
    from uffdlab.witnesses import Witness

_Answer = TypeVar("_Answer")


@checked(
    "lab",
    __init__="uffdlab.Lab('6.1-series')",
    map="lab.map(64, memory='anon')",
    exec="lab.exec(['uname', '-a'])",
    userfaultfd="lab.userfaultfd(uffdlab.uapi.Feature.EVENT_FORK)",
    witness="lab.witness('pagemap')",
)
class Lab:
    """A kernel under test in its own machine, with one target process in it.

    A lab is also a context manager.  A lab that is not closed ends when nothing refers to it or to a part of it, or
    when this Python process ends, even by SIGKILL.

    Parameters
    ----------
    kernel : str or path
        A name from the catalogue (``"6.1-series"``, the default; ``"debian/trixie"``), or the path of a vmlinux or
        bzImage.  A kernel that is not in the cache is fetched or built first, with a progress bar.
    memory_mib : int, optional
        The guest's memory in MiB; the default is 1024.
    cpus : int, optional
        The number of the guest's CPUs; the default is 1.
    hugepages : int
        The number of 2 MiB pages that the guest reserves at boot.  Without it, they are reserved when a region needs
        them.
    command_line : str
        Added to the guest's kernel command line.
    pte_reader : bool
        Load the PTE reader as a module, so that the *kernel* witness works on a kernel that Debian packages.  The
        module is built once, against that kernel's headers.  In the project's own kernels the PTE reader is built in.
    machine : str or Machine, optional
        Where the kernel runs.  ``"qemu"`` is the default.  ``"vagrant"`` is a whole Debian that runs `kernel`; it keeps
        running when the lab closes.  ``"local"`` is this host, and ``"ssh:user@host"`` another one: they run the kernel
        they have, so leave `kernel` out.  A test can crash them.  A machine object that already runs is accepted too;
        the lab closes it at the end.  If `machine` is not given, ``$UFFDLAB_MACHINE`` chooses.

    Raises
    ------
    KernelError
        The kernel could not be found, fetched or built.
    MachineError
        The machine did not start.  The error has the last lines of the console.
    HostUnsupported
        This host cannot run the machine.  The error says what to install.
    """

    def __init__(
        self,
        kernel: str | os.PathLike[str] | None = None,
        *,
        memory_mib: int | None = None,
        cpus: int | None = None,
        hugepages: int = 0,
        command_line: str = "",
        pte_reader: bool = False,
        machine: str | Machine | None = None,
    ) -> None:
        self.timeline = Timeline(self)
        self._connection = Connection(kernel, machine, Options(cpus, memory_mib, hugepages, command_line, pte_reader))
        self._target = TargetProcess(self._connection, self.timeline)
        self._programs = Programs(lambda: self.machine)
        try:
            self._target.open()
        except BaseException:
            self.close()
            raise
        self._since = time.strftime("%H:%M:%S")
        open_labs.opened(self)

    @property
    def facts(self) -> tuple[str, str, str]:
        """Where it runs, the guest's memory in MiB (empty for a machine that is no guest of ours), since when."""
        settings = getattr(self.machine, "settings", None)
        memory = f"{settings.memory_mib} MiB" if settings is not None else ""
        return self.machine.name, memory, self._since

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self._connection.kernel

    @property
    def machine(self) -> Machine:
        """The machine that the kernel runs in now."""
        return self._connection.machine

    # --- the target

    def restart_target(self) -> None:
        """Start a new target process.  End the old one with its regions, userfaultfds and touches."""
        self._target.restart()

    @property
    def target_pid(self) -> int:
        """The target's pid in the guest; for example ``lab.exec(["cat", f"/proc/{lab.target_pid}/smaps"])``."""
        return self._target.pid

    def map(
        self, pages: int | None = None, *, memory: str = "shmem", page_size: int | None = None, size: int | None = None
    ) -> Region:
        """Map new memory in the target.  If its pages have a file, also map the alias of the region.

        Parameters
        ----------
        pages : int
            The number of pages.
        memory : str
            A key of :data:`uffdlab.uapi.memory.MEMORY`: ``"shmem"`` (a memfd, shared), ``"anon"``, ``"hugetlb"``, …
        page_size : int, optional
            The size of a page in bytes: 2 MiB or 1 GiB for hugetlb, 4096 for all others.
        size : int, optional
            The size in bytes, in place of `pages`.

        Raises
        ------
        UsageError
            There can be no such mapping, or the guest does not have enough huge pages.
        AgentError
            This kernel does not have this kind of memory.
        """
        kind, pages = page_count(memory, pages, size, page_size)
        return map_region(self._target, memory, kind, pages)

    @staticmethod
    def unmap(region: Region) -> None:
        """Unmap a region and its alias."""
        region.unmap()

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that are mapped now, the oldest first."""
        return cast("tuple[Region, ...]", self._target.registry.regions)

    @property
    def userfaultfds(self) -> tuple[Userfaultfd, ...]:
        """The userfaultfds that are open, the oldest first."""
        return cast("tuple[Userfaultfd, ...]", self._target.registry.userfaultfds)

    def userfaultfd(self, features: Feature | None = None) -> Userfaultfd:
        """Open a userfaultfd in the target.

        Parameters
        ----------
        features : Feature, optional
            The features to enable; the kernel must have all of them.  The default is those of
            :data:`uffdlab.target.open_userfaultfd.DEFAULT_FEATURES` that the kernel has.

        Raises
        ------
        IoctlError
            The kernel lacks one of `features`.
        UsageError
            `features` are not flags of :class:`uffdlab.uapi.Feature`.
        """
        return Userfaultfd.open(self._target, features)

    def fork(self) -> Child:
        """Fork the target.  The child has the same memory: it can touch it, and its page tables can be read."""
        from uffdlab.target.child import Child  # noqa: PLC0415 - only those who fork need it

        return Child(self._target)

    @property
    def capabilities(self) -> Capabilities:
        """What this kernel can do, found by trying.  Shown as a table, with the version that introduced each."""
        return self._target.capabilities

    # --- accesses

    @property
    def touches(self) -> tuple[Touch[object], ...]:
        """The touches that have not ended, the oldest first.  Most of them wait until a page fault is resolved."""
        return cast("tuple[Touch[object], ...]", self._target.registry.touches)

    # --- page states

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The witnesses that this lab has, the best one first."""
        return self._target.witnesses.names

    def witness(self, name: str) -> Witness:
        """Return one witness.  Its snapshots are not recorded on the timeline.

        Raises
        ------
        UsageError
            There is no witness with this name.
        WitnessError
            This witness cannot read anything in this lab.
        """
        self._connection.must_be_open()
        return self._target.witnesses.witness(name)

    def snapshot(self, where: MappedPages, witness: str | None = None) -> Snapshot:
        """Return the state of each page of `where`, as one witness reports it.

        If no witness is named, the best one that can answer is used.  The timeline says why a better one could not.

        Raises
        ------
        WitnessError
            The witness cannot read these pages.
        UsageError
            These are too many pages for one snapshot.
        """
        return self._target.snapshot(self._own_pages(where), witness)

    def _own_pages(self, where: MappedPages) -> PageRange:
        self._connection.must_be_open()
        return mapped_pages(where, self._target)

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's processors within a ``with`` block, so that ``physical`` reads all pages at one moment.

        The guest answers no other request meanwhile.

        Raises
        ------
        WitnessError
            The host cannot read the guest's memory.
        """
        self._connection.must_be_open()
        return self._target.witnesses.paused()

    def cross_examine(self, where: MappedPages, *, probe_writes: bool = False) -> CrossExamination:
        """Read the same pages with every witness and compare what they report.

        Parameters
        ----------
        where : MemoryMapping or PageRange
        probe_writes : bool
            Also write to each page, as :meth:`probe` does, and compare the effect with what the witnesses report.  A
            write that succeeds leaves the page dirty.
        """
        from uffdlab.observations.cross_examination import CrossExamination  # noqa: PLC0415 - it needs numpy

        pages = self._own_pages(where)
        snapshots = [self.snapshot(pages, name) for name in self.witnesses]
        numbers = range(pages.first, pages.first + pages.count) if probe_writes else ()
        return CrossExamination(snapshots, [self.probe(pages.mapping[page]) for page in numbers])

    def probe(self, page: PageRange) -> WriteProbe:
        """Write to one page without changing its content; return whether it trapped.  See :class:`WriteProbe`."""
        from uffdlab.target.write_probe import probe  # noqa: PLC0415 - it needs numpy

        return probe(self._target, page)

    def walk(self, *addresses: int) -> PageWalks:
        """Walk the page tables to one address of the target, or to several side by side.

        Raises
        ------
        WitnessError
            The host cannot read the guest's memory.
        """
        return self._target.walk(*addresses)

    # --- other programs

    def exec(
        self,
        command: Sequence[str],
        *,
        push: Sequence[str | os.PathLike[str]] = (),
        deadline: float = _PROGRAM_DEADLINE,
        on_output: Callable[[str, bytes], None] | None = None,
        most_output: int = MOST_OUTPUT,
        env: dict[str, str] | None = None,
        stdin: bytes | BinaryIO | None = None,
    ) -> Execution:
        """Run a program in the guest, beside the target, and wait for its end.

        The program is one of the pushed files, or is found in the guest's PATH, where busybox has a shell and the
        common tools.  It runs in a new folder.  At its end the folder and all processes it started are removed.

        Parameters
        ----------
        command : sequence of str
            The program and its arguments: ``["sh", "-c", "ulimit -a"]``.
        push : sequence of path, optional
            Files of the host to copy into that folder.  For an executable, the libraries that the guest lacks are
            copied as well.
        deadline : float
            The time limit in seconds; the program is killed after it.
        on_output : callable, optional
            Called with ``"stdout"`` or ``"stderr"`` and the bytes, as they arrive.
        most_output : int
            The number of bytes that it may write, both streams together.
        env : dict, optional
            Environment variables to set beside the usual ones.
        stdin : bytes or binary file, optional
            What it reads from its standard input; by default nothing.  A file is read from its position, no faster
            than the program takes it.

        Raises
        ------
        ProgramError
            The program does not exist, is not executable, missed its deadline or wrote too much.
        MachineError
            The guest failed, for instance by a :class:`GuestPanic`.  The error has the last lines of the console.
        """
        self._connection.must_be_open()
        started = self._now()
        done = self._programs.run(command, push, deadline, on_output, most_output, env, stdin)
        self.timeline.add("exec", f"{' '.join(done.command)}: status {done.status}", started, self._now(), done)
        return done

    # --- the wire

    def ask(self, request: Method[_Answer], *, deadline: float = DEADLINE) -> _Answer:
        """Send a request of :mod:`uffdlab.uapi.protocol` to the target or the agent, and return the answer.

        Raises
        ------
        FaultUnresolved
            The target has not answered within `deadline` seconds, and has been killed.
        TargetLost
            There is no target process.
        AgentError
            The request was refused.
        ProtocolError
            The answer does not have the shape that the method describes.
        MachineError
            There was no answer, or the machine is lost.
        """
        return self._connection.ask(request, deadline=deadline)

    def _now(self) -> int:
        return self._connection.now()

    def bench(self, *, pages: int = 64, memory: str = "shmem", **keywords: Any) -> Any:
        """Map a new region and return all widgets for it as one workbench, a :class:`uffdlab.widgets.Bench`.

        Parameters
        ----------
        pages : int
            How many pages the region has.
        memory : str
            Its memory, as for :meth:`map`.
        **keywords
            What every widget takes: ``layout``, for example.
        """
        # Imported by name: the widgets are a layer above the lab, and scripts do not need them.
        return importlib.import_module("uffdlab.widgets").Bench(self, pages=pages, memory=memory, **keywords)

    # --- the machine

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        return self.machine.hello.release

    @property
    def console(self) -> Log:
        """The last output of the guest's console, with the methods ``search`` and ``tail``."""
        return Log(self.machine.console())

    def gdb(self) -> str:
        """Let gdb attach to the guest's kernel; return the command that attaches it, with the kernel's symbols.

        The guest is stopped while gdb is attached, until gdb continues it.  Calls of the lab wait as long.  Only the
        user who runs the lab can attach.

        Raises
        ------
        UsageError
            This machine is not a guest in QEMU.
        MachineError
            QEMU refused the request, or has ended.
        """
        self._connection.must_be_open()
        attach = getattr(self.machine, "gdb", None)
        if attach is None:
            raise UsageError(f"gdb can only attach to a guest in QEMU; this lab runs in {self.machine.name}")
        text: str = attach()
        self.timeline.add("lab", "QEMU's gdbstub was opened", self._now())
        return text

    def reset(self) -> None:
        """Start the lab again on a new machine, also after its kernel has crashed.  A guest in QEMU is restored.

        The regions, userfaultfds, touches and children are lost, and raise an error that says so.

        Raises
        ------
        UsageError
            The lab was given a machine object, and does not know how to start another one.
        MachineError
            The new machine did not start.  Try again, or make a new lab.
        """
        self._connection.must_be_open()
        self._connection.end()
        self._target.registry.lose("the lab was reset")
        self._connection.start()
        self._target.open()
        self.timeline.add("lab", "the lab was reset: a new machine, a new target", self._now())

    def close(self) -> None:
        """End the machine.  On a closed lab this does nothing."""
        if self._connection.closed:
            return
        self._connection.close()
        open_labs.closed(self)
        end = self._connection.closed_error()
        self._target.registry.lose(end)
        self.timeline.add("lab", "the lab was closed", self._now(), None, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._connection.closed else f"Linux {self.release} in {self.machine.name}"
        return f"<Lab {self.kernel}: {state}>"

"""Lab: one kernel under test, one target process, and everything that can be asked of them."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from uffdlab.errors import UsageError
from uffdlab.machines.connection import DEADLINE, Connection
from uffdlab.machines.factory import Options
from uffdlab.machines.programs import DEADLINE as _PROGRAM_DEADLINE
from uffdlab.machines.programs import MOST_OUTPUT, Programs
from uffdlab.processes.console import Log
from uffdlab.target.mapping_size import page_count
from uffdlab.target.process import TargetProcess
from uffdlab.target.region import MemoryMapping, PageRange, Region, map_region, pages_of
from uffdlab.target.timeline import Timeline
from uffdlab.target.userfaultfd import Userfaultfd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

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


class Lab:
    """A kernel under test in a machine of its own, with one target process in it.

    Also a context manager.  A lab that is not closed ends when nothing refers to it or to a part of it any more, and
    with this Python process, even if that is killed.

    Parameters
    ----------
    kernel : str or path
        A name from the catalogue (``"6.1-series"``, the default; ``"debian/trixie"``), or the path of a vmlinux or
        bzImage.  One that is not there yet is fetched or built first, with a progress bar.
    memory_mib : int, optional
        The guest's memory in MiB, 1024 if not given.
    cpus : int, optional
        The guest's CPUs, 1 if not given.
    hugepages : int
        Pages of 2 MiB that the guest sets aside at boot; without them they are made when they are needed.
    command_line : str
        Added to the guest's kernel command line.
    pte_reader : bool
        Load the PTE reader, so that the *kernel* witness works on a kernel that Debian packages; the module is built
        against its headers, once.  The project's own kernels have it built in.
    machine : str or Machine, optional
        Where the kernel runs: ``"qemu"``, the default, ``"ssh:user@host"``, or ``"local"``, which is this host's own
        kernel; these run the kernel that is there, so leave `kernel` out, and a test can crash it.  ``"vagrant"`` is a
        whole Debian that runs `kernel`, and stays when the lab closes.  Or a machine that runs already; the lab closes
        it in the end.  If not given, ``$UFFDLAB_MACHINE`` chooses.

    Raises
    ------
    KernelError
        If the kernel could not be had.
    MachineError
        If the machine did not come up; has the console's last lines.
    HostUnsupported
        If this host cannot run it; says what to install.
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

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self._connection.kernel

    @property
    def machine(self) -> Machine:
        """What the kernel runs in now."""
        return self._connection.machine

    # --- the target

    def restart_target(self) -> None:
        """Start a new target process.  The old one is ended, with its regions, userfaultfds and touches."""
        self._target.restart()

    @property
    def target_pid(self) -> int:
        """The target's process number in the guest: ``lab.exec(["cat", f"/proc/{lab.target_pid}/smaps"])``."""
        return self._target.pid

    def map(
        self, pages: int | None = None, *, memory: str = "shmem", page_size: int | None = None, size: int | None = None
    ) -> Region:
        """Map new memory in the target, as a region and, where its pages have a file, its alias.

        Parameters
        ----------
        pages : int
            How many pages.
        memory : str
            A key of :data:`uffdlab.uapi.memory.MEMORY`: ``"shmem"`` (a memfd, shared), ``"anon"``, ``"hugetlb"``, …
        page_size : int, optional
            Bytes of a page, where you want to be sure of it: 2 MiB or 1 GiB for hugetlb, 4096 for all others.
        size : int, optional
            The size in bytes, in place of `pages`.

        Raises
        ------
        UsageError
            If that is no possible mapping, or the guest has not enough huge pages.
        AgentError
            If this kernel has no such memory.
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
            What to turn on; it must all be there.  If not given: what the kernel has of
            :data:`uffdlab.target.open_userfaultfd.DEFAULT_FEATURES`.

        Raises
        ------
        IoctlError
            If the kernel lacks one of `features`.
        UsageError
            If `features` are none.
        """
        return Userfaultfd.open(self._target, features)

    def fork(self) -> Child:
        """Fork the target: a child with the same memory, which can touch it and be looked at."""
        from uffdlab.target.child import Child  # noqa: PLC0415 - only those who fork need it

        return Child(self._target)

    @property
    def capabilities(self) -> Capabilities:
        """What this kernel can do, found by trying; shown as a table with the version each came in."""
        return self._target.capabilities

    # --- accesses

    @property
    def touches(self) -> tuple[Touch[object], ...]:
        """The touches that have not ended, the oldest first; most of them wait for a page fault to be resolved."""
        return cast("tuple[Touch[object], ...]", self._target.registry.touches)

    # --- looking at pages

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The witnesses that this lab has, the best one first."""
        return self._target.witnesses.names

    def witness(self, name: str) -> Witness:
        """Return one witness, to be asked by itself: what it says is not kept on the timeline.

        Raises
        ------
        UsageError
            There is no witness of that name.
        WitnessError
            It cannot say anything in this lab.
        """
        self._connection.must_be_open()
        return self._target.witnesses.witness(name)

    def snapshot(self, where: MemoryMapping | PageRange, witness: str | None = None) -> Snapshot:
        """Ask a witness for the state of each page of `where`.

        If none is named, the best one that can answer; why a better one could not is on the timeline.

        Raises
        ------
        WitnessError
            If the witness cannot say anything here.
        UsageError
            If these are too many pages for one look.
        """
        return self._target.snapshot(pages_of(where), witness)

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's processors within a ``with`` block: all that ``physical`` says there is of one moment.

        Nothing else can be asked of the guest meanwhile.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        self._connection.must_be_open()
        return self._target.witnesses.paused()

    def cross_examine(self, where: MemoryMapping | PageRange, *, probe_writes: bool = False) -> CrossExamination:
        """Read the same pages with every witness and compare what they report.

        Parameters
        ----------
        where : MemoryMapping or PageRange
        probe_writes : bool
            Also write to each page, as :meth:`probe` does, and hold what happens against what was said.  A write that
            goes through leaves the page dirty.
        """
        from uffdlab.observations.cross_examination import CrossExamination  # noqa: PLC0415 - it needs numpy

        pages = pages_of(where)
        snapshots = [self.snapshot(pages, name) for name in self.witnesses]
        numbers = range(pages.first, pages.first + pages.count) if probe_writes else ()
        return CrossExamination(snapshots, [self.probe(pages.mapping[page]) for page in numbers])

    def probe(self, page: PageRange) -> WriteProbe:
        """Write to one page without changing its content, and tell whether that trapped; see :class:`WriteProbe`."""
        from uffdlab.target.write_probe import probe  # noqa: PLC0415 - it needs numpy

        return probe(self._target, page)

    def walk(self, *addresses: int) -> PageWalks:
        """Walk the page tables to one address of the target, or to several, side by side.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
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
    ) -> Execution:
        """Run a program in the guest, beside the target, and wait for its end.

        It is found among the pushed files and in the guest's PATH, where busybox has a shell and the common tools.  It
        runs in a folder of its own, which is gone afterwards, as is what it has left in the background.

        Parameters
        ----------
        command : sequence of str
            The program and its arguments: ``["sh", "-c", "ulimit -a"]``.
        push : sequence of path, optional
            Files of the host to put into that folder; an executable brings the libraries that the guest lacks.
        deadline : float
            Seconds; past them it is killed.
        on_output : callable, optional
            Called with ``"stdout"`` or ``"stderr"`` and the bytes, as they come.
        most_output : int
            Bytes that it may write, both streams together.
        env : dict, optional
            Environment variables that it has beside the usual ones.

        Raises
        ------
        ProgramError
            It is not there, is no program, missed its deadline or wrote too much.
        MachineError
            The guest died of it (:class:`GuestPanic`); has the console's last lines.
        """
        self._connection.must_be_open()
        started = self._now()
        done = self._programs.run(command, push, deadline, on_output, most_output, env)
        self.timeline.add("exec", f"{' '.join(done.command)}: status {done.status}", started, self._now(), done)
        return done

    # --- the wire

    def ask(self, request: Method[_Answer], *, deadline: float = DEADLINE) -> _Answer:
        """Ask the target or the agent something of :mod:`uffdlab.uapi.protocol`, and return the answer.

        Raises
        ------
        FaultUnresolved
            If the target has not answered within `deadline` seconds; it is killed then.
        TargetLost
            If there is no target any more.
        AgentError
            What was refused.
        ProtocolError
            If the answer is not of the method's shape.
        MachineError
            If there was no answer, or the machine is lost.
        """
        return self._connection.ask(request, deadline=deadline)

    def _now(self) -> int:
        return self._connection.now()

    def bench(self, **keywords: Any) -> Any:
        """Return all widgets as one workbench, a :class:`uffdlab.widgets.Bench`; it says what the keywords are."""
        # By name: the widgets stand on the lab, and scripts need none of them.
        return importlib.import_module("uffdlab.widgets").Bench(self, **keywords)

    # --- the machine

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` gives it."""
        return self.machine.hello.release

    @property
    def console(self) -> Log:
        """What the guest has written to its console so far (bounded); it has ``search`` and ``tail``."""
        return Log(self.machine.console())

    def gdb(self) -> str:
        """Let gdb attach to the guest's kernel, and return the command that does it, with the kernel's symbols.

        The guest stands still from then on until gdb lets it go on; calls of the lab wait as long.  Only the user who
        runs the lab can attach.

        Raises
        ------
        UsageError
            This machine is none of QEMU's.
        MachineError
            QEMU refused it, or is gone.
        """
        self._connection.must_be_open()
        attach = getattr(self.machine, "gdb", None)
        if attach is None:
            raise UsageError(f"gdb attaches to a guest in QEMU; this lab runs in {self.machine.name}")
        text: str = attach()
        self.timeline.add("lab", "QEMU's stub for gdb was opened", self._now())
        return text

    def reset(self) -> None:
        """Put the lab back to where it began, whatever has become of its kernel; in QEMU that is a restore.

        Regions, userfaultfds, touches and children of before are gone, and say so.

        Raises
        ------
        UsageError
            The lab was given its machine, and does not know how to start another one.
        MachineError
            The new machine did not come up; try again, or make a new lab.
        """
        self._connection.must_be_open()
        self._connection.end()
        self._target.registry.lose("the lab was reset")
        self._connection.start()
        self._target.open()
        self.timeline.add("lab", "the lab was reset: a new machine, a new target", self._now())

    def close(self) -> None:
        """End the machine.  Closing a closed lab does nothing."""
        if self._connection.closed:
            return
        self._connection.close()
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

"""Lab: one kernel under test, one target process, and everything that can be asked of them."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Self

from uffdlab.errors import UsageError
from uffdlab.lab_observations import Observations
from uffdlab.machines.connection import DEADLINE, Connection
from uffdlab.machines.factory import Options
from uffdlab.machines.programs import DEADLINE as _PROGRAM_DEADLINE
from uffdlab.machines.programs import MOST_OUTPUT, Programs
from uffdlab.processes.console import Log
from uffdlab.target.capabilities import Capabilities
from uffdlab.target.mapping_size import page_count, reserve
from uffdlab.target.notifications import News
from uffdlab.target.region import Region
from uffdlab.target.registry import Belongings
from uffdlab.target.timeline import Timeline
from uffdlab.target.touch import Touch
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature
from uffdlab.witnesses.selection import Looking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uffdlab.machines import Machine
    from uffdlab.machines.programs import Execution
    from uffdlab.target.child import Child
    from uffdlab.widgets.bench import Bench

_BASE = 0x10_0000_0000  # where the target's first region is put: a round address reads best
_NONCE_BYTES = 32


class Lab(Observations):
    """A kernel under test in a machine of its own, with one target process in it.

    Also a context manager; a lab that is not closed ends with this Python process, even if that is killed.

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
        self._belongings = Belongings()
        self._news = News(self._belongings, self.timeline, self._now)
        self._programs = Programs(lambda: self.machine)
        self._looking = Looking(
            self.target_call, lambda: self.machine.physical, self._now, kernel=self.kernel, machine=self.machine.name
        )
        self._touch_numbers = itertools.count(1)
        self._capabilities: Capabilities | None = None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        # With a machine that has just come up.
        self._connection.open(self._news.hear)
        self.restart_target()

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
        self._belongings.lose("the target process was replaced by a new one")
        nonce = os.urandom(_NONCE_BYTES)
        self.call("agent.spawn", nonce, _BASE)
        self._looking.new_target(nonce)
        if len(self.timeline):
            self.timeline.add("target", "a new target process", self._now())

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
        reserve(kind, pages, self._free_hugepages)
        answer = self.target_call("map", memory, pages, kind.page_size)
        region = Region(self, answer["number"], memory, answer["start"], answer["alias"], pages, kind.page_size)
        self._belongings.add_region(region)
        alias = f", its alias at {region.alias.start:#x}" if region.has_alias else ""
        self.timeline.add("map", f"{region!r}{alias}", self._now())
        return region

    def _free_hugepages(self, page_size: int, wanted: int) -> int:
        return int(self.call("agent.reserve_hugepages", page_size, wanted, deadline=60.0)["free"])

    def unmap(self, region: Region) -> None:
        """Unmap a region and its alias."""
        region.must_be_there()
        self.target_call("unmap", region.number)
        self._belongings.unmapped(region)
        self.timeline.add("unmap", f"{region.name} was unmapped", self._now(), None, region)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that are mapped now, the oldest first."""
        return self._belongings.regions

    @property
    def userfaultfds(self) -> tuple[Userfaultfd, ...]:
        """The userfaultfds that are open, the oldest first."""
        return self._belongings.userfaultfds

    def userfaultfd(self, features: Feature | None = None) -> Userfaultfd:
        """Open a userfaultfd in the target.

        Parameters
        ----------
        features : Feature, optional
            What to turn on; it must all be there.  If not given: what the kernel has of
            :data:`uffdlab.target.userfaultfd.DEFAULT_FEATURES`.

        Raises
        ------
        IoctlError
            If the kernel lacks one of `features`.
        UsageError
            If `features` are none.
        """
        if features is not None and not isinstance(features, int):
            raise UsageError(
                f"features={features!r} are none of a userfaultfd; give flags of uffdlab.uapi.Feature, or none"
            )
        uffd = Userfaultfd(self, features)
        self._belongings.add_userfaultfd(uffd)
        return uffd

    def fork(self) -> Child:
        """Fork the target: a child with the same memory, which can touch it and be looked at."""
        from uffdlab.target.child import Child  # noqa: PLC0415 - only those who fork need it

        return Child(self)

    @property
    def capabilities(self) -> Capabilities:
        """What this kernel can do, found by trying; shown as a table with the version each came in."""
        if self._capabilities is None:
            self._capabilities = Capabilities.from_answer(self.kernel, self.target_call("probe", deadline=60.0))
        return self._capabilities

    @property
    def known_capabilities(self) -> Capabilities | None:
        """The capabilities, if somebody has asked for them already; asks nothing of the kernel."""
        return self._capabilities

    # --- touching

    @property
    def touches(self) -> tuple[Touch[object], ...]:
        """The touches that have not ended, the oldest first; most of them wait for a page fault to be resolved."""
        return self._belongings.touches

    def touch(
        self,
        kind: str,
        address: int,
        what: str,
        *,
        length: int,
        stride: int = 8,
        value: int = 0,
        more: dict[str, Any] | None = None,
        by: Child | None = None,
    ) -> Touch[Any]:
        """Start one access on a thread of its own in the target, or in a child; regions offer it as methods."""
        if by is not None and not by.pid:
            raise UsageError("this child has ended; lab.fork() makes a new one")
        number = next(self._touch_numbers)
        touch: Touch[Any] = Touch(self, number, kind, address, what)
        self._belongings.add_touch(touch)
        try:
            self.target_call("touch", number, kind, address, length, stride, value, more, by.pid if by else 0)
        except BaseException:
            self._belongings.pop_touch(number)
            raise
        return touch

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

    def call(self, method: str, *params: Any, deadline: float = DEADLINE) -> Any:
        """Ask the agent."""
        return self._connection.call(method, *params, deadline=deadline)

    def target_call(self, method: str, *params: Any, deadline: float = DEADLINE) -> Any:
        """Ask the target; if it has not answered within `deadline` seconds it is killed and the call fails.

        Raises
        ------
        FaultUnresolved
            If the call waited in the kernel past its deadline.
        TargetLost
            If there is no target any more.
        """
        return self._connection.target_call(method, *params, deadline=deadline)

    def must_answer(self) -> None:
        """See to it that the machine still answers.

        Raises
        ------
        MachineError
            It does not, or is lost; has the console's last lines.
        """
        self._connection.must_answer()

    def adopt_userfaultfd(self, uffd: Userfaultfd) -> None:
        """Deliver messages to a userfaultfd that a FORK event has brought."""
        self._belongings.add_userfaultfd(uffd)

    def forget_userfaultfd(self, number: int) -> None:
        """Deliver no more messages to a userfaultfd; it calls this when it is closed."""
        self._belongings.drop_userfaultfd(number)

    def _now(self) -> int:
        return self._connection.now()

    def bench(self, **keywords: Any) -> Bench:
        """Lay all of the widgets out as one workbench in a notebook; keywords as of :class:`uffdlab.widgets.Bench`."""
        from uffdlab.widgets.bench import Bench  # noqa: PLC0415 - scripts need no widgets

        return Bench(self, **keywords)

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
        words: str = attach()
        self.timeline.add("lab", "QEMU's stub for gdb was opened", self._now())
        return words

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
        self._belongings.lose("the lab was reset")
        self._capabilities = None
        self._connection.start()
        self._begin()
        self.timeline.add("lab", "the lab was reset: a new machine, a new target", self._now())

    def close(self) -> None:
        """End the machine.  Closing a closed lab does nothing."""
        if self._connection.closed:
            return
        self._connection.close()
        end = self._connection.closed_error()
        self._belongings.lose(end)
        self.timeline.add("lab", "the lab was closed", self._now(), None, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._connection.closed else f"Linux {self.release} in {self.machine.name}"
        return f"<Lab {self.kernel}: {state}>"

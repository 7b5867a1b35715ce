"""Lab: one kernel under test, one target process, and everything that can be asked of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from uffdlab.agent.memory import MEMORY, Memory
from uffdlab.capabilities import Capabilities
from uffdlab.deed import Deed, probe
from uffdlab.errors import LabClosed, MachineError, TargetLost, UffdlabError, UsageError
from uffdlab.looking import Looking
from uffdlab.machines import choice
from uffdlab.machines.console import Log
from uffdlab.machines.rpc import LOST
from uffdlab.programs import DEADLINE as _PROGRAM_DEADLINE
from uffdlab.programs import MOST_OUTPUT, Programs
from uffdlab.region import Mapping, PageRange, Region, pages_of
from uffdlab.timeline import Timeline
from uffdlab.touch import Touch
from uffdlab.uapi import Feature
from uffdlab.userfaultfd import Userfaultfd
from uffdlab.walk import Walks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from uffdlab.child import Child
    from uffdlab.cross_examination import CrossExamination
    from uffdlab.machines import Machine
    from uffdlab.programs import Execution
    from uffdlab.snapshot import Snapshot
    from uffdlab.widgets.bench import Bench

_BASE = 0x10_0000_0000  # where the target's first region is put: a round address reads best
_NONCE_BYTES = 32
_MOST_LOOKED_AT = 1 << 22  # pages; a snapshot of them takes some 70 MB
_ADDRESSES = 1 << 47  # bytes of memory that a process can map, on x86-64 with four levels of page tables
_CALL_DEADLINE = 10.0  # seconds
_CLOCK_LOOKS = 5
_PING_DEADLINE = 4.0
_REPLACED = "the target process was replaced by a new one"
_RESET = "the lab was reset"
_ANSWER_GRACE = 5.0  # seconds more for the agent to tell that a deadline has passed


class Lab:
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
        self._machine: Machine
        self._start: Callable[[], tuple[str, Machine]]
        if machine is None or isinstance(machine, str):
            options = choice.Options(cpus, memory_mib, hugepages, command_line, pte_reader)
            self._start = partial(choice.start, kernel, machine, options)
            self.kernel, self._machine = self._start()
        else:
            self._start = _not_ours
            self.kernel, self._machine = str(kernel or machine.name), machine
        self._programs = Programs(lambda: self._machine)
        self._closed = False
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._regions: dict[int, Region] = {}
        self._userfaultfds: dict[int, Userfaultfd] = {}
        self._touches: dict[int, Touch] = {}
        self._looking = Looking(
            self.target_call, lambda: self._machine.physical, self._now, kernel=self.kernel, machine=self._machine.name
        )
        self._capabilities: Capabilities | None = None
        self._ahead_ns = 0
        self._unsubscribe: Callable[[], None] = lambda: None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        # With a machine that has just come up.
        self._unsubscribe = self._machine.notify_to(self._notified)
        self._ahead_ns = self._guest_clock()
        self.restart_target()

    # --- the target

    def restart_target(self) -> None:
        """Start a new target process.  The old one is ended, with its regions, userfaultfds and touches."""
        self._forget_target(_REPLACED)
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
            A key of :data:`uffdlab.agent.memory.MEMORY`: ``"shmem"`` (a memfd, shared), ``"anon"``, ``"hugetlb"``, …
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
        kind = _memory(memory)
        one = kind.page_size
        if page_size not in (None, one):
            raise UsageError(f"{memory} has pages of {one} bytes here, not of {page_size}")
        pages = _page_count(pages, size, one)
        if pages * one % kind.unit:
            raise UsageError(f"{memory} is made of huge pages: ask for a multiple of {kind.unit // one} pages")
        if kind.hugetlb:
            # A private mapping reserves its own pages, beside those of the file that its alias maps.
            wanted = pages if kind.shared else 2 * pages
            free = self.call("agent.reserve_hugepages", one, wanted, deadline=60.0)["free"]
            if free < wanted:
                size_words = "1 GiB" if one > 2 << 20 else "2 MiB"
                raise UsageError(
                    f"{wanted} huge pages of {size_words} were asked for, the guest has {free} free; ask for fewer, "
                    "unmap other regions, or start the lab with more memory: Lab(…, memory_mib=…)"
                )
        answer = self.target_call("map", memory, pages, one)
        region = Region(self, answer["number"], memory, answer["start"], answer["alias"], pages, one)
        with self._lock:
            self._regions[region.number] = region
        alias = f", its alias at {region.alias.start:#x}" if region.has_alias else ""
        self.timeline.add("map", f"{region!r}{alias}", self._now())
        return region

    def unmap(self, region: Region) -> None:
        """Unmap a region and its alias."""
        region.must_be_there()
        self.target_call("unmap", region.number)
        with self._lock:
            self._regions.pop(region.number, None)
        region.lose("it was unmapped", UsageError)
        self.timeline.add("unmap", f"{region.name} was unmapped", self._now(), None, region)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that are mapped now, the oldest first."""
        with self._lock:
            return tuple(self._regions.values())

    @property
    def userfaultfds(self) -> tuple[Userfaultfd, ...]:
        """The userfaultfds that are open, the oldest first."""
        with self._lock:
            return tuple(self._userfaultfds.values())

    def userfaultfd(self, features: Feature | None = None) -> Userfaultfd:
        """Open a userfaultfd in the target.

        Parameters
        ----------
        features : Feature, optional
            What to turn on; it must all be there.  If not given: what the kernel has of
            :data:`uffdlab.userfaultfd.DEFAULT_FEATURES`.

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
        self._userfaultfds[uffd.number] = uffd
        return uffd

    def fork(self) -> Child:
        """Fork the target: a child with the same memory, which can touch it and be looked at."""
        from uffdlab.child import Child  # noqa: PLC0415 - only those who fork need it

        return Child(self)

    @property
    def capabilities(self) -> Capabilities:
        """What this kernel can do, found by trying; shown as a table with the version each came in."""
        if self._capabilities is None:
            self._capabilities = Capabilities(self.kernel, self.target_call("probe", deadline=60.0))
        return self._capabilities

    # --- looking

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The witnesses that this lab has, the best one first."""
        return self._looking.names

    def snapshot(self, where: Mapping | PageRange, witness: str | None = None) -> Snapshot:
        """Ask a witness for the state of each page of `where`.

        If none is named, the best one that can answer; why a better one could not is on the timeline.

        Raises
        ------
        WitnessError
            If the witness cannot say anything here.
        UsageError
            If these are too many pages for one look.
        """
        self._must_be_open()
        pages = pages_of(where)
        if pages.count > _MOST_LOOKED_AT:
            raise UsageError(
                f"{pages.count} pages are more than one look can be at ({_MOST_LOOKED_AT}); look at a part of them, "
                f"region[:{_MOST_LOOKED_AT}]"
            )
        snapshot, failed = self._looking.read(pages, witness)
        for error in failed:
            self.timeline.add("witness", str(error), self._now(), None, error)
        self.timeline.add("snapshot", f"{pages} of {pages.mapping.name} by {snapshot.witness}", snapshot.time_ns,
                          None, snapshot)  # fmt: skip
        return snapshot

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's processors within a ``with`` block: all that ``physical`` says there is of one moment.

        Nothing else can be asked of the guest meanwhile.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        self._must_be_open()
        return self._looking.paused()

    def cross_examine(self, where: Mapping | PageRange, *, by_deed: bool = False) -> CrossExamination:
        """Ask every witness for the same pages and hold their words against each other.

        Parameters
        ----------
        where : Mapping or PageRange
        by_deed : bool
            Also write to each page, as :meth:`probe` does, and hold what happens against what was said.  A write that
            goes through leaves the page dirty.
        """
        from uffdlab.cross_examination import CrossExamination  # noqa: PLC0415 - it needs a lab's snapshots, not Lab

        pages = pages_of(where)
        snapshots = [self.snapshot(pages, name) for name in self.witnesses]
        numbers = range(pages.first, pages.first + pages.count) if by_deed else ()
        return CrossExamination(snapshots, [self.probe(pages.mapping[page]) for page in numbers])

    def probe(self, page: PageRange) -> Deed:
        """Write to one page without changing its content, and tell whether that trapped; see :class:`Deed`."""
        return probe(page, list(self.userfaultfds))

    def walk(self, *addresses: int) -> Walks:
        """Walk the page tables to one address of the target, or to several, side by side.

        Raises
        ------
        WitnessError
            If the host cannot see the guest's memory.
        """
        return self._looking.walk(addresses, list(self.regions))

    def read_pagemap(self, start: int, pages: int, page_size: int, child: int = 0) -> dict[str, Any]:
        """Read the pagemap words of the target, or of a child of it; witnesses call this."""
        answer: dict[str, Any] = self.target_call("pagemap", start, pages, page_size, child, deadline=60.0)
        return answer

    def page_size_at(self, address: int) -> int:
        """Give the page size of the region at `address`, 4096 if there is none."""
        return next((each.page_size for each in self.regions if each.page_of(address) is not None), 4096)

    def locate(self, address: int) -> tuple[str, int | None]:
        """Give the name of the region at `address` and the page within it; ("", None) if there is none."""
        for region in self.regions:
            page = region.page_of(address)
            if page is not None:
                return region.name, page
        return "", None

    # --- touching

    @property
    def touches(self) -> tuple[Touch, ...]:
        """The touches that have not ended, the oldest first; most of them wait for a page fault to be resolved."""
        with self._lock:
            return tuple(self._touches.values())

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
    ) -> Touch:
        """Start one access on a thread of its own in the target, or in a child; regions offer it as methods."""
        if by is not None and not by.pid:
            raise UsageError("this child has ended; lab.fork() makes a new one")
        number = next(self._numbers)
        touch = Touch(self, number, kind, address, what)
        with self._lock:
            self._touches[number] = touch
        try:
            self.target_call("touch", number, kind, address, length, stride, value, more, by.pid if by else 0)
        except BaseException:
            with self._lock:
                self._touches.pop(number, None)
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
        self._must_be_open()
        started = self._now()
        done = self._programs.run(command, push, deadline, on_output, most_output, env)
        self.timeline.add("exec", f"{' '.join(done.command)}: status {done.status}", started, self._now(), done)
        return done

    # --- the wire

    def call(self, method: str, *params: Any, deadline: float = _CALL_DEADLINE) -> Any:
        """Ask the agent."""
        self._must_be_open()
        return self._machine.call(method, *params, deadline=deadline + _ANSWER_GRACE)

    def must_answer(self) -> None:
        """See to it that the machine still answers.

        Raises
        ------
        MachineError
            It does not, or is lost; has the console's last lines.
        """
        self._must_be_open()
        self._machine.call("agent.ping", deadline=_PING_DEADLINE)

    def _must_be_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> LabClosed:
        return LabClosed(f"this lab ({self.kernel}) is closed; make a new one: uffdlab.Lab({self.kernel!r})")

    def target_call(self, method: str, *params: Any, deadline: float = _CALL_DEADLINE) -> Any:
        """Ask the target; if it has not answered within `deadline` seconds it is killed and the call fails.

        Raises
        ------
        FaultUnresolved
            If the call waited in the kernel past its deadline.
        TargetLost
            If there is no target any more.
        """
        return self.call(f"target.{method}", deadline, *params, deadline=deadline)

    def _notified(self, method: str, params: list[Any]) -> None:
        # On the machine's reader thread: nothing here may wait.
        if method == "message":
            number, data, time_ns, adopted = params
            uffd = self._userfaultfds.get(number)
            if uffd is not None:
                uffd.deliver(data, time_ns, adopted)
        elif method == "touch":
            number, end = params
            with self._lock:
                touch = self._touches.pop(number, None)
            if touch is not None:
                touch.finish(end)
                self.timeline.add("touch", f"{touch.what}: {end['state']}", end["started_ns"], end["ended_ns"], touch)
        elif method == "target-lost":
            why = str(params[1])
            self._forget_target(why)
            self.timeline.add("target", f"the target is lost: {why}", self._now(), None, TargetLost(why))
        elif method == LOST:
            # Its first line: the console's tail is in the error.
            (error,) = params
            why, _, _ = str(error).partition("\n")
            self._fail_touches(error)
            for uffd in self.userfaultfds:
                uffd.end_messages(error)
            self.timeline.add("lab", f"the machine is lost: {why}", self._now(), None, error)

    def _fail_touches(self, error: UffdlabError) -> None:
        with self._lock:
            touches, self._touches = list(self._touches.values()), {}
        for touch in touches:
            touch.fail(error)

    def _forget_target(self, why: str) -> None:
        with self._lock:
            regions = list(self._regions.values())
            self._regions.clear()
            userfaultfds, self._userfaultfds = list(self._userfaultfds.values()), {}
        if not self._closed:  # else the lab says so itself
            for region in regions:
                region.lose(why)
        for uffd in userfaultfds:
            uffd.lose(self._closed_error() if self._closed else why)
        lost = TargetLost(f"{why}, and the access with it; lab.restart_target() starts a new one")
        self._fail_touches(self._closed_error() if self._closed else lost)

    def adopt_userfaultfd(self, uffd: Userfaultfd) -> None:
        """Deliver messages to a userfaultfd that a FORK event has brought."""
        self._userfaultfds[uffd.number] = uffd

    def forget_userfaultfd(self, number: int) -> None:
        """Deliver no more messages to a userfaultfd; it calls this when it is closed."""
        self._userfaultfds.pop(number, None)

    def _guest_clock(self) -> int:
        """Give by how many ns the guest's CLOCK_MONOTONIC is ahead of ours, to half the quickest round trip."""
        best, ahead = 1 << 62, 0
        for _ in range(_CLOCK_LOOKS):
            asked = time.monotonic_ns()
            guest: int = self.call("agent.clock")
            answered = time.monotonic_ns()
            if answered - asked < best:
                best, ahead = answered - asked, guest - (asked + answered) // 2
        return ahead

    def _now(self) -> int:
        return time.monotonic_ns() + self._ahead_ns

    def bench(self, **keywords: Any) -> Bench:
        """Lay all of the widgets out as one workbench in a notebook; keywords as of :class:`uffdlab.widgets.Bench`."""
        from uffdlab.widgets.bench import Bench  # noqa: PLC0415 - scripts need no widgets

        return Bench(self, **keywords)

    # --- the machine

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` gives it."""
        return str(self._machine.hello["release"])

    @property
    def console(self) -> Log:
        """What the guest has written to its console so far (bounded); it has ``search`` and ``tail``."""
        return Log(self._machine.console())

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
        self._must_be_open()
        attach = getattr(self._machine, "gdb", None)
        if attach is None:
            raise UsageError(f"gdb attaches to a guest in QEMU; this lab runs in {self._machine.name}")
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
        self._must_be_open()
        start = self._start
        if start is _not_ours:
            start()
        self._unsubscribe()
        with contextlib.suppress(MachineError):
            self._machine.close()
        self._forget_target(_RESET)
        self._capabilities = None
        self.kernel, self._machine = start()
        self._begin()
        self.timeline.add("lab", "the lab was reset: a new machine, a new target", self._now())

    def close(self) -> None:
        """End the machine.  Closing a closed lab does nothing."""
        if self._closed:
            return
        self._closed = True
        self._unsubscribe()
        with contextlib.suppress(MachineError):
            self._machine.close()
        self._forget_target("the lab was closed")
        self.timeline.add("lab", "the lab was closed", self._now(), None, self._closed_error())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"Linux {self.release} in {self._machine.name}"
        return f"<Lab {self.kernel}: {state}>"


def _not_ours() -> tuple[str, Machine]:
    raise UsageError("this lab was given its machine and cannot start another one: make a new machine, and a new lab")


def _memory(name: str) -> Memory:
    if name not in MEMORY:
        raise UsageError(f"there is no memory {name!r}; there is {', '.join(map(repr, MEMORY))}")
    return MEMORY[name]


def _page_count(pages: int | None, size: int | None, page_size: int) -> int:
    if (pages is None) == (size is None):
        raise UsageError("say how much to map, either in pages=… or in bytes as size=…")
    for name, given in (("pages", pages), ("size", size)):
        if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
            raise UsageError(f"{name}={given!r} is no number")
    if size is not None:
        if size <= 0 or size % page_size:
            raise UsageError(f"size={size} is no positive multiple of the page size, {page_size} bytes")
        pages = size // page_size
    assert pages is not None
    if pages < 1:
        raise UsageError(f"pages={pages!r}: a region has at least 1 page")
    if pages * page_size >= _ADDRESSES:
        raise UsageError(f"{pages} pages of {page_size} bytes are more than a process has addresses for (128 TiB)")
    return pages

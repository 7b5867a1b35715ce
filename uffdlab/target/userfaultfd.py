"""Userfaultfd: one method an ioctl, and the messages it gives."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

from uffdlab import uapi
from uffdlab.errors import IoctlError, LabClosed, TargetLost, UffdlabError, UsageError
from uffdlab.target.fault_handlers import NativeHandler, PythonHandler
from uffdlab.target.ioctl_results import IoctlResult
from uffdlab.target.ioctls import CLOSED, Ioctls, pages_there
from uffdlab.target.message_queue import MessageQueue
from uffdlab.uapi import ContinueMode, CopyMode, Feature, MoveMode, RegisterMode, RwprotectMode, WriteprotectMode
from uffdlab.uapi.layout import decode
from uffdlab.uapi.messages import Fault, Message, Remap, Remove, Unmap
from uffdlab.uapi.protocol.target import CloseUserfaultfd, LeaveUnread, OpenUserfaultfd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.target.ioctl_results import BatchResult, PendingIoctl
    from uffdlab.target.process import TargetProcess
    from uffdlab.target.region import MemoryMapping, PageRange

__all__ = ["DEFAULT_FEATURES", "IoctlResult", "Userfaultfd"]

_NOTHING = Feature(0)
_Kind = TypeVar("_Kind", Fault, Message, "Fork", Remap, Remove, Unmap)

#: What a lab turns on where the kernel has it: nothing of it changes what an ioctl does to a page.
DEFAULT_FEATURES = (
    Feature.PAGEFAULT_FLAG_WP
    | Feature.MISSING_HUGETLBFS
    | Feature.MISSING_SHMEM
    | Feature.THREAD_ID
    | Feature.MINOR_HUGETLBFS
    | Feature.MINOR_SHMEM
    | Feature.EXACT_ADDRESS
    | Feature.WP_HUGETLBFS_SHMEM
    | Feature.RWP
)


class Fork(Message, frozen=True):
    """UFFD_EVENT_FORK: the target has forked.

    Attributes
    ----------
    userfaultfd : Userfaultfd
        The child's own: registered as this one was, for the child's page tables.
    """

    userfaultfd: Userfaultfd

    def __repr__(self) -> str:
        return f"Fork({self.userfaultfd!r})"


class Userfaultfd:
    """An open userfaultfd of the target: one method an ioctl, and the messages it gives.

    All ioctls take `check`: raise :class:`~uffdlab.errors.IoctlError` on an errno; without it the result has the errno.

    Attributes
    ----------
    features : Feature
        What is turned on.
    offered : Feature
        What this kernel offers.
    way : str
        How it was opened: the system call, /dev/userfaultfd, or in user mode only.
    """

    def __init__(
        self,
        target: TargetProcess,
        number: int,
        *,
        features: Feature,
        offered: Feature,
        way: str,
        registered: Iterable[tuple[int, int, RegisterMode]] = (),
    ) -> None:
        self.features = features
        self.offered = offered
        self.way = way
        self._target = target
        self._ioctls = Ioctls(target, number, features, offered, registered)
        self._messages = MessageQueue()
        target.registry.add_userfaultfd(self)

    @classmethod
    def open(cls, target: TargetProcess, features: Feature | None) -> Self:
        """Open one in the target; see :meth:`uffdlab.lab.Lab.userfaultfd`."""
        if features is not None and not isinstance(features, int):
            raise UsageError(
                f"features={features!r} are none of a userfaultfd; give flags of uffdlab.uapi.Feature, or none"
            )
        wanted, required = (DEFAULT_FEATURES, Feature(0)) if features is None else (Feature(0), features)
        answer = target.ask(OpenUserfaultfd(int(wanted), int(required)))
        offered = Feature(answer.offered)
        if answer.errno:
            call = f"UFFDIO_API({uapi.flag_names(answer.asked, Feature)})"
            raise IoctlError(call, answer.errno, _why_refused(answer.errno, required, offered))
        return cls(target, answer.number, features=Feature(answer.asked), offered=offered, way=answer.way)

    def _of_child(self, number: int) -> Userfaultfd:
        # What a FORK event has brought: registered for the child's memory as this one is for the target's.
        return Userfaultfd(
            self._target,
            number,
            features=self.features,
            offered=self.offered,
            way="a FORK event",
            registered=self._ioctls.registered,
        )

    @property
    def number(self) -> int:
        """Its number in this lab."""
        return self._ioctls.number

    # --- the ioctls

    def register(self, where: MemoryMapping | PageRange, *modes: str | RegisterMode, check: bool = True) -> IoctlResult:
        """UFFDIO_REGISTER: take the faults of a range.

        Parameters
        ----------
        where : Region or PageRange
            The pages.
        *modes : str or RegisterMode
            ``"missing"``, ``"minor"``, ``"wp"`` or the flags themselves.
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        mode = _register_mode(modes)
        result = self._ioctls.on_range("UFFDIO_REGISTER", where, mode, check)
        if result.ok:
            pages = pages_there(where)
            self._ioctls.registered.append((pages.start, pages.length, RegisterMode(mode)))
        return result

    def unregister(self, where: MemoryMapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_UNREGISTER: give the faults of a range back to the kernel.

        The kernel wakes what waits there only where the range was registered for MISSING (fs/userfaultfd.c,
        userfaultfd_unregister()); otherwise follow it with :meth:`wake`.
        """
        result = self._ioctls.on_range("UFFDIO_UNREGISTER", where, 0, check)
        if result.ok:
            pages = pages_there(where)
            self._ioctls.registered.append((pages.start, pages.length, RegisterMode(0)))
        return result

    def wake(self, where: MemoryMapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_WAKE: wake what waits in a range, for example after DONTWAKE."""
        return self._ioctls.on_range("UFFDIO_WAKE", where, 0, check)

    def continue_(
        self,
        where: MemoryMapping | PageRange,
        *,
        wp: bool = False,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_CONTINUE: map pages that are in the page cache, resolving their minor faults.

        Parameters
        ----------
        where : Region or PageRange
            The pages.
        wp : bool
            UFFDIO_CONTINUE_MODE_WP: map them write-protected (Linux 6.4, or 6.1-series).
        dontwake : bool
            UFFDIO_CONTINUE_MODE_DONTWAKE: leave asleep what waits for them.
        mode : int
            More bits for the mode field, also such as mean nothing.
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        return self._ioctls.on_range("UFFDIO_CONTINUE", where, _mode(ContinueMode, wp, dontwake) | mode, check)

    def copy(
        self,
        where: MemoryMapping | PageRange,
        data: bytes = b"",
        *,
        wp: bool = False,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_COPY: make pages with the content `data`, resolving missing faults.

        `data` shorter than the range is followed by zeroes.  The other parameters as for :meth:`continue_`.
        """
        pages = pages_there(where)
        if len(data) > pages.length:
            raise UsageError(f"{len(data)} bytes do not fit into {pages} of {pages.length} bytes")
        values = {"dst": pages.start, "len": pages.length, "mode": _mode(CopyMode, wp, dontwake) | mode}
        return self.ioctl("UFFDIO_COPY", values, source=data.ljust(pages.length, b"\0"), where=str(pages), check=check)

    def zeropage(
        self, where: MemoryMapping | PageRange, *, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_ZEROPAGE: map pages of zeroes, resolving missing faults (not on hugetlb)."""
        return self._ioctls.on_range("UFFDIO_ZEROPAGE", where, int(dontwake) | mode, check)

    def move(
        self,
        to: MemoryMapping | PageRange,
        from_: MemoryMapping | PageRange,
        *,
        allow_src_holes: bool = False,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_MOVE: move pages of private anonymous memory without copying them (Linux 6.8).

        Parameters
        ----------
        to, from_ : Region or PageRange
            As many bytes each; `to` is registered for missing faults and empty.  It may reach into `from_` from below.
        allow_src_holes : bool
            UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: pass over pages that are not there, in place of ENOENT.

        Raises
        ------
        UsageError
            `to` begins within `from_`.  No kernel that has been tried (6.12, 6.18, 7.3) refuses it; see the message.
        """
        target, source = pages_there(to), pages_there(from_)
        if target.length != source.length:
            raise UsageError(f"{source} of {source.length} bytes cannot be moved to {target} of {target.length} bytes")
        if source.start < target.start < source.start + source.length:
            fields = f"dict(dst={target.start:#x}, src={source.start:#x}, len={target.length})"
            raise UsageError(
                f"{target} begins within {source}: the kernel moves one page after the other, from the first on, and "
                "would move again what it has just moved. Move parts that do not overlap, the last one first; or see "
                f"what it does: uffd.ioctl('UFFDIO_MOVE', {fields})"
            )
        bits = _mode(MoveMode, False, dontwake) | (int(MoveMode.ALLOW_SRC_HOLES) if allow_src_holes else 0) | mode
        values = {"dst": target.start, "src": source.start, "len": target.length, "mode": bits}
        return self.ioctl("UFFDIO_MOVE", values, where=f"{source} to {target}", check=check)

    def writeprotect(
        self,
        where: MemoryMapping | PageRange,
        *,
        wp: bool = True,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_WRITEPROTECT: protect pages against writes (`wp`), or allow writes again and wake (`wp=False`)."""
        return self._ioctls.on_range("UFFDIO_WRITEPROTECT", where, _mode(WriteprotectMode, wp, dontwake) | mode, check)

    def poison(
        self, where: MemoryMapping | PageRange, *, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_POISON: make every touch of these pages a SIGBUS (Linux 6.6)."""
        return self._ioctls.on_range("UFFDIO_POISON", where, int(dontwake) | mode, check)

    def rwprotect(
        self,
        where: MemoryMapping | PageRange,
        *,
        rwp: bool = True,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_RWPROTECT: protect pages against every access (`rwp`), or allow it again and wake (Linux 7.3)."""
        bits = (int(RwprotectMode.RWP) if rwp else 0) | (int(RwprotectMode.DONTWAKE) if dontwake else 0) | mode
        return self._ioctls.on_range("UFFDIO_RWPROTECT", where, bits, check)

    def set_mode(self, enable: Feature = _NOTHING, disable: Feature = _NOTHING, *, check: bool = True) -> IoctlResult:
        """UFFDIO_SET_MODE: turn features that can be changed later on and off; RWP_ASYNC is one (Linux 7.3)."""
        return self.ioctl("UFFDIO_SET_MODE", {"enable": int(enable), "disable": int(disable)}, check=check)

    def resume(self, result: IoctlResult, *, deadline: float = 5.0, check: bool = True) -> IoctlResult:
        """Go on with an ioctl that came back with EAGAIN, from where it stopped, until it is whole or fails.

        Parameters
        ----------
        result : IoctlResult
            From a call with ``check=False``.
        deadline : float
            Seconds after which EAGAIN is given back.

        Returns
        -------
        IoctlResult
            The last result; its ``done`` counts the bytes of all.
        """
        return self._ioctls.resume(result, deadline=deadline, check=check)

    def batch(
        self,
        name: str,
        where: MemoryMapping | PageRange,
        *,
        mode: int = 0,
        data: bytes | None = None,
        check: bool = True,
    ) -> BatchResult:
        """Do one ioctl for each page, in one call of native code in the guest.

        Parameters
        ----------
        name : str
            UFFDIO_CONTINUE, COPY, ZEROPAGE, POISON, WRITEPROTECT or WAKE.
        where : Region or PageRange
            The pages; the batch ends at the first that fails.
        mode : int
            Each ioctl's mode field.
        data : bytes, optional
            What UFFDIO_COPY puts into each page.
        """
        return self._ioctls.batch(name, where, mode=mode, data=data, check=check)

    def ioctl(
        self,
        name: str,
        values: dict[str, int],
        *,
        source: bytes | None = None,
        where: str = "",
        check: bool = True,
    ) -> IoctlResult:
        """Do any ioctl with any fields, valid or not.

        Parameters
        ----------
        name : str
            A key of :data:`uffdlab.uapi.IOCTLS`.
        values : dict
            The fields of its argument by name; those not given are 0.
        source : bytes, optional
            Bytes that the target puts into memory of its own, whose address becomes the field ``src``.
        where : str
            A description of the range, for messages.
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        return self._ioctls.ioctl(name, values, source=source, where=where, check=check)

    def start(self, name: str, values: dict[str, int]) -> PendingIoctl:
        """Do an ioctl on a thread of its own in the target, for one that may wait: UFFDIO_COPY from a page that faults.

        Parameters as for :meth:`ioctl`; the field ``src`` is an address in the target.
        """
        return self._ioctls.start(name, values)

    # --- the messages

    def read_fault(self, timeout: float = 5.0) -> Fault:
        """Return the next page fault that has not been read yet, waiting for it at most `timeout` seconds.

        Messages of other kinds are kept for :meth:`read_message`.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        return self.wait_for(Fault, timeout)

    def read_message(self, timeout: float = 5.0) -> Fault | Message:
        """Return the next message of any kind, waiting for it at most `timeout` seconds.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        return self._messages.get(object, timeout, "message")

    def wait_for(self, kind: type[_Kind], timeout: float = 5.0) -> _Kind:
        """Return the next message of one kind (``Fault``, ``Fork``, ``Remap``, ``Remove``, ``Unmap``); the others stay.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        message = self._messages.get(kind, timeout, "page fault" if kind is Fault else kind.__name__)
        assert isinstance(message, kind)
        return message

    def messages(self, timeout: float = 1.0) -> Iterator[Fault | Message]:
        """Yield message after message, until none has come for `timeout` seconds."""
        return self._messages.each(timeout)

    def subscribe(self, callback: Callable[[Fault | Message], object]) -> Callable[[], None]:
        """Call `callback` with each message as it comes, on a thread of its own; returns what ends that."""
        return self._messages.subscribe(callback)

    def intercept(self, taker: Callable[[Fault | Message], bool]) -> Callable[[], None]:
        """Show every message to `taker` before anybody else; those it returns True for are its own.

        It is called on the thread that brings the messages and must not wait: no call of the lab.  Messages that
        nobody has read yet are shown to it at once.  Returns what ends that.
        """
        return self._messages.take_with(taker)

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Leave the messages in the kernel for the time of a with block; they come when it ends.

        While an event waits there, the call that has caused it does not come back, and UFFDIO_COPY and its like fail
        with EAGAIN (fs/userfaultfd.c, mmap_changing).  So start that call on a thread of its own.
        """
        self._ioctls.must_be_open()
        self._target.ask(LeaveUnread(self._ioctls.number, True))
        try:
            yield
        finally:
            if self._ioctls.number:
                with suppress(TargetLost):  # what was raised in the block says why
                    self._target.ask(LeaveUnread(self._ioctls.number, False))

    # --- the handlers

    def handle(self, resolve: Callable[[Fault], object]) -> PythonHandler:
        """Call `resolve` with each page fault, one after the other, until it is stopped; see PythonHandler."""
        self._ioctls.must_be_open()
        return PythonHandler(self._messages, resolve)

    def handle_natively(
        self,
        *,
        missing: str = "forward",
        minor: str = "forward",
        wp: str = "forward",
        rwp: str = "forward",
        page_size: int | None = None,
        content: bytes = b"",
    ) -> NativeHandler:
        """Let a loop in C in the guest resolve page faults, until it is stopped.

        Parameters
        ----------
        missing : str
            ``copy``, ``copy_wp``, ``zeropage`` or ``poison``.
        minor : str
            ``continue``, ``continue_wp`` or ``poison``.
        wp, rwp : str
            ``unprotect``.  Faults of a kind that is left out are ``forward``: they are messages here as ever.
        page_size : int, optional
            Bytes; that of the registered regions if not given.
        content : bytes
            What copy puts into each page, followed by zeroes.
        """
        self._ioctls.must_be_open()
        size = page_size or self._page_size()
        policies = {"missing": missing, "minor": minor, "wp": wp, "rwp": rwp}
        return NativeHandler(self._target.connection, self._ioctls.number, policies, size, content)

    def _page_size(self) -> int:
        sizes = {self._target.page_size_at(start) for start, _, mode in self._ioctls.registered if mode}
        if len(sizes) != 1:
            raise UsageError(
                "say page_size=…: a native handler serves pages of one size, and this userfaultfd has registered "
                + (f"pages of {' and '.join(map(str, sorted(sizes)))} bytes" if sizes else "nothing yet")
            )
        return sizes.pop()

    def deliver(self, data: bytes, time_ns: int, adopted: int = 0) -> None:
        """Take one struct uffd_msg from its notification; `adopted` is the number of the userfaultfd of a child."""
        message = self._message(*decode(data), time_ns, adopted)
        self._target.timeline.add("message", repr(message), time_ns, None, message)
        self._messages.put(message)

    def _message(self, event: int, arg: tuple[int, ...], time_ns: int, adopted: int) -> Fault | Message:
        if event == uapi.Event.PAGEFAULT:
            flags, address, thread = arg
            region, page = self._target.locate(address)
            return Fault(page, region, address, uapi.FaultFlag(flags), thread, time_ns)
        if event == uapi.Event.FORK and adopted:
            return Fork(event, arg, time_ns, self._of_child(adopted))
        if event == uapi.Event.REMAP:
            return Remap(event, arg, time_ns, *arg)
        if event in (uapi.Event.REMOVE, uapi.Event.UNMAP):
            start, end = arg
            region, page = self._target.locate(start)
            count = (end - start) // self._target.page_size_at(start)
            kind = Remove if event == uapi.Event.REMOVE else Unmap
            return kind(event, arg, time_ns, start, end, region, page or 0, count)
        return Message(event, arg, time_ns)

    def end_messages(self, why: UffdlabError) -> None:
        """End every wait for a message with `why`: none will come.  The registry calls this."""
        self._messages.end(why)

    def lose(self, why: str | LabClosed) -> None:
        """Mark it as lost with its target: every call raises that from then on.  The registry calls this."""
        gone = f"this userfaultfd is gone: {why}; lab.userfaultfd() opens a new one"
        self._end(why if isinstance(why, LabClosed) else TargetLost(gone))

    def close(self) -> None:
        """Close it.  A touch that waits on it goes on, and may read a zero page: resolve faults first."""
        if self._ioctls.number:
            number = self._ioctls.number
            self._end(LabClosed(CLOSED))
            self._target.registry.drop_userfaultfd(number)
            with suppress(TargetLost, LabClosed):  # it has gone with its process then
                self._target.ask(CloseUserfaultfd(number))

    def _end(self, why: LabClosed | TargetLost) -> None:
        self._ioctls.end(why)
        self._messages.end(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"number {self._ioctls.number}" if self._ioctls.number else "closed"
        return f"<Userfaultfd {state}, by {self.way}, {uapi.flag_names(self.features, Feature)}>"


def _why_refused(error: int, required: Feature, offered: Feature) -> str:
    lacking = int(required) & ~int(offered)  # as numbers: a Flag's ~ forgets bits without a name
    if lacking:
        return f"this kernel lacks {uapi.flag_names(lacking, Feature)}"
    if error == errno.EPERM and required & Feature.EVENT_FORK:
        return "EVENT_FORK needs CAP_SYS_PTRACE, as root has it; leave it out"
    return "see userfaultfd(2)"


def _register_mode(modes: tuple[str | RegisterMode, ...]) -> int:
    names = {str(flag.name).lower(): flag for flag in RegisterMode}
    total = 0
    for mode in modes:
        if isinstance(mode, str):
            if mode.lower() not in names:
                raise UsageError(f"{mode!r} is no mode of UFFDIO_REGISTER; there are {', '.join(names)}")
            total |= names[mode.lower()]
        else:
            total |= int(mode)
    if not total:
        raise UsageError("UFFDIO_REGISTER needs a mode: uffd.register(region, 'minor', 'wp')")
    return total


def _mode(kind: type[ContinueMode | CopyMode | MoveMode | WriteprotectMode], wp: bool, dontwake: bool) -> int:
    # Not every ioctl has its bits in the same order: each is asked for its own.
    return (int(kind["WP"]) if wp else 0) | (int(kind["DONTWAKE"]) if dontwake else 0)

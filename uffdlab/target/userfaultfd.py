"""Userfaultfd: a method for each ioctl, and its messages."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec.structs import replace

from uffdlab import uapi
from uffdlab.arguments import checked
from uffdlab.errors import LabClosed, TargetLost, UffdlabError, UsageError, errno_name
from uffdlab.target import ioctls
from uffdlab.target.fault_handlers import NativeHandler, PythonHandler, one_page_size
from uffdlab.target.ioctl_errors import IoctlErrors
from uffdlab.target.message_decoding import decode_message
from uffdlab.target.message_queue import MessageQueue
from uffdlab.target.open_userfaultfd import open_userfaultfd
from uffdlab.target.pending_ioctl import PendingIoctl
from uffdlab.target.region import mapped_pages
from uffdlab.target.results import BatchResult, IoctlResult
from uffdlab.uapi import ContinueMode, CopyMode, Feature, MoveMode, RegisterMode, RwprotectMode, WriteprotectMode
from uffdlab.uapi.messages import Fault, Message, Remap, Remove, Unmap
from uffdlab.uapi.protocol.target import CallIoctl, CloseUserfaultfd, LeaveUnread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.target.process import TargetProcess
    from uffdlab.target.region import MappedPages
    from uffdlab.uapi.protocol.target import SystemCall

_NOTHING = Feature(0)
_REGISTRATIONS = ("UFFDIO_REGISTER", "UFFDIO_UNREGISTER")
_CLOSED = "this userfaultfd is closed; lab.userfaultfd() opens a new one"
_BY_FORK = "a FORK event"  # it is about the memory of the child
_Kind = TypeVar("_Kind", Fault, Message, "Fork", Remap, Remove, Unmap)


class Fork(Message, frozen=True):
    """UFFD_EVENT_FORK: the target has forked.

    Attributes
    ----------
    userfaultfd : Userfaultfd
        The userfaultfd of the child's page tables, with the same registrations.
    """

    userfaultfd: Userfaultfd

    def __repr__(self) -> str:
        return f"Fork({self.userfaultfd!r})"


@checked(
    "uffd",
    register="uffd.register(region, 'minor', 'wp')",
    copy="uffd.copy(region[3], b'hello')",
    continue_="uffd.continue_(region[3], wp=True)",
    writeprotect="uffd.writeprotect(region[3], wp=False)",
    read_fault="uffd.read_fault(timeout=1)",
    ioctl="uffd.ioctl('UFFDIO_WAKE', {'start': region.start, 'len': region.length})",
)
class Userfaultfd:
    """An open userfaultfd of the target: a method for each ioctl, and its messages.

    Parameters of the ioctls: `where` is a region, an alias or some pages of one.  `dontwake` does not wake the threads
    that wait for these pages.  `mode` is added to the mode field; it may have unknown bits.  A failed ioctl raises
    :class:`~uffdlab.errors.IoctlError`; with ``check=False`` its result has the errno.

    Attributes
    ----------
    features : Feature
        The features that are enabled.
    offered : Feature
        The features that this kernel offers.
    way : str
        How it was opened: the system call, /dev/userfaultfd, or with UFFD_USER_MODE_ONLY.
    number : int
        Its number in this lab; 0 after it is closed or lost.
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
        self.number = number
        self._errors = IoctlErrors(target, features, offered, registered)
        self._end_error: LabClosed | TargetLost = LabClosed(_CLOSED)  # every call raises this after it is closed
        self._of_another_process = way == _BY_FORK
        self._messages = MessageQueue()
        target.registry.add_userfaultfd(self)

    @classmethod
    def open(cls, target: TargetProcess, features: Feature | None) -> Self:
        """Open a userfaultfd in the target; see :meth:`uffdlab.lab.Lab.userfaultfd`."""
        answer = open_userfaultfd(target, features)
        features, offered = Feature(answer.asked), Feature(answer.offered)
        return cls(target, answer.number, features=features, offered=offered, way=answer.way)

    def _userfaultfd_of_child(self, number: int) -> Userfaultfd:
        # The userfaultfd of a FORK event: it has the same registrations, for the child's memory.
        return Userfaultfd(
            self._target,
            number,
            features=self.features,
            offered=self.offered,
            way=_BY_FORK,
            registered=self._errors.registered,
        )

    @property
    def registered(self) -> tuple[tuple[int, int, RegisterMode], ...]:
        """What was registered: start and length in bytes, and modes; the newest last.  No mode: unregistered again."""
        return tuple(self._errors.registered)

    # --- the ioctls

    def register(self, where: MappedPages, *modes: str | RegisterMode, check: bool = True) -> IoctlResult:
        """UFFDIO_REGISTER: handle the faults of a range.

        Parameters
        ----------
        *modes : str or RegisterMode
            ``"missing"``, ``"minor"``, ``"wp"``, ``"rwp"`` or the flags themselves.
        """
        return self._on_range("UFFDIO_REGISTER", where, ioctls.register_mode(modes), check)

    def unregister(self, where: MappedPages, *, check: bool = True) -> IoctlResult:
        """UFFDIO_UNREGISTER: leave the faults of a range to the kernel again.

        The kernel wakes the threads that wait there only if the range was registered for MISSING (fs/userfaultfd.c,
        userfaultfd_unregister()).  Otherwise call :meth:`wake` after it.
        """
        return self._on_range("UFFDIO_UNREGISTER", where, 0, check)

    def wake(self, where: MappedPages, *, check: bool = True) -> IoctlResult:
        """UFFDIO_WAKE: wake the threads that wait in a range, for example after DONTWAKE."""
        return self._on_range("UFFDIO_WAKE", where, 0, check)

    def continue_(
        self, where: MappedPages, *, wp: bool = False, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_CONTINUE: map pages that are in the page cache.  This resolves minor faults.

        Parameters
        ----------
        wp : bool
            UFFDIO_CONTINUE_MODE_WP: map them write-protected (Linux 6.4 and 6.1-series).
        """
        return self._on_range("UFFDIO_CONTINUE", where, ioctls.mode_bits(ContinueMode, wp, dontwake) | mode, check)

    def copy(
        self,
        where: MappedPages,
        data: bytes = b"",
        *,
        wp: bool = False,
        dontwake: bool = False,
        mode: int = 0,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_COPY: map new pages with the content `data`.  This resolves missing faults.

        If `data` is shorter than the range, zeroes follow it.  `wp` maps the pages write-protected.
        """
        pages = mapped_pages(where, self._target)
        data = bytes(data)
        if len(data) > pages.length:
            raise UsageError(f"{len(data)} bytes do not fit into {pages} of {pages.length} bytes")
        values = {"dst": pages.start, "len": pages.length, "mode": ioctls.mode_bits(CopyMode, wp, dontwake) | mode}
        return self.ioctl("UFFDIO_COPY", values, source=data.ljust(pages.length, b"\0"), where=str(pages), check=check)

    def zeropage(self, where: MappedPages, *, dontwake: bool = False, mode: int = 0, check: bool = True) -> IoctlResult:
        """UFFDIO_ZEROPAGE: map pages of zeroes.  This resolves missing faults, except on hugetlb."""
        return self._on_range("UFFDIO_ZEROPAGE", where, int(dontwake) | mode, check)

    def move(
        self,
        to: MappedPages,
        from_: MappedPages,
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
            Ranges of the same length; `to` must be empty and registered for missing faults.  The end of `to` may
            overlap the start of `from_`.
        allow_src_holes : bool
            UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: skip absent pages; without it they fail with ENOENT.

        Raises
        ------
        UsageError
            `to` begins within `from_`.  The kernels that were tried (6.12, 6.18, 7.3) do not refuse this, but move
            pages twice.
        """
        target, source = mapped_pages(to, self._target), mapped_pages(from_, self._target)
        holes = int(MoveMode.ALLOW_SRC_HOLES) if allow_src_holes else 0
        values = ioctls.move_fields(target, source, ioctls.mode_bits(MoveMode, False, dontwake) | holes | mode)
        return self.ioctl("UFFDIO_MOVE", values, where=f"{source} to {target}", check=check)

    def writeprotect(
        self, where: MappedPages, *, wp: bool = True, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_WRITEPROTECT: protect pages against writes, or with ``wp=False`` allow writes again and wake."""
        bits = ioctls.mode_bits(WriteprotectMode, wp, dontwake) | mode
        return self._on_range("UFFDIO_WRITEPROTECT", where, bits, check)

    def poison(self, where: MappedPages, *, dontwake: bool = False, mode: int = 0, check: bool = True) -> IoctlResult:
        """UFFDIO_POISON (Linux 6.6): let every access to these pages raise SIGBUS."""
        return self._on_range("UFFDIO_POISON", where, int(dontwake) | mode, check)

    def rwprotect(
        self, where: MappedPages, *, rwp: bool = True, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_RWPROTECT (Linux 7.3): protect pages against all access, or with ``rwp=False`` allow it and wake."""
        bits = (int(RwprotectMode.RWP) if rwp else 0) | (int(RwprotectMode.DONTWAKE) if dontwake else 0) | mode
        return self._on_range("UFFDIO_RWPROTECT", where, bits, check)

    def set_mode(self, enable: Feature = _NOTHING, disable: Feature = _NOTHING, *, check: bool = True) -> IoctlResult:
        """UFFDIO_SET_MODE (Linux 7.3): enable and disable features after the start, such as RWP_ASYNC."""
        return self.ioctl("UFFDIO_SET_MODE", {"enable": int(enable), "disable": int(disable)}, check=check)

    def resume(self, result: IoctlResult, *, deadline: float = 5.0, check: bool = True) -> IoctlResult:
        """Continue an ioctl that returned EAGAIN, from where it stopped, until it is complete or fails.

        Parameters
        ----------
        result : IoctlResult
            The result of a call with ``check=False``.
        deadline : float
            The time limit in seconds.  After it, a result with EAGAIN is returned.

        Returns
        -------
        IoctlResult
            The last result.  Its ``done`` is the number of bytes of all calls.
        """
        until = time.monotonic() + deadline
        done = result.done
        while result.errno == errno.EAGAIN and time.monotonic() < until:
            source = None if result.source is None else result.source[result.done :]
            result = self.ioctl(result.name, ioctls.remaining_fields(result), source=source, check=False)
            done += result.done
        if check and not result.ok:
            raise self._errors.of_ioctl(uapi.IOCTLS[result.name], result)
        return replace(result, done=done)

    def batch(
        self, name: str, where: MappedPages, *, mode: int = 0, data: bytes | None = None, check: bool = True
    ) -> BatchResult:
        """Make one ioctl for each page, in one call of native code in the guest.  It ends at the first that fails.

        Parameters
        ----------
        name : str
            UFFDIO_CONTINUE, COPY, ZEROPAGE, POISON, WRITEPROTECT or WAKE.
        mode : int
            The mode field of each ioctl.
        data : bytes, optional
            The content that UFFDIO_COPY gives each page.
        """
        ioctl, pages = self._checked_ioctl(name), mapped_pages(where, self._target)
        request = ioctls.batch_request(ioctl, self.number, pages, mode, data)
        answer = self._target.ask(request, deadline=60.0 + pages.count / 5000)
        call = ioctls.call_text(ioctl, request.values, f"each of {pages}")
        result = BatchResult(call, answer.errno, answer.ended_ns - answer.started_ns, answer.done)
        text = f"{call} → {errno_name(result.errno)}, {result.pages} pages"
        self._target.timeline.add("ioctl", text, answer.started_ns, answer.ended_ns, result)
        if check and not result.ok:
            raise self._errors.of_batch(ioctl, result, request)
        return result

    def ioctl(
        self, name: str, values: dict[str, int], *, source: bytes | None = None, where: str = "", check: bool = True
    ) -> IoctlResult:
        """Make any ioctl with any fields, valid or not.

        Parameters
        ----------
        name : str
            A key of :data:`uffdlab.uapi.IOCTLS`.
        values : dict
            The fields of its argument by name; the others are 0.
        source : bytes, optional
            Bytes that the target stores in memory of its own; their address becomes the field ``src``.
        where : str
            A description of the range, for messages.
        """
        ioctl = self._checked_ioctl(name, values)
        answer = self._target.ask(CallIoctl(self.number, name, values, source))
        result = ioctls.ioctl_result(ioctl, values, answer, where, source)
        text = f"{result.call} → {errno_name(result.errno)}"
        if result.ok and name in _REGISTRATIONS:
            mode = RegisterMode(values.get("mode", 0) if name == "UFFDIO_REGISTER" else 0)
            self._errors.registered.append((values.get("start", 0), values.get("len", 0), mode))
        self._target.timeline.add("ioctl", text, answer.started_ns, answer.ended_ns, result)
        if check and not result.ok:
            raise self._errors.of_ioctl(ioctl, result)
        return result

    def start(self, name: str, values: dict[str, int]) -> PendingIoctl:
        """Start an ioctl on its own thread in the target.  It may wait, as UFFDIO_COPY does if its source faults.

        The parameters are those of :meth:`ioctl`; the field ``src`` is an address in the target.
        """
        ioctl = self._checked_ioctl(name, values)
        address = values.get("dst", values.get("start", 0))
        more: SystemCall = {"call": "ioctl", "uffd": self.number, "name": name, "fields": values}
        touch = self._target.touch(
            "syscall", address, ioctls.call_text(ioctl, values, ""), length=values.get("len", 0), more=more
        )
        return PendingIoctl(touch, ioctl, dict(values))

    def _on_range(self, name: str, where: MappedPages, mode: int, check: bool) -> IoctlResult:
        pages = mapped_pages(where, self._target)
        return self.ioctl(name, ioctls.range_fields(uapi.IOCTLS[name], pages, mode), where=str(pages), check=check)

    def _checked_ioctl(self, name: str, values: dict[str, int] | None = None) -> uapi.Ioctl:
        self._must_be_open()
        return ioctls.known_ioctl(name, values)

    def _must_be_open(self) -> None:
        if self.number == 0:
            raise self._end_error.with_traceback(None)

    # --- messages

    def read_fault(self, timeout: float = 5.0) -> Fault:
        """Return the next page fault; wait for it at most `timeout` seconds, then raise NoMessage.

        Messages of other kinds are kept for :meth:`read_message`.
        """
        return self.wait_for(Fault, timeout)

    def read_message(self, timeout: float = 5.0) -> Fault | Message:
        """Return the next message of any kind; wait for it at most `timeout` seconds, then raise NoMessage."""
        return self._messages.get(object, timeout, "message")

    def wait_for(self, kind: type[_Kind], timeout: float = 5.0) -> _Kind:
        """Return the next message of one kind; wait for it at most `timeout` seconds, then raise NoMessage.

        The kinds are ``Fault``, ``Fork``, ``Remap``, ``Remove`` and ``Unmap``.  Messages of other kinds are kept.
        """
        if not isinstance(kind, type):
            raise UsageError(f"{kind!r} is no kind of message; there are Fault, Fork, Remap, Remove and Unmap")
        message = self._messages.get(kind, timeout, "page fault" if kind is Fault else kind.__name__)
        assert isinstance(message, kind)
        return message

    def messages(self, timeout: float = 1.0) -> Iterator[Fault | Message]:
        """Yield the messages, until none has come for `timeout` seconds."""
        return self._messages.each(timeout)

    def subscribe(self, callback: Callable[[Fault | Message], object]) -> Callable[[], None]:
        """Call `callback` with each message when it arrives, on its own thread; return a function that ends it."""
        return self._messages.subscribe(callback)

    def intercept(self, interceptor: Callable[[Fault | Message], bool]) -> Callable[[], None]:
        """Call `interceptor` with every message before anybody else.  If it returns True, nobody else gets the message.

        It runs on the reader thread, so it must not wait and must not call the lab.  It is called at once with the
        messages that nobody has read yet.  Return a function that removes it.
        """
        return self._messages.intercept(interceptor)

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Leave the messages in the kernel during a ``with`` block; they arrive when it ends.

        While an event waits there, the call that caused it does not return, and UFFDIO_COPY and the other fills fail
        with EAGAIN (fs/userfaultfd.c, mmap_changing).  So start that call on its own thread.
        """
        self._must_be_open()
        self._target.ask(LeaveUnread(self.number, True))
        try:
            yield
        finally:
            if self.number:
                with suppress(TargetLost):  # the exception raised in the block says why
                    self._target.ask(LeaveUnread(self.number, False))

    # --- handlers

    def handle(self, resolve: Callable[[Fault], object]) -> PythonHandler:
        """Call `resolve` with each page fault until the handler is stopped; see :class:`PythonHandler`."""
        self._must_be_open()
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
        """Start a loop in C in the guest that resolves page faults until it is stopped.

        Parameters
        ----------
        missing : str
            ``copy``, ``copy_wp``, ``zeropage`` or ``poison``.
        minor : str
            ``continue``, ``continue_wp`` or ``poison``.
        wp, rwp : str
            ``unprotect``.  The default for each kind is ``forward``: these faults are messages as usual.
        page_size : int, optional
            The page size in bytes.  The default is that of the registered regions.
        content : bytes
            The content for ``copy`` and ``copy_wp``; zeroes follow it.
        """
        self._must_be_open()
        sizes = {self._target.page_size_at(start) for start, _, mode in self._errors.registered if mode}
        size = page_size or one_page_size(sizes)
        policies = {"missing": missing, "minor": minor, "wp": wp, "rwp": rwp}
        return NativeHandler(self._target.connection, self.number, policies, size, content)

    def _registered_at(self, address: int) -> RegisterMode | None:
        # Return what the memory at `address` is registered for with this userfaultfd, or None.
        return None if self._of_another_process else self._errors.registered_at(address)

    def _deliver(self, data: bytes, time_ns: int, adopted: int = 0) -> None:
        # Add one struct uffd_msg to the messages; `adopted` is the number of a child's userfaultfd, or 0.
        message = decode_message(data, time_ns, self._target)
        if adopted and isinstance(message, Message) and message.event == uapi.Event.FORK:
            message = Fork(message.event, message.arg, time_ns, self._userfaultfd_of_child(adopted))
        if isinstance(message, Remap):
            self._errors.moved(message.start, message.to, message.length)
        if isinstance(message, Fault):
            self._target.registry.fault_arrived(message.address, time_ns)
        self._target.timeline.add("message", repr(message), time_ns, None, message)
        self._messages.put(message)

    def _end_messages(self, why: UffdlabError) -> None:
        # End every wait for a message with `why`, because no message will come.  The registry calls this.
        self._messages.end(why)

    def _unmapped(self, start: int, length: int) -> None:
        # Note that a range was unmapped, and with it unregistered.  Its region calls this.
        self._errors.registered.append((start, length, RegisterMode(0)))

    def _lose(self, why: str | LabClosed) -> None:
        # Mark it as lost: from now on every call raises TargetLost.  The registry calls this.
        gone = f"this userfaultfd does not exist any more: {why}; lab.userfaultfd() opens a new one"
        self._end(why if isinstance(why, LabClosed) else TargetLost(gone))

    def close(self) -> None:
        """Close it.  A touch that waits for it goes on, and may read zeroes; resolve its fault first."""
        if self.number:
            number = self.number
            self._end(LabClosed(_CLOSED))
            self._target.registry.drop_userfaultfd(number)
            with suppress(TargetLost, LabClosed):  # it was closed with its process
                self._target.ask(CloseUserfaultfd(number))

    def _end(self, why: LabClosed | TargetLost) -> None:
        self.number, self._end_error = 0, why
        self._messages.end(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"number {self.number}" if self.number else "closed"
        return f"<Userfaultfd {state}, by {self.way}, {uapi.flag_names(self.features, Feature)}>"

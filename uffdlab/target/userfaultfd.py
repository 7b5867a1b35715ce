"""Userfaultfd: one method an ioctl, and the messages it gives."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from uffdlab import uapi
from uffdlab.errors import IoctlError, LabClosed, TargetLost, UffdlabError, UsageError
from uffdlab.target.fault_handlers import NativeHandler, PythonHandler
from uffdlab.target.ioctl_results import IoctlResult
from uffdlab.target.ioctls import IoctlCalls
from uffdlab.target.message_queue import Inbox
from uffdlab.uapi import Feature, RegisterMode
from uffdlab.uapi.layout import decode
from uffdlab.uapi.messages import Fault, Message, Remap, Remove, Unmap

if TYPE_CHECKING:
    from uffdlab.lab import Lab

__all__ = ["DEFAULT_FEATURES", "IoctlResult", "Userfaultfd"]

_CLOSED = "this userfaultfd is closed; lab.userfaultfd() opens a new one"
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


@dataclass(frozen=True, repr=False)
class Fork(Message):
    """UFFD_EVENT_FORK: the target has forked.

    Attributes
    ----------
    userfaultfd : Userfaultfd
        The child's own: registered as this one was, for the child's page tables.
    """

    userfaultfd: Userfaultfd

    def __repr__(self) -> str:
        return f"Fork({self.userfaultfd!r})"


class Userfaultfd(IoctlCalls):
    """An open userfaultfd of the target.

    Attributes
    ----------
    features : Feature
        What is turned on.
    offered : Feature
        What this kernel offers.
    way : str
        How it was opened: the system call, /dev/userfaultfd, or in user mode only.
    """

    def __init__(self, lab: Lab, features: Feature | None) -> None:
        self._lab = lab
        self._inbox = Inbox()
        self._ended: LabClosed | TargetLost = LabClosed(_CLOSED)
        self._registered: list[tuple[int, int, RegisterMode]] = []
        wanted, required = (DEFAULT_FEATURES, Feature(0)) if features is None else (Feature(0), features)
        answer = lab.target_call("uffd_open", int(wanted), int(required))
        self.offered = Feature(answer["offered"])
        self.way: str = answer["way"]
        if answer["errno"]:
            call = f"UFFDIO_API({uapi.flag_names(answer['asked'], Feature)})"
            raise IoctlError(call, answer["errno"], _why_refused(answer["errno"], required, self.offered))
        self._number: int = answer["number"]
        self.features = Feature(answer["asked"])

    @classmethod
    def _of_child(cls, parent: Userfaultfd, number: int) -> Self:
        # What a FORK event has brought: registered for the child's memory as its parent is for the target's.
        self = cls.__new__(cls)
        self._lab = parent._lab
        self._inbox = Inbox()
        self._ended = LabClosed(_CLOSED)
        self._registered = list(parent._registered)
        self.offered, self.features = parent.offered, parent.features
        self.way = "a FORK event"
        self._number = number
        self._lab.adopt_userfaultfd(self)
        return self

    @property
    def number(self) -> int:
        """Its number in this lab."""
        return self._number

    # --- the messages

    def read_fault(self, timeout: float = 5.0) -> Fault:
        """Give the next page fault that has not been read yet, waiting for it at most `timeout` seconds.

        Messages of other kinds are kept for :meth:`read_message`.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        return self.wait_for(Fault, timeout)

    def read_message(self, timeout: float = 5.0) -> Fault | Message:
        """Give the next message of any kind, waiting for it at most `timeout` seconds.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        return self._inbox.get(object, timeout, "message")

    def wait_for(self, kind: type[_Kind], timeout: float = 5.0) -> _Kind:
        """Give the next message of one kind (``Fault``, ``Fork``, ``Remap``, ``Remove``, ``Unmap``); the others stay.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        message = self._inbox.get(kind, timeout, "page fault" if kind is Fault else kind.__name__)
        assert isinstance(message, kind)
        return message

    def messages(self, timeout: float = 1.0) -> Iterator[Fault | Message]:
        """Give message after message, until none has come for `timeout` seconds."""
        return self._inbox.each(timeout)

    def subscribe(self, callback: Callable[[Fault | Message], object]) -> Callable[[], None]:
        """Call `callback` with each message as it comes, on a thread of its own; returns what ends that."""
        return self._inbox.subscribe(callback)

    def intercept(self, taker: Callable[[Fault | Message], bool]) -> Callable[[], None]:
        """Show every message to `taker` before anybody else; those it returns True for are its own.

        It is called on the thread that brings the messages and must not wait: no call of the lab.  Messages that
        nobody has read yet are shown to it at once.  Returns what ends that.
        """
        return self._inbox.take_with(taker)

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Leave the messages in the kernel for the time of a with block; they come when it ends.

        While an event waits there, the call that has caused it does not come back, and UFFDIO_COPY and its like fail
        with EAGAIN (fs/userfaultfd.c, mmap_changing).  So start that call on a thread of its own.
        """
        self._must_be_open()
        self._lab.target_call("uffd_unread", self._number, True)
        try:
            yield
        finally:
            if self._number:
                with suppress(TargetLost):  # what was raised in the block says why
                    self._lab.target_call("uffd_unread", self._number, False)

    # --- the handlers

    def handle(self, resolve: Callable[[Fault], object]) -> PythonHandler:
        """Call `resolve` with each page fault, one after the other, until it is stopped; see PythonHandler."""
        self._must_be_open()
        return PythonHandler(self._inbox, resolve)

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
        self._must_be_open()
        size = page_size or self._page_size()
        policies = {"missing": missing, "minor": minor, "wp": wp, "rwp": rwp}
        return NativeHandler(self._lab, self._number, policies, size, content)

    def _page_size(self) -> int:
        sizes = {self._lab.page_size_at(start) for start, _, mode in self._registered if mode}
        if len(sizes) != 1:
            raise UsageError(
                "say page_size=…: a native handler serves pages of one size, and this userfaultfd has registered "
                + (f"pages of {' and '.join(map(str, sorted(sizes)))} bytes" if sizes else "nothing yet")
            )
        return sizes.pop()

    def deliver(self, data: bytes, time_ns: int, adopted: int = 0) -> None:
        """Take one struct uffd_msg from the target; the lab calls this.  `adopted` is the number of a child's own."""
        message = self._message(*decode(data), time_ns, adopted)
        self._lab.timeline.add("message", repr(message), time_ns, None, message)
        self._inbox.put(message)

    def _message(self, event: int, words: tuple[int, ...], time_ns: int, adopted: int) -> Fault | Message:
        if event == uapi.Event.PAGEFAULT:
            flags, address, thread = words
            region, page = self._lab.locate(address)
            return Fault(page, region, address, uapi.FaultFlag(flags), thread, time_ns)
        if event == uapi.Event.FORK and adopted:
            return Fork(event, words, time_ns, self._of_child(self, adopted))
        if event == uapi.Event.REMAP:
            return Remap(event, words, time_ns, *words)
        if event in (uapi.Event.REMOVE, uapi.Event.UNMAP):
            start, end = words
            region, page = self._lab.locate(start)
            count = (end - start) // self._lab.page_size_at(start)
            kind = Remove if event == uapi.Event.REMOVE else Unmap
            return kind(event, words, time_ns, start, end, region, page or 0, count)
        return Message(event, words, time_ns)

    def end_messages(self, why: UffdlabError) -> None:
        """Give `why` to whoever waits for a message: none will come.  The lab calls this."""
        self._inbox.end(why)

    def lose(self, why: str | LabClosed) -> None:
        """Take it that the target it was in is gone; the lab calls this.  Every call says so from then on."""
        gone = f"this userfaultfd is gone: {why}; lab.userfaultfd() opens a new one"
        self._end(why if isinstance(why, LabClosed) else TargetLost(gone))

    def close(self) -> None:
        """Close it.  A touch that waits on it goes on, and may read a zero page: resolve faults first."""
        if self._number:
            number = self._number
            self._end(LabClosed(_CLOSED))
            self._lab.forget_userfaultfd(number)
            with suppress(TargetLost, LabClosed):  # it has gone with its process then
                self._lab.target_call("uffd_close", number)

    def _end(self, why: LabClosed | TargetLost) -> None:
        self._number, self._ended = 0, why
        self._inbox.end(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"number {self._number}" if self._number else "closed"
        return f"<Userfaultfd {state}, by {self.way}, {uapi.flag_names(self.features, Feature)}>"


def _why_refused(error: int, required: Feature, offered: Feature) -> str:
    lacking = int(required) & ~int(offered)  # as numbers: a Flag's ~ forgets bits without a name
    if lacking:
        return f"this kernel lacks {uapi.flag_names(lacking, Feature)}"
    if error == errno.EPERM and required & Feature.EVENT_FORK:
        return "EVENT_FORK needs CAP_SYS_PTRACE, as root has it; leave it out"
    return "see userfaultfd(2)"

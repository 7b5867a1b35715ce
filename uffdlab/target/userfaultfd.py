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
from uffdlab.target.ioctls import CLOSED, IoctlCalls
from uffdlab.target.message_queue import MessageQueue
from uffdlab.uapi import Feature, RegisterMode
from uffdlab.uapi.layout import decode
from uffdlab.uapi.messages import Fault, Message, Remap, Remove, Unmap
from uffdlab.uapi.protocol import CloseUserfaultfd, LeaveUnread, OpenUserfaultfd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.target.process import TargetProcess

__all__ = ["DEFAULT_FEATURES", "IoctlResult", "Userfaultfd"]

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
        super().__init__(target, number, features, offered, registered)
        self.way = way
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
            registered=self._registered,
        )

    @property
    def number(self) -> int:
        """Its number in this lab."""
        return self._number

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
        self._must_be_open()
        self._target.ask(LeaveUnread(self._number, True))
        try:
            yield
        finally:
            if self._number:
                with suppress(TargetLost):  # what was raised in the block says why
                    self._target.ask(LeaveUnread(self._number, False))

    # --- the handlers

    def handle(self, resolve: Callable[[Fault], object]) -> PythonHandler:
        """Call `resolve` with each page fault, one after the other, until it is stopped; see PythonHandler."""
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
        return NativeHandler(self._target.connection, self._number, policies, size, content)

    def _page_size(self) -> int:
        sizes = {self._target.page_size_at(start) for start, _, mode in self._registered if mode}
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

    def _message(self, event: int, words: tuple[int, ...], time_ns: int, adopted: int) -> Fault | Message:
        if event == uapi.Event.PAGEFAULT:
            flags, address, thread = words
            region, page = self._target.locate(address)
            return Fault(page, region, address, uapi.FaultFlag(flags), thread, time_ns)
        if event == uapi.Event.FORK and adopted:
            return Fork(event, words, time_ns, self._of_child(adopted))
        if event == uapi.Event.REMAP:
            return Remap(event, words, time_ns, *words)
        if event in (uapi.Event.REMOVE, uapi.Event.UNMAP):
            start, end = words
            region, page = self._target.locate(start)
            count = (end - start) // self._target.page_size_at(start)
            kind = Remove if event == uapi.Event.REMOVE else Unmap
            return kind(event, words, time_ns, start, end, region, page or 0, count)
        return Message(event, words, time_ns)

    def end_messages(self, why: UffdlabError) -> None:
        """End every wait for a message with `why`: none will come.  The registry calls this."""
        self._messages.end(why)

    def lose(self, why: str | LabClosed) -> None:
        """Mark it as lost with its target: every call raises that from then on.  The registry calls this."""
        gone = f"this userfaultfd is gone: {why}; lab.userfaultfd() opens a new one"
        self._end(why if isinstance(why, LabClosed) else TargetLost(gone))

    def close(self) -> None:
        """Close it.  A touch that waits on it goes on, and may read a zero page: resolve faults first."""
        if self._number:
            number = self._number
            self._end(LabClosed(CLOSED))
            self._target.registry.drop_userfaultfd(number)
            with suppress(TargetLost, LabClosed):  # it has gone with its process then
                self._target.ask(CloseUserfaultfd(number))

    def _end(self, why: LabClosed | TargetLost) -> None:
        self._number, self._ended = 0, why
        self._messages.end(why)

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

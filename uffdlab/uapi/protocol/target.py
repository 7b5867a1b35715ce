"""The methods of the target: its memory, its userfaultfds, touches and children."""

from __future__ import annotations

import builtins
from typing import Annotated, Literal, Required, TypedDict

from msgspec import Meta, field

from uffdlab.uapi.layout import LAYOUTS
from uffdlab.uapi.memory import MEMORY, PAGE
from uffdlab.uapi.protocol.base import (
    INT64_MAX,
    USER_END,
    Answer,
    Count,
    Errno,
    Number,
    Pid,
    Place,
    TargetMethod,
    Text,
    Timed,
    Uint64,
    check_length,
    method,
)


class MappedMemory(Answer, frozen=True):
    """A new mapping: its number, its address, and the address of its alias, 0 if it has none."""

    number: Number
    start: Place
    alias: Annotated[int, Meta(ge=0, lt=USER_END, multiple_of=PAGE)]


@method("target.map")
class MapMemory(TargetMethod[MappedMemory], frozen=True):
    """Map `pages` pages of a kind of memory (a key of :data:`uffdlab.uapi.memory.MEMORY`), and its alias."""

    memory: str
    pages: int
    page_size: int

    def check(self, answer: MappedMemory) -> None:
        """See :meth:`Method.check`: whole pages in user space, and an alias exactly if this memory has one."""
        for name, start in (("start", answer.start), ("alias", answer.alias)):
            if start % self.page_size or start + self.pages * self.page_size > USER_END:
                raise ValueError(f"`{name}` is {start:#x}, where {self.pages} × {self.page_size} bytes cannot be")
        if bool(answer.alias) != MEMORY[self.memory].has_alias:
            raise ValueError(f"`alias` is {answer.alias:#x} for {self.memory} memory")


@method("target.unmap")
class UnmapMemory(TargetMethod[None], frozen=True):
    """Unmap a mapping and its alias."""

    number: int


@method("target.free_place")
class FindFreePlace(TargetMethod[Place], frozen=True):
    """Return an address where nothing is mapped for `length` bytes."""

    length: int


@method("target.moved")
class NoteMoved(TargetMethod[None], frozen=True):
    """Record that mremap(2) has moved a mapping to `start`."""

    number: int
    start: int


class RegisterTry(Answer, frozen=True):
    """The result of UFFDIO_REGISTER: its errno, and the bits of the ioctls that it offers."""

    errno: Errno
    ioctls: Uint64


class MemoryTry(Answer, frozen=True):
    """The errno of mapping one kind of memory, and the result of registering it with each RegisterMode."""

    errno: Errno
    register: dict[int, RegisterTry]


class KernelProbe(Answer, frozen=True):
    """What a kernel can do with a userfaultfd, found by probing.

    ``features``: the features that UFFDIO_API offers.  ``ioctls``: the bits of the ioctls that UFFDIO_API and
    UFFDIO_REGISTER offer.  ``ways``: the errno of each way to open a userfaultfd.  ``modes``: the errno of each ioctl
    in each mode.  ``memory``: the result for each kind of memory.  ``continue_wp``: whether UFFDIO_CONTINUE knows
    MODE_WP, None where it cannot be probed.
    """

    features: Uint64
    ioctls: Uint64
    ways: dict[Text, Errno]
    modes: dict[Text, dict[Uint64, Errno]]
    memory: dict[Text, MemoryTry]
    continue_wp: bool | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := self.modes.keys() - LAYOUTS.keys() | self.memory.keys() - MEMORY.keys():
            raise ValueError(f"`{min(unknown)[:40]}` is neither an ioctl nor a kind of memory")


@method("target.probe")
class ProbeKernel(TargetMethod[KernelProbe], frozen=True):
    """Probe what this kernel can do, on scratch memory."""

    def check(self, answer: KernelProbe) -> None:
        """See :meth:`Method.check`: every mode of UFFDIO_REGISTER was tried where the memory could be mapped."""
        from uffdlab.uapi.ioctls import RegisterMode  # noqa: PLC0415 - enum is loaded only when needed

        for name, tried in answer.memory.items():
            if not tried.errno and tried.register.keys() != {int(mode) for mode in RegisterMode}:
                raise ValueError(f"`memory.{name}.register` does not have every mode")


# --- the target: userfaultfds


class IoctlAnswer(Timed, frozen=True):
    """The result of an ioctl: its errno, 0 for none, and the fields of its argument after the call."""

    errno: Errno
    fields: dict[str, int]

    def check_fields(self, ioctl: str) -> None:
        """Raise ValueError if ``fields`` does not have the fields of this ioctl."""
        check_fields(ioctl, self.fields)


def check_fields(ioctl: str, fields: dict[str, int]) -> None:
    """Raise ValueError if `fields` does not have the fields of the argument of `ioctl`."""
    if fields.keys() != set(LAYOUTS[ioctl].fields):
        raise ValueError(f"the fields in `fields` are not {', '.join(LAYOUTS[ioctl].fields)}")
    if not all(-(1 << 63) <= value < 1 << 64 for value in fields.values()):
        raise ValueError("`fields` has a number of more than 64 bits")


class OpenedUserfaultfd(IoctlAnswer, frozen=True):
    """A new userfaultfd and the result of its UFFDIO_API.

    ``number``: 0 if UFFDIO_API failed.  ``way``: how it was opened.  ``offered``: the features of this kernel.
    ``asked``: the features that were requested.
    """

    number: Count
    way: Text
    offered: Uint64
    asked: Uint64

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.number) == bool(self.errno):
            raise ValueError(f"`number` is {self.number} with errno {self.errno}")


@method("target.uffd_open")
class OpenUserfaultfd(TargetMethod[OpenedUserfaultfd], frozen=True):
    """Open a userfaultfd with the `wanted` features that the kernel has, and with all `required` ones."""

    wanted: int
    required: int

    def check(self, answer: OpenedUserfaultfd) -> None:
        """See :meth:`Method.check`: the fields of UFFDIO_API."""
        answer.check_fields("UFFDIO_API")


@method("target.uffd_close")
class CloseUserfaultfd(TargetMethod[None], frozen=True):
    """Close a userfaultfd."""

    number: int


@method("target.uffd_unread")
class LeaveUnread(TargetMethod[None], frozen=True):
    """Stop reading the messages of a userfaultfd, or read them again."""

    number: int
    unread: bool


@method("target.ioctl")
class CallIoctl(TargetMethod[IoctlAnswer], frozen=True):
    """Make one ioctl, by name; UFFDIO_COPY copies `source`, or from the address in field ``src`` if that is None."""

    number: int
    name: str
    values: dict[str, int]
    source: bytes | None

    def check(self, answer: IoctlAnswer) -> None:
        """See :meth:`Method.check`: the fields of this ioctl."""
        answer.check_fields(self.name)


class BatchAnswer(Timed, frozen=True):
    """The number of ioctls that succeeded, and the errno of the one that failed, 0 for none."""

    errno: Errno
    done: Count


@method("target.batch")
class RunBatch(TargetMethod[BatchAnswer], frozen=True):
    """Make one ioctl for each page of `step` bytes, `count` times or until one fails; `values`: fields of the first."""

    number: int
    name: str
    values: dict[str, int]
    step: int
    count: int
    source: bytes | None

    def check(self, answer: BatchAnswer) -> None:
        """See :meth:`Method.check`: no more than were requested."""
        if answer.done > self.count:
            raise ValueError(f"`done` is {answer.done} of {self.count}")


@method("target.sync")
class SyncFeed(TargetMethod[None], frozen=True):
    """Return when the agent has sent every message and every end of a touch up to now."""


@method("target.handle")
class StartHandler(TargetMethod[None], frozen=True):
    """Start a native handler for a userfaultfd: `policies` by kind of fault; copy fills a page with `content`."""

    number: int
    policies: dict[str, str]
    page_size: int
    content: bytes


class FaultKinds(Answer, frozen=True):
    """A count for each kind of fault."""

    missing: Count
    minor: Count
    wp: Count
    rwp: Count


class FaultCounts(Answer, frozen=True):
    """The counts of a native handler; ``latency[i]`` faults took at most 2^i ns from read to resolved."""

    served: FaultKinds
    forwarded: Count
    failed: Count
    last_errno: Errno
    running: bool
    latency: Annotated[tuple[Count, ...], Meta(max_length=64)]


@method("target.handler_counts")
class CountFaults(TargetMethod[FaultCounts], frozen=True):
    """Return the counts of the native handler of a userfaultfd."""

    number: int


@method("target.handler_stop")
class StopHandler(TargetMethod[FaultCounts], frozen=True):
    """End the native handler of a userfaultfd."""

    number: int


# --- the target: touches and children


class Sweep(TypedDict):
    """The steps of a sweep: ``each`` is read, write or modify; the ``first`` page and the ``jump`` to the next."""

    each: str
    first: int
    jump: int


class SystemCall(TypedDict, total=False):
    """A system call; ``call`` determines which other fields it takes: see :func:`uffdlab.agent.syscalls.prepare`."""

    call: Required[str]
    arguments: list[int]
    address: int
    into: int
    uffd: int
    name: str
    fields: dict[str, int]


class TouchStart(Answer, frozen=True):
    """A touch that has started: whether it sleeps in the kernel now, and the id of its thread."""

    waiting: bool
    thread: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]


class TouchResult(Timed, frozen=True):
    """How a touch ended.

    ``value``: the 64-bit value that it read.  ``signal``, ``signal_code``, ``signal_address``: the signal that ended
    it.  ``returned``: the return value of its system call.  ``progress``: the number of accesses that it made.
    ``fields``: the fields of its ioctl after the call.  ``bytes``: the bytes that a copy_out has copied.  ``why``: how
    the child ended that should have made it.
    """

    state: Literal["done", "signal", "withdrawn", "lost"]
    value: Uint64
    thread: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    signal: Annotated[int, Meta(ge=0, le=64)]
    signal_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
    signal_address: Uint64
    returned: Annotated[int, Meta(ge=-4095, le=INT64_MAX)]  # -errno where it is negative
    progress: Count
    fields: dict[str, int] = field(default_factory=dict)
    bytes: builtins.bytes = b""
    why: Text = ""


@method("target.touch")
class StartTouch(TargetMethod[TouchStart], frozen=True):
    """Start an access on its own thread, or in a child; its end arrives as :class:`TouchEnded`.

    `number` identifies it.  `kind`: read, write, modify, fill, sweep, copy_out or syscall.  `address`, `length`,
    `stride` are in bytes.  `child`: the process id of the forked child that makes it, 0 for the target.
    """

    number: int
    kind: str
    address: int
    length: int
    stride: int
    value: int
    more: Sweep | SystemCall | None = None
    child: int = 0

    def check_end(self, result: TouchResult) -> None:
        """Raise ValueError if `result` cannot be the end of this touch."""
        if result.state == "done":
            check_length("bytes", result.bytes, self.length if self.kind == "copy_out" else 0)
        ioctl = dict(self.more or {}).get("name")
        if isinstance(ioctl, str):
            check_fields(ioctl, result.fields)


@method("target.touch_waits")
class TouchWaits(TargetMethod[bool], frozen=True):
    """Return whether a touch sleeps in the kernel now."""

    number: int


@method("target.touch_progress")
class CountAccesses(TargetMethod[Count], frozen=True):
    """Return the number of accesses that a sweep or fill has made; 0 if it has ended."""

    number: int


@method("target.withdraw")
class WithdrawTouch(TargetMethod[None], frozen=True):
    """Ask a waiting touch to return without making its access."""

    number: int


class ForkedChild(Timed, frozen=True):
    """A child of the target; the times are those of fork(2)."""

    pid: Pid


@method("target.fork")
class ForkTarget(TargetMethod[ForkedChild], frozen=True):
    """Fork the target."""


@method("target.end_child")
class EndChild(TargetMethod[None], frozen=True):
    """Kill a child and wait until it has ended."""

    pid: int

"""The wire between host and guest: every method with its parameters and its answer, every notification, every error.

A method is a class, and a request is a value of it: ``ask(ReadPagemap(start, pages, 4096))`` returns a
:class:`PagemapEntries`.  The fields of the class are the parameters, in their order on the wire.  Its type parameter is
the type of the answer.  The annotations give types and ranges; :meth:`Method.check` checks what depends on the request.
:mod:`uffdlab.machines.rpc.decoding` validates everything from a guest against this description.

Requests go as ``[0, id, method, parameters]``, answers as ``[1, id, error, answer]``, notifications as
``[2, method, parameters]`` (MessagePack-RPC).  The agent does not import this module, which would delay every boot: a
test compares its functions with it.
"""

from __future__ import annotations

import builtins
from typing import Annotated, Any, ClassVar, Generic, Literal, Required, TypeAlias, TypedDict, TypeVar, get_args

from msgspec import Meta, Struct

from uffdlab.uapi.layout import LAYOUTS, MESSAGE_SIZE
from uffdlab.uapi.memory import MEMORY, PAGE

_Answer = TypeVar("_Answer")
_Method = TypeVar("_Method", bound="type[Method[Any]]")
_Notice = TypeVar("_Notice", bound="type[Notification]")

VERSION = 1

_MOST = (1 << 63) - 1
_USER = 1 << 57  # addresses of a process: 56 bits on x86-64 with five levels of page tables, 52 on arm64

Uint64: TypeAlias = Annotated[int, Meta(ge=0)]  # of 64 bits, see Answer
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=_MOST)]
Nanoseconds: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
Errno: TypeAlias = Annotated[int, Meta(ge=0, le=4095)]  # MAX_ERRNO of linux/err.h
Pid: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Place: TypeAlias = Annotated[int, Meta(ge=PAGE, lt=_USER, multiple_of=PAGE)]  # where a mapping starts
Text: TypeAlias = Annotated[str, Meta(max_length=1 << 16)]


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """A map from the guest with exactly these fields."""

    def __post_init__(self) -> None:
        # MessagePack has no larger integers, and the bounds of msgspec end at 63 bits.
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                raise ValueError(f"`{name}` is not a 64-bit number")


class Timed(Answer, frozen=True):
    """When something started and ended: ``started_ns`` and ``ended_ns``, CLOCK_MONOTONIC of the guest in ns."""

    started_ns: Nanoseconds
    ended_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ended_ns < self.started_ns:
            raise ValueError("`ended_ns` lies before `started_ns`")


class Method(Struct, Generic[_Answer], frozen=True):
    """A request; its fields are the parameters, by position on the wire."""

    method: ClassVar[str]

    @classmethod
    def answer(cls) -> Any:
        """Return the type of the answer."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]

    def check(self, answer: _Answer) -> None:
        """Raise ValueError if `answer` is well-formed but cannot be the answer to this request."""


class AgentMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the agent."""


class TargetMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the target; on the way to the agent the deadline in seconds precedes its parameters."""


class Notification(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message that the agent sends without a request; its fields are the parameters, by position."""

    method: ClassVar[str]


METHODS: dict[str, type[Method[Any]]] = {}
NOTIFICATIONS: dict[str, type[Notification]] = {}


def _method(name: str) -> Any:
    def enter(entry: _Method) -> _Method:
        entry.method = name
        METHODS[name] = entry
        return entry

    return enter


def _notification(name: str) -> Any:
    def enter(entry: _Notice) -> _Notice:
        entry.method = name
        NOTIFICATIONS[name] = entry
        return entry

    return enter


def _long(name: str, data: bytes, due: int) -> None:
    if len(data) != due:
        raise ValueError(f"`{name}` has {len(data)} bytes, expected {due}")


# --- the agent: machine, target process, programs


@_method("agent.ping")
class Ping(AgentMethod[Any], frozen=True):
    """Return `value`."""

    value: Any = None


@_method("agent.clock")
class ReadClock(AgentMethod[Nanoseconds], frozen=True):
    """Return CLOCK_MONOTONIC, in ns."""


@_method("agent.load")
class LoadModules(AgentMethod[None], frozen=True):
    """Import every module that the agent may need later, before the machine's state is saved."""


@_method("agent.after_restore")
class AfterRestore(AgentMethod[None], frozen=True):
    """Set the clock (CLOCK_REALTIME, ns) and add entropy, after this machine was restored from a saved state."""

    entropy: bytes
    wall_ns: int


@_method("agent.memory_bytes")
class MeasureMemory(AgentMethod[Count], frozen=True):
    """Return how much memory and swap the machine has, in bytes."""


class Hugepages(Answer, frozen=True):
    """The huge pages of one size: how many are free or could be made, and how many exist."""

    free: Count
    total: Count


@_method("agent.reserve_hugepages")
class ReserveHugepages(AgentMethod[Hugepages], frozen=True):
    """Reserve huge pages until `free` of `page_size` bytes are free, as far as memory allows."""

    page_size: int
    free: int


@_method("agent.swap_on")
class TurnSwapOn(AgentMethod[Count], frozen=True):
    """Turn swap on, on every RAM disk; return its size in bytes."""


@_method("agent.sysrq")
class TriggerSysrq(AgentMethod[None], frozen=True):
    """Write a letter to /proc/sysrq-trigger; ``c`` panics."""

    how: str


class SpawnedTarget(Answer, frozen=True):
    """The process id of a new target."""

    pid: Pid


@_method("agent.spawn")
class SpawnTarget(AgentMethod[SpawnedTarget], frozen=True):
    """Start a new target and end the old one.

    `nonce`: random bytes that identify it, stored in its beacon page.  `base`: the address of its first region.
    """

    nonce: bytes
    base: int


@_method("agent.kill_target")
class KillTarget(AgentMethod[None], frozen=True):
    """End the target."""


@_method("agent.late")
class EndLateTarget(AgentMethod[None], frozen=True):
    """End the target with this nonce; it has not answered these methods on its direct connection by their deadline."""

    nonce: bytes
    methods: list[str]


@_method("agent.exists")
class FilesExist(AgentMethod[list[bool]], frozen=True):
    """Return for each path whether it exists."""

    paths: list[str]

    def check(self, answer: list[bool]) -> None:
        """See :meth:`Method.check`: one answer for each path."""
        if len(answer) != len(self.paths):
            raise ValueError(f"it has {len(answer)} answers, expected {len(self.paths)}")


@_method("agent.put")
class PutFile(AgentMethod[None], frozen=True):
    """Write a file, or append to it; create its folder if needed."""

    path: str
    data: bytes
    append: bool
    executable: bool


@_method("agent.exec_folder")
class MakeProgramFolder(AgentMethod[Annotated[str, Meta(min_length=1, max_length=4096)]], frozen=True):
    """Make a folder for a program and the files pushed with it; return its path."""


@_method("agent.exec_discard")
class DiscardProgramFolder(AgentMethod[None], frozen=True):
    """Remove a program's folder with its contents."""

    folder: str


class ProgramEnd(Answer, frozen=True):
    """How a program ended: its exit status as a shell reports it, and the signal that killed it, 0 for none."""

    status: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=127)]


@_method("agent.exec")
class RunProgram(AgentMethod[ProgramEnd], frozen=True):
    """Run a program and return when it has ended; its output arrives as :class:`ProgramOutput`.

    `key` identifies it.  `seconds`: the deadline, after which it is killed.  `most`: how many bytes it may write.
    `environment`: variables in addition to the agent's own.
    """

    key: int
    argv: list[str]
    folder: str
    seconds: float
    most: int
    environment: dict[str, str]


@_method("agent.exec_kill")
class KillProgram(AgentMethod[None], frozen=True):
    """Kill the program with this key if it is running."""

    key: int


# --- the target: memory


class MappedMemory(Answer, frozen=True):
    """A new mapping: its number, its address, and the address of its alias, 0 if it has none."""

    number: Number
    start: Place
    alias: Annotated[int, Meta(ge=0, lt=_USER, multiple_of=PAGE)]


@_method("target.map")
class MapMemory(TargetMethod[MappedMemory], frozen=True):
    """Map `pages` pages of a kind of memory (a key of :data:`uffdlab.uapi.memory.MEMORY`), and its alias."""

    memory: str
    pages: int
    page_size: int

    def check(self, answer: MappedMemory) -> None:
        """See :meth:`Method.check`: whole pages in user space, and an alias exactly if this memory has one."""
        for name, start in (("start", answer.start), ("alias", answer.alias)):
            if start % self.page_size or start + self.pages * self.page_size > _USER:
                raise ValueError(f"`{name}` is {start:#x}, where {self.pages} × {self.page_size} bytes cannot be")
        if bool(answer.alias) != MEMORY[self.memory].has_alias:
            raise ValueError(f"`alias` is {answer.alias:#x} for {self.memory} memory")


@_method("target.unmap")
class UnmapMemory(TargetMethod[None], frozen=True):
    """Unmap a mapping and its alias."""

    number: int


@_method("target.free_place")
class FindFreePlace(TargetMethod[Place], frozen=True):
    """Return an address where nothing is mapped for `length` bytes."""

    length: int


@_method("target.moved")
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
        if strange := self.modes.keys() - LAYOUTS.keys() | self.memory.keys() - MEMORY.keys():
            raise ValueError(f"`{min(strange)[:40]}` is neither an ioctl nor a kind of memory")


@_method("target.probe")
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
    """The result of an ioctl: its errno, 0 for none, and the fields of its argument as the kernel left them."""

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


@_method("target.uffd_open")
class OpenUserfaultfd(TargetMethod[OpenedUserfaultfd], frozen=True):
    """Open a userfaultfd with the `wanted` features that the kernel has, and with all `required` ones."""

    wanted: int
    required: int

    def check(self, answer: OpenedUserfaultfd) -> None:
        """See :meth:`Method.check`: the fields of UFFDIO_API."""
        answer.check_fields("UFFDIO_API")


@_method("target.uffd_close")
class CloseUserfaultfd(TargetMethod[None], frozen=True):
    """Close a userfaultfd."""

    number: int


@_method("target.uffd_unread")
class LeaveUnread(TargetMethod[None], frozen=True):
    """Stop reading the messages of a userfaultfd, or read them again."""

    number: int
    unread: bool


@_method("target.ioctl")
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
    """How many ioctls succeeded, and the errno of the one that failed, 0 for none."""

    errno: Errno
    done: Count


@_method("target.batch")
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


@_method("target.sync")
class SyncFeed(TargetMethod[None], frozen=True):
    """Return when the agent has sent every message and every end of a touch up to now."""


@_method("target.handle")
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
    """What a native handler has done; ``latency[i]`` faults took at most 2^i ns from reading to resolution."""

    served: FaultKinds
    forwarded: Count
    failed: Count
    last_errno: Errno
    running: bool
    latency: Annotated[tuple[Count, ...], Meta(max_length=64)]


@_method("target.handler_counts")
class CountFaults(TargetMethod[FaultCounts], frozen=True):
    """Return what the native handler of a userfaultfd has done so far."""

    number: int


@_method("target.handler_stop")
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
    it.  ``returned``: what its system call returned.  ``progress``: how many accesses it made.  ``fields``: the fields
    of its ioctl as the kernel left them.  ``bytes``: what a copy_out has copied.  ``why``: how the child ended that
    should have made it.
    """

    state: Literal["done", "signal", "withdrawn", "lost"]
    value: Uint64
    thread: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    signal: Annotated[int, Meta(ge=0, le=64)]
    signal_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
    signal_address: Uint64
    returned: Annotated[int, Meta(ge=-4095, le=_MOST)]  # -errno where it is negative
    progress: Count
    fields: dict[str, int] = {}
    bytes: builtins.bytes = b""
    why: Text = ""


@_method("target.touch")
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
            _long("bytes", result.bytes, self.length if self.kind == "copy_out" else 0)
        ioctl = dict(self.more or {}).get("name")
        if isinstance(ioctl, str):
            check_fields(ioctl, result.fields)


@_method("target.touch_waits")
class TouchWaits(TargetMethod[bool], frozen=True):
    """Return whether a touch sleeps in the kernel now."""

    number: int


@_method("target.touch_progress")
class CountAccesses(TargetMethod[Count], frozen=True):
    """Return how many accesses a sweep or fill has made; 0 for one that has ended."""

    number: int


@_method("target.withdraw")
class WithdrawTouch(TargetMethod[None], frozen=True):
    """Ask a waiting touch to return without making its access."""

    number: int


class ForkedChild(Timed, frozen=True):
    """A child of the target; the times are those of fork(2)."""

    pid: Pid


@_method("target.fork")
class ForkTarget(TargetMethod[ForkedChild], frozen=True):
    """Fork the target."""


@_method("target.end_child")
class EndChild(TargetMethod[None], frozen=True):
    """Kill a child and wait until it is gone."""

    pid: int


# --- the target: requests of the witnesses


class ScanFacts(Answer, frozen=True):
    """The categories of PAGEMAP_SCAN whose absence means something; 0 where the kernel has no PAGEMAP_SCAN."""

    answered: Uint64


class ReaderFacts(Answer, frozen=True):
    """Why the kernel's PTE reader is not available; empty if it is."""

    why_not: Text


class TargetFacts(Answer, frozen=True):
    """Facts about a target: the address of its beacon page, its process id, and what its witnesses can report."""

    address: Place
    pid: Pid
    tracks_soft_dirty: bool
    scan: ScanFacts
    entries: ReaderFacts


@_method("target.beacon")
class DescribeTarget(TargetMethod[TargetFacts], frozen=True):
    """Return where the beacon page is, and which witnesses the kernel offers."""


class PagemapEntries(Answer, frozen=True):
    """Entries of /proc/PID/pagemap, 64 bits, little-endian: for each page the entry of its first 4 KiB.

    If they are left in the memory of the target, ``at`` is their address and ``entries`` is empty.  ``hugetlb``,
    ``vma_soft_dirty``: whether "ht" and "sd" are among the VmFlags of smaps.
    """

    hugetlb: bool
    vma_soft_dirty: bool
    time_ns: Nanoseconds
    entries: bytes = b""
    at: Annotated[int, Meta(ge=0, lt=_USER)] = 0


@_method("target.pagemap")
class ReadPagemap(TargetMethod[PagemapEntries], frozen=True):
    """Read the pagemap entries of some pages of the target, or of a child.

    `in_memory`: leave them in the target's memory, for a host that reads the guest's RAM.
    """

    start: int
    pages: int
    page_size: int
    child: int = 0
    in_memory: bool = False

    def check(self, answer: PagemapEntries) -> None:
        """See :meth:`Method.check`: one entry for each page, unless they are left in memory."""
        if answer.at and not self.in_memory:
            raise ValueError("`at` was not requested")
        _long("entries", answer.entries, 0 if answer.at else 8 * self.pages)


@_method("target.clear_soft_dirty")
class ClearSoftDirty(TargetMethod[None], frozen=True):
    """Clear the soft-dirty bits of the target (clear_refs, proc(5))."""


class ScanRuns(Answer, frozen=True):
    """The result of PAGEMAP_SCAN: start, end and categories of each run of pages, 64 bits each, little-endian."""

    runs: bytes
    vma_soft_dirty: bool
    time_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) % 24:
            raise ValueError(f"`runs` has {len(self.runs)} bytes, not a multiple of 24")


@_method("target.scan")
class ScanPages(TargetMethod[ScanRuns], frozen=True):
    """Scan some pages of the target with PAGEMAP_SCAN."""

    start: int
    pages: int
    page_size: int


class TableEntries(Answer, frozen=True):
    """One struct pte_reader_entry for each page: the entry (64 bits), its level (32 bits), zero (32 bits)."""

    entries: bytes
    time_ns: Nanoseconds


@_method("target.entries")
class ReadEntries(TargetMethod[TableEntries], frozen=True):
    """Read the page-table entries of some pages of the target through the kernel's PTE reader."""

    start: int
    pages: int
    page_size: int

    def check(self, answer: TableEntries) -> None:
        """See :meth:`Method.check`: one entry for each page."""
        _long("entries", answer.entries, 16 * self.pages)


@_method("target.spin")
class StartSpin(TargetMethod[Annotated[int, Meta(ge=-4095, le=0)]], frozen=True):
    """Keep a CPU busy in user mode, so that it uses the target's page tables; return 0 or -errno."""

    nanoseconds: int


@_method("target.spin_stop")
class StopSpin(TargetMethod[None], frozen=True):
    """Stop keeping the CPU busy."""


# --- notifications


class HelloFacts(Answer, frozen=True):
    """Facts about an agent and its machine; ``monotonic_ns`` is CLOCK_MONOTONIC."""

    protocol: int
    pid: Pid
    uid: Annotated[int, Meta(ge=0, lt=1 << 32)]
    release: Text
    version: Text
    machine: Text
    python: Text
    page_size: Annotated[int, Meta(ge=PAGE, le=1 << 16)]
    cpus: Annotated[int, Meta(ge=1, le=1 << 16)] | None
    monotonic_ns: Nanoseconds


@_notification("hello")
class Hello(Notification, frozen=True):
    """The first message of an agent."""

    facts: HelloFacts


@_notification("message")
class MessageRead(Notification, frozen=True):
    """The target has read a struct uffd_msg from a userfaultfd.

    `adopted`: the number of the userfaultfd that came with a FORK event, else 0.
    """

    number: Number
    data: Annotated[bytes, Meta(min_length=MESSAGE_SIZE, max_length=MESSAGE_SIZE)]
    time_ns: Nanoseconds
    adopted: Count


@_notification("touch")
class TouchEnded(Notification, frozen=True):
    """A touch has ended."""

    number: Number
    result: TouchResult


@_notification("feed-error")
class FeedFailed(Notification, frozen=True):
    """The target could not read a userfaultfd or the end of a touch; it will try again."""

    why: Text


@_notification("target-lost")
class TargetEnded(Notification, frozen=True):
    """A target has ended; `kind`: that of the error raised for its requests; `status`: as waitpid(2), -1 if unknown."""

    pid: Pid
    why: Text
    kind: Text
    status: Annotated[int, Meta(ge=-1, le=0xFFFF)]
    nonce: bytes


@_notification("program-output")
class ProgramOutput(Notification, frozen=True):
    """A program has written to `stream` 1 (stdout) or 2 (stderr)."""

    key: int
    stream: Literal[1, 2]
    data: bytes


HOST_NOTIFICATIONS = ("alive",)
"""The host sends this regularly to an agent behind ssh, to show that the connection is up.  No parameters."""


# --- errors


class ErrorAnswer(Answer, frozen=True):
    """An error in place of an answer.  A `kind` not in :data:`ERROR_KINDS` is the name of a Python exception."""

    kind: Annotated[str, Meta(min_length=1, max_length=256)]
    message: Text
    data: dict[Text, int | Text]


ERROR_KINDS = {
    "usage": "the request has no meaning, or is not possible here",
    "closed": "the userfaultfd is closed",
    "unknown-method": "the agent does not know the method: host and agent have different versions",
    "target-lost": "the target has ended",
    "fault-unresolved": "the target did not answer by the deadline, and was killed",
    "map-failed": "the kernel refused a mapping",
    "unmapped": "not all of these pages are mapped",
    "no-userfaultfd": "every way to open a userfaultfd failed",
    "no-witness": "this kernel does not offer the witness",
    "scan-failed": "PAGEMAP_SCAN failed",
    "reader-failed": "the PTE reader failed",
    "no-program": "the program does not exist",
    "not-executable": "the program cannot be executed",
    "program-late": "the program had not ended by its deadline",
    "program-output": "the program wrote more than allowed",
    "program-killed": "the program was killed on request",
}

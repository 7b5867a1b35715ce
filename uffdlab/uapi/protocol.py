"""The wire between host and guest: every method with its parameters and its answer, every notification, every error.

A method is a class, and a request is a value of it: ``ask(ReadPagemap(start, pages, 4096))`` returns a
:class:`PagemapWords`.  Its fields are the parameters, in the order in which they go over the wire; its type parameter
is what the answer is made of.  Shapes and ranges stand in the annotations, and what depends on the request is in
:meth:`Method.check`.  :mod:`uffdlab.machines.rpc.decoding` holds what comes from a guest against this.

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

Word: TypeAlias = Annotated[int, Meta(ge=0)]  # of 64 bits, see Answer
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=_MOST)]
Nanoseconds: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
Errno: TypeAlias = Annotated[int, Meta(ge=0, le=4095)]  # MAX_ERRNO of linux/err.h
Pid: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Place: TypeAlias = Annotated[int, Meta(ge=PAGE, lt=_USER, multiple_of=PAGE)]  # where a mapping begins
Text: TypeAlias = Annotated[str, Meta(max_length=1 << 16)]


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """A map that comes from the guest, with exactly these fields."""

    def __post_init__(self) -> None:
        # MessagePack has no larger ones, and bounds of msgspec end at 63 bits.
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
                raise ValueError(f"`{name}` is no number of 64 bits")


class Timed(Answer, frozen=True):
    """What took a time: ``started_ns`` and ``ended_ns``, CLOCK_MONOTONIC of the guest in ns."""

    started_ns: Nanoseconds
    ended_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ended_ns < self.started_ns:
            raise ValueError("`ended_ns` lies before `started_ns`")


class Method(Struct, Generic[_Answer], frozen=True):
    """A request: the fields are its parameters, by position on the wire."""

    method: ClassVar[str]

    @classmethod
    def answer(cls) -> Any:
        """Return the type of the answer."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]

    def check(self, answer: _Answer) -> None:
        """Raise ValueError if `answer`, which is well-formed, cannot be the answer to this request."""


class AgentMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the agent."""


class TargetMethod(Method[_Answer], Generic[_Answer], frozen=True):
    """A method of the target: on the way through the agent the deadline in seconds goes before its parameters."""


class Notification(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is told without being asked; the fields are its parameters, by position."""

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
        raise ValueError(f"`{name}` has {len(data)} bytes where {due} were due")


# --- the agent: machine, target process, programs


@_method("agent.ping")
class Ping(AgentMethod[Any], frozen=True):
    """Answer with `value`."""

    value: Any = None


@_method("agent.clock")
class ReadClock(AgentMethod[Nanoseconds], frozen=True):
    """Read CLOCK_MONOTONIC, in ns."""


@_method("agent.load")
class LoadModules(AgentMethod[None], frozen=True):
    """Import every module that may be needed later, before the machine's state is saved."""


@_method("agent.after_restore")
class AfterRestore(AgentMethod[None], frozen=True):
    """Take random bytes and the time of day (CLOCK_REALTIME, ns): this machine came out of a saved state."""

    entropy: bytes
    wall_ns: int


@_method("agent.memory_bytes")
class MeasureMemory(AgentMethod[Count], frozen=True):
    """Tell how much memory and swap the machine has, in bytes."""


class Hugepages(Answer, frozen=True):
    """How many huge pages of one size are free, or could be, and how many there are."""

    free: Count
    total: Count


@_method("agent.reserve_hugepages")
class ReserveHugepages(AgentMethod[Hugepages], frozen=True):
    """See to it that `free` huge pages of `page_size` bytes are free, as far as memory allows."""

    page_size: int
    free: int


@_method("agent.swap_on")
class TurnSwapOn(AgentMethod[Count], frozen=True):
    """Turn swap on, on every RAM disk; answers with its size in bytes."""


@_method("agent.sysrq")
class TriggerSysrq(AgentMethod[None], frozen=True):
    """Write a letter to /proc/sysrq-trigger; ``c`` panics."""

    how: str


class SpawnedTarget(Answer, frozen=True):
    """The process number of a new target."""

    pid: Pid


@_method("agent.spawn")
class SpawnTarget(AgentMethod[SpawnedTarget], frozen=True):
    """Start a new target, ending the old one.

    `nonce`: random bytes that name it, kept in its beacon page.  `base`: the address of its first region.
    """

    nonce: bytes
    base: int


@_method("agent.kill_target")
class KillTarget(AgentMethod[None], frozen=True):
    """End the target."""


@_method("agent.late")
class EndLateTarget(AgentMethod[None], frozen=True):
    """End the target with this nonce: it has not answered these methods on its own line by their deadline."""

    nonce: bytes
    methods: list[str]


@_method("agent.exists")
class FilesExist(AgentMethod[list[bool]], frozen=True):
    """Tell of each path whether something is there."""

    paths: list[str]

    def check(self, answer: list[bool]) -> None:
        """See :meth:`Method.check`: an answer to each path."""
        if len(answer) != len(self.paths):
            raise ValueError(f"{len(self.paths)} answers were due, {len(answer)} came")


@_method("agent.put")
class PutFile(AgentMethod[None], frozen=True):
    """Write a file, or append to it; its folder is made if it is not there."""

    path: str
    data: bytes
    append: bool
    executable: bool


@_method("agent.exec_folder")
class MakeProgramFolder(AgentMethod[Annotated[str, Meta(min_length=1, max_length=4096)]], frozen=True):
    """Make a folder for a program and what it is pushed with; answers with its path."""


@_method("agent.exec_discard")
class DiscardProgramFolder(AgentMethod[None], frozen=True):
    """Remove a program's folder and all that is in it."""

    folder: str


class ProgramEnd(Answer, frozen=True):
    """How a program ended: its status as a shell has it, and the signal that ended it, 0 for none."""

    status: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=127)]


@_method("agent.exec")
class RunProgram(AgentMethod[ProgramEnd], frozen=True):
    """Run a program and answer when it has ended; what it writes comes as :class:`ProgramOutput`.

    `key` names it.  `seconds`: past them it is killed.  `most`: bytes that it may write.  `environment`: what it has
    beside the agent's own.
    """

    key: int
    argv: list[str]
    folder: str
    seconds: float
    most: int
    environment: dict[str, str]


@_method("agent.exec_kill")
class KillProgram(AgentMethod[None], frozen=True):
    """Kill the program with this key, if it runs."""

    key: int


# --- the target: memory


class MappedMemory(Answer, frozen=True):
    """A new mapping: its number, its address, and that of its alias, 0 if it has none."""

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
        """See :meth:`Method.check`: whole pages in user space, an alias where this memory has one."""
        for name, start in (("start", answer.start), ("alias", answer.alias)):
            if start % self.page_size or start + self.pages * self.page_size > _USER:
                raise ValueError(f"`{name}` is {start:#x}, where no {self.pages} pages of {self.page_size} bytes lie")
        if bool(answer.alias) != MEMORY[self.memory].has_alias:
            raise ValueError(f"`alias` is {answer.alias:#x} for {self.memory} memory")


@_method("target.unmap")
class UnmapMemory(TargetMethod[None], frozen=True):
    """Unmap a mapping and its alias."""

    number: int


@_method("target.free_place")
class FindFreePlace(TargetMethod[Place], frozen=True):
    """Find an address with `length` bytes where nothing is mapped."""

    length: int


@_method("target.moved")
class NoteMoved(TargetMethod[None], frozen=True):
    """Take note that mremap(2) has moved a mapping to `start`."""

    number: int
    start: int


class RegisterTry(Answer, frozen=True):
    """What UFFDIO_REGISTER came back with: its errno, and the ioctls that it offers as bits."""

    errno: Errno
    ioctls: Word


class MemoryTry(Answer, frozen=True):
    """The errno of mapping one kind of memory, and of each RegisterMode what registering it came back with."""

    errno: Errno
    register: dict[int, RegisterTry]


class KernelProbe(Answer, frozen=True):
    """What a kernel can do with a userfaultfd, found by trying.

    ``features``: what UFFDIO_API offers.  ``ioctls``: the numbers, as bits, that UFFDIO_API and UFFDIO_REGISTER name.
    ``ways``: of each way to open one its errno.  ``modes``: of each ioctl and mode word the errno.  ``memory``: of each
    kind of memory.  ``continue_wp``: whether UFFDIO_CONTINUE knows MODE_WP, None where it cannot be tried.
    """

    features: Word
    ioctls: Word
    ways: dict[Text, Errno]
    modes: dict[Text, dict[Word, Errno]]
    memory: dict[Text, MemoryTry]
    continue_wp: bool | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if strange := self.modes.keys() - LAYOUTS.keys() | self.memory.keys() - MEMORY.keys():
            raise ValueError(f"`{min(strange)[:40]}` is no ioctl and no memory")


@_method("target.probe")
class ProbeKernel(TargetMethod[KernelProbe], frozen=True):
    """Try what this kernel can do, on scratch memory."""

    def check(self, answer: KernelProbe) -> None:
        """See :meth:`Method.check`: every mode of UFFDIO_REGISTER was tried where the memory could be mapped."""
        from uffdlab.uapi.ioctls import RegisterMode  # noqa: PLC0415 - this module loads no enum before it is needed

        for name, tried in answer.memory.items():
            if not tried.errno and tried.register.keys() != {int(mode) for mode in RegisterMode}:
                raise ValueError(f"`memory.{name}.register` does not have every mode")


# --- the target: userfaultfds


class IoctlAnswer(Timed, frozen=True):
    """What an ioctl came back with: its errno, 0 for none, and the words of its argument as the kernel left them."""

    errno: Errno
    words: dict[str, int]

    def check_words(self, ioctl: str) -> None:
        """Raise ValueError if these are not the words of this ioctl."""
        check_words(ioctl, self.words)


def check_words(ioctl: str, words: dict[str, int]) -> None:
    """Raise ValueError if `words` are not the words of the argument of `ioctl`."""
    if words.keys() != set(LAYOUTS[ioctl].fields):
        raise ValueError(f"`words` are not {', '.join(LAYOUTS[ioctl].fields)}")
    if not all(-(1 << 63) <= word < 1 << 64 for word in words.values()):
        raise ValueError("`words` has a number of more than 64 bits")


class OpenedUserfaultfd(IoctlAnswer, frozen=True):
    """A userfaultfd and what UFFDIO_API said of it.

    ``number``: 0 if it refused.  ``way``: how it was opened.  ``offered``: the features this kernel has.  ``asked``:
    those that were asked for.
    """

    number: Count
    way: Text
    offered: Word
    asked: Word

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.number) == bool(self.errno):
            raise ValueError(f"`number` is {self.number} with errno {self.errno}")


@_method("target.uffd_open")
class OpenUserfaultfd(TargetMethod[OpenedUserfaultfd], frozen=True):
    """Open a userfaultfd with those of the features `wanted` that the kernel has, and all of `required`."""

    wanted: int
    required: int

    def check(self, answer: OpenedUserfaultfd) -> None:
        """See :meth:`Method.check`: the words of UFFDIO_API."""
        answer.check_words("UFFDIO_API")


@_method("target.uffd_close")
class CloseUserfaultfd(TargetMethod[None], frozen=True):
    """Close a userfaultfd."""

    number: int


@_method("target.uffd_unread")
class LeaveUnread(TargetMethod[None], frozen=True):
    """Leave what a userfaultfd says unread from now on, or read it again."""

    number: int
    unread: bool


@_method("target.ioctl")
class CallIoctl(TargetMethod[IoctlAnswer], frozen=True):
    """Do one ioctl, by name; `source` is what UFFDIO_COPY is to copy, None to take the word ``src`` as it is."""

    number: int
    name: str
    values: dict[str, int]
    source: bytes | None

    def check(self, answer: IoctlAnswer) -> None:
        """See :meth:`Method.check`: the words of this ioctl."""
        answer.check_words(self.name)


class BatchAnswer(Timed, frozen=True):
    """How many ioctls succeeded, and the errno of the one that failed, 0 for none."""

    errno: Errno
    done: Count


@_method("target.batch")
class RunBatch(TargetMethod[BatchAnswer], frozen=True):
    """Do one ioctl a page of `step` bytes, `count` times or until one fails; `values` are the first one's words."""

    number: int
    name: str
    values: dict[str, int]
    step: int
    count: int
    source: bytes | None

    def check(self, answer: BatchAnswer) -> None:
        """See :meth:`Method.check`: no more than were asked for."""
        if answer.done > self.count:
            raise ValueError(f"`done` is {answer.done} of {self.count}")


@_method("target.sync")
class SyncFeed(TargetMethod[None], frozen=True):
    """Answer when every message and every end of a touch up to now has been told."""


@_method("target.handle")
class StartHandler(TargetMethod[None], frozen=True):
    """Let a native loop serve a userfaultfd: `policies` by kind of fault; `content` is what copy puts into a page."""

    number: int
    policies: dict[str, str]
    page_size: int
    content: bytes


class FaultKinds(Answer, frozen=True):
    """A number for each kind of fault."""

    missing: Count
    minor: Count
    wp: Count
    rwp: Count


class FaultCounts(Answer, frozen=True):
    """What a native handler has done; ``latency[i]`` faults took at most 2^i ns from being read to being resolved."""

    served: FaultKinds
    forwarded: Count
    failed: Count
    last_errno: Errno
    running: bool
    latency: Annotated[tuple[Count, ...], Meta(max_length=64)]


@_method("target.handler_counts")
class CountFaults(TargetMethod[FaultCounts], frozen=True):
    """Tell what the native handler of a userfaultfd has done so far."""

    number: int


@_method("target.handler_stop")
class StopHandler(TargetMethod[FaultCounts], frozen=True):
    """End the native handler of a userfaultfd."""

    number: int


# --- the target: touches and children


class Sweep(TypedDict):
    """The steps of a sweep: ``each`` read, write or modify; the ``first`` page and the ``jump`` to the next."""

    each: str
    first: int
    jump: int


class SystemCall(TypedDict, total=False):
    """A system call; which of the others it takes depends on ``call``: see :func:`uffdlab.agent.syscalls.prepare`."""

    call: Required[str]
    arguments: list[int]
    address: int
    into: int
    uffd: int
    name: str
    words: dict[str, int]


class TouchStart(Answer, frozen=True):
    """A touch that has begun: whether it sleeps in the kernel now, and the number of its thread."""

    waiting: bool
    thread: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]


class TouchResult(Timed, frozen=True):
    """How a touch ended.

    ``value``: the word it brought.  ``signal``, ``signal_code``, ``signal_address``: of the signal that ended it.
    ``returned``: what its system call returned.  ``progress``: how many accesses it made.  ``words``: the argument of
    its ioctl as the kernel left it.  ``bytes``: what a copy_out has copied.  ``why``: how the child ended that
    was to make it.
    """

    state: Literal["done", "signal", "withdrawn", "lost"]
    value: Word
    thread: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    signal: Annotated[int, Meta(ge=0, le=64)]
    signal_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
    signal_address: Word
    returned: Annotated[int, Meta(ge=-4095, le=_MOST)]  # -errno where it is negative
    progress: Count
    words: dict[str, int] = {}
    bytes: builtins.bytes = b""
    why: Text = ""


@_method("target.touch")
class StartTouch(TargetMethod[TouchStart], frozen=True):
    """Start an access on a thread of its own, or in a child; its end comes as :class:`TouchEnded`.

    `number` names it.  `kind`: read, write, modify, fill, sweep, copy_out or syscall.  `address`, `length`, `stride` in
    bytes.  `child`: the process number of the forked child that makes it, 0 for the target.
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
            check_words(ioctl, result.words)


@_method("target.touch_waits")
class TouchWaits(TargetMethod[bool], frozen=True):
    """Tell whether a touch sleeps in the kernel now."""

    number: int


@_method("target.touch_progress")
class CountAccesses(TargetMethod[Count], frozen=True):
    """Tell how many accesses of a sweep or fill have been made; 0 for one that has ended."""

    number: int


@_method("target.withdraw")
class WithdrawTouch(TargetMethod[None], frozen=True):
    """Ask a waiting touch to come back without its access."""

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


# --- the target: what witnesses ask


class ScanFacts(Answer, frozen=True):
    """The categories of PAGEMAP_SCAN whose absence means something; 0 where the kernel has no PAGEMAP_SCAN."""

    answered: Word


class ReaderFacts(Answer, frozen=True):
    """Why the kernel's PTE reader does not answer; empty where it does."""

    why_not: Text


class TargetFacts(Answer, frozen=True):
    """What a target says of itself: the address of its beacon page, its process number, and who can tell what."""

    address: Place
    pid: Pid
    tracks_soft_dirty: bool
    scan: ScanFacts
    entries: ReaderFacts


@_method("target.beacon")
class DescribeTarget(TargetMethod[TargetFacts], frozen=True):
    """Tell where the beacon is, and which witnesses the kernel offers."""


class PagemapWords(Answer, frozen=True):
    """Words of /proc/PID/pagemap: little-endian, one a page, that of its first 4 KiB.

    Shelved ones have an address, ``at``, in place of ``words``.  ``hugetlb``, ``vma_soft_dirty``: "ht" and "sd" are
    among the VmFlags of smaps.
    """

    hugetlb: bool
    vma_soft_dirty: bool
    time_ns: Nanoseconds
    words: bytes = b""
    at: Annotated[int, Meta(ge=0, lt=_USER)] = 0


@_method("target.pagemap")
class ReadPagemap(TargetMethod[PagemapWords], frozen=True):
    """Read the pagemap words of some pages of the target, or of a child.

    `shelved`: leave them in the target's memory, for a host that reads the guest's RAM.
    """

    start: int
    pages: int
    page_size: int
    child: int = 0
    shelved: bool = False

    def check(self, answer: PagemapWords) -> None:
        """See :meth:`Method.check`: a word a page, unless they are left where they are."""
        if answer.at and not self.shelved:
            raise ValueError("`at` was not asked for")
        _long("words", answer.words, 0 if answer.at else 8 * self.pages)


@_method("target.clear_soft_dirty")
class ClearSoftDirty(TargetMethod[None], frozen=True):
    """Clear the soft-dirty bits of the target (clear_refs, proc(5))."""


class ScanRuns(Answer, frozen=True):
    """What PAGEMAP_SCAN found: start, end and categories of each run of pages, as little-endian words."""

    runs: bytes
    vma_soft_dirty: bool
    time_ns: Nanoseconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) % 24:
            raise ValueError(f"`runs` has {len(self.runs)} bytes, which are no runs of 24 bytes")


@_method("target.scan")
class ScanPages(TargetMethod[ScanRuns], frozen=True):
    """Scan some pages of the target with PAGEMAP_SCAN."""

    start: int
    pages: int
    page_size: int


class TableEntries(Answer, frozen=True):
    """A struct pte_reader_entry a page: the entry (64 bits), its level (32 bits), zero."""

    entries: bytes
    time_ns: Nanoseconds


@_method("target.entries")
class ReadEntries(TargetMethod[TableEntries], frozen=True):
    """Read the page-table entries of some pages of the target through the kernel's PTE reader."""

    start: int
    pages: int
    page_size: int

    def check(self, answer: TableEntries) -> None:
        """See :meth:`Method.check`: an entry a page."""
        _long("entries", answer.entries, 16 * self.pages)


@_method("target.spin")
class StartSpin(TargetMethod[Annotated[int, Meta(ge=-4095, le=0)]], frozen=True):
    """Keep a processor busy in user mode for so long, so that the target's page tables are in use; 0 or -errno."""

    nanoseconds: int


@_method("target.spin_stop")
class StopSpin(TargetMethod[None], frozen=True):
    """Spin no longer."""


# --- what is told without being asked


class HelloFacts(Answer, frozen=True):
    """What an agent says of itself and its machine; ``monotonic_ns`` is CLOCK_MONOTONIC."""

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
    """The first thing that an agent says."""

    facts: HelloFacts


@_notification("message")
class MessageRead(Notification, frozen=True):
    """A userfaultfd has said something: a struct uffd_msg.

    `adopted`: the number of the userfaultfd that a FORK event has brought, else 0.
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
    """The target could not read a userfaultfd or the end of a touch; it tries again."""

    why: Text


@_notification("target-lost")
class TargetEnded(Notification, frozen=True):
    """A target is gone: `kind` is that of the error that its callers get, `status` as of waitpid(2), -1 if unknown."""

    pid: Pid
    why: Text
    kind: Text
    status: Annotated[int, Meta(ge=-1, le=0xFFFF)]
    nonce: bytes


@_notification("program-output")
class ProgramOutput(Notification, frozen=True):
    """A program has written something, to `stream` 1 or 2."""

    key: int
    stream: Literal[1, 2]
    data: bytes


HOST_NOTIFICATIONS = ("alive",)
"""What the host tells an agent behind ssh, now and then: that the line is not cut.  It has no parameters."""


# --- errors


class ErrorAnswer(Answer, frozen=True):
    """What comes in place of an answer.  A `kind` that is none of :data:`ERROR_KINDS` is a Python exception's name."""

    kind: Annotated[str, Meta(min_length=1, max_length=256)]
    message: Text
    data: dict[Text, int | Text]


ERROR_KINDS = {
    "usage": "what was asked for has no meaning, or cannot be done here",
    "closed": "the userfaultfd is closed",
    "unknown-method": "host and agent differ in version",
    "target-lost": "the target has ended",
    "fault-unresolved": "the target has not answered by the deadline, and was killed",
    "map-failed": "the kernel refused a mapping",
    "unmapped": "not all of these pages are mapped",
    "no-userfaultfd": "no way to open a userfaultfd worked",
    "no-witness": "this kernel cannot tell",
    "scan-failed": "PAGEMAP_SCAN failed",
    "reader-failed": "the PTE reader failed",
    "no-program": "there is no such program",
    "not-executable": "the program does not start",
    "program-late": "the program had not ended by its deadline",
    "program-output": "the program wrote more than it may",
    "program-killed": "the program was killed on request",
}

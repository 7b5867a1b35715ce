"""Userfaultfd: one method an ioctl, and the messages it gives."""

from __future__ import annotations

import errno as _errno
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from uffdlab import reasons, uapi
from uffdlab.errors import IoctlError, LabClosed, NoMessage, UsageError
from uffdlab.messages import Fault, Message
from uffdlab.region import Mapping, PageRange
from uffdlab.uapi import ContinueMode, CopyMode, Feature, RegisterMode, WriteprotectMode

if TYPE_CHECKING:
    from uffdlab.lab import Lab

_SMALLEST_PAGE = 4096

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
)


@dataclass(frozen=True)
class IoctlResult:
    """What came back from an ioctl.

    Attributes
    ----------
    call : str
        The call in words.
    errno : int
        0 if it succeeded.
    done : int
        Bytes done, from the output word; the whole length for an ioctl that has none and succeeded.
    output : int or None
        The output word as the kernel left it; None if this ioctl has none.
    words : dict
        Every word of the argument as the kernel left it.
    took_ns : int
        How long it took in the guest, in ns.
    """

    call: str
    errno: int
    done: int
    output: int | None
    words: dict[str, int]
    took_ns: int

    @property
    def ok(self) -> bool:
        """It came back without an errno."""
        return self.errno == 0

    def __repr__(self) -> str:
        back = "ok" if self.ok else _errno.errorcode.get(self.errno, str(self.errno))
        return f"<{self.call} → {back}, {self.done} bytes, {self.took_ns / 1000:.1f} µs>"


class Userfaultfd:
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
        self._messages: queue.SimpleQueue[Fault | Message] = queue.SimpleQueue()
        self._kept: list[Fault | Message] = []
        self._registered: list[tuple[int, int, RegisterMode]] = []
        wanted, required = (DEFAULT_FEATURES, Feature(0)) if features is None else (Feature(0), features)
        answer = lab.target_call("uffd_open", int(wanted), int(required))
        self.offered = Feature(answer["offered"])
        self.way: str = answer["way"]
        if answer["errno"]:
            lacking = required & ~self.offered
            reason = f"this kernel lacks {uapi.flag_names(lacking, Feature)}" if lacking else "see userfaultfd(2)"
            raise IoctlError(f"UFFDIO_API({uapi.flag_names(answer['asked'], Feature)})", answer["errno"], reason)
        self._number: int = answer["number"]
        self.features = Feature(answer["asked"])

    @property
    def number(self) -> int:
        """Its number in this lab."""
        return self._number

    # --- the ioctls

    def register(self, where: Mapping | PageRange, *modes: str | RegisterMode, check: bool = True) -> IoctlResult:
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
        result = self._range_ioctl("UFFDIO_REGISTER", where, mode, check)
        if result.ok:
            pages = _pages(where)
            self._registered.append((pages.start, pages.length, RegisterMode(mode)))
        return result

    def unregister(self, where: Mapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_UNREGISTER: give the faults of a range back to the kernel.

        The kernel wakes what waits there only where the range was registered for MISSING (fs/userfaultfd.c,
        userfaultfd_unregister()); otherwise follow it with :meth:`wake`.
        """
        result = self._range_ioctl("UFFDIO_UNREGISTER", where, 0, check)
        if result.ok:
            pages = _pages(where)
            self._registered.append((pages.start, pages.length, RegisterMode(0)))
        return result

    def wake(self, where: Mapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_WAKE: wake what waits in a range, for example after DONTWAKE."""
        return self._range_ioctl("UFFDIO_WAKE", where, 0, check)

    def continue_(
        self, where: Mapping | PageRange, *, wp: bool = False, dontwake: bool = False, check: bool = True
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
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        mode = (ContinueMode.WP if wp else 0) | (ContinueMode.DONTWAKE if dontwake else 0)
        return self._range_ioctl("UFFDIO_CONTINUE", where, int(mode), check)

    def copy(
        self,
        where: Mapping | PageRange,
        data: bytes = b"",
        *,
        wp: bool = False,
        dontwake: bool = False,
        check: bool = True,
    ) -> IoctlResult:
        """UFFDIO_COPY: make pages with the content `data`, resolving missing faults.

        `data` shorter than the range is followed by zeroes.  `wp`, `dontwake` and `check` as for :meth:`continue_`.
        """
        pages = _pages(where)
        if len(data) > pages.length:
            raise UsageError(f"{len(data)} bytes do not fit into {pages} of {pages.length} bytes")
        mode = (CopyMode.WP if wp else 0) | (CopyMode.DONTWAKE if dontwake else 0)
        values = {"dst": pages.start, "len": pages.length, "mode": int(mode)}
        return self.ioctl("UFFDIO_COPY", values, source=data.ljust(pages.length, b"\0"), where=str(pages), check=check)

    def writeprotect(
        self, where: Mapping | PageRange, *, wp: bool = True, dontwake: bool = False, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_WRITEPROTECT: protect pages against writes (`wp`), or allow writes again and wake (`wp=False`)."""
        mode = (WriteprotectMode.WP if wp else 0) | (WriteprotectMode.DONTWAKE if dontwake else 0)
        return self._range_ioctl("UFFDIO_WRITEPROTECT", where, int(mode), check)

    def ioctl(
        self,
        name: str,
        values: dict[str, int],
        *,
        source: bytes | None = None,
        where: str = "",
        check: bool = True,
    ) -> IoctlResult:
        """Do any ioctl with any words, also wrong ones: a lab must be able to send what is wrong.

        Parameters
        ----------
        name : str
            A key of :data:`uffdlab.uapi.IOCTLS`.
        values : dict
            The words of its argument by name; those not given are 0.
        source : bytes, optional
            Bytes that the target puts into memory of its own, whose address becomes the word ``src``.
        where : str
            The range in words, for messages.
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        if self._number == 0:
            raise LabClosed("this userfaultfd is closed; lab.userfaultfd() opens a new one")
        if name not in uapi.IOCTLS:
            raise UsageError(f"{name!r} is no ioctl of a userfaultfd; there are {', '.join(uapi.IOCTLS)}")
        ioctl = uapi.IOCTLS[name]
        strange = set(values) - set(ioctl.fields)
        if strange:
            raise UsageError(f"{name} has no word {', '.join(sorted(strange))}; it has {', '.join(ioctl.fields)}")
        answer = self._lab.target_call("ioctl", self._number, name, values, source)
        result = _result(ioctl, values, answer, where)
        self._lab.timeline.add("ioctl", _outcome(result), answer["started_ns"], answer["ended_ns"], result)
        if check and not result.ok:
            mode = values.get("mode", 0)
            raise IoctlError(
                result.call,
                result.errno,
                reasons.explain(
                    ioctl,
                    result.errno,
                    mode,
                    registered=self._registered_for(values),
                    knows_continue_wp=self._lab.capabilities["continue_wp"],
                    unaligned=_unaligned(values),
                ),
                done=result.done,
                output=result.output or 0,
            )
        return result

    def _range_ioctl(self, name: str, where: Mapping | PageRange, mode: int, check: bool) -> IoctlResult:
        pages = _pages(where)
        values = {"start": pages.start, "len": pages.length}
        if "mode" in uapi.IOCTLS[name].fields:
            values["mode"] = mode
        return self.ioctl(name, values, where=str(pages), check=check)

    def _registered_for(self, values: dict[str, int]) -> RegisterMode | None:
        start = values.get("start", values.get("dst", 0))
        for low, length, mode in reversed(self._registered):
            if low <= start < low + length:
                return mode or None
        return None

    # --- the messages

    def read_fault(self, timeout: float = 5.0) -> Fault:
        """Give the next page fault that has not been read yet, waiting for it at most `timeout` seconds.

        Messages of other kinds are kept for :meth:`read_message`.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        for index, message in enumerate(self._kept):
            if isinstance(message, Fault):
                del self._kept[index]
                return message
        until = time.monotonic() + timeout
        while True:
            message = self._next(until, timeout, "page fault")
            if isinstance(message, Fault):
                return message
            self._kept.append(message)

    def read_message(self, timeout: float = 5.0) -> Fault | Message:
        """Give the next message of any kind, waiting for it at most `timeout` seconds.

        Raises
        ------
        NoMessage
            If none came in time.
        """
        if self._kept:
            return self._kept.pop(0)
        return self._next(time.monotonic() + timeout, timeout, "message")

    def _next(self, until: float, timeout: float, what: str) -> Fault | Message:
        try:
            return self._messages.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise NoMessage(
                f"no {what} came from the userfaultfd within {timeout:g} s. Is a touch waiting (touch.state), and is "
                "its page registered (uffd.register)?"
            ) from None

    def deliver(self, data: bytes, time_ns: int) -> None:
        """Take one struct uffd_msg from the target; the lab calls this."""
        raw = uapi.decode_message(data)
        message: Fault | Message
        if raw.event == uapi.Event.PAGEFAULT:
            flags, address, thread = raw.words
            region, page = self._lab.locate(address)
            message = Fault(page, region, address, uapi.FaultFlag(flags), thread, time_ns)
        else:
            message = Message(raw.event, raw.words, time_ns)
        self._lab.timeline.add("message", repr(message), time_ns, None, message)
        self._messages.put(message)

    def close(self) -> None:
        """Close it.  A touch that waits on it goes on, and may read a zero page: resolve faults first."""
        if self._number:
            number, self._number = self._number, 0
            self._lab.forget_userfaultfd(number)
            self._lab.target_call("uffd_close", number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"number {self._number}" if self._number else "closed"
        return f"<Userfaultfd {state}, by {self.way}, {uapi.flag_names(self.features, Feature)}>"


def _pages(where: Mapping | PageRange) -> PageRange:
    if isinstance(where, PageRange):
        return where
    if isinstance(where, Mapping):
        return where[:]
    raise UsageError(f"{where!r} is no pages; give a region or a part of one, such as region[3] or region[8:16]")


def _unaligned(values: dict[str, int]) -> bool:
    start, length = values.get("start", values.get("dst", 0)), values.get("len")
    return length is not None and (not length or bool((start | length) % _SMALLEST_PAGE))


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


def _result(ioctl: uapi.Ioctl, values: dict[str, int], answer: dict[str, Any], where: str) -> IoctlResult:
    words: dict[str, int] = answer["words"]
    error: int = answer["errno"]
    output = words[ioctl.output] if ioctl.output else None
    # The kernel sets the output word to bytes or -errno; on some paths it leaves what was there, which was 0.
    whole = 0 if error else values.get("len", 0)
    done = whole if output is None else max(0, output)
    parts = [where or f"{values.get('start', values.get('dst', 0)):#x}+{values.get('len', 0):#x}"]
    if values.get("mode"):
        parts.append(uapi.flag_names(values["mode"], ioctl.modes))
    call = f"{ioctl.name}({', '.join(parts)})"
    return IoctlResult(call, error, done, output, words, answer["ended_ns"] - answer["started_ns"])


def _outcome(result: IoctlResult) -> str:
    return f"{result.call} → {'ok' if result.ok else _errno.errorcode.get(result.errno, str(result.errno))}"

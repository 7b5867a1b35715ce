"""The ioctls of a userfaultfd: one method each, and any other words for those who want them wrong."""

from __future__ import annotations

import errno as _errno
import time
from collections.abc import Mapping as Words
from dataclasses import replace
from typing import TYPE_CHECKING

from uffdlab import uapi
from uffdlab.errors import IoctlError, LabClosed, TargetLost, UsageError, errno_name
from uffdlab.target import errno_reasons
from uffdlab.target.ioctl_results import BatchResult, IoctlResult, PendingIoctl, in_words
from uffdlab.target.region import MemoryMapping, PageRange, pages_of
from uffdlab.uapi import ContinueMode, CopyMode, Feature, MoveMode, RegisterMode, RwprotectMode, WriteprotectMode
from uffdlab.uapi.protocol import CallIoctl, RunBatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.target.process import TargetProcess
    from uffdlab.uapi.protocol import SystemCall

CLOSED = "this userfaultfd is closed; lab.userfaultfd() opens a new one"
_NOTHING = Feature(0)
_USER_ADDRESSES = 1 << 47  # of a process, on x86-64 with four levels; arm64 has twice as many


class IoctlCalls:
    """The file descriptor of a userfaultfd in the target: one method an ioctl.

    All take `check`: raise :class:`~uffdlab.errors.IoctlError` on an errno; without it the result has the errno.

    Parameters
    ----------
    target : TargetProcess
    number : int
        Its number in the target, 0 once it is closed.
    features, offered : Feature
        What is turned on, and what this kernel offers.
    registered : iterable of (int, int, RegisterMode)
        Start, length in bytes and modes of the ranges that are registered already.
    """

    def __init__(
        self,
        target: TargetProcess,
        number: int,
        features: Feature,
        offered: Feature,
        registered: Iterable[tuple[int, int, RegisterMode]] = (),
    ) -> None:
        self.features = features
        self.offered = offered
        self._target = target
        self._number = number
        self._registered = list(registered)
        self._ended: LabClosed | TargetLost = LabClosed(CLOSED)  # what every call raises once it is closed

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
        result = self._range_ioctl("UFFDIO_REGISTER", where, mode, check)
        if result.ok:
            pages = _pages(where)
            self._registered.append((pages.start, pages.length, RegisterMode(mode)))
        return result

    def unregister(self, where: MemoryMapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_UNREGISTER: give the faults of a range back to the kernel.

        The kernel wakes what waits there only where the range was registered for MISSING (fs/userfaultfd.c,
        userfaultfd_unregister()); otherwise follow it with :meth:`wake`.
        """
        result = self._range_ioctl("UFFDIO_UNREGISTER", where, 0, check)
        if result.ok:
            pages = _pages(where)
            self._registered.append((pages.start, pages.length, RegisterMode(0)))
        return result

    def wake(self, where: MemoryMapping | PageRange, *, check: bool = True) -> IoctlResult:
        """UFFDIO_WAKE: wake what waits in a range, for example after DONTWAKE."""
        return self._range_ioctl("UFFDIO_WAKE", where, 0, check)

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
            More bits for the mode word, also such as mean nothing.
        check : bool
            Raise :class:`IoctlError` on an errno; otherwise the result has it.
        """
        return self._range_ioctl("UFFDIO_CONTINUE", where, _mode(ContinueMode, wp, dontwake) | mode, check)

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
        pages = _pages(where)
        if len(data) > pages.length:
            raise UsageError(f"{len(data)} bytes do not fit into {pages} of {pages.length} bytes")
        values = {"dst": pages.start, "len": pages.length, "mode": _mode(CopyMode, wp, dontwake) | mode}
        return self.ioctl("UFFDIO_COPY", values, source=data.ljust(pages.length, b"\0"), where=str(pages), check=check)

    def zeropage(
        self, where: MemoryMapping | PageRange, *, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_ZEROPAGE: map pages of zeroes, resolving missing faults (not on hugetlb)."""
        return self._range_ioctl("UFFDIO_ZEROPAGE", where, int(dontwake) | mode, check)

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
        target, source = _pages(to), _pages(from_)
        if target.length != source.length:
            raise UsageError(f"{source} of {source.length} bytes cannot be moved to {target} of {target.length} bytes")
        if source.start < target.start < source.start + source.length:
            words = f"dict(dst={target.start:#x}, src={source.start:#x}, len={target.length})"
            raise UsageError(
                f"{target} begins within {source}: the kernel moves one page after the other, from the first on, and "
                "would move again what it has just moved. Move parts that do not overlap, the last one first; or see "
                f"what it does: uffd.ioctl('UFFDIO_MOVE', {words})"
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
        return self._range_ioctl("UFFDIO_WRITEPROTECT", where, _mode(WriteprotectMode, wp, dontwake) | mode, check)

    def poison(
        self, where: MemoryMapping | PageRange, *, dontwake: bool = False, mode: int = 0, check: bool = True
    ) -> IoctlResult:
        """UFFDIO_POISON: make every touch of these pages a SIGBUS (Linux 6.6)."""
        return self._range_ioctl("UFFDIO_POISON", where, int(dontwake) | mode, check)

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
        return self._range_ioctl("UFFDIO_RWPROTECT", where, bits, check)

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
        until = time.monotonic() + deadline
        done = result.done
        while result.errno == _errno.EAGAIN and time.monotonic() < until:
            sent = result.values
            ahead: dict[str, int] = {word: sent[word] + result.done for word in ("start", "dst", "src") if word in sent}
            values = {**sent, **ahead, "len": sent["len"] - result.done}
            source = None if result.source is None else result.source[result.done :]
            result = self.ioctl(result.name, values, source=source, check=False)
            done += result.done
        if check and not result.ok:
            raise self._error(uapi.IOCTLS[result.name], result)
        return replace(result, done=done)

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
            Each ioctl's mode word.
        data : bytes, optional
            What UFFDIO_COPY puts into each page.
        """
        ioctl, pages = self._known(name), _pages(where)
        one = pages.mapping.page_size
        if data is not None and len(data) > one:
            raise UsageError(f"{len(data)} bytes do not fit into a page of {one} bytes")
        place = "dst" if "dst" in ioctl.fields else "start"
        values = {place: pages.start, "len": one} | ({"mode": mode} if "mode" in ioctl.fields else {})
        source = data.ljust(one, b"\0") if data is not None else bytes(one) if name == "UFFDIO_COPY" else None
        request = RunBatch(self._number, name, values, one, pages.count, source)
        answer = self._target.ask(request, deadline=60.0 + pages.count / 5000)
        call = in_words(ioctl, values, f"each of {pages}")
        result = BatchResult(call, answer.errno, answer.done, answer.ended_ns - answer.started_ns)
        text = f"{call} → {errno_name(result.errno)}, {result.pages} pages"
        self._target.timeline.add("ioctl", text, answer.started_ns, answer.ended_ns, result)
        if check and not result.ok:
            reason = self._reason(ioctl, result.errno, {**values, place: pages.start + result.pages * one})
            raise IoctlError(call, result.errno, f"at page {result.pages} of them: {reason}", done=result.pages * one)
        return result

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
        ioctl = self._known(name, values)
        answer = self._target.ask(CallIoctl(self._number, name, values, source))
        result = IoctlResult.from_answer(ioctl, values, answer, where, source)
        text = f"{result.call} → {errno_name(result.errno)}"
        self._target.timeline.add("ioctl", text, answer.started_ns, answer.ended_ns, result)
        if check and not result.ok:
            raise self._error(ioctl, result)
        return result

    def start(self, name: str, values: dict[str, int]) -> PendingIoctl:
        """Do an ioctl on a thread of its own in the target, for one that may wait: UFFDIO_COPY from a page that faults.

        Parameters as for :meth:`ioctl`; the word ``src`` is an address in the target.
        """
        ioctl = self._known(name, values)
        address = values.get("dst", values.get("start", 0))
        more: SystemCall = {"call": "ioctl", "uffd": self._number, "name": name, "words": values}
        touch = self._target.touch(
            "syscall", address, in_words(ioctl, values, ""), length=values.get("len", 0), more=more
        )
        return PendingIoctl(touch, ioctl, dict(values))

    def _must_be_open(self) -> None:
        if self._number == 0:
            raise self._ended.with_traceback(None)

    def _known(self, name: str, values: Words[str, int] | None = None) -> uapi.Ioctl:
        self._must_be_open()
        if name not in uapi.IOCTLS:
            raise UsageError(f"{name!r} is no ioctl of a userfaultfd; there are {', '.join(uapi.IOCTLS)}")
        ioctl = uapi.IOCTLS[name]
        for word, value in (values or {}).items():
            if word not in ioctl.fields:
                raise UsageError(f"{name} has no word {word}; it has {', '.join(ioctl.fields)}")
            if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 64:
                raise UsageError(f"{word}={value!r} is no word of {name}: each is a number of 64 bits")
        return ioctl

    def _error(self, ioctl: uapi.Ioctl, result: IoctlResult) -> IoctlError:
        reason = self._reason(ioctl, result.errno, result.values)
        return IoctlError(result.call, result.errno, reason, done=result.done, output=result.output or 0)

    def _reason(self, ioctl: uapi.Ioctl, error: int, values: dict[str, int]) -> str:
        # From what is known already: to ask the target now could fail or hang, and hide the error itself.
        start = values.get("start", values.get("dst", 0))
        length = values.get("len", 0)
        beyond = not 0 <= start < start + length <= _USER_ADDRESSES
        if error in (_errno.EINVAL, _errno.ENOTTY) and ioctl.feature and not self.offered & ioctl.feature:
            return f"this kernel does not know {ioctl.name} (it came with Linux {ioctl.since})"
        found = self._target.known_capabilities
        return errno_reasons.explain(
            ioctl,
            error,
            values.get("mode", 0),
            registered=self._registered_for(values),
            knows_continue_wp=found.continue_wp if found else None,
            features=self.features,
            misfit=errno_reasons.misfit(ioctl, values, self._target.page_size_at(start)),
            beyond="len" in ioctl.fields and beyond,
            memory=self._target.memory_at(start),
        )

    def _range_ioctl(self, name: str, where: MemoryMapping | PageRange, mode: int, check: bool) -> IoctlResult:
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


def _pages(where: MemoryMapping | PageRange) -> PageRange:
    pages = pages_of(where)
    pages.mapping.must_be_there()
    return pages


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

"""Ioctls: make the ioctls of one userfaultfd in the target, and explain their errors."""

from __future__ import annotations

import errno as _errno
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from uffdlab import uapi
from uffdlab.errors import IoctlError, LabClosed, TargetLost, UsageError, errno_name
from uffdlab.target import errno_reasons
from uffdlab.target.ioctl_results import BatchResult, IoctlResult, PendingIoctl, call_text
from uffdlab.target.region import MemoryMapping, PageRange, pages_of
from uffdlab.uapi.protocol.target import CallIoctl, RunBatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.target.process import TargetProcess
    from uffdlab.uapi import Feature, RegisterMode
    from uffdlab.uapi.protocol.target import SystemCall

CLOSED = "this userfaultfd is closed; lab.userfaultfd() opens a new one"
_USER_ADDRESSES = 1 << 47  # of a process, on x86-64 with four levels; arm64 has twice as many


class Ioctls:
    """Makes the ioctls of one userfaultfd, and keeps what is needed to explain their errors.

    Parameters
    ----------
    target : TargetProcess
    number : int
        Number of the userfaultfd in the target.
    features, offered : Feature
        What is turned on, and what this kernel offers.
    registered : iterable of (int, int, RegisterMode)
        Start, length in bytes and modes of the ranges that are registered already.

    Attributes
    ----------
    number : int
        That number, 0 once the userfaultfd is closed or lost.
    registered : list of (int, int, RegisterMode)
        Those ranges, the newest last; without modes they are unregistered.
    """

    def __init__(
        self,
        target: TargetProcess,
        number: int,
        features: Feature,
        offered: Feature,
        registered: Iterable[tuple[int, int, RegisterMode]] = (),
    ) -> None:
        self.number = number
        self.registered = list(registered)
        self._target = target
        self._features = features
        self._offered = offered
        self._ended: LabClosed | TargetLost = LabClosed(CLOSED)  # what every call raises once it is closed

    def end(self, why: LabClosed | TargetLost) -> None:
        """Make every call raise `why` from now on: the userfaultfd is closed or lost."""
        self.number, self._ended = 0, why

    def must_be_open(self) -> None:
        """Raise what ended the userfaultfd, if anything did."""
        if self.number == 0:
            raise self._ended.with_traceback(None)

    def on_range(self, name: str, where: MemoryMapping | PageRange, mode: int, check: bool) -> IoctlResult:
        """Make an ioctl whose argument is a range and, where it has one, a mode."""
        pages = pages_there(where)
        values = {"start": pages.start, "len": pages.length}
        if "mode" in uapi.IOCTLS[name].fields:
            values["mode"] = mode
        return self.ioctl(name, values, where=str(pages), check=check)

    def resume(self, result: IoctlResult, *, deadline: float = 5.0, check: bool = True) -> IoctlResult:
        """See :meth:`uffdlab.target.userfaultfd.Userfaultfd.resume`."""
        until = time.monotonic() + deadline
        done = result.done
        while result.errno == _errno.EAGAIN and time.monotonic() < until:
            sent = result.values
            ahead: dict[str, int] = {
                field: sent[field] + result.done for field in ("start", "dst", "src") if field in sent
            }
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
        """See :meth:`uffdlab.target.userfaultfd.Userfaultfd.batch`."""
        ioctl, pages = self._known(name), pages_there(where)
        one = pages.mapping.page_size
        if data is not None and len(data) > one:
            raise UsageError(f"{len(data)} bytes do not fit into a page of {one} bytes")
        place = "dst" if "dst" in ioctl.fields else "start"
        values = {place: pages.start, "len": one} | ({"mode": mode} if "mode" in ioctl.fields else {})
        source = data.ljust(one, b"\0") if data is not None else bytes(one) if name == "UFFDIO_COPY" else None
        request = RunBatch(self.number, name, values, one, pages.count, source)
        answer = self._target.ask(request, deadline=60.0 + pages.count / 5000)
        call = call_text(ioctl, values, f"each of {pages}")
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
        """See :meth:`uffdlab.target.userfaultfd.Userfaultfd.ioctl`."""
        ioctl = self._known(name, values)
        answer = self._target.ask(CallIoctl(self.number, name, values, source))
        result = IoctlResult.from_answer(ioctl, values, answer, where, source)
        text = f"{result.call} → {errno_name(result.errno)}"
        self._target.timeline.add("ioctl", text, answer.started_ns, answer.ended_ns, result)
        if check and not result.ok:
            raise self._error(ioctl, result)
        return result

    def start(self, name: str, values: dict[str, int]) -> PendingIoctl:
        """See :meth:`uffdlab.target.userfaultfd.Userfaultfd.start`."""
        ioctl = self._known(name, values)
        address = values.get("dst", values.get("start", 0))
        more: SystemCall = {"call": "ioctl", "uffd": self.number, "name": name, "fields": values}
        touch = self._target.touch(
            "syscall", address, call_text(ioctl, values, ""), length=values.get("len", 0), more=more
        )
        return PendingIoctl(touch, ioctl, dict(values))

    def _known(self, name: str, values: Mapping[str, int] | None = None) -> uapi.Ioctl:
        self.must_be_open()
        if name not in uapi.IOCTLS:
            raise UsageError(f"{name!r} is no ioctl of a userfaultfd; there are {', '.join(uapi.IOCTLS)}")
        ioctl = uapi.IOCTLS[name]
        for field, value in (values or {}).items():
            if field not in ioctl.fields:
                raise UsageError(f"{name} has no field {field}; it has {', '.join(ioctl.fields)}")
            if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 64:
                raise UsageError(f"{field}={value!r} is no value for a field of {name}: it must be a number of 64 bits")
        return ioctl

    def _error(self, ioctl: uapi.Ioctl, result: IoctlResult) -> IoctlError:
        reason = self._reason(ioctl, result.errno, result.values)
        return IoctlError(result.call, result.errno, reason, done=result.done, output=result.output or 0)

    def _reason(self, ioctl: uapi.Ioctl, error: int, values: dict[str, int]) -> str:
        # From what is known already: to ask the target now could fail or hang, and hide the error itself.
        start = values.get("start", values.get("dst", 0))
        length = values.get("len", 0)
        beyond = not 0 <= start < start + length <= _USER_ADDRESSES
        if error in (_errno.EINVAL, _errno.ENOTTY) and ioctl.feature and not self._offered & ioctl.feature:
            return f"this kernel does not know {ioctl.name} (it came with Linux {ioctl.since})"
        found = self._target.known_capabilities
        return errno_reasons.explain(
            ioctl,
            error,
            values.get("mode", 0),
            registered=self._registered_for(values),
            knows_continue_wp=found.continue_wp if found else None,
            features=self._features,
            alignment=errno_reasons.alignment_fault(ioctl, values, self._target.page_size_at(start)),
            beyond="len" in ioctl.fields and beyond,
            memory=self._target.memory_at(start),
        )

    def _registered_for(self, values: dict[str, int]) -> RegisterMode | None:
        start = values.get("start", values.get("dst", 0))
        for low, length, mode in reversed(self.registered):
            if low <= start < low + length:
                return mode or None
        return None


def pages_there(where: MemoryMapping | PageRange) -> PageRange:
    """Return a region, an alias or a part of one as a range; TargetLost or UsageError if it is gone."""
    pages = pages_of(where)
    pages.mapping.must_be_there()
    return pages

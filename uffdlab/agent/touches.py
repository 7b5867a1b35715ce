"""Touches: accesses to memory that may fault, each on a native thread or in a forked child."""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

from uffdlab.agent.children import ForkedChild
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.pidfd import asleep
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.syscalls import Call, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {
    "read": lib.LAB_TOUCH_READ,
    "write": lib.LAB_TOUCH_WRITE,
    "modify": lib.LAB_TOUCH_MODIFY,
    "fill": lib.LAB_TOUCH_FILL,
    "sweep": lib.LAB_TOUCH_SWEEP,
    "copy_out": lib.LAB_TOUCH_COPY_OUT,
    "syscall": lib.LAB_TOUCH_SYSCALL,
}
_STATES = {
    lib.LAB_TOUCH_DONE: "done",
    lib.LAB_TOUCH_SIGNAL: "signal",
    lib.LAB_TOUCH_WITHDRAWN: "withdrawn",
}
_STRIDED = ("fill", "sweep")
_SWEEP_ACCESSES = ("read", "write", "modify")
_UINT64_LIMIT = 1 << 64
MAX_COPY_OUT = 16 << 20  # bytes
_SETTLE_SECONDS = 0.1  # seconds to wait until a touch ends or sleeps


class Ticket:
    """One touch that has not been reported as ended.

    Attributes
    ----------
    native : cdata
        struct lab_touch *, which must not be freed before the touch has ended.
    buffer : cdata
        The destination of COPY_OUT, or NULL.
    call : Call or None
        The system call that the touch makes, if it makes one.
    child : ForkedChild or None
        The forked child that makes it; None for a thread of the target.
    """

    def __init__(self, native: Any, buffer: Any, call: Call | None, child: ForkedChild | None) -> None:
        self.native, self.buffer, self.call, self.child = native, buffer, call, child

    def close(self) -> None:
        """Release its resources, and its child for another touch."""
        if self.call is not None:
            self.call.close()
        if self.child is not None:
            self.child.release()


class Touches:
    """All touches of one target, by number.  One that has ended is returned once, and removed.

    The lock is held in two periods, so that no touch is used after its end: from finding a ticket until its touch is
    withdrawn; and from removing it until its thread is joined.
    """

    def __init__(self) -> None:
        self.done_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = allocate_lock()
        self._tickets: dict[int, Ticket] = {}
        self._lost: list[tuple[int, dict[str, Any]]] = []  # results of touches whose child has ended

    def start(
        self,
        number: int,
        kind: str,
        address: int,
        length: int,
        stride: int,
        value: int,
        more: dict[str, Any] | None = None,
        child: ForkedChild | None = None,
    ) -> dict[str, Any]:
        """Start a touch; return its thread ID and whether it waits (sleeps in the kernel) now.

        :meth:`ended` returns the result of every touch, also of one that ends at once.

        Parameters
        ----------
        more : dict, optional
            For a sweep: ``each`` (read, write or modify), ``first``, ``jump``.  For a syscall: see
            :func:`uffdlab.agent.syscalls.prepare`.
        child : ForkedChild, optional
            The child that makes it, by default a thread of the target.
        """
        more = more or {}
        _check(kind, address, length, stride, value, more)
        if child is not None and kind == "copy_out":
            raise Refusal("usage", "a child cannot copy pages out; it can read single values")
        if number in self._tickets:
            raise Refusal("usage", f"touch {number} has not ended; each touch needs its own number")
        if child is not None:
            child.claim()  # first: its last touch may still use the memory that is written below
        ticket = None
        try:
            ticket = self._prepare(kind, address, length, stride, value, more, child)
            with self._lock:
                self._tickets[number] = ticket
            _start_thread(ticket)
        except BaseException:
            self._tickets.pop(number, None)
            if ticket is not None:
                ticket.close()
            elif child is not None:
                child.release()
            raise
        return {"waiting": _is_waiting(ticket), "thread": ticket.native.thread_id}

    def _prepare(
        self,
        kind: str,
        address: int,
        length: int,
        stride: int,
        value: int,
        more: dict[str, Any],
        child: ForkedChild | None,
    ) -> Ticket:
        touch = child.touch if child is not None else ffi.new("struct lab_touch *")
        buffer = ffi.new("char[]", length) if kind == "copy_out" else ffi.NULL
        touch.kind, touch.address, touch.length, touch.stride, touch.value = (
            _KINDS[kind], address, length, stride, value,
        )  # fmt: skip
        touch.each = _KINDS[more.get("each", "read")]
        touch.first, touch.jump = more.get("first", 0), more.get("jump", 1)
        touch.buffer = buffer
        if child is None:
            touch.done_fd = self.done_fd
        call = prepare(more, value, child) if kind == "syscall" else None
        if call is not None:
            touch.number, touch.arguments = call.number, call.arguments
        return Ticket(touch, buffer, call, child)

    def waiting(self, number: int) -> bool:
        """Return whether the touch sleeps in the kernel now."""
        ticket = self._tickets.get(number)
        return ticket is not None and _is_waiting(ticket)

    def progress(self, number: int) -> int:
        """Return how many accesses a sweep or fill has made; 0 for one that has ended."""
        with self._lock:
            ticket = self._tickets.get(number)
            return 0 if ticket is None else int(ticket.native.progress)

    def withdraw(self, number: int) -> None:
        """Ask a waiting touch to return without its access."""
        with self._lock:
            ticket = self._tickets.get(number)
            if ticket is None:
                return
            if ticket.child is not None:
                ticket.child.withdraw()
            else:
                lib.lab_touch_withdraw(ticket.native)

    def end_touches_of(self, child: ForkedChild) -> None:
        """Collect the results of a child that has ended; a touch that it did not finish ends as the process did."""
        with self._lock:
            for number in [number for number, ticket in self._tickets.items() if ticket.child is child]:
                ticket = self._tickets.pop(number)
                touch = ticket.native
                state = _STATES.get(lib.lab_touch_state_of(touch))
                why = ""
                if state is None:
                    state, touch.signal_number = "signal" if child.signal else "lost", child.signal
                    touch.signal_code = touch.signal_address = 0
                    touch.ended_ns = max(time.monotonic_ns(), touch.started_ns)
                    why = child.describe_end()
                self._lost.append((number, {**_result(ticket, state), "why": why}))
                ticket.close()
        os.eventfd_write(self.done_fd, 1)

    def ended(self) -> list[tuple[int, dict[str, Any]]]:
        """Return (number, result) of each touch that has ended since the last call."""
        try:
            os.eventfd_read(self.done_fd)
        except BlockingIOError:
            return []
        with self._lock:
            results, self._lost = self._lost, []
            for number in list(self._tickets):
                state = _STATES.get(lib.lab_touch_state_of(self._tickets[number].native))
                if state is None:
                    continue
                ticket = self._tickets.pop(number)
                if ticket.child is None:
                    lib.lab_touch_join(ticket.native)
                results.append((number, _result(ticket, state)))
                ticket.close()
        return results


def _check(kind: str, address: int, length: int, stride: int, value: int, more: dict[str, Any]) -> None:
    if kind not in _KINDS:
        raise Refusal("usage", f"a touch cannot be {kind!r}; it can be {', '.join(_KINDS)}")
    numbers = {"address": address, "length": length, "stride": stride, "value": value}
    numbers |= {name: more[name] for name in ("first", "jump") if name in more}
    for name, number in numbers.items():
        if not isinstance(number, int) or not 0 <= number < _UINT64_LIMIT:
            raise Refusal("usage", f"{kind} with {name}={number!r}: it must be an integer from 0 to 2⁶⁴ - 1")
    if kind in _STRIDED and not stride:
        raise Refusal("usage", f"{kind} with stride=0 would stay at one address; give the size of a page in bytes")
    if kind == "copy_out" and length > MAX_COPY_OUT:
        raise Refusal("usage", f"{length} bytes are more than can be copied at once ({MAX_COPY_OUT})")
    if more.get("each", "read") not in _SWEEP_ACCESSES:
        raise Refusal("usage", f"a sweep cannot {more['each']!r}; it can {', '.join(_SWEEP_ACCESSES)}")


def _start_thread(ticket: Ticket) -> None:
    if ticket.child is not None:
        ticket.child.go()
        return
    error = lib.lab_touch_start(ticket.native)
    if error:
        raise Refusal("usage", f"no thread for a touch: {os.strerror(-error)}; many are waiting already")


def _result(ticket: Ticket, state: str) -> dict[str, Any]:
    touch, call = ticket.native, ticket.call
    made, signalled = state == "done", state == "signal"
    result = {
        "state": state,
        "value": touch.value if made else 0,
        "thread": touch.thread_id,
        "signal": touch.signal_number if signalled else 0,
        "signal_code": touch.signal_code if signalled else 0,
        "signal_address": touch.signal_address if signalled else 0,
        "returned": touch.returned if call is not None else 0,
        "progress": touch.progress,
        "started_ns": touch.started_ns,
        "ended_ns": touch.ended_ns,
    }
    if call is not None:
        result["value"] = call.value() if made and touch.returned >= 0 else 0
        result["fields"] = call.fields()
    if ticket.buffer and made:
        result["bytes"] = bytes(ffi.buffer(ticket.buffer))  # the agent's buffer, never registered memory
    return result


def _is_waiting(ticket: Ticket) -> bool:
    # A touch either ends within microseconds or sleeps until its fault is resolved.  A long one (a fill of many pages)
    # does neither for a while; it is not waiting.
    touch = ticket.native
    until = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < until:
        if lib.lab_touch_state_of(touch) != lib.LAB_TOUCH_STARTED:
            return False
        # A child also sleeps before it has begun.
        if touch.thread_id and (ticket.child is None or touch.started_ns) and asleep(touch.thread_id):
            # A thread that has just ended its touch may sleep while it exits: read the state once more.
            return bool(lib.lab_touch_state_of(touch) == lib.LAB_TOUCH_STARTED)
        time.sleep(0.0002)
    return False

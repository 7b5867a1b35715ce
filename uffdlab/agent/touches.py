"""Touches: accesses to memory that may fault, each on a native thread of its own, each a ticket."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import Refusal

_KINDS = {
    "read": lib.LAB_TOUCH_READ,
    "write": lib.LAB_TOUCH_WRITE,
    "fill": lib.LAB_TOUCH_FILL,
    "copy_out": lib.LAB_TOUCH_COPY_OUT,
}
_STATES = {
    lib.LAB_TOUCH_DONE: "done",
    lib.LAB_TOUCH_SIGNAL: "signal",
    lib.LAB_TOUCH_WITHDRAWN: "withdrawn",
}
MAX_COPY_OUT = 16 << 20  # bytes
_SETTLE = 0.1  # seconds until a touch either ended or sleeps


@dataclass
class _Ticket:
    native: Any  # struct lab_touch *, kept alive here
    buffer: Any


class Touches:
    """All touches of one target, by number; those that ended are given once and forgotten."""

    def __init__(self) -> None:
        self.done_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._tickets: dict[int, _Ticket] = {}

    def start(self, number: int, kind: str, address: int, length: int, stride: int, value: int) -> dict[str, Any]:
        """Start a touch; gives its thread id and whether it waits (sleeps in the kernel) now.

        The end of every touch is told by :meth:`ended`, also of one that ends at once.
        """
        if kind not in _KINDS:
            raise Refusal("usage", f"a touch cannot be {kind!r}; it can be {', '.join(_KINDS)}")
        if kind == "copy_out" and length > MAX_COPY_OUT:
            raise Refusal("usage", f"{length} bytes are more than can be copied at once ({MAX_COPY_OUT})")
        touch = ffi.new("struct lab_touch *")
        buffer = ffi.new("char[]", length) if kind == "copy_out" else ffi.NULL
        touch.kind, touch.address, touch.length, touch.stride, touch.value = (
            _KINDS[kind], address, length, stride, value,
        )  # fmt: skip
        touch.buffer = buffer
        touch.done_fd = self.done_fd
        self._tickets[number] = _Ticket(touch, buffer)
        error = lib.lab_touch_start(touch)
        if error:
            del self._tickets[number]
            raise Refusal("usage", f"no thread for a touch: {os.strerror(-error)}; many are waiting already")
        return {"waiting": _settle(touch), "thread": touch.thread_id}

    def waiting(self, number: int) -> bool:
        """Tell whether the touch sleeps in the kernel now."""
        ticket = self._tickets.get(number)
        return ticket is not None and _settle(ticket.native)

    def withdraw(self, number: int) -> None:
        """Ask a waiting touch to come back without its access."""
        ticket = self._tickets.get(number)
        if ticket is not None:
            lib.lab_touch_withdraw(ticket.native)

    def ended(self) -> list[tuple[int, dict[str, Any]]]:
        """Give (number, result) of each touch that has ended since the last call."""
        try:
            os.eventfd_read(self.done_fd)
        except BlockingIOError:
            return []
        found = []
        for number, ticket in list(self._tickets.items()):
            state = _STATES.get(lib.lab_touch_state_of(ticket.native))
            if state is None:
                continue
            lib.lab_touch_join(ticket.native)
            del self._tickets[number]
            found.append((number, _result(ticket, state)))
        return found


def _result(ticket: _Ticket, state: str) -> dict[str, Any]:
    touch = ticket.native
    result = {
        "state": state,
        "value": touch.value,
        "thread": touch.thread_id,
        "signal": touch.signal_number if state == "signal" else 0,
        "signal_code": touch.signal_code if state == "signal" else 0,
        "signal_address": touch.signal_address if state == "signal" else 0,
        "started_ns": touch.started_ns,
        "ended_ns": touch.ended_ns,
    }
    if ticket.buffer:
        result["bytes"] = bytes(ffi.buffer(ticket.buffer))  # our own buffer, never registered memory
    return result


def _settle(touch: Any) -> bool:
    # A touch either ends within microseconds or sleeps until somebody resolves its fault.  Long ones (a fill of many
    # pages) do neither for a while; they do not wait.
    until = time.monotonic() + _SETTLE
    while time.monotonic() < until:
        if lib.lab_touch_state_of(touch) != lib.LAB_TOUCH_STARTED:
            return False
        if touch.thread_id and _sleeps(touch.thread_id):
            # A thread that has just ended its touch may sleep on its way out: look once more at the state.
            return bool(lib.lab_touch_state_of(touch) == lib.LAB_TOUCH_STARTED)
        time.sleep(0.0002)
    return False


def _sleeps(thread: int) -> bool:
    try:
        stat = Path(f"/proc/self/task/{thread}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] in "SD"

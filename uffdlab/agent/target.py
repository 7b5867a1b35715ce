"""The target: the sacrificial process whose pages are looked at.

It owns the mappings and the userfaultfds and takes the faults.  Its main thread answers requests; a second one, the
feed, reads the userfaultfds and tells at once what they say and which touches ended; each touch runs on a native
thread.  No Python thread ever touches registered memory.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from uffdlab import uapi
from uffdlab.agent import native, probe, uffds, witness_methods
from uffdlab.agent.mappings import Mappings
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import REQUEST, Channel, Refusal
from uffdlab.agent.touches import Touches

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_BEACON_PLACE = 0x8_0000_0000
_MAX_SOURCE = 64 << 20  # bytes of one UFFDIO_COPY


class Target:
    """What the target can do, one method an RPC.

    Parameters
    ----------
    channel : Channel
        Where results and notifications go.
    nonce : bytes
        What the beacon page holds, so that the host can tell these page tables from any others.
    base : int
        Where the first region is put.
    """

    def __init__(self, channel: Channel, nonce: bytes, base: int) -> None:
        self._channel = channel
        self._mappings = Mappings(base)
        self._touches = Touches()
        self._uffds = uffds.Userfaultfds()
        self._feed_lock = threading.Lock()  # one reader of messages and endings at a time, so that order is kept
        self._feed_changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._beacon = native.map_memory(_BEACON_PLACE, mmap.PAGESIZE, _READ_WRITE, _PRIVATE, -1)
        lib.lab_poke(self._beacon, nonce, len(nonce))
        native.madvise(self._beacon, mmap.PAGESIZE, mmap.MADV_DONTFORK)  # a child is another target: not by this beacon
        self.methods: dict[str, Callable[..., Any]] = {
            "target.map": self._mappings.make,
            "target.unmap": self._mappings.remove,
            "target.probe": probe.all_of_it,
            "target.uffd_open": self._uffd_open,
            "target.uffd_close": self._uffd_close,
            "target.ioctl": self._ioctl,
            "target.touch": self._touches.start,
            "target.touch_waits": self._touches.waiting,
            "target.withdraw": self._touches.withdraw,
            "target.sync": self._feed_once,
            "target.spin": lambda nanoseconds: lib.lab_spin_start(nanoseconds),
            "target.spin_stop": lambda: lib.lab_spin_stop(),
            **witness_methods.of(self._beacon),
        }

    # --- userfaultfd

    def _uffd_open(self, wanted: int, required: int) -> dict[str, Any]:
        answer = self._uffds.open(wanted, required)
        os.eventfd_write(self._feed_changed, 1)
        return answer

    def _uffd_close(self, number: int) -> None:
        with self._feed_lock:
            self._uffds.close(number)
        os.eventfd_write(self._feed_changed, 1)

    def _ioctl(self, number: int, name: str, values: dict[str, int], source: bytes | None) -> dict[str, Any]:
        """Do one ioctl; `source` is what UFFDIO_COPY is to copy, put into memory of our own for the time."""
        fd = self._uffds.fd(number)
        ioctl = uapi.IOCTLS[name]
        if source is None:
            return uffds.call(fd, ioctl, values)
        if not 0 < len(source) <= _MAX_SOURCE:
            raise Refusal("usage", f"{name} can copy 1 to {_MAX_SOURCE} bytes here, not {len(source)}")
        length = -(-len(source) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = native.map_memory(0, length, _READ_WRITE, _PRIVATE, -1)
        try:
            lib.lab_poke(memory, ffi.from_buffer(source), len(source))
            return uffds.call(fd, ioctl, {**values, "src": memory})
        finally:
            native.unmap_memory(memory, length)

    # --- the feed

    def feed(self) -> None:
        """Tell what the userfaultfds say and which touches ended, as it happens, for ever."""
        while True:
            poll = select.poll()
            for fd in (self._feed_changed, self._touches.done_fd, *list(self._uffds.fds.values())):
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._feed_changed:
                    os.eventfd_read(fd)
            self._feed_once()

    def _feed_once(self) -> None:
        # Also called as target.sync: what happened before that call is told before it returns.
        with self._feed_lock:
            for number in list(self._uffds.fds):
                for message in self._uffds.read(number):
                    self._channel.notify("message", number, message, time.monotonic_ns())
            for number, result in self._touches.ended():
                self._channel.notify("touch", number, result)


def serve(stream: socket.socket, nonce: bytes, base: int) -> None:
    """Be the target on `stream` until it closes.  Runs in a child process of its own."""
    lib.lab_die_with_parent()
    channel = Channel(stream.fileno(), stream.fileno())
    target = Target(channel, nonce, base)
    threading.Thread(target=target.feed, name="feed", daemon=True).start()
    while True:
        try:
            frames = list(channel.receive())
        except (EOFError, ConnectionResetError):
            return
        for kind, number, method, params in frames:
            if kind == REQUEST:
                _answer(channel, target, number, method, params)


def _answer(channel: Channel, target: Target, number: int, method: str, params: list[Any]) -> None:
    try:
        handler = target.methods.get(method)
        if handler is None:
            raise Refusal("unknown-method", f"the target does not know {method}; host and agent differ in version")
        result = handler(*params)
    except Refusal as refusal:
        channel.respond(number, refusal.as_map(), None)
    except Exception as error:  # noqa: BLE001 - whatever it is, the host must hear of it
        channel.respond(number, {"kind": type(error).__name__, "message": str(error), "data": {}}, None)
    else:
        channel.respond(number, None, result)

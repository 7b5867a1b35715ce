"""The target: the process whose pages are observed.

It owns the mappings and the userfaultfds and takes the faults.  Its main thread answers requests.  A second thread, the
feed, reads the userfaultfds and notifies the host at once of their messages and of touches that ended.  Each touch runs
on a native thread.  No Python thread ever accesses registered memory.
"""

from __future__ import annotations

import mmap
import os
import select
import time
from _thread import allocate_lock, start_new_thread

from uffdlab.agent import handlers, native, userfaultfds
from uffdlab.agent.children import Children
from uffdlab.agent.mappings import Mappings
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import REQUEST, Channel, MarkedChannel, Refusal
from uffdlab.agent.touches import Touches
from uffdlab.agent.witnesses import methods
from uffdlab.uapi.layout import EVENT_FORK, LAYOUTS, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_BEACON_PLACE = 0x8_0000_0000
_PAUSE = 0.05  # seconds before a failed read is tried again
_MAX_SOURCE = 64 << 20  # bytes that one UFFDIO_COPY can copy


class Target:
    """The methods of the target, one for each RPC.

    Parameters
    ----------
    notify : callable
        ``notify(method, *params)`` sends a notification. It is called from any thread.
    nonce : bytes
        The content of the beacon page, by which the host finds these page tables among others.
    base : int
        The address of the first region.
    """

    def __init__(self, notify: Callable[..., None], nonce: bytes, base: int) -> None:
        self._notify = notify
        self._mappings = Mappings(base)
        self._touches = Touches()
        self._children = Children(self._touches.done_fd)
        self._uffds = userfaultfds.Userfaultfds()
        self._handlers: dict[int, handlers.Handler] = {}  # by number of the userfaultfd
        self._unread: set[int] = set()  # numbers of the userfaultfds that must not be read
        self._feed_lock = allocate_lock()  # one reader of messages and ended touches at a time keeps their order
        self._feed_changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._beacon = native.map_memory(_BEACON_PLACE, mmap.PAGESIZE, _READ_WRITE, _PRIVATE, -1)
        lib.lab_poke(self._beacon, nonce, len(nonce))
        native.madvise(self._beacon, mmap.PAGESIZE, mmap.MADV_DONTFORK)  # a child has other page tables
        self.methods: dict[str, Callable[..., Any]] = {
            "target.map": self._mappings.make,
            "target.unmap": self._mappings.remove,
            "target.free_place": self._mappings.free_place,
            "target.moved": self._mappings.moved,
            "target.probe": _probe,
            "target.uffd_open": self._uffd_open,
            "target.uffd_close": self._uffd_close,
            "target.uffd_unread": self._uffd_unread,
            "target.ioctl": self._ioctl,
            "target.batch": self._batch,
            "target.touch": self._touch,
            "target.touch_waits": self._touches.waiting,
            "target.touch_progress": self._touches.progress,
            "target.withdraw": self._touches.withdraw,
            "target.fork": self._fork,
            "target.end_child": self._end_child,
            "target.handle": self._handle,
            "target.handler_counts": lambda number: self._handler(number).counts(),
            "target.handler_stop": self._handler_stop,
            "target.sync": self._send_pending,
            "target.spin": lambda nanoseconds: lib.lab_spin_start(nanoseconds),
            "target.spin_stop": lambda: lib.lab_spin_stop(),
            **methods.rpc_methods(self._beacon, lambda child: self._children.find(child).pid),
        }

    # --- userfaultfd

    def _uffd_open(self, wanted: int, required: int) -> dict[str, Any]:
        with self._feed_lock:  # the feed adopts the userfaultfds of FORK events, and goes through all of them
            answer = self._uffds.open(wanted, required)
        os.eventfd_write(self._feed_changed, 1)
        return answer

    def _uffd_close(self, number: int) -> None:
        if number in self._handlers:
            self._handler_stop(number)
        with self._feed_lock:
            self._uffds.close(number)
            self._unread.discard(number)
        os.eventfd_write(self._feed_changed, 1)

    def _uffd_unread(self, number: int, unread: bool) -> None:
        """Stop reading the messages of a userfaultfd, or start again."""
        self._uffds.fd(number)
        if number in self._handlers:
            raise Refusal("usage", "a native handler reads this userfaultfd; stop it first")
        with self._feed_lock:
            (self._unread.add if unread else self._unread.discard)(number)
        os.eventfd_write(self._feed_changed, 1)

    def _ioctl(self, number: int, name: str, values: dict[str, int], source: bytes | None) -> dict[str, Any]:
        """Do one ioctl. UFFDIO_COPY copies `source` from scratch memory."""
        fd = self._uffds.fd(number)
        ioctl = LAYOUTS[name]
        if source is None:
            return userfaultfds.call(fd, ioctl, values)
        with _ScratchMemory(source, name) as memory:
            return userfaultfds.call(fd, ioctl, {**values, "src": memory})

    def _batch(
        self, number: int, name: str, values: dict[str, int], step: int, count: int, source: bytes | None
    ) -> dict[str, Any]:
        """Do one ioctl for each page. UFFDIO_COPY copies `source` to every page."""
        fd = self._uffds.fd(number)
        ioctl = LAYOUTS[name]
        if source is None:
            return userfaultfds.batch(fd, ioctl, values, step, count)
        with _ScratchMemory(source, name) as memory:
            return userfaultfds.batch(fd, ioctl, {**values, "src": memory}, step, count)

    # --- native handlers

    def _handle(self, number: int, policies: dict[str, str], page_size: int, content: bytes) -> None:
        """Start a native loop that serves a userfaultfd in place of the feed."""
        fd = self._uffds.fd(number)
        if number in self._handlers:
            raise Refusal("usage", "a handler serves this userfaultfd already; stop it first")
        if number in self._unread:
            raise Refusal("usage", "the messages of this userfaultfd are left unread now; a handler would read them")
        handlers.check(policies, page_size, content)
        with self._feed_lock:
            self._handlers[number] = handlers.Handler(fd, policies, page_size, content)
        os.eventfd_write(self._feed_changed, 1)

    def _handler(self, number: int) -> handlers.Handler:
        if number not in self._handlers:
            raise Refusal("usage", "this handler was stopped")
        return self._handlers[number]

    def _handler_stop(self, number: int) -> dict[str, Any]:
        handler = self._handler(number)
        handler.stop()
        self._send_pending()  # sends what the handler has forwarded before its pipe is closed
        with self._feed_lock:
            del self._handlers[number]
            counts = handler.close()
        os.eventfd_write(self._feed_changed, 1)
        return counts

    # --- touches by children

    def _touch(
        self,
        number: int,
        kind: str,
        address: int,
        length: int,
        stride: int,
        value: int,
        more: dict[str, Any] | None = None,
        child: int = 0,
    ) -> dict[str, Any]:
        forked_child = self._children.find(child) if child else None
        if more and more.get("call") == "ioctl":
            if forked_child is not None:
                raise Refusal("usage", "a child has no userfaultfd to make ioctls on")
            more = {**more, "fd": self._uffds.fd(more["uffd"])}
        return self._touches.start(number, kind, address, length, stride, value, more, forked_child)

    def _fork(self) -> dict[str, int]:
        answer = self._children.fork()
        os.eventfd_write(self._feed_changed, 1)
        return answer

    def _end_child(self, pid: int) -> None:
        child = self._children.find(pid)
        child.end()
        with self._feed_lock:
            self._touches.end_touches_of(child)
            self._children.forget(child)
        os.eventfd_write(self._feed_changed, 1)

    # --- the feed

    def feed(self) -> None:
        """Notify the host of messages and of touches that ended, until the agent has ended.

        A failure is reported once and the read is tried again: if there is no descriptor left for the userfaultfd of a
        FORK event, the event stays in the kernel.
        """
        reported = ""
        while True:
            try:
                self._wait()
                self._send_pending()
                reported = ""
            except ConnectionError:  # the agent has ended; the main thread sees that too, and ends the target
                return
            except Exception as error:  # noqa: BLE001 - the host gets every error
                why = f"{type(error).__name__}: {error}"
                if why != reported:
                    self._notify("feed-error", why)
                reported = why
                time.sleep(_PAUSE)

    def _wait(self) -> None:
        poll = select.poll()
        for fd in (self._feed_changed, self._touches.done_fd, *self._children.running_fds(), *self._message_fds()):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll():
            if fd == self._feed_changed:
                os.eventfd_read(fd)

    def _message_fds(self) -> list[int]:
        with self._feed_lock:
            served = {number: handler.messages_fd for number, handler in self._handlers.items()}
            return [fd for number, fd in {**self._uffds.fds, **served}.items() if number not in self._unread]

    def _adopt_userfaultfd_of_child(self, message: bytes) -> int:
        """Return the number of the new userfaultfd if the message is a FORK event, else 0."""
        event, arguments = decode(message)
        if event != EVENT_FORK:
            return 0
        number = self._uffds.adopt(arguments[0])
        os.eventfd_write(self._feed_changed, 1)
        return number

    def _send_pending(self) -> None:
        # Also target.sync: the host is notified of all that happened before the call when it returns.
        failed = None
        with self._feed_lock:
            for number in [number for number in self._uffds.fds if number not in self._unread]:
                try:
                    self._send_messages(number)
                except OSError as error:  # only of this userfaultfd: continue with the others
                    failed = OSError(error.errno, f"userfaultfd {number} cannot be read: {error.strerror}")
            for child in self._children.newly_ended():
                self._touches.end_touches_of(child)
            for number, result in self._touches.ended():
                self._notify("touch", number, result)
        if failed is not None:
            raise failed

    def _send_messages(self, number: int) -> None:
        handler = self._handlers.get(number)
        for message in handler.read() if handler else self._uffds.read(number):
            self._notify("message", number, message, time.monotonic_ns(), self._adopt_userfaultfd_of_child(message))


def _probe() -> dict[str, Any]:
    from uffdlab.agent import probe

    return probe.capabilities()


class _ScratchMemory:
    """Bytes in scratch memory, whose address a ``with`` block gets."""

    def __init__(self, source: bytes, name: str) -> None:
        if not 0 < len(source) <= _MAX_SOURCE:
            raise Refusal("usage", f"{name} can copy 1 to {_MAX_SOURCE} bytes here, not {len(source)}")
        self._source = ffi.from_buffer(source)
        self._length = -(-len(source) // mmap.PAGESIZE) * mmap.PAGESIZE

    def __enter__(self) -> int:
        self._memory = native.map_memory(0, self._length, _READ_WRITE, _PRIVATE, -1)
        lib.lab_poke(self._memory, self._source, len(self._source))
        return self._memory

    def __exit__(self, *_: object) -> None:
        native.unmap_memory(self._memory, self._length)


class _Streams:
    # The streams to the host: through the agent always, and the target's own port once its marker has arrived there.

    def __init__(self, stream: int, nonce: bytes, port: int) -> None:
        relayed = Channel(stream, stream)
        self._direct = MarkedChannel(port, nonce) if port >= 0 else None
        self._by_fd: dict[int, Channel] = {stream: relayed}
        if self._direct:
            self._by_fd[port] = self._direct
        self._through_agent = relayed
        self._poll = select.poll()
        for fd in self._by_fd:
            self._poll.register(fd, select.POLLIN)

    def requests(self) -> Iterator[tuple[Channel, list[Any]]]:
        while True:
            for fd, _ in self._poll.poll():
                channel = self._by_fd[fd]
                for frame in channel.receive():
                    yield channel, frame

    def notify(self, method: str, *params: Any) -> None:
        channel = self._direct if self._direct and self._direct.marker_arrived else self._through_agent
        channel.notify(method, *params)


def serve(stream: int, nonce: bytes, base: int, port: int = -1) -> None:
    """Serve as the target on `stream` until it closes, and on `port` if there is one, in a process of its own."""
    lib.lab_die_with_parent()
    streams = _Streams(stream, nonce, port)
    target = Target(streams.notify, nonce, base)
    start_new_thread(target.feed, ())
    try:
        for channel, (kind, number, method, params) in streams.requests():
            if kind == REQUEST:
                _answer(channel, target, number, method, params)
    except (EOFError, ConnectionError):  # the agent has ended
        pass


def _answer(channel: Channel, target: Target, number: int, method: str, params: list[Any]) -> None:
    try:
        handler = target.methods.get(method)
        if handler is None:
            raise Refusal(
                "unknown-method", f"the target does not know {method}; host and agent have different versions"
            )
        result = handler(*params)
    except Refusal as refusal:
        channel.respond(number, refusal.as_map(), None)
    except Exception as error:  # noqa: BLE001 - the host gets every error
        channel.respond(number, {"kind": type(error).__name__, "message": str(error), "data": {}}, None)
    else:
        channel.respond(number, None, result)

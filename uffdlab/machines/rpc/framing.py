"""One byte stream from the host to the guest: frames go out by a deadline, and come in within bounds."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack

MAX_FRAME = 64 << 20  # bytes
MAX_ITEMS = 1 << 16  # of one array or map: the unpacker makes room for all of them when it sees the header
_CHUNK = 1 << 18


class Malformed(Exception):
    """What came is no frame."""


class Full(Exception):
    """The other end has not taken all of it by the deadline.

    Attributes
    ----------
    begun : bool
        Some of it is out, so that nothing can follow.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class Line:
    """A stream of MessagePack frames; sending is safe from any thread, one thread receives.

    Parameters
    ----------
    stream : socket
        The line closes it.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._sending = threading.Lock()
        self._restart()

    def _restart(self) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            max_buffer_size=MAX_FRAME,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
        # The unpacker bounds what it has not looked at yet, not what it has made of half a frame.
        self._fed = self._finished = 0

    def fileno(self) -> int:
        """Give the descriptor to poll for reading."""
        return self._stream.fileno()

    def send(self, data: bytes, until: float) -> None:
        """Send some bytes, as a whole.

        Parameters
        ----------
        data : bytes
        until : float
            The deadline, as time.monotonic() has it.

        Raises
        ------
        Full
            The other end took too little.
        OSError
            The stream is broken.
        """
        if not self._sending.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Full(begun=False)
        try:
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[self._stream.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    if not self._writable(until):
                        raise Full(begun=len(rest) < len(data)) from None
        finally:
            self._sending.release()

    def _writable(self, until: float) -> bool:
        poll = select.poll()
        poll.register(self._stream, select.POLLOUT)
        return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))

    def receive(self) -> Iterator[Any]:
        """Read what is there now and give the frames that it completes; none if there is nothing.

        Raises
        ------
        EOFError
            The other end has closed.
        OSError
            The stream is broken.
        Malformed, or what msgpack raises
            It is no frame, or a larger one than any may be.
        """
        try:
            data = self._stream.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        yield from self._frames(data)

    def _frames(self, data: bytes) -> Iterator[Any]:
        self._fed += len(data)
        self._unpacker.feed(data)
        for frame in self._unpacker:
            self._finished = self._unpacker.tell()
            yield frame
        if self._fed - self._finished > MAX_FRAME:
            raise Malformed(f"it is larger than {MAX_FRAME >> 20} MiB")

    def shutdown(self) -> None:
        """End it for both sides; whoever reads it sees its end."""
        with contextlib.suppress(OSError):  # it was closed before
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the stream, which others may still use."""
        self._stream.close()


class TargetLine(Line):
    """The line straight to a guest's target process, whichever that is now.

    A target may die in the middle of a frame, on either side of it.  So each one has a marker, random bytes that the
    host sends first and the target sends back first; what comes before it is for or from another one, and is dropped.

    Attributes
    ----------
    marker : bytes
        That of the target which is there, or is awaited; empty when there is none.
    up : bool
        The target has sent it back: it can be asked here.
    """

    def __init__(self, stream: socket.socket) -> None:
        super().__init__(stream)
        self.marker = b""
        self.up = False
        self._changing = threading.Lock()
        self._seen = b""

    def expect(self, marker: bytes) -> None:
        """Drop everything until a target with this marker speaks."""
        with self._changing:
            self.marker, self.up, self._seen = marker, False, b""

    def drop(self, marker: bytes) -> None:
        """Drop everything from the target with this marker, unless another one is awaited by now."""
        with self._changing:
            if self.marker == marker:
                self.marker, self.up, self._seen = b"", False, b""

    def _frames(self, data: bytes) -> Iterator[Any]:
        with self._changing:
            if not self.marker:
                return
            if not self.up:
                self._seen += data
                at = self._seen.find(self.marker)
                if at < 0:
                    self._seen = self._seen[-len(self.marker) :]
                    return
                data, self._seen = self._seen[at + len(self.marker) :], b""
                self._restart()
                self.up = True
        yield from super()._frames(data)

"""One byte stream between host and guest: frames are sent by a deadline and received within size limits."""

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
MAX_ITEMS = 1 << 16  # of one array or map: the unpacker allocates all of them when it reads the header
_CHUNK = 1 << 18
_LONGEST_POLL = (1 << 31) - 1  # ms; poll(2) takes no more


class Malformed(Exception):
    """The received bytes are not a valid frame."""


class Full(Exception):
    """The other end has not read all bytes by the deadline.

    Attributes
    ----------
    begun : bool
        Whether some bytes were sent, so that no other frame can follow.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class Line:
    """A stream of MessagePack frames.  Any thread can send, one thread receives.

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
        # The unpacker limits the bytes that it has not parsed, but not the objects of an incomplete frame.
        self._received = self._finished = 0

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._stream.fileno()

    def send(self, data: bytes, until: float) -> None:
        """Send all of `data`.

        Parameters
        ----------
        data : bytes
        until : float
            The deadline, in seconds of time.monotonic().

        Raises
        ------
        Full
            The other end did not read all of it in time.
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
        return bool(poll.poll(min(max(0.0, until - time.monotonic()) * 1000, _LONGEST_POLL)))

    def receive(self) -> Iterator[Any]:
        """Read what is available and yield the frames that it completes.  Does not wait.

        Raises
        ------
        EOFError
            The other end has closed.
        OSError
            The stream is broken.
        Malformed, or what msgpack raises
            It is not a frame, or exceeds the limits.
        """
        try:
            data = self._stream.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        yield from self._frames(data)

    def _frames(self, data: bytes) -> Iterator[Any]:
        self._received += len(data)
        self._unpacker.feed(data)
        for frame in self._unpacker:
            self._finished = self._unpacker.tell()
            yield frame
        if self._received - self._finished > MAX_FRAME:
            raise Malformed(f"it is larger than {MAX_FRAME >> 20} MiB")

    def shutdown(self) -> None:
        """Shut the stream down for both sides, so that readers get the end of file."""
        with contextlib.suppress(OSError):  # it was closed already
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's descriptor of the stream, which others may still use."""
        self._stream.close()


class TargetLine(Line):
    """The line directly to the present target process of a guest.

    A target may end in the middle of a frame that it sends or receives.  So each target has a marker, random bytes that
    the host sends first and the target sends back first.  Everything before it is another target's and is dropped.

    Attributes
    ----------
    marker : bytes
        The marker of the present or expected target; empty if there is none.
    marker_returned : bool
        Whether the target has sent the marker back, so that this line can be used.
    """

    def __init__(self, stream: socket.socket) -> None:
        super().__init__(stream)
        self.marker = b""
        self.marker_returned = False
        self._changing = threading.Lock()
        self._seen = b""

    def expect(self, marker: bytes) -> None:
        """Drop everything until the target with this marker sends it back."""
        with self._changing:
            self.marker, self.marker_returned, self._seen = marker, False, b""

    def drop(self, marker: bytes) -> None:
        """Drop everything from the target with this marker, unless another one is expected by now."""
        with self._changing:
            if self.marker == marker:
                self.marker, self.marker_returned, self._seen = b"", False, b""

    def _frames(self, data: bytes) -> Iterator[Any]:
        with self._changing:
            if not self.marker:
                return
            if not self.marker_returned:
                self._seen += data
                at = self._seen.find(self.marker)
                if at < 0:
                    self._seen = self._seen[-len(self.marker) :]
                    return
                data, self._seen = self._seen[at + len(self.marker) :], b""
                self._restart()
                self.marker_returned = True
        yield from super()._frames(data)

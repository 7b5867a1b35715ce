"""The agent's end of the connection: MessagePack-RPC frames over file descriptors.

Request ``[0, id, method, params]``, response ``[1, id, error, result]``, notification ``[2, method, params]``, as in
the MessagePack-RPC specification.  Host and agent use it, and agent and target.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
MAX_FRAME = 64 << 20  # bytes; the host refuses more
_CHUNK = 1 << 16
_KEEP_BUFFER = 1 << 20  # bytes; a packer that has packed more is replaced, to free its memory


class Refusal(Exception):
    """An error that is sent to the host as ``{"kind", "message", "data"}``."""

    def __init__(self, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.data = data

    def as_map(self) -> dict[str, Any]:
        """Return the map that is sent."""
        return {"kind": self.kind, "message": str(self), "data": self.data}


class Channel:
    """A byte stream that carries frames in both directions; sending is safe from any thread.

    Parameters
    ----------
    read_fd, write_fd : int
        The descriptors to read from and write to, which may be the same.  The channel does not close them.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=MAX_FRAME)
        self._packer = msgpack.Packer(use_bin_type=True)
        self._lock = allocate_lock()

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._read_fd

    def receive(self) -> Iterator[list[Any]]:
        """Read what is available and yield the frames that it completes.

        Raises
        ------
        EOFError
            When the other side has closed.
        """
        try:
            data = os.read(self._read_fd, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        self._unpacker.feed(self._after_marker(data))
        yield from self._unpacker

    def _after_marker(self, data: bytes) -> bytes:
        return data

    def request(self, number: int, method: str, params: list[Any]) -> None:
        """Send a request."""
        self._send([REQUEST, number, method, params])

    def respond(self, number: int, error: dict[str, Any] | None, result: Any) -> None:
        """Send the response to request `number`."""
        self._send([RESPONSE, number, error, result])

    def notify(self, method: str, *params: Any) -> None:
        """Send a notification."""
        self._send([NOTIFICATION, method, list(params)])

    def _send(self, frame: list[Any]) -> None:
        # One packer for all frames: an emulated CPU takes longer to make one than to pack.
        with self._lock:
            data = self._packer.pack(frame)
            self._write(data)
            if len(data) > _KEEP_BUFFER:
                self._packer = msgpack.Packer(use_bin_type=True)

    def _write(self, data: bytes) -> None:
        sent = os.write(self._write_fd, data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[os.write(self._write_fd, rest) :]


class PatientChannel(Channel):
    """A channel whose sender never waits: what the other side does not take yet is kept, and sent by :meth:`flush`.

    Parameters
    ----------
    fd : int
        The stream.  It becomes non-blocking.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, fd)
        os.set_blocking(fd, False)
        self._unsent = bytearray()

    @property
    def events(self) -> int:
        """What to poll for, as poll(2) names it."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    def flush(self) -> None:
        """Send as much of what was kept as the other side takes now."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._write_fd, self._unsent)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):  # receive() says so
            self._unsent.clear()

    def _write(self, data: bytes) -> None:
        self._unsent += data
        self.flush()


class MarkedChannel(Channel):
    """A channel that an earlier target may have used: everything before the marker is dropped.

    Parameters
    ----------
    fd : int
    marker : bytes
        Random bytes that the other side sends first.  They are sent back, so that it does the same.

    Attributes
    ----------
    marker_arrived : bool
        Whether the marker has arrived.
    """

    def __init__(self, fd: int, marker: bytes) -> None:
        super().__init__(fd, fd)
        self.marker_arrived = False
        self._marker = marker
        self._seen = b""

    def _after_marker(self, data: bytes) -> bytes:
        if self.marker_arrived:
            return data
        self._seen += data
        at = self._seen.find(self._marker)
        if at < 0:
            self._seen = self._seen[-len(self._marker) :]
            return b""
        os.write(self._write_fd, self._marker)
        self.marker_arrived = True
        return self._seen[at + len(self._marker) :]

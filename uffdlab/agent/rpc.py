"""The agent's end of the wire: MessagePack-RPC frames over file descriptors.

Request ``[0, id, method, params]``, response ``[1, id, error, result]``, notification ``[2, method, params]``, as in
the MessagePack-RPC specification.  Used between host and agent and between agent and target alike.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import msgpack

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
MAX_FRAME = 64 << 20  # bytes; the host refuses more
_CHUNK = 1 << 16


class Refusal(Exception):
    """An error that goes over the wire as ``{"kind", "message", "data"}``."""

    def __init__(self, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.data = data

    def as_map(self) -> dict[str, Any]:
        """Give the map that goes over the wire."""
        return {"kind": self.kind, "message": str(self), "data": self.data}


class Channel:
    """One byte stream that carries frames both ways; sending is safe from any thread.

    Parameters
    ----------
    read_fd, write_fd : int
        Where to read from and write to; they may be the same.  The channel does not close them.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=MAX_FRAME)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Give the descriptor to poll for reading."""
        return self._read_fd

    def receive(self) -> Iterator[list[Any]]:
        """Read what is there and give the frames that it completes.

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
        self._unpacker.feed(data)
        yield from self._unpacker

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
        data = memoryview(msgpack.packb(frame, use_bin_type=True))
        with self._lock:
            while data:
                data = data[os.write(self._write_fd, data) :]

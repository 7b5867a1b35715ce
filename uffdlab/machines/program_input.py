"""What a program in the guest reads from its stdin: bytes or a file of the host, read as the program takes them."""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Callable
from typing import BinaryIO

from uffdlab.errors import UsageError

Source = bytes | BinaryIO

_CHUNK = 1 << 18  # bytes in one call, so that other calls need not wait long
_END_DEADLINE = 2.0  # seconds


class ProgramInput:
    """Sends a program's input, from a thread of its own, which ends with :meth:`close`.

    No more is read of the source than the program's stdin has taken, and one chunk.

    Parameters
    ----------
    source : bytes or binary file
        A file is read from its position.  It may be a pipe or a terminal, on which nothing arrives for long.
    send : callable
        Called with the next bytes; with none at the end of the source.  Returns False to end this.

    Attributes
    ----------
    error : UsageError or None
        Why the source could not be read.
    """

    def __init__(self, source: Source, send: Callable[[bytes], bool]) -> None:
        self._file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
        self._send = send
        self._wanted = threading.Semaphore(0)
        self._closed = False
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self.error: UsageError | None = None
        self._thread = threading.Thread(target=self._pass_on, name="uffdlab-stdin", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Send the next bytes, when there are some; does not wait."""
        self._wanted.release()

    def close(self) -> None:
        """End the thread, also while it waits for the source."""
        self._closed = True
        self._wanted.release()
        os.close(self._wake)
        self._thread.join(_END_DEADLINE)
        if not self._thread.is_alive():  # else another process took what there was, and it waits for more
            os.close(self._woken)

    def _pass_on(self) -> None:
        while True:
            self._wanted.acquire()
            data = self._next_bytes()
            if data is None or not self._send(data) or not data:
                return

    def _next_bytes(self) -> bytes | None:
        # Returns no bytes at the end, None if this was closed.
        try:
            while not self._closed and self._wait():
                read = getattr(self._file, "read1", self._file.read)
                if (data := read(_CHUNK)) is not None:  # None: it does not block, and another process was faster
                    return bytes(data)
        except (OSError, ValueError, TypeError) as error:
            why = getattr(error, "strerror", None) or error
            self.error = UsageError(f"stdin cannot be read: {why}")
            return b""
        return None

    def _wait(self) -> bool:
        # Returns False if this was closed before the source has something, or its end.
        try:
            descriptor = self._file.fileno()
        except (AttributeError, OSError):  # io.UnsupportedOperation: no file of the kernel
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        return self._woken not in dict(poll.poll())

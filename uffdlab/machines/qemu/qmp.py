"""QEMU's monitor for callers without asyncio.  It does not use the event loop of a notebook."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from uffdlab import errors

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from qemu.qmp import QMPClient

_DEADLINE = 10.0  # seconds
_CLOSING = 2.0


class Monitor:
    """A QMP session on one socket, opened when first used, with its own thread for the event loop.

    Parameters
    ----------
    stream : socket
        This process's end; the monitor closes it.
    make_lost_error : callable
        Called with a reason when the session is broken; returns the error for the caller.
    make_late_error : callable
        Called with a message when a deadline has passed; returns the error for the caller.
    """

    def __init__(
        self,
        stream: socket.socket,
        *,
        make_lost_error: Callable[[str], errors.UffdlabError],
        make_late_error: Callable[[str], errors.UffdlabError],
    ) -> None:
        self._stream = stream
        self._make_lost_error, self._make_late_error = make_lost_error, make_late_error
        self._opening = threading.Lock()
        self._stopping = threading.RLock()
        self._stopped = 0
        self._closed = False
        self._client: QMPClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, deadline: float = _DEADLINE) -> Any:
        """Run a QMP command and return its result.

        Raises
        ------
        MachineTimeout
            There was no answer within `deadline` seconds.
        MachineError
            QEMU refused the command, or has ended.
        """
        client = self._connected()
        return self._guarded(client.execute(command, arguments), deadline, command)

    def give_file(self, descriptor: int, name: str, *, deadline: float = _DEADLINE) -> None:
        """Send QEMU a duplicate of a descriptor, which later commands name ``fd:name``.

        Raises
        ------
        MachineError
            QEMU refused it, did not answer, or has ended.
        """
        client = self._connected()

        async def give() -> None:
            client.send_fd_scm(descriptor)
            await client.execute("getfd", {"fdname": name})

        self._guarded(give(), deadline, "getfd")

    def _guarded(self, work: Coroutine[Any, Any, Any], deadline: float, command: str) -> Any:
        from qemu.qmp import ExecuteError, QMPError  # noqa: PLC0415

        try:
            return self._run(work, deadline, command)
        except ExecuteError as error:
            raise errors.MachineError(f"QEMU refused {command}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            raise self._make_lost_error(f"QEMU's monitor broke at {command}: {error}") from error

    def human(self, line: str, *, deadline: float = _DEADLINE) -> str:
        """Run a command of the human monitor and return its output."""
        return str(self.execute("human-monitor-command", {"command-line": line}, deadline=deadline))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the guest's CPUs within the block.  Blocks can be nested; other threads wait for the outer block."""
        with self._stopping:
            if self._stopped == 0:
                self.execute("stop")
            self._stopped += 1
            try:
                yield
            finally:
                self._stopped -= 1
                if self._stopped == 0:
                    self.execute("cont")

    def close(self) -> None:
        """End the session and the thread.  Call it when QEMU has ended or is not needed any more."""
        with self._opening:
            self._closed = True
            loop, thread, client = self._loop, self._thread, self._client
            self._loop = self._thread = self._client = None
        if loop is not None and thread is not None:
            import asyncio  # noqa: PLC0415 - it is already loaded here

            if client is not None:
                with suppress(Exception):  # errors of a broken session do not matter here
                    asyncio.run_coroutine_threadsafe(client.disconnect(), loop).result(_CLOSING)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSING)
            if not thread.is_alive():
                loop.close()
        self._stream.close()

    def disown(self) -> None:
        """Close the socket in a forked child; the parent still uses it."""
        self._closed = True
        self._stream.close()

    def _connected(self) -> QMPClient:
        with self._opening:
            if self._closed:
                raise self._make_lost_error("the monitor was closed")
            if self._client is None:
                self._connect()
            assert self._client is not None
            return self._client

    def _connect(self) -> None:
        import asyncio  # noqa: PLC0415 - it takes 40 ms, and most machines never use their monitor

        from qemu.qmp import QMPClient, QMPError  # noqa: PLC0415

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="uffdlab-qmp", daemon=True)
            self._thread.start()
        client = QMPClient("uffdlab")
        try:
            self._run(client.connect(self._stream), _DEADLINE, "the greeting")
        except (QMPError, EOFError, OSError) as error:
            raise self._make_lost_error(f"QEMU's monitor did not greet: {error}") from error
        self._client = client

    def _run(self, work: Coroutine[Any, Any, Any], deadline: float, what: str) -> Any:
        loop = self._loop
        if loop is None:
            work.close()
            raise self._make_lost_error("the monitor was closed")

        import asyncio  # noqa: PLC0415

        async def bounded() -> Any:
            # wait_for cancels the work; qemu.qmp then drops a late answer.
            return await asyncio.wait_for(work, deadline)

        try:
            return asyncio.run_coroutine_threadsafe(bounded(), loop).result(deadline + _CLOSING)
        except TimeoutError:
            raise self._make_late_error(f"QEMU did not answer {what} within {deadline:.1f} s") from None

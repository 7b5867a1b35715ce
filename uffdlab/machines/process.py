"""A child process, kept by a keeper, that ends with this process however that ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import errors
from uffdlab.machines import keeper, limits

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from uffdlab.machines.console import Console
    from uffdlab.machines.identity import Identity

_STDERR_KEPT = 16 << 10  # bytes
_REAP = 5.0  # seconds


class KeptProcess:
    """A program under its keeper, with one thread that drains its console and stderr.

    Parameters
    ----------
    command : sequence of str
        The program, by its path, and its arguments.
    inherit : sequence of int
        Descriptors that the program gets under the same numbers.
    console : socket, optional
        Our end of the guest's console.  It is closed when both are done.  Without one, stderr is the console.
    log : Console
        Where the console goes.
    stdio : socket, optional
        What the program gets as its stdin and stdout; /dev/null if none is given.
    grace : float
        Seconds that it has to end by itself once it is not wanted any more.
    bounded : bool
        Whether it is to gain no privileges, write to no file by its name and make no TCP connection; the latter two
        where the kernel has Landlock (5.13; TCP 6.7).
    identity : Identity, optional
        Whom it is to run as; bounded, then.

    Attributes
    ----------
    folder : Path
        For files that must have a name: not there until somebody makes it, and removed when the program has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        inherit: Sequence[int] = (),
        console: socket.socket | None = None,
        *,
        log: Console,
        stdio: socket.socket | None = None,
        grace: float = 0.0,
        bounded: bool = False,
        identity: Identity | None = None,
    ) -> None:
        self._console = console
        self._log = log
        self._grace = grace
        self.has_console = console is not None
        self._stderr = bytearray()
        self._status: int | None = None
        self._ending = threading.Lock()
        self.ended = threading.Event()
        stdio_number = stdio.fileno() if stdio is not None else -1
        self.folder = Path(tempfile.gettempdir()).absolute() / f"uffdlab-{secrets.token_hex(8)}"
        bounds = str(identity or ("bounded" if bounded else "free"))
        options = [str(os.getpid()), str(stdio_number), str(grace), str(self.folder), bounds]
        pipes: list[tuple[int, int]] = []
        with ExitStack() as undo:
            for _ in range(3):
                pipes.append(os.pipe())
                for descriptor in pipes[-1]:
                    undo.callback(os.close, descriptor)
            (theirs, self._life), (status_end, status), (errors_end, complaints) = pipes
            try:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-ISB", keeper.__file__, *options, *command],
                    stdin=theirs,
                    stdout=status,
                    stderr=complaints,
                    pass_fds=[*inherit, *([stdio_number] if stdio is not None else [])],
                    cwd="/",
                    start_new_session=True,  # a Ctrl-C in the terminal is not for it
                )
            except OSError as error:
                if error.errno in limits.ERRNOS:
                    raise
                raise errors.HostUnsupported(
                    f"starting {sys.executable} to keep {command[0]} failed: {error.strerror}", missing="processes"
                ) from error
            self._thread = threading.Thread(
                target=self._pump, args=(status_end, errors_end), name="uffdlab-console", daemon=True
            )
            self._thread.start()
            undo.pop_all()
        for descriptor in (theirs, status, complaints):
            os.close(descriptor)

    def _pump(self, status_end: int, errors_end: int) -> None:
        console = self._console.fileno() if self._console is not None else errors_end
        reported = bytearray()
        poll = select.poll()
        open_ends = {status_end, errors_end, console}
        for descriptor in open_ends:
            poll.register(descriptor, select.POLLIN)
        try:
            while open_ends:
                for descriptor, _events in poll.poll():
                    data = _read(descriptor)
                    if not data:
                        poll.unregister(descriptor)
                        open_ends.discard(descriptor)
                        continue
                    if descriptor == console:
                        self._log.feed(data)
                    if descriptor == errors_end:
                        self._stderr += data[: max(0, _STDERR_KEPT - len(self._stderr))]
                    if descriptor == status_end:
                        reported += data
        finally:
            os.close(status_end)
            os.close(errors_end)
            if self._console is not None:
                self._console.close()
            with contextlib.suppress(ValueError):
                self._status = int(reported)
            self.ended.set()

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the keeper and of what it keeps, while they run."""
        keeper = self._keeper.pid
        try:
            children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text(encoding="ascii")
        except OSError:
            return ()
        return keeper, *map(int, children.split())

    def said(self) -> str:
        """Return what it has written to stderr so far; of a flood, the beginning."""
        return self._stderr.decode(errors="replace").strip()

    def how_it_ended(self) -> str:
        """Return in words how the program ended, with what it said to stderr; empty while it runs."""
        if not self.ended.is_set():
            return ""
        complaints = self.said()
        if self._status is None:
            words = "was killed with its keeper"
        elif os.WIFSIGNALED(self._status):
            number = os.WTERMSIG(self._status)
            words = f"was killed by signal {number}"
            if number in {signal.SIGKILL, signal.SIGBUS}:
                words += ", by somebody or because the host ran out of memory"
        else:
            words = f"ended with status {os.WEXITSTATUS(self._status)}"
        return f"{words}: {complaints}" if complaints else words

    def kill(self) -> None:
        """Kill it, if it still runs, and wait until nothing of it is left.  Once or more often, from any thread."""
        with self._ending:
            if self._life >= 0:
                os.close(self._life)
                self._life = -1
                try:
                    self._keeper.wait(_REAP + self._grace)
                except subprocess.TimeoutExpired:  # a forked child may hold the pipe; the kernel then kills its child
                    self._keeper.kill()
                    self._keeper.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join(_REAP)

    def disown(self) -> None:
        """In a forked child: let go of it without ending it."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        self._keeper.returncode = 0  # not this process's child: no waiting, no warning
        if self._console is not None:
            self._console.close()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # ECONNRESET: the other side ended with our bytes unread
        return b""

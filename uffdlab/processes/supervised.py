"""Run a machine's program under a supervisor: it ends when this process ends, even if this one is killed.

The same supervisor is used for a :class:`~uffdlab.processes.job.Job`. The classes differ in their use. A machine's
program runs as long as its object exists, and a separate thread reads its output. A job runs during one call, and the
caller's thread reads its output.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uffdlab import errors
from uffdlab.processes import limits, supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uffdlab.processes.console import Console
    from uffdlab.processes.identity import Identity

_STDERR_KEPT = 16 << 10  # bytes
_REAP = 5.0  # seconds


class SupervisedProcess:
    """A program under a supervisor, with one thread that reads its console and stderr.

    Parameters
    ----------
    command : sequence of str
        The program, by its path, and its arguments.
    inherit : sequence of int
        Descriptors that the program inherits under the same numbers.
    console : socket, optional
        Our end of the guest's console. This object takes ownership and closes it. Without one, stderr is the console.
    log : Console
        Receives the output of the console.
    stdio : socket, optional
        The program's stdin and stdout; by default /dev/null.
    grace : float
        Seconds that the program has to end by itself before it is killed.
    bounded : bool
        Whether the program must gain no privileges, open no file by its name for writing and make no TCP connection.
        The kernel enforces the last two with Landlock (5.13; for TCP 6.7).
    identity : Identity, optional
        The user that the program runs as. This implies `bounded`.

    Attributes
    ----------
    folder : Path
        A folder for files that must have a name. It does not exist until the caller makes it, and is removed when the
        program has ended.
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
        self.has_console = console is not None
        self._run = run = _Run(log, grace)
        self._finalizer = weakref.finalize(self, run.end)
        bounds = str(identity or ("bounded" if bounded else "free"))
        try:
            run.begin(command, inherit, console, stdio.fileno() if stdio is not None else -1, bounds)
        except BaseException:
            self.kill()
            raise
        self.ended = run.ended
        self.folder = run.folder

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the supervisor and of the program, while they run."""
        supervised_by = self._run.supervisor
        if supervised_by is None or supervised_by.returncode is not None:
            return ()
        try:
            children = Path(f"/proc/{supervised_by.pid}/task/{supervised_by.pid}/children").read_text(encoding="ascii")
        except OSError:
            return ()
        return supervised_by.pid, *map(int, children.split())

    def seconds_without_cpu(self) -> float:
        """Return how long a thread of the program could have run but waited for a CPU: that of the greatest such time.

        It is 0 if the kernel does not count it.  Source: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat.
        """
        waited = [0]
        for pid in self.pids[1:]:
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError, ValueError, IndexError):  # the thread has ended
                    waited.append(int(path.read_text(encoding="ascii").split()[1]))
        return max(waited) / 1e9

    def stderr(self) -> str:
        """Return what the program has written to stderr, at most its first 16 KiB."""
        return self._run.stderr.decode(errors="replace").strip()

    def how_it_ended(self) -> str:
        """Return a text that says how the program ended, with its stderr, or an empty string while it runs."""
        if not self.ended.is_set():
            return ""
        stderr, status = self.stderr(), self._run.status
        if status is None:
            text = "was killed with its supervisor"
        elif os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            text = f"was killed by signal {number}"
            if number in {signal.SIGKILL, signal.SIGBUS}:
                text += ", by another process or because the host was out of memory"
        else:
            text = f"ended with status {os.WEXITSTATUS(status)}"
        return f"{text}: {stderr}" if stderr else text

    def kill(self) -> None:
        """Kill the program if it still runs, and wait until all its processes have ended.

        It may be called more than once and from any thread.
        """
        self._run.end()
        self._finalizer.detach()  # not before: a kill that Ctrl-C cuts off is done again when this is collected

    def disown(self) -> None:
        """Release the program without ending it. For use in a forked child."""
        self._finalizer.detach()
        self._run.disown()


class _Run:
    # The resources of one run of the program. Its thread opens all of them, because Ctrl-C can interrupt the main
    # thread anywhere. The thread also closes them, except for the pipe that keeps the program alive: end() closes it.
    # The thread refers to this object and not to the SupervisedProcess, so that one that nobody uses is collected.

    def __init__(self, log: Console, grace: float) -> None:
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.stderr = bytearray()
        self.status: int | None = None
        self.ended = threading.Event()
        self.folder = Path()
        self._log = log
        self._grace = grace
        self._owner = os.getpid()
        self._owner_pipe: io.FileIO | None = None
        self._ends: list[io.FileIO | socket.socket] = []
        self._thread: threading.Thread | None = None
        self._changing = threading.Lock()  # held while the supervisor is started or ended
        self._stop_requested = False
        self._beginning = threading.Lock()  # to wait for: of an Event, Ctrl-C can break the locks
        self._beginning.acquire()
        self._failure: BaseException | None = None

    def begin(
        self, command: Sequence[str], inherit: Sequence[int], console: socket.socket | None, stdio: int, bounds: str
    ) -> None:
        # Returns when the supervisor runs.  After any exception, call end() before closing the arguments.
        arguments = (command, inherit, console, stdio, bounds)
        self._thread = threading.Thread(target=self._main, args=arguments, name="uffdlab-console", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise errors.HostUnsupported(
                f"starting {command[0]}: {error}. Close other labs, or raise the limit (ulimit -u, pids.max)",
                missing="threads",
            ) from error
        self._beginning.acquire()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self) -> None:
        if os.getpid() != self._owner:
            return
        self._stop_requested = True
        with self._changing:  # if the thread is starting the supervisor: once it has
            if self._owner_pipe is not None:
                self._owner_pipe.close()
            if self.supervisor is not None:
                try:
                    self.supervisor.wait(_REAP + self._grace)
                except subprocess.TimeoutExpired:  # a forked child may hold the pipe; the kernel then kills its child
                    self.supervisor.kill()
                    self.supervisor.wait()
        if self._thread is not None and threading.current_thread() is not self._thread:
            with contextlib.suppress(RuntimeError):  # it was never started
                self._thread.join(_REAP)

    def disown(self) -> None:
        for end in (self._owner_pipe, *self._ends):
            if end is not None:
                end.close()
        if self.supervisor is not None:
            self.supervisor.returncode = 0  # not this process's child: no waiting, no warning

    def _main(self, *arguments: Any) -> None:
        try:
            try:
                with self._changing:
                    if self._stop_requested:
                        return
                    numbers = self._start_supervisor(*arguments)
            except BaseException as error:  # noqa: BLE001 - begin() raises it
                self._failure = error
                return
            finally:
                del arguments
                self._beginning.release()
            self._forward(*numbers)
        finally:
            for end in self._ends:
                end.close()
            self.ended.set()

    def _start_supervisor(
        self, command: Sequence[str], inherit: Sequence[int], console: socket.socket | None, stdio: int, bounds: str
    ) -> tuple[int, int, int]:
        # Return where the status, stderr and the console come.
        self.folder = _temporary_folder() / f"uffdlab-{secrets.token_hex(8)}"
        with ExitStack() as theirs:
            owner_pipe_end, self._owner_pipe = _pipe()
            theirs.enter_context(owner_pipe_end)
            status_end, status = _pipe()
            self._ends.append(status_end)
            theirs.enter_context(status)
            errors_end, errors_in = _pipe()
            self._ends.append(errors_end)
            theirs.enter_context(errors_in)
            try:
                self.supervisor = subprocess.Popen(
                    supervisor.wrap(
                        command,
                        grace=self._grace,
                        owner_pipe=0,
                        stdio=stdio,
                        bounds=bounds,
                        folder=str(self.folder),
                        report=1,
                    ),
                    stdin=owner_pipe_end,
                    stdout=status,
                    stderr=errors_in,
                    pass_fds=[*inherit, *([stdio] if stdio >= 0 else [])],
                    cwd="/",
                    start_new_session=True,  # a Ctrl-C in the terminal is not for it
                )
            except OSError as error:
                if error.errno in limits.ERRNOS:
                    raise
                raise errors.HostUnsupported(
                    f"starting {sys.executable} to supervise {command[0]} failed: {error.strerror}", missing="processes"
                ) from error
        if console is not None:
            self._ends.append(socket.socket(fileno=console.detach()))  # for the caller it is closed by that
        return status_end.fileno(), errors_end.fileno(), self._ends[-1].fileno()

    def _forward(self, status_end: int, errors_end: int, console: int) -> None:
        reported = bytearray()
        poll = select.poll()
        open_ends = {status_end, errors_end, console}
        for descriptor in open_ends:
            poll.register(descriptor, select.POLLIN)
        # When both have ended, what is in the console is all, though our caller may hold the other end.
        while events := poll.poll(None if open_ends & {status_end, errors_end} else 0):
            for descriptor, _events in events:
                data = _read(descriptor)
                if not data:
                    poll.unregister(descriptor)
                    open_ends.discard(descriptor)
                    continue
                if descriptor == console:
                    self._log.feed(data)
                if descriptor == errors_end:
                    self.stderr += data[: max(0, _STDERR_KEPT - len(self.stderr))]
                if descriptor == status_end:
                    reported += data
        with contextlib.suppress(ValueError):
            self.status = int(reported)
        if self.supervisor is not None:
            self.supervisor.wait()  # it has closed its end of all that, and ends


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    # As objects: closing one is one step, and doing so again does nothing.
    reading, writing = os.pipe()
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError as error:
        os.close(os.open("/", os.O_PATH))  # it says the same if no descriptor is left; this says that
        raise errors.HostUnsupported(
            f"no folder for temporary files can be written to: {error.strerror}. Set TMPDIR", missing="temporary folder"
        ) from error


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # ECONNRESET: the other side ended with our bytes unread
        return b""

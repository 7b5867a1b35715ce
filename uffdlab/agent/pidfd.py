"""Child processes held by pidfds: a signal never reaches another process that has got the same PID."""

from __future__ import annotations

import errno
import os
import time
from _thread import allocate_lock

from uffdlab.agent import native
from uffdlab.agent.signals import SIGKILL


class Process:
    """A child of this process, from its fork until :meth:`close`.  All methods are thread-safe.

    It is not reaped before :meth:`close`, so no other process gets its PID, also after it has ended.

    Parameters
    ----------
    pid : int
        A child that is not reaped yet. If pidfd_open(2) fails, it is killed.

    Attributes
    ----------
    pid : int
    fd : int
        Its pidfd, which is readable when it has ended.

    Raises
    ------
    OSError
        pidfd_open(2) failed.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = allocate_lock()
        self._status: int | None = None
        try:
            self.fd = native.pidfd_open(pid)
        except OSError:
            os.kill(pid, SIGKILL)  # still this child: it is not reaped
            os.waitpid(pid, 0)
            raise

    def signal(self, number: int) -> None:
        """Send it a signal. Does nothing if it has ended."""
        with self._lock:
            if self.fd < 0:
                return
            try:
                native.pidfd_signal(self.fd, number)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise

    def status(self) -> int | None:
        """Return its status as in wait(2), or None while it runs."""
        with self._lock:
            if self._status is None:
                # Do not reap it, so that no other process gets its PID.
                end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if end is not None:
                    self._status = end.si_status << 8 if end.si_code == os.CLD_EXITED else end.si_status
            return self._status

    def signal_group(self, number: int) -> None:
        """Send a signal to the process group that it leads, also if only others of the group still run."""
        with self._lock:
            if self.fd >= 0:  # it is not reaped, so the group ID is still its own
                os.killpg(self.pid, number)

    def kill(self, deadline: float) -> int | None:
        """Kill it and wait until it has ended; return its status, or None if it runs after `deadline` seconds."""
        self.signal(SIGKILL)
        return self.wait(deadline)

    def wait(self, deadline: float) -> int | None:
        """Wait until it has ended; return its status, or None if it runs after `deadline` seconds."""
        until = time.monotonic() + deadline
        while (status := self.status()) is None and time.monotonic() < until:
            time.sleep(0.0005)
        return status

    def close(self) -> None:
        """Reap it, if it has ended, and close the pidfd."""
        ended = self.status() is not None
        with self._lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            if ended:
                os.waitpid(self.pid, 0)


def state(thread: int) -> str:
    """Return the state of a thread or process as in proc(5): R, S, D, T…; empty if there is no such thread."""
    try:
        with open(f"/proc/{thread}/stat", "rb") as file:  # a thread ID works here as a PID does
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return chr(stat.rpartition(b")")[2].split()[0][0])


def asleep(thread: int) -> bool:
    """Return whether a thread sleeps in the kernel, interruptibly or not."""
    return state(thread) in ("S", "D")

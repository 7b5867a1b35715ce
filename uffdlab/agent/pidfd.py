"""Child processes held by pidfds: a signal reaches that one process, or nobody, also when its number was given anew."""

from __future__ import annotations

import errno
import os
import time
from _thread import allocate_lock

from uffdlab.agent import native
from uffdlab.agent.signals import SIGKILL


class Process:
    """A child process of ours, from its fork until it is closed; safe from any thread.

    Its number is kept from other processes until :meth:`close`, also when it has ended.

    Parameters
    ----------
    pid : int
        As fork gave it; not reaped yet.  If no pidfd of it can be had, it is killed.

    Attributes
    ----------
    pid : int
    fd : int
        Its pidfd: readable when it has ended.

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
            os.kill(pid, SIGKILL)  # still the child that was forked: nobody has reaped it
            os.waitpid(pid, 0)
            raise

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended gets none."""
        with self._lock:
            if self.fd < 0:
                return
            try:
                native.pidfd_signal(self.fd, number)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise

    def status(self) -> int | None:
        """Return its status as wait(2) gives it, None while it runs."""
        with self._lock:
            if self._status is None:
                # Not reaped, so that its number stays its own.
                end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if end is not None:
                    self._status = end.si_status << 8 if end.si_code == os.CLD_EXITED else end.si_status
            return self._status

    def signal_group(self, number: int) -> None:
        """Send a signal to the process group that it leads, also to what is left of the group when it has ended."""
        with self._lock:
            if self.fd >= 0:  # then it is not reaped, and the group's number is its own
                os.killpg(self.pid, number)

    def kill(self, deadline: float) -> int | None:
        """Kill it and wait until it has ended; return its status, None if it has not after `deadline` seconds."""
        self.signal(SIGKILL)
        return self.wait(deadline)

    def wait(self, deadline: float) -> int | None:
        """Wait until it has ended; return its status, None if it has not after `deadline` seconds."""
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
    """Return the state of a thread, or of a process's main one, as proc(5) has it: R, S, D, T…; empty if it is gone."""
    try:
        with open(f"/proc/{thread}/stat", "rb") as file:  # a thread's number works here as a process's does
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return chr(stat.rpartition(b")")[2].split()[0][0])


def asleep(thread: int) -> bool:
    """Tell whether a thread sleeps in the kernel, interruptibly or not."""
    return state(thread) in ("S", "D")

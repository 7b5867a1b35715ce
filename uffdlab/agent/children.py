"""Forked children of the target: the same memory, another process.  They run native code only."""

from __future__ import annotations

import os
import time

from uffdlab.agent import native
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORD_FD = 2
_MOST = 16  # children at once
_END_DEADLINE = 2.0  # seconds


class Child:
    """One forked child and the one touch that it can make at a time.

    Parameters
    ----------
    done_fd : int
        The eventfd that is told when a touch has ended.

    Attributes
    ----------
    pid : int
    touch : cdata
        struct lab_touch *, in memory that both processes share.
    word_fd : int
        A file of its own for the touches that are system calls on a file; :data:`WORD_FD` in the child.
    signal : int
        What has killed it, 0 while it lives or when it went by itself.
    started_ns, ended_ns : int
        When fork(2) was called and came back, CLOCK_MONOTONIC.
    """

    def __init__(self, done_fd: int) -> None:
        self.touch: Any = lib.lab_shared_touch()
        if self.touch == ffi.NULL:
            raise Refusal("usage", "no memory for a child")
        self.touch.done_fd = done_fd
        self.signal = 0
        self._busy = False
        wait_end, self._go = os.pipe2(os.O_CLOEXEC)
        self.word_fd = native.memfd("child", os.MFD_CLOEXEC)
        times = ffi.new("int64_t[2]")
        self.pid: int = lib.lab_fork(self.touch, wait_end, self.word_fd, times, times + 1)
        os.close(wait_end)
        self.started_ns, self.ended_ns = times[0], times[1]
        if self.pid < 0:
            os.close(self._go)
            os.close(self.word_fd)
            lib.lab_free_shared_touch(self.touch)
            raise Refusal("usage", f"fork: {os.strerror(-self.pid)}", errno=-self.pid)

    def claim(self) -> None:
        """Take its touch for a new access.

        Raises
        ------
        Refusal
            If it is still at the one before, or dead.
        """
        if self._busy:
            raise Refusal("usage", f"child {self.pid} is at another touch; it makes one at a time")
        if not self.alive():
            raise Refusal("usage", f"child {self.pid} has ended")
        self._busy = True
        lib.lab_touch_prepare(self.touch)

    def go(self) -> None:
        """Let it make the touch."""
        os.write(self._go, b"g")

    def release(self) -> None:
        """Its touch has ended and was told."""
        self._busy = False

    def withdraw(self) -> None:
        """Ask it to come back from a touch."""
        lib.lab_child_withdraw(self.pid, self.touch)

    def alive(self) -> bool:
        """Tell whether it runs; reaps it when it does not."""
        if self.pid <= 0:
            return False
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else SIGKILL
            self.pid = 0
        return not done

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        if self.alive():
            os.kill(self.pid, SIGKILL)
            until = time.monotonic() + _END_DEADLINE
            while self.alive() and time.monotonic() < until:
                time.sleep(0.0005)
        os.close(self._go)
        os.close(self.word_fd)


class Children:
    """All children of one target, by their process numbers."""

    def __init__(self, done_fd: int) -> None:
        self._done_fd = done_fd
        self._by_pid: dict[int, Child] = {}

    def fork(self) -> dict[str, int]:
        """Fork a child.  Waits until a FORK event, if one is due, has been read."""
        if len(self._by_pid) >= _MOST:
            raise Refusal("usage", f"{_MOST} children are as many as there can be; end one first")
        child = Child(self._done_fd)
        self._by_pid[child.pid] = child
        return {"pid": child.pid, "started_ns": child.started_ns, "ended_ns": child.ended_ns}

    def find(self, pid: int) -> Child:
        """Give child `pid`."""
        if pid not in self._by_pid:
            raise Refusal("usage", f"there is no child {pid}; it was ended")
        return self._by_pid[pid]

    def end(self, pid: int) -> Child:
        """End child `pid` and forget it."""
        child = self.find(pid)
        child.end()
        del self._by_pid[pid]
        return child

"""Forked children of the target: the same memory, another process.  They run native code only."""

from __future__ import annotations

import os

from uffdlab.agent import native
from uffdlab.agent.native import ffi, lib
from uffdlab.agent.pidfd import Process
from uffdlab.agent.rpc import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VALUE_FD = 2
_MAX_CHILDREN = 16  # children at the same time
_END_DEADLINE = 2.0  # seconds


class ForkedChild:
    """One forked child and the one touch that it can make at a time.

    Parameters
    ----------
    done_fd : int
        The eventfd that is written when a touch has ended.

    Attributes
    ----------
    process : Process
    touch : cdata
        struct lab_touch *, in memory that both processes share; NULL after :meth:`close`.
    value_fd : int
        A memfd for the touches that are system calls on a file. Its number in the child is :data:`VALUE_FD`.
    started_ns, ended_ns : int
        When fork(2) was called and when it returned, CLOCK_MONOTONIC in ns.
    """

    def __init__(self, done_fd: int) -> None:
        self.touch: Any = lib.lab_shared_touch()
        if self.touch == ffi.NULL:
            raise Refusal("usage", "no memory for a child")
        self.touch.done_fd = done_fd
        self._busy = False
        self._fds: list[int] = []
        try:
            self._fork()
        except BaseException:
            self._release()
            raise

    def _fork(self) -> None:
        wait_end, self._touch_pipe = os.pipe2(os.O_CLOEXEC)
        self._fds = [self._touch_pipe]
        try:
            self.value_fd = native.memfd("child", os.MFD_CLOEXEC)
            self._fds.append(self.value_fd)
            times = ffi.new("int64_t[2]")
            pid = lib.lab_fork(self.touch, wait_end, self.value_fd, times, times + 1)
        finally:
            os.close(wait_end)
        if pid < 0:
            raise Refusal("usage", f"fork: {os.strerror(-pid)}", errno=-pid)
        self.started_ns, self.ended_ns = times[0], times[1]
        self.process = Process(pid)

    @property
    def pid(self) -> int:
        """The PID. Another process may get it after :meth:`close`."""
        return self.process.pid

    def claim(self) -> None:
        """Reserve the child's touch for a new access.

        Raises
        ------
        Refusal
            The previous touch has not ended, or the child has ended.
        """
        if self._busy:
            raise Refusal("usage", f"child {self.pid} has not ended its last touch; it makes one at a time")
        if self.process.status() is not None:
            raise Refusal("usage", self.describe_end())
        self._busy = True
        lib.lab_touch_prepare(self.touch)

    def go(self) -> None:
        """Start the touch in the child."""
        os.write(self._touch_pipe, b"g")

    def release(self) -> None:
        """Free the child for another touch: the last one has ended and was reported, or did not begin."""
        self._busy = False

    def withdraw(self) -> None:
        """Ask the child to return from its touch."""
        lib.lab_child_withdraw(self.process.fd, self.touch)

    @property
    def signal(self) -> int:
        """The signal that killed the child; 0 while it runs, or if it exited."""
        status = self.process.status()
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0

    def describe_end(self) -> str:
        """Return a text that says how the child ended."""
        status = self.process.status()
        if status is None:
            return f"child {self.pid} runs"
        if os.WIFSIGNALED(status):
            return f"child {self.pid} has ended by signal {os.WTERMSIG(status)}"
        code = os.WEXITSTATUS(status)
        failed = {lib.LAB_CHILD_NO_FDS: "fcntl or dup2", lib.LAB_CHILD_CLOSE_FAILED: "close_range"}.get(code)
        why = f": {failed} failed in it: {os.strerror(-self.touch.returned)}" if failed else ""
        return f"child {self.pid} has ended with status {code}{why}"

    def end(self) -> None:
        """Kill the child and wait until it has ended.

        Raises
        ------
        Refusal
            The child does not end. It is not removed.
        """
        if self.process.kill(_END_DEADLINE) is None:
            raise Refusal(
                "usage", f"child {self.pid} did not end by SIGKILL in {_END_DEADLINE:g} s: it hangs in the kernel"
            )

    def close(self) -> None:
        """Release the resources of a child that has ended. Its touch must not be used afterwards."""
        self.process.close()
        self._release()

    def _release(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        lib.lab_free_shared_touch(self.touch)
        self.touch = ffi.NULL


class Children:
    """All children of one target, by PID."""

    def __init__(self, done_fd: int) -> None:
        self._done_fd = done_fd
        self._by_pid: dict[int, ForkedChild] = {}
        self._running: dict[int, ForkedChild] = {}  # those whose end was not reported yet

    def fork(self) -> dict[str, int]:
        """Fork a child. If the fork causes a FORK event, wait until it has been read."""
        if len(self._by_pid) >= _MAX_CHILDREN:
            raise Refusal(
                "usage", f"there are {_MAX_CHILDREN} children already, the most that are possible; end one first"
            )
        child = ForkedChild(self._done_fd)
        self._by_pid[child.pid] = self._running[child.pid] = child
        return {"pid": child.pid, "started_ns": child.started_ns, "ended_ns": child.ended_ns}

    def find(self, pid: int) -> ForkedChild:
        """Return child `pid`."""
        if pid not in self._by_pid:
            raise Refusal("usage", f"there is no child {pid}; it was ended")
        return self._by_pid[pid]

    def running_fds(self) -> list[int]:
        """Return the pidfds of the children whose end is not reported yet; one is readable when its child has ended."""
        return [fd for child in list(self._running.values()) if (fd := child.process.fd) >= 0]  # -1: just forgotten

    def newly_ended(self) -> list[ForkedChild]:
        """Return the children that have ended since the last call."""
        ended = [child for child in list(self._running.values()) if child.process.status() is not None]
        for child in ended:
            self._running.pop(child.pid, None)
        return ended

    def forget(self, child: ForkedChild) -> None:
        """Remove a child that has ended and release its resources."""
        self._by_pid.pop(child.pid, None)
        self._running.pop(child.pid, None)
        child.close()

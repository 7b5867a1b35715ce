"""The agent on its stdin and stdout: ``python -m uffdlab.agent.stdio [INPUT_DEADLINE]``, on a host with other users.

When it ends, it restores what it has changed.  It refuses what would affect the other users of the host.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from uffdlab.agent import commands, swap
from uffdlab.agent.rpc import REQUEST, Refusal
from uffdlab.agent.server import Server

_POOL = "/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"


class _Watched(Server):
    # Ends when its host has sent nothing for too long: without a connection there may never be an end of file.
    def __init__(self, read_fd: int, write_fd: int, input_deadline: float) -> None:
        super().__init__(read_fd, write_fd)
        self._input_deadline = input_deadline
        signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, input_deadline)

    def _from_host(self, frame: list[Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._input_deadline)
        if frame[0] == REQUEST:  # the notification "alive" only restarts the timer
            super()._from_host(frame)


def _end(_number: int, _frame: Any) -> NoReturn:
    sys.exit("uffdlab: the host has sent nothing for too long")


def _refuse(*_: Any) -> NoReturn:
    raise Refusal(
        "usage", "this is only possible in a guest of the lab: here it would affect all users of this machine"
    )


def _swap_on() -> int:
    size = swap.total()
    if not size:
        raise Refusal(
            "usage",
            "there is nothing to swap to: no swap is on (/proc/swaps), and the lab turns it on only in its "
            "guests: here it would affect all users of this machine",
        )
    return size


class _HugePages:
    # Reserves huge pages and counts how many it has added, since another lab may add some at the same time.
    def __init__(self) -> None:
        self._added: dict[Path, int] = {}

    def reserve(self, page_size: int, free: int) -> dict[str, int]:
        pool = Path(_POOL.format(page_size // 1024))
        before = _count(pool)
        try:
            return commands.reserve_hugepages(page_size, free)
        except PermissionError:
            raise Refusal("usage", f"{free} free huge pages are needed, and only root can reserve them") from None
        finally:
            self._added[pool] = self._added.get(pool, 0) + _count(pool) - before

    def restore(self) -> None:
        for pool, added in self._added.items():
            if added:
                pool.write_text(str(max(0, _count(pool) - added)), encoding="ascii")


def _count(pool: Path) -> int:
    return int(pool.read_text(encoding="ascii")) if pool.exists() else 0


def main(input_deadline: float = 0.0) -> None:
    """Serve until stdin ends.  The real stdout is only for the protocol; a stray print goes to stderr.

    Parameters
    ----------
    input_deadline : float
        Also end after so many seconds in which the host has sent nothing; 0 for never.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored, the kernel would reap the children
    pages = _HugePages()
    commands.METHODS.update(
        {"agent.reserve_hugepages": pages.reserve, "agent.swap_on": _swap_on, "agent.sysrq": _refuse}
    )
    server = _Watched(read_fd, write_fd, input_deadline) if input_deadline else Server(read_fd, write_fd)
    try:
        server.serve()
    finally:
        pages.restore()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))

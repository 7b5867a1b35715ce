"""The agent on its own stdin and stdout: ``python -m uffdlab.agent.stdio [SILENCE]``, on a host that does other things.

It puts back what it changed when it ends, and does not do what is meant for a guest that nobody else uses.
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
    # Ends when its host has been silent for too long: the line is cut, and no end of file will ever tell.
    def __init__(self, read_fd: int, write_fd: int, silence: float) -> None:
        super().__init__(read_fd, write_fd)
        self._silence = silence
        signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, silence)

    def _from_host(self, frame: list[Any]) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._silence)
        if frame[0] == REQUEST:  # "alive" wants no more than to be heard
            super()._from_host(frame)


def _end(_number: int, _frame: Any) -> NoReturn:
    sys.exit("uffdlab: nothing was heard from the host for too long")


def _not_here(*_: Any) -> NoReturn:
    raise Refusal("usage", "this is done in a guest of the lab's own only: here it would hit everybody on this machine")


def _swap_on() -> int:
    size = swap.total()
    if not size:
        raise Refusal(
            "usage",
            "there is nothing to swap to: no swap is on (/proc/swaps), and turning it on is done in a guest of the "
            "lab's own only: here it would hit everybody on this machine",
        )
    return size


class _HugePages:
    # Reserves huge pages as in a guest, and remembers how many it added: another lab here may do the same meanwhile.
    def __init__(self) -> None:
        self._added: dict[Path, int] = {}

    def reserve(self, page_size: int, free: int) -> dict[str, int]:
        pool = Path(_POOL.format(page_size // 1024))
        before = _count(pool)
        try:
            return commands.reserve_hugepages(page_size, free)
        except PermissionError:
            raise Refusal("usage", f"{free} free huge pages are needed, and only root can set them aside") from None
        finally:
            self._added[pool] = self._added.get(pool, 0) + _count(pool) - before

    def put_back(self) -> None:
        for pool, added in self._added.items():
            if added:
                pool.write_text(str(max(0, _count(pool) - added)), encoding="ascii")


def _count(pool: Path) -> int:
    return int(pool.read_text(encoding="ascii")) if pool.exists() else 0


def main(silence: float = 0.0) -> None:
    """Serve until stdin ends.  A stray print goes to stderr: the real stdout is the protocol's alone.

    Parameters
    ----------
    silence : float
        Also end after so many seconds in which the host said nothing; 0 for never.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pages = _HugePages()
    commands.METHODS.update(
        {"agent.reserve_hugepages": pages.reserve, "agent.swap_on": _swap_on, "agent.sysrq": _not_here}
    )
    server = _Watched(read_fd, write_fd, silence) if silence else Server(read_fd, write_fd)
    try:
        server.serve()
    finally:
        pages.put_back()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))

"""The methods of the agent that need no target."""

from __future__ import annotations

import os
import time

from uffdlab.agent import deferred, swap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEEP_BYTES = 96 << 20  # for the guest itself
_HUGEPAGES = "/sys/kernel/mm/hugepages/hugepages-{}kB/{}"


def reserve_hugepages(page_size: int, free: int) -> dict[str, int]:
    """Grow the pool until `free` huge pages of `page_size` bytes are free; return {"free", "total"}, in pages.

    If there is not enough memory, the pool stays as it was and ``free`` is how many pages would be possible. This is no
    error here: the mapping that needs them reports it. The pool never takes the memory that the guest itself needs.
    """

    def file_of(name: str) -> str:
        return _HUGEPAGES.format(page_size // 1024, name)

    def count(name: str) -> int:
        return int(_read(file_of(name)))

    def set_pool(size: int) -> None:
        _write(file_of("nr_hugepages"), str(size))

    if not os.path.exists(file_of("nr_hugepages")):
        return {"free": 0, "total": 0}

    def usable() -> int:
        return count("free_hugepages") - count("resv_hugepages")

    missing = free - usable()
    if missing > 0:
        before = count("nr_hugepages")
        affordable = max(0, (_memory_info("MemAvailable") - _KEEP_BYTES) // page_size)
        if missing > affordable:
            return {"free": usable() + affordable, "total": before}
        set_pool(before + missing)
        if usable() < free:  # memory is too fragmented
            possible = usable()
            set_pool(before)
            return {"free": possible, "total": before}
    return {"free": usable(), "total": count("nr_hugepages")}


def _memory_info(name: str) -> int:
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines())
    return int(fields[name].split()[0]) * 1024  # bytes


def memory_bytes() -> int:
    """Return the size of this machine's memory and swap together, in bytes."""
    return _memory_info("MemTotal") + _memory_info("SwapTotal")


def panic(how: str) -> None:
    """Crash the guest's kernel through /proc/sysrq-trigger; `how` is its letter (``c`` panics)."""
    _write("/proc/sys/kernel/sysrq", "1")
    _write("/proc/sysrq-trigger", how)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


METHODS: dict[str, Any] = {
    "agent.clock": lambda: time.monotonic_ns(),
    "agent.load": deferred.load,
    "agent.memory_bytes": memory_bytes,
    "agent.reserve_hugepages": reserve_hugepages,
    "agent.swap_on": swap.swap_on,
    "agent.sysrq": panic,
}

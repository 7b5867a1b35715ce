"""What the agent itself can do for the host, apart from keeping the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HUGEPAGES = "/sys/kernel/mm/hugepages/hugepages-{}kB/{}"


def reserve_hugepages(page_size: int, free: int) -> dict[str, int]:
    """See to it that `free` huge pages of `page_size` bytes are free; gives {"free", "total"} as they then are.

    Fewer than asked for is no error here: the mapping that needs them says so.
    """

    def value(name: str) -> Path:
        return Path(_HUGEPAGES.format(page_size // 1024, name))

    def count(name: str) -> int:
        return int(value(name).read_text())

    if not value("nr_hugepages").exists():
        return {"free": 0, "total": 0}
    missing = free - (count("free_hugepages") - count("resv_hugepages"))
    if missing > 0:
        value("nr_hugepages").write_text(str(count("nr_hugepages") + missing))
    return {"free": count("free_hugepages") - count("resv_hugepages"), "total": count("nr_hugepages")}


def panic(how: str) -> None:
    """Crash the guest's kernel through /proc/sysrq-trigger; `how` is its letter (``c`` panics)."""
    Path("/proc/sys/kernel/sysrq").write_text("1")
    Path("/proc/sysrq-trigger").write_text(how)


METHODS: dict[str, Any] = {
    "agent.reserve_hugepages": reserve_hugepages,
    "agent.sysrq": panic,
}

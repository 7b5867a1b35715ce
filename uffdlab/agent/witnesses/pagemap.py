"""The entries of /proc/PID/pagemap."""

from __future__ import annotations

import mmap
import os

from uffdlab.agent import native
from uffdlab.agent.native import ffi
from uffdlab.agent.rpc import Refusal

_TOP_BIT_SET = bytes(range(0x80, 0x100))
_MAX_PAGES = 1 << 22  # 32 MiB of entries


def read_entries(start: int, pages: int, page_size: int, process: str = "self") -> bytes:
    """Read for each page of `page_size` bytes the entry of its first 4 KiB, 64 bits, little-endian."""
    step = page_size // mmap.PAGESIZE
    first = start // mmap.PAGESIZE * 8
    # Opened for each read: a descriptor that was opened before a fork still refers to the parent.
    fd = os.open(f"/proc/{process}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if step == 1:
            return _pread_all(fd, process, pages * 8, first)
        return b"".join(_pread_all(fd, process, 8, first + page * step * 8) for page in range(pages))
    finally:
        os.close(fd)


class PagemapBuffer:
    """Entries in the target's memory, for a host that reads the guest's RAM: sending 8 MiB takes half a second.

    They are valid until the next call of :meth:`put`.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def put(self, start: int, pages: int) -> int:
        """Read the entry of each page of 4 KiB into the buffer, and return its address."""
        size = pages * 8
        if self._memory is None or len(self._memory) < size:
            self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with memoryview(self._memory) as memory:
                done = 0
                while done < size:
                    part = os.preadv(fd, [memory[done:size]], start // mmap.PAGESIZE * 8 + done)
                    if not part:
                        raise Refusal("usage", f"/proc/self/pagemap ends at {start:#x}: no such address")
                    done += part
        finally:
            os.close(fd)
        return int(ffi.cast("uintptr_t", ffi.from_buffer(self._memory)))

    def entries(self, pages: int) -> bytes:
        """Return a copy of the first `pages` entries in the buffer."""
        assert self._memory is not None
        return self._memory[: pages * 8]


def all_soft_dirty(entries: bytes) -> bool:
    """Return whether every entry has the soft-dirty bit, 55."""
    return not entries[6::8].translate(None, _TOP_BIT_SET)  # a byte remains for each entry without the bit


def check_mapped(start: int, pages: int, page_size: int, process: str = "self") -> None:
    """Refuse a range that `process` has not completely mapped: pagemap shows an unmapped page like an absent one.

    Raises
    ------
    Refusal
        Of kind ``unmapped``; ``usage`` if there are too many pages or none.
    """
    if not 0 < pages <= _MAX_PAGES:
        raise Refusal("usage", f"{pages} pages cannot be read with one call; 1 to {_MAX_PAGES} can")
    if process != "self":
        if not _is_mapped(start, start + pages * page_size, process):
            raise Refusal("unmapped", f"{pages} pages at {start:#x} are not all mapped in process {process}")
        return
    try:
        # This changes nothing, but the kernel checks every mapping of the range.
        native.madvise(start, pages * page_size, mmap.MADV_NORMAL)
    except OSError as error:
        raise Refusal(
            "unmapped", f"{pages} pages at {start:#x} are not all mapped in the target ({error.strerror})"
        ) from error


def _is_mapped(start: int, end: int, process: str) -> bool:
    with open(f"/proc/{process}/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            low, high = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
            if low <= start < high:
                start = high
    return start >= end


def _pread_all(fd: int, process: str, size: int, offset: int) -> bytes:
    parts = []
    while size:
        part = os.pread(fd, size, offset)
        if not part:
            raise Refusal("usage", f"/proc/{process}/pagemap ends before offset {offset}: no such address")
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]

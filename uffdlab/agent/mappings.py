"""The target's mappings.  Python knows their addresses and never looks inside."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

from uffdlab.agent import native
from uffdlab.agent.rpc import Refusal

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
ALIAS_DISTANCE = 0x10_0000_0000  # an alias lies 64 GiB above its region where that place is free
_GIB = 1 << 30


@dataclass(frozen=True)
class Mapping:
    """One mapping of file pages, and its alias."""

    memory: str
    start: int
    alias: int
    length: int  # bytes
    page_size: int
    fd: int


class Mappings:
    """All mappings of one target, by number.

    Parameters
    ----------
    base : int
        Where the first region is put, if that place is free.
    """

    def __init__(self, base: int) -> None:
        self._next_place = base
        self._next_number = 1
        self._by_number: dict[int, Mapping] = {}

    def make(self, memory: str, pages: int, page_size: int) -> dict[str, Any]:
        """Map `pages` pages of a new memfd twice: as the region and as its alias."""
        length = pages * page_size
        flags = os.MFD_CLOEXEC
        if memory == "hugetlb":
            flags |= os.MFD_HUGETLB | (page_size.bit_length() - 1) << os.MFD_HUGE_SHIFT
        elif memory != "shmem":
            raise Refusal("usage", f"memory {memory!r} is not known here; shmem and hugetlb are")
        fd = native.memfd(f"region-{self._next_number}", flags)
        start = 0
        try:
            os.ftruncate(fd, length)
            start = native.map_memory(self._next_place, length, _READ_WRITE, mmap.MAP_SHARED, fd)
            alias = native.map_memory(start + ALIAS_DISTANCE, length, _READ_WRITE, mmap.MAP_SHARED, fd)
        except OSError as error:
            if start:
                native.unmap_memory(start, length)
            os.close(fd)
            raise Refusal("map-failed", str(error), errno=error.errno) from error
        self._next_place = (start + length + 2 * _GIB - 1) // _GIB * _GIB
        number = self._next_number
        self._next_number += 1
        self._by_number[number] = Mapping(memory, start, alias, length, page_size, fd)
        return {"number": number, "start": start, "alias": alias}

    def remove(self, number: int) -> None:
        """Unmap a region and its alias and close its file."""
        mapping = self._by_number.pop(number, None)
        if mapping is None:
            raise Refusal("usage", f"there is no mapping {number}; it was unmapped before")
        native.unmap_memory(mapping.start, mapping.length)
        native.unmap_memory(mapping.alias, mapping.length)
        os.close(mapping.fd)

"""The target's mappings. Python knows their addresses and never accesses their memory."""

from __future__ import annotations

import errno
import mmap
import os

from uffdlab.agent import backing, native
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.memory import MEMORY, Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
ALIAS_DISTANCE = 0x10_0000_0000  # an alias lies 64 GiB above its region if that range is free
_GIB = 1 << 30
_PROT_NONE, _MAP_NORESERVE = 0, 0x4000  # asm-generic/mman.h
_MADV_NOHUGEPAGE, _MADV_HUGEPAGE = 15, 14


class Mapping:
    """One mapping, and its alias (0 where it has none); `length` in bytes."""

    def __init__(self, memory: Memory, start: int, alias: int, length: int, fd: int) -> None:
        self.memory, self.start, self.alias, self.length, self.fd = memory, start, alias, length, fd

    def close(self) -> None:
        """Unmap the mapping and its alias, and close the file."""
        try:
            native.unmap_memory(self.start, self.length)
            if self.alias:
                native.unmap_memory(self.alias, self.length)
        finally:
            if self.fd >= 0:
                os.close(self.fd)


def _why(error: OSError) -> str:
    if error.errno != errno.ENOMEM:
        return str(error)
    return (
        f"{error}: this machine does not have so much memory and does not overcommit (vm.overcommit_memory); map "
        "fewer pages, or use memory='shmem', whose pages are counted only when they are touched"
    )


def make(memory: Memory, hint: int, length: int, name: str) -> Mapping:
    """Map `length` bytes at `hint` if that is free, and its alias above it.

    Raises
    ------
    OSError
        The kernel refused. Nothing stays mapped.
    """
    if memory.thp:
        hint = find_free(hint, length, memory.unit)
    fd = backing.open_file(memory, name, length)
    flags = mmap.MAP_SHARED if memory.shared else mmap.MAP_PRIVATE
    start = alias = 0
    try:
        start = native.map_memory(hint, length, READ_WRITE, flags | (mmap.MAP_ANONYMOUS if fd < 0 else 0), fd)
        if memory.thp or memory == MEMORY["anon"]:  # with THP set to always, small pages must be asked for
            _advise_size(start, length, _MADV_HUGEPAGE if memory.thp else _MADV_NOHUGEPAGE)
        if memory.thp and start % memory.unit:
            raise Refusal(
                "map-failed", f"the kernel put the mapping at {start:#x}, which is not aligned for huge pages"
            )
        if fd >= 0:
            alias = native.map_memory(start + ALIAS_DISTANCE, length, READ_WRITE, mmap.MAP_SHARED, fd)
        elif memory.shared:
            alias = native.duplicate_mapping(start, length, start + ALIAS_DISTANCE)
    except BaseException:
        if start:
            native.unmap_memory(start, length)
        if fd >= 0:
            os.close(fd)
        raise
    return Mapping(memory, start, alias, length, fd)


def find_free(hint: int, length: int, unit: int) -> int:
    """Return a multiple of `unit` where `length` bytes can be mapped now: `hint` or an address of the kernel."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    for address, size in ((hint, length), (0, length + unit)):
        start = native.map_memory(address, size, _PROT_NONE, flags, -1)
        native.unmap_memory(start, size)
        aligned = -(-start // unit) * unit
        if aligned + length <= start + size:
            break
    return aligned


def _advise_size(start: int, length: int, advice: int) -> None:
    try:
        native.madvise(start, length, advice)
    except OSError as error:
        if advice == _MADV_HUGEPAGE:  # EINVAL: a kernel without transparent huge pages; all its pages are small
            raise Refusal("map-failed", "this kernel has no transparent huge pages", errno=error.errno) from error


class Mappings:
    """All mappings of one target, by number.

    Parameters
    ----------
    base : int
        The address of the first region, if it is free.
    """

    def __init__(self, base: int) -> None:
        self._base = self._next_place = base
        self._next_number = 1
        self._by_number: dict[int, Mapping] = {}

    def make(self, memory: str, pages: int, page_size: int) -> dict[str, Any]:
        """Map `pages` pages as a region, and again as its alias; the alias is 0 for private anonymous memory."""
        if memory not in MEMORY:
            raise Refusal("usage", f"memory {memory!r} is not known; the kinds are {', '.join(MEMORY)}")
        length = pages * page_size
        number = self._next_number
        try:
            mapping = make(MEMORY[memory], self._place(length), length, f"region-{number}")
        except OSError as error:
            raise Refusal("map-failed", _why(error), errno=error.errno) from error
        self._next_number += 1
        self._by_number[number] = mapping
        return {"number": number, "start": mapping.start, "alias": mapping.alias}

    def free_place(self, length: int) -> int:
        """Return an address where nothing is mapped now, for mremap."""
        return find_free(self._place(length), length, _GIB)

    def _place(self, length: int) -> int:
        # Every second 64 GiB are reserved for aliases.
        place = self._next_place
        if (place - self._base) % (2 * ALIAS_DISTANCE) + length > ALIAS_DISTANCE:
            place = self._base + -(-(place - self._base) // (2 * ALIAS_DISTANCE)) * 2 * ALIAS_DISTANCE
        self._next_place = (place + length + 2 * _GIB - 1) // _GIB * _GIB
        return place

    def moved(self, number: int, start: int) -> None:
        """Record that mremap(2) has moved a whole region to `start`."""
        self._find(number).start = start

    def remove(self, number: int) -> None:
        """Unmap a region and its alias and close its file."""
        mapping = self._find(number)
        del self._by_number[number]
        mapping.close()

    def _find(self, number: int) -> Mapping:
        mapping = self._by_number.get(number)
        if mapping is None:
            raise Refusal("usage", f"there is no mapping {number}; it was unmapped before")
        return mapping

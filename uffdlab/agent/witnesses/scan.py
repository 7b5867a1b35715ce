"""PAGEMAP_SCAN on the target's pages (6.7+): runs of pages with the same categories."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time

from uffdlab.agent.native import ffi
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.witnesses.soft_dirty import SoftDirty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/linux/fs.h
_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_ARGUMENT = struct.Struct("=12Q")  # size, flags, start, end, walk_end, vec, vec_len, max_pages, four category masks
_WALK_END = 4
_REGION = 24  # bytes of struct page_region: start, end, categories
_WRITTEN, _SOFT_DIRTY = 1 << 1, 1 << 7
_CATEGORIES = (0x3FF, 0x1FF, 0xFF)  # with ACCESSED (7.3), with GUARD (6.15), the first (6.7); EINVAL if unknown
_RUNS_AT_ONCE = 1 << 14
_MAX_RUNS = 1 << 21  # 48 MiB


class Scan:
    """Bulk reads by PAGEMAP_SCAN.

    Parameters
    ----------
    beacon : int
        The address of a private page that is written and never registered with a userfaultfd.
    soft_dirty : SoftDirty
    """

    def __init__(self, beacon: int, soft_dirty: SoftDirty) -> None:
        self._soft_dirty = soft_dirty
        self._categories = answered = 0
        for categories in _CATEGORIES:
            try:
                runs = _scan(beacon, beacon + mmap.PAGESIZE, categories)
            except OSError:
                continue
            # Since 7.3 only pages that are registered for WP can have WRITTEN, so its absence elsewhere means nothing.
            written = runs[-_REGION:][16] & _WRITTEN
            self._categories, answered = categories, categories if written else categories & ~_WRITTEN
            break
        #: ``answered``: the categories whose absence means something; 0 if the kernel has no PAGEMAP_SCAN.
        self.facts = {"answered": answered}

    def read(self, start: int, pages: int, page_size: int) -> dict[str, Any]:
        """Scan a range.

        Returns
        -------
        dict
            ``runs``: struct page_region (start, end, categories; 64 bits each) of each run.  What is not mapped is in
            no run.  ``vma_soft_dirty``, ``time_ns``.
        """
        if not self._categories:
            raise Refusal("no-witness", "this kernel has no PAGEMAP_SCAN, which Linux 6.7 introduced")
        end = start + pages * page_size
        try:
            runs = _scan(start, end, self._categories)
        except OSError as error:
            raise Refusal("scan-failed", f"PAGEMAP_SCAN of {pages} pages at {start:#x}: {error.strerror}") from error

        def all_soft_dirty() -> bool:
            return all(byte & _SOFT_DIRTY for byte in runs[16::_REGION])

        return {
            "runs": runs,
            "vma_soft_dirty": self._soft_dirty.vma_soft_dirty(start, all_soft_dirty),
            "time_ns": time.monotonic_ns(),
        }


def _scan(start: int, end: int, categories: int) -> bytes:
    buffer = ffi.new("char[]", _RUNS_AT_ONCE * _REGION)
    buffer_address = int(ffi.cast("uintptr_t", buffer))
    parts: list[bytes] = []
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while start < end:
            if len(parts) * _RUNS_AT_ONCE > _MAX_RUNS:
                raise Refusal("usage", "these pages are in too many different states for one call; ask for fewer")
            argument = bytearray(
                _ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, buffer_address, _RUNS_AT_ONCE, 0, 0, 0, 0, categories)
            )
            count = fcntl.ioctl(fd, _PAGEMAP_SCAN, argument, True)
            parts.append(bytes(ffi.buffer(buffer, count * _REGION)))
            start = _ARGUMENT.unpack(argument)[_WALK_END]
    finally:
        os.close(fd)
    return b"".join(parts)

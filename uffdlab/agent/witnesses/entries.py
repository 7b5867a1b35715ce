"""The target's page-table entries, read by the kernel's PTE reader (kernel-patch/6.1/pte-reader)."""

from __future__ import annotations

import os
import struct
import time

from uffdlab.agent import native
from uffdlab.agent.native import ffi
from uffdlab.agent.rpc import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEVICE = "/dev/pte_reader"
# include/uapi/linux/pte_reader.h
_READ = 0x4028BB00  # _IOW(0xBB, 0x00, struct pte_reader_request)
_REQUEST = struct.Struct("=iIQQQQ")  # pid, flags, start, count, stride, entries
_ENTRY = 16  # bytes of struct pte_reader_entry: entry, level, reserved
_MAX_COUNT = 1 << 20  # PTE_READER_MAX_COUNT
_MAX_PAGES = 3 << 20  # 48 MiB


class Entries:
    """Bulk reads of raw entries.

    Parameters
    ----------
    beacon : int
        The address of a mapped page, to try the device on.
    """

    def __init__(self, beacon: int) -> None:
        #: ``why_not``: empty if the device answers, else the reason.
        self.facts = {"why_not": _try(beacon)}

    def read(self, start: int, pages: int, page_size: int) -> dict[str, Any]:
        """Read the entry of each page.

        Returns
        -------
        dict
            ``entries``: for each page 16 bytes: the entry (64 bits), its level (32 bits; 0 if nothing is mapped), and
            zero.  ``time_ns``: CLOCK_MONOTONIC.
        """
        if self.facts["why_not"]:
            raise Refusal("no-witness", self.facts["why_not"])
        if not 0 < pages <= _MAX_PAGES:
            raise Refusal("usage", f"{pages} pages cannot be read with one call; 1 to {_MAX_PAGES} can")
        try:
            entries = _read(start, pages, page_size)
        except OSError as error:
            raise Refusal("reader-failed", f"PTE_READER_READ of {pages} pages at {start:#x}: {error}") from error
        return {"entries": entries, "time_ns": time.monotonic_ns()}


def _try(beacon: int) -> str:
    if not os.path.exists(_DEVICE):
        return f"this kernel has no {_DEVICE}: it was built without the PTE reader of kernel-patch"
    try:
        level = struct.unpack_from("=QI", _read(beacon, 1, os.sysconf("SC_PAGE_SIZE")))[1]
    except OSError as error:
        return f"{_DEVICE} does not answer: {error}"
    return "" if level == 1 else f"{_DEVICE} reports level {level} for a mapped page: it has another version"


def _read(start: int, pages: int, stride: int) -> bytes:
    size = min(pages, _MAX_COUNT)
    buffer = ffi.new("char[]", size * _ENTRY)
    buffer_address = int(ffi.cast("uintptr_t", buffer))
    parts = []
    fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        for first in range(0, pages, size):
            count = min(size, pages - first)
            request = ffi.new(
                "char[]", _REQUEST.pack(os.getpid(), 0, start + first * stride, count, stride, buffer_address)
            )
            error, _, _ = native.ioctl(fd, _READ, request)
            if error:
                raise OSError(error, os.strerror(error))
            parts.append(bytes(ffi.buffer(buffer, count * _ENTRY)))
    finally:
        os.close(fd)
    return b"".join(parts)

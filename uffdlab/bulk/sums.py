"""A checksum of many bytes against accidents. It is as fast as memory, and needs no numpy."""

from __future__ import annotations

from uffdlab.bulk._bulk import ffi, lib


def add(total: int, data: bytes | memoryview) -> int:
    """Return the checksum `total` (64 bits), extended by more bytes.

    It depends on the order of the calls, but not on the order of the 8-byte units in one call.

    >>> add(add(0, b"one part"), b"another")
    1849758970020311071
    """
    with memoryview(data) as view:
        return int(lib.bulk_sum(total, ffi.from_buffer(view), view.nbytes))

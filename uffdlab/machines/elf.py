"""Reading ELF files for the initramfs."""

from __future__ import annotations

import struct

_PT_LOAD, _PT_INTERP = 1, 3
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


class NotElf(ValueError):
    """The bytes are not a 64-bit little-endian ELF file."""


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    # (type, offset, size in the file) of each program header.
    if len(data) < _HEADER.size or data[:6] != b"\x7fELF\x02\x01":
        raise NotElf("no 64-bit little-endian ELF header")
    header = _HEADER.unpack_from(data)
    start, size, count = header[5], header[9], header[10]
    if count and (size != _SEGMENT.size or start + size * count > len(data)):
        raise NotElf("the program headers lie outside the file")
    found = []
    for index in range(count):
        kind, _flags, offset, _virtual, _physical, length, _memory, _align = _SEGMENT.unpack_from(
            data, start + index * size
        )
        if offset + length > len(data):
            raise NotElf("a segment lies outside the file")
        found.append((kind, offset, length))
    return found


def interpreter(data: bytes) -> str:
    """Return the path of the dynamic loader that an executable names, empty if it is static.

    Raises
    ------
    NotElf
    """
    for kind, offset, length in _segments(data):
        if kind == _PT_INTERP:
            return data[offset : offset + length].rstrip(b"\0").decode()
    return ""


def loaded(data: bytes) -> bytes:
    """Return the file without the parts that no loader reads: debug information, link symbols, section headers.

    Raises
    ------
    NotElf
    """
    segments = _segments(data)
    header = list(_HEADER.unpack_from(data))
    end = max((offset + length for _kind, offset, length in segments), default=0)
    end = max(end, _HEADER.size, header[5] + header[9] * header[10])
    header[6] = header[11] = header[12] = header[13] = 0  # e_shoff, e_shentsize, e_shnum, e_shstrndx
    return _HEADER.pack(*header) + data[_HEADER.size : end]

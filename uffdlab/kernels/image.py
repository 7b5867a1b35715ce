"""Kernel images, bzImage and ELF vmlinux: which of them a file is, and its release.

Sources: Documentation/x86/boot.rst, include/xen/interface/elfnote.h.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_MACHINE_X86_64 = 62
_PT_NOTE = 4
_XEN_PHYS32_ENTRY = 18


class NotAKernel(ValueError):
    """The file is not an x86-64 kernel that QEMU can start.  The message says what it is."""


@dataclass(frozen=True)
class Image:
    """The kind and release of a kernel image, read from its content."""

    kind: str  # "vmlinux" or "bzImage"
    release: str  # uname -r, empty if the image does not contain it


def inspect(data: bytes) -> Image:
    """Return the kind and release of an image.

    Raises
    ------
    NotAKernel
        `data` is neither a bzImage nor an x86-64 ELF vmlinux with the PVH note.
    """
    if data[:4] == b"\x7fELF":
        if not has_pvh_note(data):
            raise NotAKernel("an ELF file without the PVH note of a bootable x86-64 vmlinux (is CONFIG_PVH set?)")
        found = re.search(rb"Linux version (\S+) ", data)
        return Image("vmlinux", found[1].decode(errors="replace") if found else "")
    if data[0x202:0x206] == b"HdrS":
        start = struct.unpack_from("<H", data, 0x20E)[0] + 0x200
        version = data[start : start + 256].partition(b"\0")[0].split()
        return Image("bzImage", version[0].decode(errors="replace") if start > 0x200 and version else "")
    raise NotAKernel("neither a bzImage nor an ELF vmlinux")


def has_pvh_note(elf: bytes) -> bool:
    """Return whether `elf` is an x86-64 ELF executable with XEN_ELFNOTE_PHYS32_ENTRY."""
    if elf[:6] != b"\x7fELF\x02\x01" or len(elf) < 64:
        return False
    machine = struct.unpack_from("<H", elf, 18)[0]
    table = struct.unpack_from("<Q", elf, 32)[0]
    size, count = struct.unpack_from("<HH", elf, 54)
    if machine != _MACHINE_X86_64 or size < 56 or table + size * count > len(elf):
        return False
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + index * size)
        if kind == _PT_NOTE and (b"Xen\0", _XEN_PHYS32_ENTRY) in _notes(elf[offset : offset + length]):
            return True
    return False


def _notes(segment: bytes) -> list[tuple[bytes, int]]:
    # Returns every note's name and type.
    found = []
    at = 0
    while at + 12 <= len(segment):
        name_size, content_size, kind = struct.unpack_from("<III", segment, at)
        found.append((segment[at + 12 : at + 12 + name_size], kind))
        at += 12 + (name_size + 3 & ~3) + (content_size + 3 & ~3)
    return found

"""The archive format of an initramfs: cpio, "newc"."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"
_LARGEST = 0xFFFFFFFF  # every number in a header is eight hexadecimal digits


@dataclass(frozen=True)
class CpioEntry:
    """One file, folder, link or device of an archive.

    Parameters
    ----------
    mode : int
        Type and permissions, as in ``stat.st_mode``.
    data : bytes
        The content of a file, or the target of a symbolic link.
    device : tuple of int
        The major and minor number of a device.
    """

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, *, executable: bool = False) -> CpioEntry:
    """Return a regular file."""
    return CpioEntry(stat.S_IFREG | (0o755 if executable else 0o644), data)


def folder() -> CpioEntry:
    """Return a folder."""
    return CpioEntry(stat.S_IFDIR | 0o755)


def symlink(to: str) -> CpioEntry:
    """Return a symbolic link."""
    return CpioEntry(stat.S_IFLNK | 0o777, to.encode())


def console() -> CpioEntry:
    """Return the device that the kernel opens as the first three descriptors of init."""
    return CpioEntry(stat.S_IFCHR | 0o600, device=(5, 1))


def pack(entries: dict[str, CpioEntry]) -> bytes:
    """Return the archive.  Parent folders are added, the order is fixed, and the times are zero.

    Parameters
    ----------
    entries : dict
        The entries by path, relative to the root of the archive.

    Raises
    ------
    ValueError
        A path is absolute or leaves the archive, or a file is 4 GiB or larger.
    """
    whole: dict[str, CpioEntry] = {}
    for name, entry in entries.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or str(path) == _TRAILER:
            raise ValueError(f"{name!r} is not a path inside an archive")
        for parent in path.parents:
            if parent.parts:
                whole.setdefault(str(parent), folder())
        whole[str(path)] = entry
    out = bytearray()
    # A folder sorts before its entries, as the kernel needs it.
    for number, name in enumerate(sorted(whole), start=1):
        _append(out, number, name, whole[name])
    _append(out, 0, _TRAILER, CpioEntry(0))
    return bytes(out)


def _append(out: bytearray, number: int, name: str, entry: CpioEntry) -> None:
    if len(entry.data) > _LARGEST:
        raise ValueError(f"{name}: {len(entry.data)} bytes do not fit into a newc archive")
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(encoded), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields)
    out += encoded
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)

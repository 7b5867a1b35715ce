"""The userfaultfd ABI: ioctls, modes, features and messages, with the version each came in.

Taken from ``include/uapi/linux/userfaultfd.h`` (Linux 6.1, 6.12 and 7.3).  The versions are labels for readers; what a
kernel can do is found by trying, never by comparing them.  This module is used on both sides, so it imports only the
standard library.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final

UFFDIO: Final = 0xAA  # the ioctl type of all of them
UFFD_API: Final = 0xAA
_WORD: Final = (1 << 64) - 1


class RegisterMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_REGISTER."""

    MISSING = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2
    RWP = 1 << 3


class CopyMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_COPY."""

    DONTWAKE = 1 << 0
    WP = 1 << 1


class ZeropageMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_ZEROPAGE."""

    DONTWAKE = 1 << 0


class MoveMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_MOVE."""

    DONTWAKE = 1 << 0
    ALLOW_SRC_HOLES = 1 << 1


class WriteprotectMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_WRITEPROTECT.  The order differs from the other ioctls': WP is bit 0 here."""

    WP = 1 << 0
    DONTWAKE = 1 << 1


class ContinueMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_CONTINUE.  No feature bit tells whether a kernel knows WP; it is found by trying."""

    DONTWAKE = 1 << 0
    WP = 1 << 1


class PoisonMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_POISON."""

    DONTWAKE = 1 << 0


class RwprotectMode(enum.IntFlag, boundary=enum.KEEP):
    """Modes of UFFDIO_RWPROTECT."""

    RWP = 1 << 0
    DONTWAKE = 1 << 1


class NoMode(enum.IntFlag, boundary=enum.KEEP):
    """For the ioctls that have no mode word."""


class Feature(enum.IntFlag, boundary=enum.KEEP):
    """Features of UFFDIO_API.  Unknown bits are kept."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    WP_UNPOPULATED = 1 << 13
    POISON = 1 << 14
    WP_ASYNC = 1 << 15
    MOVE = 1 << 16
    RWP = 1 << 17
    RWP_ASYNC = 1 << 18


class FaultFlag(enum.IntFlag, boundary=enum.KEEP):
    """Flags of a page-fault message (UFFD_PAGEFAULT_FLAG_*)."""

    WRITE = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2
    RWP = 1 << 3


class Event(enum.IntEnum):
    """Kinds of messages that a userfaultfd gives when it is read (UFFD_EVENT_*)."""

    PAGEFAULT = 0x12
    FORK = 0x13
    REMAP = 0x14
    REMOVE = 0x15
    UNMAP = 0x16


class OpenFlag(enum.IntFlag, boundary=enum.KEEP):
    """Flags of userfaultfd(2) and of USERFAULTFD_IOC_NEW, as on x86-64 and arm64."""

    USER_MODE_ONLY = 1 << 0
    NONBLOCK = 0o4000
    CLOEXEC = 0o2000000


_IOC_WRITE, _IOC_READ = 1, 2


@dataclass(frozen=True)
class Ioctl:
    """One ioctl of a userfaultfd.

    Attributes
    ----------
    name : str
        As the kernel spells it, ``UFFDIO_CONTINUE``.
    nr : int
        Its number within type 0xAA.
    access : str
        ``"R"``, ``"W"`` or ``"RW"``, as in ``_IOR``, ``_IOW``, ``_IOWR``.
    fields : tuple of str
        The 64-bit words of its argument, in order.
    output : str
        The signed word in which the kernel leaves bytes done or -errno; empty if there is none.
    modes : type
        The IntFlag of its mode word.
    since : str
        The Linux version that brought it; for reading only.
    modes_since : dict
        For each mode that came later than the ioctl, the version that brought it.
    """

    name: str
    nr: int
    access: str
    fields: tuple[str, ...]
    output: str
    modes: type[enum.IntFlag]
    since: str
    modes_since: dict[str, str]

    @cached_property
    def _layout(self) -> struct.Struct:
        return struct.Struct(f"={len(self.fields)}Q")

    @cached_property
    def size(self) -> int:
        """Size of the argument in bytes."""
        return self._layout.size

    @cached_property
    def request(self) -> int:
        """The request number that ioctl(2) takes (asm-generic/ioctl.h)."""
        direction = (_IOC_READ if "R" in self.access else 0) | (_IOC_WRITE if "W" in self.access else 0)
        return direction << 30 | self.size << 16 | UFFDIO << 8 | self.nr

    def pack(self, values: dict[str, int]) -> bytes:
        """Pack the argument; words not given are 0."""
        return self._layout.pack(*[values.get(field, 0) & _WORD for field in self.fields])

    def unpack(self, data: bytes | bytearray) -> dict[str, int]:
        """Unpack the argument as the kernel left it; only the output word is signed."""
        words = dict(zip(self.fields, self._layout.unpack(data), strict=True))
        if self.output and words[self.output] >= 1 << 63:
            words[self.output] -= 1 << 64
        return words


def _table(*rows: Ioctl) -> dict[str, Ioctl]:
    return {row.name: row for row in rows}


_RANGE = ("start", "len")
IOCTLS: Final = _table(
    Ioctl("UFFDIO_API", 0x3F, "RW", ("api", "features", "ioctls"), "", NoMode, "4.3", {}),
    Ioctl(
        "UFFDIO_REGISTER", 0x00, "RW", (*_RANGE, "mode", "ioctls"), "", RegisterMode, "4.3",
        {"WP": "5.7", "MINOR": "5.13", "RWP": "7.3"},
    ),
    Ioctl("UFFDIO_UNREGISTER", 0x01, "R", _RANGE, "", NoMode, "4.3", {}),
    Ioctl("UFFDIO_WAKE", 0x02, "R", _RANGE, "", NoMode, "4.3", {}),
    Ioctl("UFFDIO_COPY", 0x03, "RW", ("dst", "src", "len", "mode", "copy"), "copy", CopyMode, "4.3", {"WP": "5.7"}),
    Ioctl("UFFDIO_ZEROPAGE", 0x04, "RW", (*_RANGE, "mode", "zeropage"), "zeropage", ZeropageMode, "4.3", {}),
    Ioctl("UFFDIO_MOVE", 0x05, "RW", ("dst", "src", "len", "mode", "move"), "move", MoveMode, "6.8", {}),
    Ioctl("UFFDIO_WRITEPROTECT", 0x06, "RW", (*_RANGE, "mode"), "", WriteprotectMode, "5.7", {}),
    Ioctl("UFFDIO_CONTINUE", 0x07, "RW", (*_RANGE, "mode", "mapped"), "mapped", ContinueMode, "5.13", {"WP": "6.4"}),
    Ioctl("UFFDIO_POISON", 0x08, "RW", (*_RANGE, "mode", "updated"), "updated", PoisonMode, "6.6", {}),
    Ioctl("UFFDIO_RWPROTECT", 0x09, "RW", (*_RANGE, "mode"), "", RwprotectMode, "7.3", {}),
    Ioctl("UFFDIO_SET_MODE", 0x0A, "W", ("enable", "disable"), "", NoMode, "7.3", {}),
)  # fmt: skip

FEATURES_SINCE: Final = {
    Feature.PAGEFAULT_FLAG_WP: "5.7", Feature.EVENT_FORK: "4.11", Feature.EVENT_REMAP: "4.11",
    Feature.EVENT_REMOVE: "4.11", Feature.MISSING_HUGETLBFS: "4.11", Feature.MISSING_SHMEM: "4.11",
    Feature.EVENT_UNMAP: "4.11", Feature.SIGBUS: "4.14", Feature.THREAD_ID: "4.14", Feature.MINOR_HUGETLBFS: "5.13",
    Feature.MINOR_SHMEM: "5.14", Feature.EXACT_ADDRESS: "5.18", Feature.WP_HUGETLBFS_SHMEM: "5.19",
    Feature.WP_UNPOPULATED: "6.4", Feature.POISON: "6.6", Feature.WP_ASYNC: "6.7", Feature.MOVE: "6.8",
    Feature.RWP: "7.3", Feature.RWP_ASYNC: "7.3",
}  # fmt: skip

USERFAULTFD_IOC_NEW: Final = UFFDIO << 8 | 0x00  # _IO(0xAA, 0), on /dev/userfaultfd, since 6.1

MESSAGE_SIZE: Final = 32  # struct uffd_msg
_HEAD = struct.Struct("=BBHI")
_PAGEFAULT = struct.Struct("=QQI")
_THREE_WORDS = struct.Struct("=QQQ")


@dataclass(frozen=True)
class RawMessage:
    """struct uffd_msg, taken apart.

    Attributes
    ----------
    event : int
        An :class:`Event`, or a number this module does not know.
    words : tuple of int
        PAGEFAULT: flags, address, thread id (0 without Feature.THREAD_ID).  FORK: the new fd.  REMAP: from, to, len.
        REMOVE and UNMAP: start, end.  Anything else: the three words of its argument.
    """

    event: int
    words: tuple[int, ...]


def decode_message(data: bytes) -> RawMessage:
    """Take one struct uffd_msg (32 bytes) apart.

    Raises
    ------
    ValueError
        If `data` is not 32 bytes long.
    """
    if len(data) != MESSAGE_SIZE:
        raise ValueError(f"a uffd_msg has {MESSAGE_SIZE} bytes, these are {len(data)}")
    event = _HEAD.unpack_from(data)[0]
    words = _THREE_WORDS.unpack_from(data, _HEAD.size)
    if event == Event.PAGEFAULT:
        return RawMessage(event, _PAGEFAULT.unpack_from(data, _HEAD.size))
    if event == Event.FORK:
        return RawMessage(event, (words[0] & 0xFFFFFFFF,))
    if event in (Event.REMOVE, Event.UNMAP):
        return RawMessage(event, words[:2])
    return RawMessage(event, words)


def flag_names(value: int, kind: type[enum.IntFlag]) -> str:
    """Name the bits of a flag word; bits without a name are kept as a number.

    >>> flag_names(0x103, ContinueMode)
    'DONTWAKE|WP|0x100'
    """
    names = [flag.name or "" for flag in kind if value & flag]
    rest = value & ~sum(int(flag) for flag in kind)
    if rest:
        names.append(hex(rest))
    return "|".join(names) or "0"

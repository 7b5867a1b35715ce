"""The layout of the structures of the userfaultfd ABI: request numbers, the fields of each ioctl, messages.

Source: ``include/uapi/linux/userfaultfd.h`` (Linux 6.1, 6.12 and 7.3).  :mod:`uffdlab.uapi` has the meaning of the
bits.  The agent starts with this module, so it imports next to nothing.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

UFFDIO: Final = 0xAA  # the ioctl type that all of them share
UFFD_API: Final = 0xAA
USERFAULTFD_IOC_NEW: Final = UFFDIO << 8 | 0x00  # _IO(0xAA, 0), on /dev/userfaultfd, since 6.1
USER_MODE_ONLY: Final = 1 << 0  # a flag of userfaultfd(2)

EVENT_PAGEFAULT: Final = 0x12
EVENT_FORK: Final = 0x13
EVENT_REMAP: Final = 0x14
EVENT_REMOVE: Final = 0x15
EVENT_UNMAP: Final = 0x16
MESSAGE_SIZE: Final = 32  # struct uffd_msg

_IOC_WRITE, _IOC_READ = 1, 2
_UINT64_MAX = (1 << 64) - 1
_HEAD = struct.Struct("=BBHI")
_PAGEFAULT = struct.Struct("=QQI")
_ARG = struct.Struct("=QQQ")


class Layout:
    """One ioctl of a userfaultfd: its request number and the layout of its argument.

    Attributes
    ----------
    name : str
        Its name in the kernel, ``UFFDIO_CONTINUE``.
    nr : int
        Its number within type 0xAA.
    access : str
        ``"R"``, ``"W"`` or ``"RW"``, as in ``_IOR``, ``_IOW``, ``_IOWR``.
    fields : tuple of str
        The 64-bit fields of its argument, in order.
    output : str
        The signed field in which the kernel returns the bytes done or -errno; empty if there is none.
    size : int
        Size of the argument in bytes.
    batch : bool
        Whether the agent can repeat it page by page in native code: it has one range, whose start grows by a page.
    request : int
        The request number that ioctl(2) takes (asm-generic/ioctl.h).
    """

    def __init__(
        self, name: str, nr: int, access: str, fields: tuple[str, ...], output: str = "", *, batch: bool = False
    ) -> None:
        self.name, self.nr, self.access, self.fields, self.output = name, nr, access, fields, output
        self.batch = batch
        self.size = 8 * len(fields)
        direction = (_IOC_READ if "R" in access else 0) | (_IOC_WRITE if "W" in access else 0)
        self.request = direction << 30 | self.size << 16 | UFFDIO << 8 | nr
        self._format = f"={len(fields)}Q"

    def __repr__(self) -> str:
        return f"<{self.name} {self.request:#x}: {', '.join(self.fields)}>"

    def pack(self, values: dict[str, int]) -> bytes:
        """Return the packed argument; fields that are not given are 0."""
        return struct.pack(self._format, *[values.get(field, 0) & _UINT64_MAX for field in self.fields])

    def unpack(self, data: bytes | bytearray) -> dict[str, int]:
        """Return the fields of the argument after the call; only the output field is signed."""
        values = dict(zip(self.fields, struct.unpack(self._format, data), strict=True))
        if self.output and values[self.output] >= 1 << 63:
            values[self.output] -= 1 << 64
        return values


def _table(*rows: Layout) -> dict[str, Layout]:
    return {row.name: row for row in rows}


_RANGE = ("start", "len")
LAYOUTS: Final = _table(
    Layout("UFFDIO_API", 0x3F, "RW", ("api", "features", "ioctls")),
    Layout("UFFDIO_REGISTER", 0x00, "RW", (*_RANGE, "mode", "ioctls")),
    Layout("UFFDIO_UNREGISTER", 0x01, "R", _RANGE),
    Layout("UFFDIO_WAKE", 0x02, "R", _RANGE, batch=True),
    Layout("UFFDIO_COPY", 0x03, "RW", ("dst", "src", "len", "mode", "copy"), "copy", batch=True),
    Layout("UFFDIO_ZEROPAGE", 0x04, "RW", (*_RANGE, "mode", "zeropage"), "zeropage", batch=True),
    Layout("UFFDIO_MOVE", 0x05, "RW", ("dst", "src", "len", "mode", "move"), "move"),
    Layout("UFFDIO_WRITEPROTECT", 0x06, "RW", (*_RANGE, "mode"), batch=True),
    Layout("UFFDIO_CONTINUE", 0x07, "RW", (*_RANGE, "mode", "mapped"), "mapped", batch=True),
    Layout("UFFDIO_POISON", 0x08, "RW", (*_RANGE, "mode", "updated"), "updated", batch=True),
    Layout("UFFDIO_RWPROTECT", 0x09, "RW", (*_RANGE, "mode")),
    Layout("UFFDIO_SET_MODE", 0x0A, "W", ("enable", "disable")),
)


def decode(message: bytes) -> tuple[int, tuple[int, ...]]:
    """Decode one struct uffd_msg (32 bytes) into the event and the fields of its argument.

    PAGEFAULT: flags, address, thread id (0 without Feature.THREAD_ID).  FORK: the new fd.  REMAP: from, to, len.
    REMOVE and UNMAP: start, end.  Any other event: the 24 bytes of its argument as three 64-bit numbers.

    Raises
    ------
    ValueError
        `message` is not 32 bytes long.
    """
    if len(message) != MESSAGE_SIZE:
        raise ValueError(f"a uffd_msg has {MESSAGE_SIZE} bytes, these are {len(message)}")
    event: int = _HEAD.unpack_from(message)[0]
    arg: tuple[int, ...] = _ARG.unpack_from(message, _HEAD.size)
    if event == EVENT_PAGEFAULT:
        return event, _PAGEFAULT.unpack_from(message, _HEAD.size)
    if event == EVENT_FORK:
        return event, (arg[0] & 0xFFFFFFFF,)
    if event in (EVENT_REMOVE, EVENT_UNMAP):
        return event, arg[:2]
    return event, arg

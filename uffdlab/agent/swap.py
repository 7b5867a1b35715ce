"""Swap for the guest, on its RAM disks.  MADV_PAGEOUT needs it for anonymous and shmem pages."""

from __future__ import annotations

import errno
import os

from uffdlab.agent import native
from uffdlab.agent.rpc import Refusal

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SWAPS = "/proc/swaps"
_SIGNATURE = b"SWAPSPACE2"


def _header(size: int) -> bytes:
    # union swap_header of linux/swap.h: 1024 bytes for a boot loader, version, last page, bad pages.  The signature is
    # at the end of the page.
    body = bytes(1024) + (1).to_bytes(4, "little") + (size // _PAGE - 1).to_bytes(4, "little")
    return body.ljust(_PAGE - len(_SIGNATURE), b"\0") + _SIGNATURE


def swap_on() -> int:
    """Turn swap on, on every RAM disk, unless some is on already; return its size in bytes.

    Raises
    ------
    Refusal
        If this kernel has no RAM disk or no swap.
    """
    size = total()
    if size:
        return size
    disks = sorted(f"/dev/{name}" for name in os.listdir("/dev") if name.startswith("ram") and name[3:].isdigit())
    if not disks:
        raise Refusal(
            "usage",
            "there is nothing to swap to: this kernel has no RAM disk, neither built in (CONFIG_BLK_DEV_RAM=y) nor as "
            "a module (brd.ko) from its package; the kernels that `uffdlab kernel list` shows have one",
        )
    for disk in disks:
        with open(disk, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            file.write(_header(size))
        try:
            native.swap_on(os.fsencode(disk))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise Refusal("usage", f"swapon({disk}): {error.strerror}") from error
    return total()


def total() -> int:
    """Return the size in bytes of the swap that is on."""
    if not os.path.exists(_SWAPS):
        raise Refusal("usage", "this kernel has no swap (CONFIG_SWAP)")
    with open(_SWAPS, encoding="ascii") as file:
        lines = file.read().splitlines()[1:]
    return sum(int(line.split()[2]) * 1024 for line in lines)

"""The guest's physical memory, read by the host: a shared file that both map."""

from __future__ import annotations

import mmap
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab import errors
from uffdlab.pte.x86 import FRAME_MASK

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from uffdlab.machines.qemu.qmp import Monitor

FRAME = 4096  # bytes
_FOUR_GIB = 1 << 32
_LEVEL_5 = 1 << 12  # CR4.LA57, Intel SDM vol. 3, 2.5
_PAGING = 1 << 31  # CR0.PG
_PAE = 1 << 5  # CR4.PAE
_LONG_MODE = 1 << 10  # EFER.LMA
_REGISTERS = re.compile(
    r"\bCR0=([0-9a-f]+) CR2=[0-9a-f]+ CR3=([0-9a-f]+) CR4=([0-9a-f]+).*?\bEFER=([0-9a-f]+)", re.IGNORECASE | re.DOTALL
)


def below_4g(size: int) -> int:
    """Return how many bytes of a q35 machine's memory lie below 4 GiB.  The rest starts at 4 GiB.

    See pc_q35_init in QEMU's hw/i386/pc_q35.c: if there are 2816 MiB or more, 2 GiB lie below, else all of them.
    """
    return 0x8000_0000 if size >= 0xB000_0000 else size


def parse_roots(registers: str) -> list[tuple[int, int]]:
    """Return (physical address of the top page table, levels of paging) for each vCPU in ``info registers -a``.

    There are 4 or 5 levels in 64-bit mode, 3 or 2 in 32-bit mode, and 0 if paging is off: a CPU that was not started.
    """
    return [
        (int(cr3, 16) & FRAME_MASK, _levels(int(cr0, 16), int(cr4, 16), int(efer, 16)))
        for cr0, cr3, cr4, efer in _REGISTERS.findall(registers)
    ]


def _levels(cr0: int, cr4: int, efer: int) -> int:
    # Intel SDM vol. 3, 4.1.1, "Four Paging Modes"
    if not cr0 & _PAGING:
        return 0
    if not efer & _LONG_MODE:
        return 3 if cr4 & _PAE else 2
    return 5 if cr4 & _LEVEL_5 else 4


class SharedMemory:
    """Physical memory of a q35 machine whose RAM is a file.

    Parameters
    ----------
    descriptor : int
        The RAM file.  The object maps it, so the descriptor can be closed afterwards.
    size : int
        Bytes of RAM.
    monitor : Monitor
        QEMU's monitor, to read registers and to stop the guest.
    check : callable
        Called before each access; raises if the machine is closed.
    """

    def __init__(self, descriptor: int, size: int, monitor: Monitor, check: Callable[[], None]) -> None:
        self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._content = np.frombuffer(self._map, dtype="<u8").reshape(-1, FRAME // 8)
        self._size = size
        self._low = below_4g(size)
        self._monitor = monitor
        self._check = check

    def ram(self) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], int]:
        """Return a view of the RAM file, uint64[frames, 512], and how many of its frames lie below 4 GiB.

        It is not a copy: the guest writes to it.  The file stays mapped as long as the array exists.

        Raises
        ------
        WitnessError
            The file was truncated: reading it would end this process with SIGBUS.
        LabClosed
            The machine was closed.
        """
        self._check()
        there = self._map.size()
        if there < self._size:
            raise errors.WitnessError(
                f"physical: the guest's RAM file was truncated from {self._size >> 20} to {there >> 20} MiB by "
                "another program; close the lab and open a new one",
                witness="physical",
            )
        return self._content, self._low // FRAME

    def read_frames(self, frame: int | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return a copy of page frames, uint64[..., 512].

        Parameters
        ----------
        frame : int or ndarray of int
            Page-frame numbers: physical addresses divided by 4096.

        Raises
        ------
        WitnessError
            A frame is not RAM.
        LabClosed
            The machine was closed.
        """
        content, low = self.ram()
        high = _FOUR_GIB // FRAME
        wanted = np.asarray(frame)
        if wanted.dtype.kind not in "iu":
            raise errors.UsageError(f"frames are whole numbers, not {wanted.dtype}")
        rows = wanted.astype(np.uint64)
        outside = (rows >= low) & ((rows < high) | (rows >= high + (self._size - self._low) // FRAME))
        if outside.any():
            first = int(rows[outside].flat[0]) if rows.ndim else int(rows)
            raise errors.WitnessError(
                f"the frame {first:#x} is not RAM: the guest has {self._size >> 20} MiB. "
                "The page tables changed while they were read, or these are no page tables",
                witness="physical",
            )
        rows = np.where(rows < low, rows, rows - np.uint64(high - low))
        # take() copies; with mode="clip" it does not check the bounds again.
        return np.take(content, rows.astype(np.intp), axis=0, mode="clip")

    def read(self, physical_address: int, size: int) -> bytes:
        """Return `size` bytes from a guest-physical address.

        Raises
        ------
        WitnessError
            A part of the range is not RAM.
        """
        if size <= 0 or physical_address < 0:
            raise errors.UsageError(
                f"reading {size} bytes at {physical_address:#x}: give a size from 1 and an address from 0"
            )
        first, last = physical_address // FRAME, (physical_address + size - 1) // FRAME
        data = self.read_frames(np.arange(first, last + 1, dtype=np.uint64)).tobytes()
        start = physical_address % FRAME
        return data[start : start + size]

    def root_candidates(self) -> list[tuple[int, int]]:
        """Return (physical address of the top page table, levels of paging) of each vCPU at this moment."""
        self._check()
        with self._monitor.paused():
            return parse_roots(self._monitor.human("info registers -a"))

    def paused(self) -> AbstractContextManager[None]:
        """Stop the guest's CPUs within a ``with`` block."""
        self._check()
        return self._monitor.paused()

    def close(self) -> None:
        """Unmap the file.  Results of :meth:`read_frames` are copies and stay valid."""
        self._content = np.zeros((0, FRAME // 8), dtype="<u8")
        with suppress(BufferError):  # an array still refers to it; it is unmapped when that is freed
            self._map.close()

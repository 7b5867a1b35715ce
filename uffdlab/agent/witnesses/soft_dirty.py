"""Whether a mapping is soft-dirty as a whole, found without reading smaps if possible.

Every new mapping is soft-dirty (VM_SOFTDIRTY, "sd" in smaps).  Until clear_refs clears that, pagemap and PAGEMAP_SCAN
report each of its pages as soft-dirty, whatever the entries are.  smaps visits every page of every mapping that it
prints, which takes tens of milliseconds, so it is read last.
"""

from __future__ import annotations

import os

from uffdlab.agent.witnesses.pagemap import all_soft_dirty, read_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SoftDirty:
    """Tells for each mapping of this process whether it is soft-dirty as a whole.

    Parameters
    ----------
    beacon : int
        The address of a page that was just mapped and written, and that is never written again.
    """

    def __init__(self, beacon: int) -> None:
        self._beacon = beacon
        #: Whether the kernel tracks soft-dirty.  Without CONFIG_MEM_SOFT_DIRTY a new mapping is not soft-dirty either.
        self.tracked = self._nothing_cleared_yet()

    def vma_soft_dirty(self, start: int, all_pages_are: Callable[[], bool], process: str = "self") -> bool:
        """Return whether the mapping at `start` is soft-dirty as a whole.

        Parameters
        ----------
        start : int
            An address in the mapping.
        all_pages_are : callable
            Returns whether the kernel reported every page that was read as soft-dirty.
        process : str
            ``self``, or the PID of a child.
        """
        if not self.tracked:
            return False
        if process == "self" and self._nothing_cleared_yet():
            return True
        return all_pages_are() and "sd" in _vm_flags(start, process)

    def _nothing_cleared_yet(self) -> bool:
        # clear_refs affects a whole process, so the beacon stands for every mapping.
        return all_soft_dirty(read_entries(self._beacon, 1, os.sysconf("SC_PAGE_SIZE")))


def _vm_flags(address: int, process: str) -> list[str]:
    """Return the VmFlags in smaps of the mapping at `address`; an empty list if nothing is mapped there."""
    inside = False
    with open(f"/proc/{process}/smaps", buffering=4096, encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            head = line.split(maxsplit=1)[0]
            if "-" in head and not head.endswith(":"):
                low, high = (int(part, 16) for part in head.split("-"))
                if low > address:
                    break
                inside = address < high
            elif inside and head == "VmFlags:":
                return line.split()[1:]
    return []

"""Whether a mapping is soft-dirty as a whole, learnt without reading smaps where that can be avoided.

Every new mapping is (VM_SOFTDIRTY, "sd" in smaps), and until clear_refs takes that back, pagemap and PAGEMAP_SCAN call
each of its pages soft-dirty whatever the entries say.  smaps visits every page of every mapping that it prints, which
takes tens of milliseconds; so it is the last thing that is asked.
"""

from __future__ import annotations

import os

from uffdlab.agent.witnesses.pagemap import all_soft_dirty, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SoftDirty:
    """What is known of soft-dirty in this process.

    Parameters
    ----------
    beacon : int
        A page that was just mapped and written, and that is never written again.
    """

    def __init__(self, beacon: int) -> None:
        self._beacon = beacon
        #: Whether the kernel tracks soft-dirty at all: without CONFIG_MEM_SOFT_DIRTY not even a new mapping is.
        self.tracked = self._nothing_cleared_yet()

    def of_mapping(self, start: int, all_pages_are: Callable[[], bool], process: str = "self") -> bool:
        """Tell whether the mapping at `start` is soft-dirty as a whole.

        Parameters
        ----------
        start : int
            An address in it.
        all_pages_are : callable
            Tells whether the kernel called every page that was looked at soft-dirty.
        process : str
            ``self``, or the number of a child.
        """
        if not self.tracked:
            return False
        if process == "self" and self._nothing_cleared_yet():
            return True
        return all_pages_are() and "sd" in _vm_flags(start, process)

    def _nothing_cleared_yet(self) -> bool:
        # clear_refs works on a whole process, so the beacon tells for every mapping.
        return all_soft_dirty(words_of(self._beacon, 1, os.sysconf("SC_PAGE_SIZE")))


def _vm_flags(address: int, process: str) -> list[str]:
    """Give the VmFlags words of the mapping at `address` as smaps has them; none if nothing is mapped there."""
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

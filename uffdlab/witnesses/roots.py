"""RootFinder: find the target's top page table by its content.

The target has random bytes, the beacon, at a known address.  A top table is the target's only if a walk from it to that
address ends at a page that holds the beacon.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeAlias

from uffdlab.errors import UsageError, WitnessError
from uffdlab.pte.x86 import FRAME_MASK, is_leaf
from uffdlab.witnesses.tables import Root, Tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from uffdlab.witnesses.tables import GuestMemory

    KeepBusy: TypeAlias = Callable[[float], AbstractContextManager[object]]

_BEACON_CHECKS = 3


class RootFinder:
    """Finds the top page table of the target.

    Parameters
    ----------
    memory : GuestMemory
        The guest's RAM.
    beacon : (int, bytes)
        An address in the target and the random bytes at that address, within one 4 KiB page.
    keep_busy : callable
        ``keep_busy(seconds)`` → context manager; within it the target keeps a processor busy in user mode.
    deadline : float
        The time limit for the search, in seconds.
    """

    def __init__(self, memory: GuestMemory, beacon: tuple[int, bytes], keep_busy: KeepBusy, deadline: float) -> None:
        address, nonce = beacon
        if len(nonce) < 8 or (address & 0xFFF) + len(nonce) > 4096:
            raise UsageError("a beacon must have at least 8 bytes and be within one 4 KiB page")
        self._memory = memory
        self._address = address
        self._nonce = nonce
        self._keep_busy = keep_busy
        self._deadline = deadline
        self._root: Root | None = None
        self._find_lock = threading.Lock()

    def root(self) -> Root:
        """Return the target's root; the beacon under it has just been checked.

        Raises
        ------
        WitnessError
            No root was found, or the processors use a paging mode that is not supported.
        """
        with self._find_lock:  # one at a time keeps the target spinning
            if self._root is not None:
                # The kernel may be moving the beacon's page at this moment, so check it more than once.
                for _ in range(_BEACON_CHECKS):
                    if self.maps_beacon(self._root):
                        return self._root
                    time.sleep(0.001)
                self._root = None
            self._root = self._find()
            return self._root

    def maps_beacon(self, root: Root) -> bool:
        """Return whether a walk from this root ends at the beacon now."""
        # Any error, such as a frame outside RAM, means that this is not the target's table.
        try:
            tables = Tables(self._memory, root)
            steps = tables.path(self._address)
            level, entry = steps[-1].level, steps[-1].entry
            if not is_leaf(entry, level):
                return False
            offset_mask = (1 << 9 * (level - 1)) - 1
            frame = (entry & FRAME_MASK) >> 12
            frame = frame & ~offset_mask | self._address >> 12 & offset_mask
            content = tables.content(frame)
        except WitnessError:
            return False
        offset = self._address & 0xFFF
        return content[offset : offset + len(self._nonce)] == self._nonce

    def _find(self) -> Root:
        deadline = time.monotonic() + self._deadline
        pause = 0.001
        roots_seen: set[tuple[int, int]] = set()
        with self._keep_busy(self._deadline):
            while True:
                for address, levels in self._memory.root_candidates():
                    if not levels:  # a processor that was not started
                        continue
                    roots_seen.add((address, levels))
                    root = Root(address >> 12, levels)
                    if levels in (4, 5) and self.maps_beacon(root):
                        return root
                if time.monotonic() > deadline:
                    break
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
        modes = {levels for _, levels in roots_seen} - {4, 5}
        if modes:
            raise _error(f"a processor uses a paging mode of {min(modes)} levels; only 4 and 5 are supported")
        raise _error(
            f"none of the {len(roots_seen)} page tables seen in {self._deadline:g} s maps the target's beacon at "
            f"{self._address:#x}; the target may have ended, or it gets no processor time (take a snapshot with "
            "witness='pagemap' instead)"
        )


def _error(message: str) -> WitnessError:
    return WitnessError(f"physical: {message}", witness="physical")

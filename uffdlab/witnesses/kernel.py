"""KernelWitness: raw page-table entries from the kernel's PTE reader (kernel-patch)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.errors import WitnessError
from uffdlab.observations.snapshot import Snapshot
from uffdlab.witnesses.replies import ask_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.uapi.protocol.witnesses import TableEntries
    from uffdlab.witnesses.base import TargetMapping

    EntryReader: TypeAlias = Callable[[int, int, int], TableEntries]

__all__ = ["KernelWitness"]

# include/uapi/linux/pte_reader.h, struct pte_reader_entry
_ENTRY = np.dtype([("entry", "<u8"), ("level", "<u4"), ("reserved", "<u4")])
_LEVELS = 5


class KernelWitness:
    """Reads page-table entries through the agent and the kernel's PTE reader.

    Parameters
    ----------
    read_entries : callable
        ``read_entries(start, pages, page_size)`` → :class:`~uffdlab.uapi.protocol.witnesses.TableEntries`.
    kernel : str
        Name of the kernel, for the snapshot.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "kernel"

    def __init__(self, read_entries: EntryReader, *, kernel: str = "", tracks_soft_dirty: bool = True) -> None:
        self._read_entries = read_entries
        self._kernel = kernel
        self._tracks_soft_dirty = tracks_soft_dirty

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.base.Witness`."""
        start = region.start + first * region.page_size
        reply = ask_target(self.name, region, lambda: self._read_entries(start, count, region.page_size))
        entries = np.frombuffer(reply.entries, dtype=_ENTRY)
        levels = entries["level"]
        if count and (levels.max() > _LEVELS or entries["reserved"].any()):
            raise self._error(
                region, "the answer does not have the format of the PTE reader; does it have another version?"
            )
        if (levels == 0).any():
            page = first + int(np.flatnonzero(levels == 0)[0])
            raise self._error(region, f"page {page} is not mapped in the target")
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            entries=entries["entry"].astype(np.uint64),
            levels=levels.astype(np.uint8),
            time_ns=reply.time_ns,
            kernel=self._kernel,
            first=first,
            form="x86-64",
            tracks_soft_dirty=self._tracks_soft_dirty,
        )

    def _error(self, region: TargetMapping, message: str) -> WitnessError:
        return WitnessError(f"kernel of {region.name}: {message}", witness=self.name)

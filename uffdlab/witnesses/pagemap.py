"""PagemapWitness: the states in /proc/PID/pagemap."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.observations.snapshot import Snapshot
from uffdlab.witnesses.replies import ask_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.uapi.protocol.witnesses import PagemapEntries
    from uffdlab.witnesses.base import TargetMapping

    PagemapReader: TypeAlias = Callable[[int, int, int], PagemapEntries]

__all__ = ["PagemapWitness"]


class PagemapWitness:
    """Reads pagemap entries through the agent.

    Parameters
    ----------
    read_pagemap : callable
        ``read_pagemap(start, pages, page_size)`` → :class:`~uffdlab.uapi.protocol.witnesses.PagemapEntries`.
    kernel : str
        Name of the kernel, for the snapshot.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "pagemap"

    def __init__(self, read_pagemap: PagemapReader, *, kernel: str = "", tracks_soft_dirty: bool = True) -> None:
        self._read_pagemap = read_pagemap
        self._kernel = kernel
        self._tracks_soft_dirty = tracks_soft_dirty

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.base.Witness`."""
        start = region.start + first * region.page_size
        reply = ask_target(self.name, region, lambda: self._read_pagemap(start, count, region.page_size))
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            entries=np.frombuffer(reply.entries, dtype="<u8").astype(np.uint64, copy=False),
            levels=np.zeros(count, dtype=np.uint8),
            time_ns=reply.time_ns,
            kernel=self._kernel,
            first=first,
            form="pagemap",
            vma_soft_dirty=reply.vma_soft_dirty,
            hugetlb=reply.hugetlb,
            tracks_soft_dirty=self._tracks_soft_dirty,
        )

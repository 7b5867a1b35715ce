"""PagemapWitness: what the kernel says in /proc/PID/pagemap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from uffdlab.errors import WitnessError
from uffdlab.observations.snapshot import Snapshot
from uffdlab.witnesses.replies import ask, blob, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uffdlab.witnesses.base import Mapped

    ReadPagemap: TypeAlias = Callable[[int, int, int], Mapping[str, Any]]

__all__ = ["PagemapWitness"]


class PagemapWitness:
    """Reads pagemap words through the agent.

    Parameters
    ----------
    read_pagemap : callable
        ``read_pagemap(start, pages, page_size)`` → map with ``words`` (bytes, one little-endian word a page: that of
        its first 4 KiB), ``vma_soft_dirty``, ``hugetlb`` (bool: "sd" and "ht" among the VmFlags) and ``time_ns``.
    kernel : str
        Name of the kernel, for the snapshot.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "pagemap"

    def __init__(self, read_pagemap: ReadPagemap, *, kernel: str = "", tracks_soft_dirty: bool = True) -> None:
        self._read_pagemap = read_pagemap
        self._kernel = kernel
        self._tracks_soft_dirty = tracks_soft_dirty

    def read(self, region: Mapped, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.base.Witness`."""
        start = region.start + first * region.page_size
        reply = ask(self.name, region, lambda: self._read_pagemap(start, count, region.page_size))
        raw = blob(self.name, region, reply, "words")
        vma_soft_dirty, hugetlb, time_ns = (
            whole_number(self.name, region, reply, name) for name in ("vma_soft_dirty", "hugetlb", "time_ns")
        )
        if len(raw) != 8 * count:
            raise WitnessError(
                f"pagemap of {region.name}: asked for {count} pages from {start:#x}, got {len(raw)} bytes where "
                f"{8 * count} were due; the mapping may be gone",
                witness=self.name,
            )
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            words=np.frombuffer(raw, dtype="<u8").astype(np.uint64, copy=False),
            levels=np.zeros(count, dtype=np.uint8),
            time_ns=time_ns,
            kernel=self._kernel,
            first=first,
            form="pagemap",
            vma_soft_dirty=bool(vma_soft_dirty),
            hugetlb=bool(hugetlb),
            tracks_soft_dirty=self._tracks_soft_dirty,
        )

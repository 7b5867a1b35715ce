"""ScanWitness: the categories of the PAGEMAP_SCAN ioctl (6.7+)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.errors import WitnessError
from uffdlab.observations.snapshot import Snapshot
from uffdlab.witnesses.replies import ask_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uffdlab.uapi.protocol.witnesses import ScanRuns
    from uffdlab.witnesses.base import TargetMapping

    ScanReader: TypeAlias = Callable[[int, int, int], ScanRuns]

__all__ = ["ScanWitness"]


class ScanWitness:
    """Reads PAGEMAP_SCAN's categories through the agent.

    Parameters
    ----------
    read_scan : callable
        ``read_scan(start, pages, page_size)`` → :class:`~uffdlab.uapi.protocol.witnesses.ScanRuns`.
    answered : int
        The categories whose absence means something.
    kernel : str
        Name of the kernel, for the snapshot.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "scan"

    def __init__(
        self, read_scan: ScanReader, answered: int, *, kernel: str = "", tracks_soft_dirty: bool = True
    ) -> None:
        self._read_scan = read_scan
        self._answered = answered
        self._kernel = kernel
        self._tracks_soft_dirty = tracks_soft_dirty

    def read(self, region: TargetMapping, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.base.Witness`."""
        start = region.start + first * region.page_size
        reply = ask_target(self.name, region, lambda: self._read_scan(start, count, region.page_size))
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            entries=self._entry_of_each_page(reply.runs, region, start, count),
            levels=np.zeros(count, dtype=np.uint8),
            time_ns=reply.time_ns,
            kernel=self._kernel,
            first=first,
            form="pagemap-scan",
            vma_soft_dirty=reply.vma_soft_dirty,
            tracks_soft_dirty=self._tracks_soft_dirty,
            answered=self._answered,
        )

    def _entry_of_each_page(self, raw: bytes, region: TargetMapping, start: int, count: int) -> NDArray[np.uint64]:
        # Convert runs of pages to one entry for each page.  Every page must be in exactly one run.
        runs = np.frombuffer(raw, dtype="<u8").reshape(-1, 3)
        edges = np.concatenate([runs[:, 0], [np.uint64(start + count * region.page_size)]])
        covered = bool(count) and edges[0] == start and np.array_equal(edges[1:], runs[:, 1])
        if count and not covered:
            raise self._error(region, f"{count} pages from {start:#x} are not all mapped in the target")
        pages, rest = np.divmod(np.diff(edges), np.uint64(region.page_size))
        if rest.any() or (np.diff(edges).astype(np.int64) <= 0).any() or int(pages.sum()) != count:
            raise self._error(region, f"its runs do not consist of pages of {region.page_size} bytes")
        return np.repeat(runs[:, 2], pages.astype(np.int64)).astype(np.uint64, copy=False)

    def _error(self, region: TargetMapping, message: str) -> WitnessError:
        return WitnessError(f"scan of {region.name}: {message}", witness=self.name)

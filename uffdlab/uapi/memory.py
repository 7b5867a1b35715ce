"""The kinds of memory that a target can map: one table for host and target alike."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PAGE: Final = 4096
HUGE: Final = 2 << 20
GIANT: Final = 1 << 30


class Memory:
    """One kind of memory.

    Attributes
    ----------
    name : str
        Its name in :meth:`uffdlab.Lab.map`.
    backing : str
        ``anon``, ``shmem``, ``tmpfs``, ``tmpfs-huge`` (mounted with huge=always) or ``hugetlb``.
    shared : bool
        Whether it is mapped with MAP_SHARED, else with MAP_PRIVATE.
    page_size : int
        Size of one page of a region, in bytes.
    unit : int
        The size of a region is a multiple of this, in bytes.
    thp : bool
        Whether it uses transparent huge pages where the kernel can.
    about : str
        A description for readers, in one line.
    """

    def __init__(self, name: str, backing: str, shared: bool, page_size: int, unit: int, thp: bool, about: str) -> None:
        self.name, self.backing, self.shared, self.about = name, backing, shared, about
        self.page_size, self.unit, self.thp = page_size, unit, thp

    @property
    def has_alias(self) -> bool:
        """Whether the same pages can be mapped a second time: true for all but private anonymous memory."""
        return self.shared or self.backing != "anon"

    @property
    def hugetlb(self) -> bool:
        """Whether it takes pages from the pool of huge pages."""
        return self.backing == "hugetlb"


def _table(*rows: Memory) -> dict[str, Memory]:
    return {row.name: row for row in rows}


MEMORY: Final = _table(
    Memory("anon", "anon", False, PAGE, PAGE, False, "anonymous, private, 4 KiB pages only"),
    Memory("anon-shared", "anon", True, PAGE, PAGE, False, "anonymous, shared (shmem without a name)"),
    Memory("shmem", "shmem", True, PAGE, PAGE, False, "a memfd, shared"),
    Memory("memfd", "shmem", True, PAGE, PAGE, False, "another name of shmem"),
    Memory("shmem-private", "shmem", False, PAGE, PAGE, False, "a memfd, private: a write copies the page"),
    Memory("tmpfs", "tmpfs", True, PAGE, PAGE, False, "a file in a tmpfs, shared"),
    Memory("tmpfs-private", "tmpfs", False, PAGE, PAGE, False, "a file in a tmpfs, private"),
    Memory("thp", "anon", False, PAGE, HUGE, True, "anonymous, private, transparent huge pages (MADV_HUGEPAGE)"),
    Memory("shmem-thp", "tmpfs-huge", True, PAGE, HUGE, True, "a file in a tmpfs mounted with huge=always, shared"),
    Memory("hugetlb", "hugetlb", True, HUGE, HUGE, False, "a memfd of 2 MiB pages, shared"),
    Memory("hugetlb-private", "hugetlb", False, HUGE, HUGE, False, "a memfd of 2 MiB pages, private"),
    Memory("hugetlb-1g", "hugetlb", True, GIANT, GIANT, False, "a memfd of 1 GiB pages, shared"),
    Memory("hugetlb-1g-private", "hugetlb", False, GIANT, GIANT, False, "a memfd of 1 GiB pages, private"),
)

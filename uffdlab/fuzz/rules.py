"""What the model of pages is asked: a call on some pages, of such a memory, on such a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uffdlab.uapi.memory import MEMORY

__all__ = ["ANY", "MEMORIES", "SKIP", "Op", "Rules", "region_pages"]

#: What a random game is played on; others are the same to the kernel (memfd), or take a GiB a page.
MEMORIES: Final = (
    "anon", "shmem", "hugetlb", "shmem-private", "hugetlb-private", "thp", "anon-shared", "tmpfs", "tmpfs-private",
    "shmem-thp",
)  # fmt: skip

#: What a call that the model cannot say anything of gives; it is not made.
SKIP = "skip"
#: What a call gives whose answer the kernel may choose; what it leaves is known all the same.
ANY = "any"


def region_pages(memory: str) -> int:
    """Return how many pages a region of this memory is to have."""
    kind = MEMORY[memory]
    return kind.unit // kind.page_size if kind.unit > kind.page_size else 4


@dataclass(frozen=True)
class Op:
    """One call on some neighbouring pages.

    Attributes
    ----------
    call : str
        One of :data:`uffdlab.fuzz.generator.CALLS`.
    page, count : int
        The pages.  Only the first, where the region may be more than one mapping to the kernel; see
        :meth:`Model.pages_of`.
    value : int
        The value that is written or copied into the first page; each further page gets the value of the one before
        plus 1.  Else: ``register``: the modes, 0 to unregister; ``move``: the
        page that is moved to `page`; ``replace``: the memory, by its place in :data:`MEMORIES`.
    flag : bool
        An ioctl: the bit of its mode other than DONTWAKE; of ``block_copy``, MODE_WP.  ``mprotect``: writable.
        ``fork``: the child writes, else reads.
    dontwake : bool
        With MODE_DONTWAKE; nothing sleeps, so it must change nothing, but UFFDIO_WRITEPROTECT refuses it with MODE_WP.
    """

    call: str
    page: int
    value: int = 0
    flag: bool = False
    dontwake: bool = False
    count: int = 1


@dataclass(frozen=True)
class Rules:
    """What the model has to know of the memory, the userfaultfd and the kernel.

    Attributes
    ----------
    memory : str
        A key of :data:`uffdlab.uapi.memory.MEMORY`.
    events : bool
        The userfaultfd asked for EVENT_FORK, _REMAP, _REMOVE and _UNMAP.
    unpopulated : bool
        It asked for WP_UNPOPULATED.
    leave_out : frozenset of str
        Calls that this kernel does not know.
    compares : bool
        A copy that waited for its source is given up when its destination has become another mapping, or is registered
        for something else; older kernels go on.
    """

    memory: str
    events: bool = False
    unpopulated: bool = False
    leave_out: frozenset[str] = frozenset()
    compares: bool = True

    @property
    def file(self) -> bool:
        """Its pages are of a file, so that there is a page cache."""
        return MEMORY[self.memory].has_alias

    @property
    def shared(self) -> bool:
        """MAP_SHARED."""
        return MEMORY[self.memory].shared

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return MEMORY[self.memory].page_size

    @property
    def hugetlb(self) -> bool:
        """Made of pages of the pool."""
        return MEMORY[self.memory].hugetlb

    @property
    def huge(self) -> bool:
        """An entry may be of a transparent huge page, so that what is done to one page is done to its neighbours."""
        return MEMORY[self.memory].unit > MEMORY[self.memory].page_size

    @property
    def markers(self) -> bool:
        """Where nothing is mapped, a marker can keep uffd-wp."""
        return self.file or self.unpopulated

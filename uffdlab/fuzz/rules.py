"""Op: one call on some pages; Rules: the memory, userfaultfd and kernel that the model must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uffdlab.uapi.memory import MEMORY

__all__ = ["ANY", "MEMORIES", "SKIP", "Op", "Rules", "region_pages"]

#: The memory for random calls.  The other kinds are the same for the kernel (memfd), or have pages of 1 GiB.
MEMORIES: Final = (
    "anon", "shmem", "hugetlb", "shmem-private", "hugetlb-private", "thp", "anon-shared", "tmpfs", "tmpfs-private",
    "shmem-thp",
)  # fmt: skip

#: The result of a call that the model cannot predict; it is not made.
SKIP = "skip"
#: The result of a call whose errno the kernel may choose; the state after it is known.
ANY = "any"


def region_pages(memory: str) -> int:
    """Return the number of pages for a region of this memory."""
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
        The pages.  Only the first one is used if the region may be several mappings for the kernel; see
        :meth:`Model.pages_of`.
    value : int
        The value that is written or copied into the first page; each further page gets the value of the one before
        plus 1.  Else: ``register``: the modes, 0 to unregister; ``move``: the
        page that is moved to `page`; ``replace``: the memory, by its place in :data:`MEMORIES`.
    mode_bit : bool
        An ioctl: the bit of its mode other than DONTWAKE; of ``block_copy``, MODE_WP.  ``mprotect`` and ``fork``: see
        :attr:`writable` and :attr:`child_writes`.
    dontwake : bool
        With MODE_DONTWAKE.  No thread waits, so it must not change the result, except that UFFDIO_WRITEPROTECT refuses
        it together with MODE_WP.
    """

    call: str
    page: int
    value: int = 0
    mode_bit: bool = False
    dontwake: bool = False
    count: int = 1

    @property
    def writable(self) -> bool:
        """Whether ``mprotect`` allows writes."""
        return self.mode_bit

    @property
    def child_writes(self) -> bool:
        """Whether the child of ``fork`` writes its page; else it reads it."""
        return self.mode_bit


@dataclass(frozen=True)
class Rules:
    """The properties of the memory, the userfaultfd and the kernel that the model must know.

    Attributes
    ----------
    memory : str
        A key of :data:`uffdlab.uapi.memory.MEMORY`.
    events : bool
        Whether the userfaultfd has EVENT_FORK, _REMAP, _REMOVE and _UNMAP.
    unpopulated : bool
        Whether it has WP_UNPOPULATED.
    leave_out : frozenset of str
        The calls that this kernel does not have.
    checks_destination : bool
        Whether a copy that waited for its source fails if its destination has become another mapping or is registered
        for other modes.  Older kernels continue it.
    """

    memory: str
    events: bool = False
    unpopulated: bool = False
    leave_out: frozenset[str] = frozenset()
    checks_destination: bool = True

    @property
    def file(self) -> bool:
        """Whether its pages belong to a file, so that they are in the page cache."""
        return MEMORY[self.memory].has_alias

    @property
    def shared(self) -> bool:
        """MAP_SHARED."""
        return MEMORY[self.memory].shared

    @property
    def page_size(self) -> int:
        """The size of a page in bytes."""
        return MEMORY[self.memory].page_size

    @property
    def hugetlb(self) -> bool:
        """Whether its pages come from the pool of huge pages."""
        return MEMORY[self.memory].hugetlb

    @property
    def huge(self) -> bool:
        """Whether an entry may map a transparent huge page, so that a call on one page also changes its neighbours."""
        return MEMORY[self.memory].unit > MEMORY[self.memory].page_size

    @property
    def has_markers(self) -> bool:
        """Whether a marker can keep the uffd-wp bit of an absent page."""
        return self.file or self.unpopulated

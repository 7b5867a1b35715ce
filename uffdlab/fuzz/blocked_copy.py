"""BlockedCopy: a UFFDIO_COPY that waits in the kernel, without locks, because its source page is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.uapi import CopyMode

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.userfaultfd import Userfaultfd

_PAGE = 4096  # bytes, of the source


class BlockedCopy:
    """A copy of one page that waits for its source.  After the wait, the kernel looks up the destination again.

    Parameters
    ----------
    lab : Lab
    uffd : Userfaultfd
        The userfaultfd that the destination is registered with.
    start, page_size : int
        The destination.
    value : int
        The first 8 bytes of the page; the others are 0.
    wp : bool
        Whether it has MODE_WP.

    Raises
    ------
    NoMessage
        The copy did not access its source.
    """

    def __init__(self, lab: Lab, uffd: Userfaultfd, start: int, page_size: int, value: int, *, wp: bool) -> None:
        self._value = value
        self._source = lab.map(pages=page_size // _PAGE, memory="anon")
        self._uffd = lab.userfaultfd()
        try:
            self._uffd.register(self._source[0], "missing")
            mode = int(CopyMode.WP) if wp else 0
            fields = {"dst": start, "src": self._source.start, "len": page_size, "mode": mode}
            self._copy = uffd.start("UFFDIO_COPY", fields)
            self._uffd.read_fault()
        except BaseException:
            self.close()
            raise

    def release(self) -> IoctlResult:
        """Fill the source page, so that the copy continues, and return its result."""
        try:
            self._uffd.copy(self._source[0], self._value.to_bytes(8, "little").ljust(_PAGE, b"\0"))
            return self._copy.result()
        finally:
            self.close()

    def close(self) -> None:
        """Let the copy continue with any content, and unmap the source."""
        self._uffd.close()
        self._source.unmap()

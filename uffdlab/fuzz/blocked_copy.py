"""BlockedCopy: an UFFDIO_COPY that waits in the kernel, without its locks, because its source is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uffdlab.uapi import CopyMode

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.target.results import IoctlResult
    from uffdlab.target.userfaultfd import Userfaultfd

_PAGE = 4096  # bytes, of the source


class BlockedCopy:
    """One page that is being copied; the kernel looks for its destination again when the source is there.

    Parameters
    ----------
    lab : Lab
    uffd : Userfaultfd
        The userfaultfd that the destination is registered with.
    start, page_size : int
        The destination.
    value : int
        Its first 8 bytes; the others are 0.
    wp : bool
        With MODE_WP.

    Raises
    ------
    NoMessage
        The copy did not come to its source.
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
        """Put the page into the source, and return what the copy comes back with."""
        try:
            self._uffd.copy(self._source[0], self._value.to_bytes(8, "little").ljust(_PAGE, b"\0"))
            return self._copy.result()
        finally:
            self.close()

    def close(self) -> None:
        """Let the copy go, with what is there, and unmap the source."""
        self._uffd.close()
        self._source.unmap()

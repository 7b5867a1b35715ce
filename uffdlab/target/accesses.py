"""What can be done to pages by touching them: each access is a ticket, made in the target, never here."""

from __future__ import annotations

import math
import operator
import random
from typing import TYPE_CHECKING, Any

from uffdlab.errors import UsageError

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.target.child import Child
    from uffdlab.target.region import PageRange
    from uffdlab.target.touch import Touch

_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23  # Linux 5.14
_WORD = 1 << 64
_MUCH = 64 << 20  # bytes; less than that every machine has
_ORDERS = ("ascending", "descending", "random")


class Accesses:
    """The accesses that a region, an alias and a range of their pages offer.

    Every one takes ``by``: the forked :class:`~uffdlab.target.child.Child` that makes it, in place of a thread of the
    target.
    """

    @property
    def _place(self) -> tuple[Lab, str, int, int, int]:
        # (lab, name of the mapping, address, pages, bytes of a page)
        raise NotImplementedError

    def read(self, page: int = 0, offset: int = 0, *, by: Child | None = None) -> Touch[int]:
        """Read the 64-bit word at byte `offset` of `page`, on a thread of its own in the guest."""
        return self._touch("read", page, offset, 0, by)

    def write(self, page: int = 0, value: int = 0x55, offset: int = 0, *, by: Child | None = None) -> Touch[None]:
        """Write the 64-bit word `value` at byte `offset` of `page`, on a thread of its own in the guest."""
        return self._touch("write", page, offset, value, by)

    def modify(self, page: int = 0, add: int = 1, offset: int = 0, *, by: Child | None = None) -> Touch[int]:
        """Add to the word in one atomic access (read, modify, write); its result is the word before."""
        return self._touch("modify", page, offset, add, by)

    def kernel_read(self, page: int = 0, *, by: Child | None = None) -> Touch[int]:
        """Let the kernel read the first word of `page`: write(2) from it to a file.  A fault in kernel mode."""
        return self._call_on("file_write", page, 0, f"the kernel's read of {self._words(page)}", by)

    def kernel_write(self, page: int = 0, value: int = 0x55, *, by: Child | None = None) -> Touch[int]:
        """Let the kernel write the first word of `page`: read(2) from a file to it.  A fault in kernel mode."""
        return self._call_on("file_read", page, value, f"the kernel's write to {self._words(page)}", by)

    def gup_read(self, page: int = 0, *, into: PageRange | None = None) -> Touch[int]:
        """Read the first word of `page` through get_user_pages: process_vm_readv(2).

        With `into` the kernel brings it there, and the result is 0: where that waits for its own page fault, `page`
        stays pinned (FOLL_PIN) as long.
        """
        what = f"get_user_pages for a read of {self._words(page)}"
        return self._call_on("gup_read", page, 0, what, None, {"into": into.start} if into else {})

    def gup_write(self, page: int = 0, value: int = 0x55) -> Touch[int]:
        """Write the first word of `page` through get_user_pages: process_vm_writev(2)."""
        return self._call_on("gup_write", page, value, f"get_user_pages for a write to {self._words(page)}", None)

    def populate(self, *, write: bool = False, by: Child | None = None) -> Touch[int]:
        """Fault every page in with one call: MADV_POPULATE_READ, or MADV_POPULATE_WRITE with `write`."""
        lab, name, start, pages, page_size = self._place
        advice = _MADV_POPULATE_WRITE if write else _MADV_POPULATE_READ
        more = {"call": "madvise", "arguments": [start, pages * page_size, advice]}
        what = f"MADV_POPULATE_{'WRITE' if write else 'READ'} of {pages} pages of {name}"
        return lab.touch("syscall", start, what, length=pages * page_size, more=more, by=by)

    def sweep(
        self,
        kind: str = "read",
        *,
        order: str = "ascending",
        value: int = 0x55,
        seed: int = 0,
        by: Child | None = None,
    ) -> Touch[int]:
        """Make one access to each page, one after the other, as one ticket.

        Parameters
        ----------
        kind : str
            ``"read"``, ``"write"`` or ``"modify"``.
        order : str
            ``"ascending"``, ``"descending"`` or ``"random"``.
        value : int
            What is written, or added.
        seed : int
            Which random order.

        Returns
        -------
        Touch
            Its result is the sum of the words (modulo 2⁶⁴), its ``progress`` how many pages it has come to.
        """
        lab, name, start, pages, page_size = self._place
        if kind not in ("read", "write", "modify"):
            raise UsageError(f"a sweep can read, write or modify, not {kind!r}")
        first, jump = _order(order, pages, seed)
        what = f"{kind} of {pages} pages of {name}, {order}"
        more = {"each": kind, "first": first, "jump": jump}
        return lab.touch(
            "sweep", start, what, length=pages * page_size, stride=page_size, value=_word(value), more=more, by=by
        )

    def sweep_threads(
        self, threads: int, kind: str = "read", *, order: str = "random", seed: int = 0
    ) -> list[Touch[int]]:
        """Start a sweep on each of several threads at once; see :meth:`sweep`."""
        if not 1 <= threads <= 256:
            raise UsageError(f"threads={threads}: 1 to 256 can sweep at once")
        return [self.sweep(kind, order=order, seed=seed + each) for each in range(threads)]

    def copy_out(self, page: int = 0, deadline: float = 10.0) -> bytes:
        """Give the whole content of `page`; this reads it, so it may fault.

        Raises
        ------
        FaultUnresolved
            If the read still waits for its page fault at `deadline` (seconds); it is withdrawn then.
        """
        lab, _, _, _, page_size = self._place
        touch: Touch[bytes] = lab.touch(
            "copy_out", self._address(page), f"reading {self._words(page)}", length=page_size
        )
        return touch.result_or_withdraw(deadline)

    def fill(self, value: int = 1, deadline: float = 60.0) -> None:
        """Write a word into every page: `value` into the first, `value` + 1 into the next, and so on.

        Raises
        ------
        UsageError
            If there are more pages than the machine has memory and swap for.
        TouchFailed
            If the guest has not enough memory for the pages (SIGBUS).
        FaultUnresolved
            If it meets a page fault that nobody resolves before `deadline` (seconds); it is withdrawn then.
        """
        lab, name, start, pages, page_size = self._place
        what = f"filling {pages} pages of {name}"
        if pages * page_size > _MUCH:
            there = lab.call("agent.memory_bytes")
            if pages * page_size > there:
                raise UsageError(
                    f"{what} takes {pages * page_size >> 20} MiB, and this machine has {there >> 20} MiB of memory and "
                    "swap; fill a part of them, region[:1000].fill(), or give a guest more: Lab(…, memory_mib=…)"
                )
        touch = lab.touch("fill", start, what, length=pages * page_size, stride=page_size, value=_word(value))
        touch.result_or_withdraw(deadline)

    # --- how

    def _address(self, page: int) -> int:
        _, name, start, pages, page_size = self._place
        if not -pages <= page < pages:
            raise UsageError(f"{name} has pages 0 to {pages - 1}; page {page} is not one of them")
        return start + page % pages * page_size

    def _words(self, page: int) -> str:
        raise NotImplementedError

    def _touch(self, kind: str, page: int, offset: int, value: int, by: Child | None) -> Touch[Any]:
        lab, _, _, _, page_size = self._place
        address = self._address(page)
        if not 0 <= offset <= page_size - 8 or offset % 8:
            raise UsageError(f"offset {offset} is no aligned 64-bit word within a page of {page_size} bytes")
        what = f"{kind} {'of' if kind == 'read' else 'to'} {self._words(page)}"
        return lab.touch(kind, address + offset, what, length=8, value=_word(value), by=by)

    def _call_on(
        self, call: str, page: int, value: int, what: str, by: Child | None, more: dict[str, int] | None = None
    ) -> Touch[int]:
        lab = self._place[0]
        address = self._address(page)
        words = {"call": call, "address": address} | (more or {})
        return lab.touch("syscall", address, what, length=8, value=_word(value), more=words, by=by)


def _word(value: int) -> int:
    try:
        number = operator.index(value)  # of numpy's too
    except TypeError:
        number = _WORD
    if not -_WORD // 2 <= number < _WORD:
        raise UsageError(f"{value!r} is no number of 64 bits, which is what is written into a page")
    return number % _WORD


def _order(order: str, pages: int, seed: int) -> tuple[int, int]:
    # Steps of a size that has no divisor in common with the number of pages come to every page once.
    if order == "ascending":
        return 0, 1
    if order == "descending":
        return pages - 1, max(pages - 1, 1)
    if order != "random":
        raise UsageError(f"order={order!r}; there is {', '.join(_ORDERS)}")
    chance = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    first, jump = chance.randrange(pages), chance.randrange(max(pages // 3, 1), pages + 1)
    while math.gcd(jump, pages) != 1:
        jump += 1
    return first, jump

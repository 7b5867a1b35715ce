"""System calls that change a mapping: madvise, mprotect, mremap, munmap, and page_out."""

from __future__ import annotations

import errno as _errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uffdlab.errors import IoctlError, UsageError

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.target.touch import Touch

#: Advice of madvise(2) by name (asm-generic/mman-common.h).
ADVICE: Final = {
    "normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4, "free": 8, "remove": 9, "dontfork": 10,
    "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14, "nohugepage": 15, "dontdump": 16, "dodump": 17,
    "wipeonfork": 18, "keeponfork": 19, "cold": 20, "pageout": 21, "populate_read": 22, "populate_write": 23,
    "dontneed_locked": 24, "collapse": 25, "hwpoison": 100, "guard_install": 102, "guard_remove": 103,
}  # fmt: skip

_PROTECTION = {"r": 1, "w": 2, "x": 4}
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_REASONS = {
    _errno.EINVAL: "this kernel does not know it for this memory, or the range is not aligned",
    _errno.ENOMEM: "a part of the range is not mapped, or the guest is out of memory",
    _errno.EAGAIN: "the kernel could not do it just now; try again",
    _errno.EACCES: "the mapping does not allow it",
    _errno.EFAULT: "the address cannot be used, or a page could not be had",
    _errno.EBUSY: "a page is in use",
    _errno.EPERM: "the target lacks the privilege",
}


@dataclass(frozen=True)
class CallResult:
    """What came back from a system call.

    Attributes
    ----------
    call : str
        The call in words.
    errno : int
        0 if it succeeded.
    value : int
        What it returned; -1 with an errno.
    took_ns : int
        How long it took in the guest, in ns.
    """

    call: str
    errno: int
    value: int
    took_ns: int

    @property
    def ok(self) -> bool:
        """It came back without an errno."""
        return self.errno == 0


class MappingCalls:
    """The calls that a region and a range of its pages offer.

    All take `check`: raise :class:`~uffdlab.errors.IoctlError` on an errno; without it the result has the errno.  A
    call that has not come back after `deadline` seconds is withdrawn, with :class:`~uffdlab.errors.FaultUnresolved`.
    """

    @property
    def _place(self) -> tuple[Lab, str, int, int, int]:
        raise NotImplementedError

    def madvise(self, advice: str | int, *, check: bool = True, deadline: float = 10.0) -> CallResult:
        """madvise(2), with `advice` by name (``"dontneed"``, ``"remove"``, ``"collapse"``, …) or number."""
        return _result(self.start_madvise(advice), "madvise", check, deadline)

    def start_madvise(self, advice: str | int) -> Touch[int]:
        """madvise(2) as a ticket, for a call that may wait: until the message of its event is read, for example."""
        _, _, start, pages, page_size = self._place
        if isinstance(advice, str) and advice.lower() not in ADVICE:
            raise UsageError(f"{advice!r} is no advice of madvise(2); there is {', '.join(ADVICE)}")
        number = ADVICE[advice.lower()] if isinstance(advice, str) else advice
        name = f"MADV_{advice.upper()}" if isinstance(advice, str) else str(advice)
        return self._start("madvise", [start, pages * page_size, number], name)

    def mprotect(self, protection: str, *, check: bool = True) -> CallResult:
        """mprotect(2); `protection` is made of the letters r, w and x, ``""`` for none."""
        _, _, start, pages, page_size = self._place
        strange = set(protection) - set(_PROTECTION)
        if strange:
            raise UsageError(f"protection={protection!r}: only r, w and x mean something")
        bits = sum(_PROTECTION[letter] for letter in set(protection))
        return self._syscall("mprotect", [start, pages * page_size, bits], protection or "none", check, 10.0)

    def munmap(self, *, check: bool = True) -> CallResult:
        """munmap(2): leave a hole.  ``region.unmap()`` is for a whole region and its alias."""
        _, _, start, pages, page_size = self._place
        return self._syscall("munmap", [start, pages * page_size], "", check, 10.0)

    def page_out(self, *, check: bool = True, deadline: float = 30.0) -> CallResult:
        """MADV_PAGEOUT, after seeing to it that the guest has swap.

        Raises
        ------
        UsageError
            If there is nothing to swap to: no RAM disk in a guest, or no swap on a machine that is no guest.
        """
        self._place[0].call("agent.swap_on")
        return self.madvise("pageout", check=check, deadline=deadline)

    def guard(self, *, check: bool = True) -> CallResult:
        """MADV_GUARD_INSTALL (Linux 6.13): a touch of these pages is SIGSEGV until MADV_GUARD_REMOVE."""
        return self.madvise("guard_install", check=check)

    def _syscall(self, name: str, arguments: list[int], words: str, check: bool, deadline: float) -> CallResult:
        return _result(self._start(name, arguments, words), name, check, deadline)

    def _start(self, name: str, arguments: list[int], words: str) -> Touch[int]:
        lab, mapping, start, pages, page_size = self._place
        call = f"{name}({mapping}, {pages} pages{', ' if words else ''}{words})"
        more = {"call": name, "arguments": arguments}
        return lab.touch("syscall", start, call, length=pages * page_size, more=more)


def _result(touch: Touch[int], name: str, check: bool, deadline: float) -> CallResult:
    outcome = touch.outcome_or_withdraw(deadline)
    if outcome.state != "done":
        raise touch.failure(outcome)
    result = CallResult(touch.what, max(0, -outcome.returned), max(-1, outcome.returned), outcome.took_ns)
    if check and not result.ok:
        raise IoctlError(touch.what, result.errno, _REASONS.get(result.errno, f"see {name}(2)"))
    return result


def move_mapping(region: MappingCalls, place: int) -> CallResult:
    """mremap(2) of a whole mapping to `place`."""
    _, _, _, pages, page_size = region._place  # noqa: SLF001 - of this module
    start, length = region._place[2], pages * page_size  # noqa: SLF001
    arguments = [start, length, length, _MREMAP_MAYMOVE | _MREMAP_FIXED, place]
    return region._syscall("mremap", arguments, f"to {place:#x}", True, 10.0)  # noqa: SLF001

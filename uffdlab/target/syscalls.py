"""Make system calls in the target that change a mapping."""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, Final

from uffdlab.errors import IoctlError
from uffdlab.target.results import CallResult

if TYPE_CHECKING:
    from uffdlab.target.address_range import AddressRange
    from uffdlab.target.touch import Touch
    from uffdlab.uapi.protocol.target import SystemCall

#: Advice of madvise(2) by name (asm-generic/mman-common.h).
ADVICE: Final = {
    "normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4, "free": 8, "remove": 9, "dontfork": 10,
    "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14, "nohugepage": 15, "dontdump": 16, "dodump": 17,
    "wipeonfork": 18, "keeponfork": 19, "cold": 20, "pageout": 21, "populate_read": 22, "populate_write": 23,
    "dontneed_locked": 24, "collapse": 25, "hwpoison": 100, "guard_install": 102, "guard_remove": 103,
}  # fmt: skip

_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_DEADLINE = 10.0  # seconds
_REASONS = {
    _errno.EINVAL: "this kernel does not support it for this memory, or the range is not aligned",
    _errno.ENOMEM: "a part of the range is not mapped, or the guest is out of memory",
    _errno.EAGAIN: "the kernel could not do it now; try again",
    _errno.EACCES: "the mapping does not allow it",
    _errno.EFAULT: "the address cannot be used, or a page could not be allocated",
    _errno.EBUSY: "a page is in use",
    _errno.EPERM: "the target lacks the privilege",
}


def start(addresses: AddressRange, name: str, arguments: list[int], text: str = "") -> Touch[int]:
    """Start a system call on its own thread in the target; `text` describes its other arguments in messages."""
    what = f"{name}({addresses.mapping}, {addresses.pages} pages{', ' if text else ''}{text})"
    more: SystemCall = {"call": name, "arguments": arguments}
    return addresses.target.touch("syscall", addresses.start, what, length=addresses.length, more=more)


def result(touch: Touch[int], name: str, *, check: bool, deadline: float) -> CallResult:
    """Wait until a system call returns; withdraw it if it has not returned after `deadline` seconds.

    Raises
    ------
    IoctlError
        It failed with an errno, and `check` is set.
    FaultUnresolved
        It did not return in time.
    """
    outcome = touch._outcome_or_withdraw(deadline)
    if outcome.state != "done":
        raise touch._failure(outcome)
    done = CallResult(touch.what, outcome.errno, outcome.took_ns, max(-1, outcome.returned))
    if check and not done.ok:
        raise IoctlError(touch.what, done.errno, _REASONS.get(done.errno, f"see {name}(2)"))
    return done


def call(addresses: AddressRange, name: str, arguments: list[int], text: str = "", *, check: bool = True) -> CallResult:
    """Make a system call and wait for it; see :func:`result`."""
    return result(start(addresses, name, arguments, text), name, check=check, deadline=_DEADLINE)


def move(addresses: AddressRange, place: int) -> CallResult:
    """Call mremap(2): move a whole mapping to the address `place`."""
    arguments = [addresses.start, addresses.length, addresses.length, _MREMAP_MAYMOVE | _MREMAP_FIXED, place]
    return call(addresses, "mremap", arguments, f"to {place:#x}")

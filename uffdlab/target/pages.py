"""Pages: the accesses and system calls that can be made on neighbouring pages of the target."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Protocol

from uffdlab.arguments import checked
from uffdlab.errors import UsageError
from uffdlab.target import syscalls
from uffdlab.uapi.protocol.agent import MeasureMemory, TurnSwapOn

if TYPE_CHECKING:
    from uffdlab.target.address_range import AddressRange
    from uffdlab.target.process import ForkedProcess
    from uffdlab.target.results import CallResult
    from uffdlab.target.touch import Touch
    from uffdlab.uapi.protocol.target import SystemCall

_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23  # Linux 5.14
_PROTECTION = {"r": 1, "w": 2, "x": 4}
_MODULUS = 1 << 64
_CHECK_MEMORY_ABOVE = 64 << 20  # bytes; every machine has less than that free
_ORDERS = ("ascending", "descending", "random")


class AtAddress(Protocol):
    """An object with an address in the target, such as a :class:`uffdlab.target.region.PageRange`."""

    @property
    def start(self) -> int:
        """Its address."""
        ...  # pragma: no cover


@checked(
    "region",
    read="region.read(5)",
    write="region.write(5, 0x55)",
    modify="region.modify(5, add=1)",
    sweep="region.sweep('write', order='random')",
    madvise="region.madvise('dontneed')",
    mprotect="region.mprotect('r')",
)
class Pages:
    """Neighbouring pages of the target: a region, its alias, or a range of their pages.

    Accesses are made in the target, and may wait there until a page fault is resolved.  ``by`` is a forked
    :class:`~uffdlab.target.child.Child` that makes the access in place of a thread of the target.

    A system call that fails raises :class:`~uffdlab.errors.IoctlError`; with ``check=False`` its result has the errno.
    A call that has not returned after `deadline` seconds is withdrawn, and raises
    :class:`~uffdlab.errors.FaultUnresolved`.
    """

    @property
    def _addresses(self) -> AddressRange:
        # The addresses of these pages now; raises an error if they are not mapped any more.
        raise NotImplementedError

    # --- accesses

    def read(self, page: int = 0, offset: int = 0, *, by: ForkedProcess | None = None) -> Touch[int]:
        """Read the 64-bit value at byte `offset` of `page`, on its own thread in the guest."""
        return self._touch("read", page, offset, 0, by)

    def write(
        self, page: int = 0, value: int = 0x55, offset: int = 0, *, by: ForkedProcess | None = None
    ) -> Touch[None]:
        """Write a 64-bit value at byte `offset` of `page`, on its own thread in the guest."""
        return self._touch("write", page, offset, value, by)

    def modify(self, page: int = 0, add: int = 1, offset: int = 0, *, by: ForkedProcess | None = None) -> Touch[int]:
        """Add to the 64-bit value in one atomic access; the result of the touch is the value before."""
        return self._touch("modify", page, offset, add, by)

    def kernel_read(self, page: int = 0, *, by: ForkedProcess | None = None) -> Touch[int]:
        """Let the kernel read the first 8 bytes of `page`: write(2) from it to a file.  It faults in kernel mode."""
        return self._syscall_touch("file_write", page, 0, f"the kernel's read of {self._addresses.describe(page)}", by)

    def kernel_write(self, page: int = 0, value: int = 0x55, *, by: ForkedProcess | None = None) -> Touch[int]:
        """Let the kernel write the first 8 bytes of `page`: read(2) from a file to it.  It faults in kernel mode."""
        return self._syscall_touch(
            "file_read", page, value, f"the kernel's write to {self._addresses.describe(page)}", by
        )

    def gup_read(self, page: int = 0, *, into: AtAddress | None = None) -> Touch[int]:
        """Read the first 8 bytes of `page` through get_user_pages: process_vm_readv(2).

        With `into`, the kernel copies them to that address, and the result is 0.  While that copy waits for a page
        fault of its own, `page` stays pinned (FOLL_PIN).
        """
        what = f"get_user_pages for a read of {self._addresses.describe(page)}"
        return self._syscall_touch("gup_read", page, 0, what, None, into)

    def gup_write(self, page: int = 0, value: int = 0x55) -> Touch[int]:
        """Write the first 8 bytes of `page` through get_user_pages: process_vm_writev(2)."""
        return self._syscall_touch(
            "gup_write", page, value, f"get_user_pages for a write to {self._addresses.describe(page)}", None
        )

    def populate(self, *, write: bool = False, by: ForkedProcess | None = None) -> Touch[int]:
        """Fault all pages in with one call: MADV_POPULATE_READ, or MADV_POPULATE_WRITE with `write`."""
        addresses = self._addresses
        advice = _MADV_POPULATE_WRITE if write else _MADV_POPULATE_READ
        more: SystemCall = {"call": "madvise", "arguments": [addresses.start, addresses.length, advice]}
        what = f"MADV_POPULATE_{'WRITE' if write else 'READ'} of {addresses.pages} pages of {addresses.mapping}"
        return addresses.target.touch("syscall", addresses.start, what, length=addresses.length, more=more, by=by)

    def sweep(
        self,
        kind: str = "read",
        *,
        order: str = "ascending",
        value: int = 0x55,
        seed: int = 0,
        by: ForkedProcess | None = None,
    ) -> Touch[int]:
        """Access each page once, one after the other, as one touch.

        Parameters
        ----------
        kind : str
            ``"read"``, ``"write"`` or ``"modify"``.
        order : str
            ``"ascending"``, ``"descending"`` or ``"random"``.
        value : int
            The value to write, or to add.
        seed : int
            The seed of the random order.

        Returns
        -------
        Touch
            Its result is the sum of the values (modulo 2⁶⁴).  Its ``progress`` is the number of accesses so far.
        """
        addresses = self._addresses
        if kind not in ("read", "write", "modify"):
            raise UsageError(f"a sweep can read, write or modify, not {kind!r}")
        first, jump = _order(order, addresses.pages, seed)
        return addresses.target.touch(
            "sweep",
            addresses.start,
            f"{kind} of {addresses.pages} pages of {addresses.mapping}, {order}",
            length=addresses.length,
            stride=addresses.page_size,
            value=_uint64(value),
            more={"each": kind, "first": first, "jump": jump},
            by=by,
        )

    def sweep_threads(
        self, threads: int, kind: str = "read", *, order: str = "random", seed: int = 0
    ) -> list[Touch[int]]:
        """Start a sweep on each of several threads at once; see :meth:`sweep`."""
        if not 1 <= threads <= 256:
            raise UsageError(f"threads={threads}: the number of threads must be 1 to 256")
        return [self.sweep(kind, order=order, seed=seed + each) for each in range(threads)]

    def copy_out(self, page: int = 0, deadline: float = 10.0) -> bytes:
        """Return the whole content of `page`.  This reads the page in the target, so it may fault.

        Raises
        ------
        FaultUnresolved
            The read still waited for its page fault after `deadline` seconds, and was withdrawn.
        """
        addresses = self._addresses
        what = f"reading {addresses.describe(page)}"
        touch: Touch[bytes] = addresses.target.touch(
            "copy_out", addresses.address(page), what, length=addresses.page_size
        )
        return touch._result_or_withdraw(deadline)

    def fill(self, value: int = 1, deadline: float = 60.0) -> None:
        """Write a 64-bit value into every page: `value` into the first, `value` + 1 into the next, and so on.

        Raises
        ------
        UsageError
            The pages need more than the machine's memory and swap.
        TouchFailed
            The guest does not have enough memory for the pages (SIGBUS).
        FaultUnresolved
            A write still waited for its page fault after `deadline` seconds, and was withdrawn.
        """
        addresses = self._addresses
        what = f"filling {addresses.pages} pages of {addresses.mapping}"
        if addresses.length > _CHECK_MEMORY_ABOVE:
            available = addresses.target.ask(MeasureMemory())
            if addresses.length > available:
                raise UsageError(
                    f"{what} takes {addresses.length >> 20} MiB, and this machine has {available >> 20} MiB of memory "
                    "and swap; fill fewer pages, region[:1000].fill(), or give the guest more: Lab(…, memory_mib=…)"
                )
        touch: Touch[None] = addresses.target.touch(
            "fill", addresses.start, what, length=addresses.length, stride=addresses.page_size, value=_uint64(value)
        )
        touch._result_or_withdraw(deadline)

    def _touch(self, kind: str, page: int, offset: int, value: int, by: ForkedProcess | None) -> Touch[Any]:
        addresses = self._addresses
        address = addresses.address(page)
        if not 0 <= offset <= addresses.page_size - 8 or offset % 8:
            raise UsageError(f"offset {offset} is not a multiple of 8 within a page of {addresses.page_size} bytes")
        what = f"{kind} {'of' if kind == 'read' else 'to'} {addresses.describe(page)}"
        return addresses.target.touch(kind, address + offset, what, length=8, value=_uint64(value), by=by)

    def _syscall_touch(
        self, call: str, page: int, value: int, what: str, by: ForkedProcess | None, into: AtAddress | None = None
    ) -> Touch[int]:
        addresses = self._addresses
        address = addresses.address(page)
        more: SystemCall = {"call": call, "address": address}
        if into is not None:
            more["into"] = into.start
        return addresses.target.touch("syscall", address, what, length=8, value=_uint64(value), more=more, by=by)

    # --- system calls

    def madvise(self, advice: str | int, *, check: bool = True, deadline: float = 10.0) -> CallResult:
        """Call madvise(2), with `advice` by name (``"dontneed"``, ``"remove"``, ``"collapse"``, …) or number."""
        return syscalls.result(self.start_madvise(advice), "madvise", check=check, deadline=deadline)

    def start_madvise(self, advice: str | int) -> Touch[int]:
        """Start madvise(2) and return at once.  The call may wait, for instance until its event is read."""
        addresses = self._addresses
        if isinstance(advice, str) and advice.lower() not in syscalls.ADVICE:
            raise UsageError(f"{advice!r} is no advice of madvise(2); known are {', '.join(syscalls.ADVICE)}")
        number = syscalls.ADVICE[advice.lower()] if isinstance(advice, str) else advice
        if not -(1 << 31) <= number < 1 << 31:
            raise UsageError(f"{number} is no advice of madvise(2), which takes an int of 32 bits")
        name = f"MADV_{advice.upper()}" if isinstance(advice, str) else str(advice)
        return syscalls.start(addresses, "madvise", [addresses.start, addresses.length, number], name)

    def mprotect(self, protection: str, *, check: bool = True) -> CallResult:
        """Call mprotect(2); `protection` consists of the letters r, w and x, or is ``""`` for PROT_NONE."""
        addresses = self._addresses
        unknown = set(protection) - set(_PROTECTION)
        if unknown:
            raise UsageError(f"protection={protection!r}: it can have the letters r, w and x only")
        bits = sum(_PROTECTION[letter] for letter in set(protection))
        return syscalls.call(
            addresses, "mprotect", [addresses.start, addresses.length, bits], protection or "none", check=check
        )

    def munmap(self, *, check: bool = True) -> CallResult:
        """Call munmap(2) and leave a hole.  ``region.unmap()`` is for a whole region and its alias."""
        addresses = self._addresses
        return syscalls.call(addresses, "munmap", [addresses.start, addresses.length], check=check)

    def page_out(self, *, check: bool = True, deadline: float = 30.0) -> CallResult:
        """Call madvise(MADV_PAGEOUT), after turning swap on in the guest.

        Raises
        ------
        UsageError
            There is nothing to swap to: no RAM disk in a guest, or no swap on another machine.
        """
        self._addresses.target.ask(TurnSwapOn())
        return self.madvise("pageout", check=check, deadline=deadline)

    def guard(self, *, check: bool = True) -> CallResult:
        """Call madvise(MADV_GUARD_INSTALL), Linux 6.13: touches raise SIGSEGV until MADV_GUARD_REMOVE."""
        return self.madvise("guard_install", check=check)


def _uint64(value: int) -> int:
    try:
        number = operator.index(value)  # accepts numpy's integers, too
    except TypeError:
        number = _MODULUS
    if not -_MODULUS // 2 <= number < _MODULUS:
        raise UsageError(f"{value!r} is not an integer of 64 bits; only these can be written into a page")
    return number % _MODULUS


def _order(order: str, pages: int, seed: int) -> tuple[int, int]:
    # If the step has no common divisor with the number of pages, the order has every page once.
    if order == "ascending":
        return 0, 1
    if order == "descending":
        return pages - 1, max(pages - 1, 1)
    if order != "random":
        raise UsageError(f"order={order!r}; the orders are {', '.join(_ORDERS)}")
    import random  # noqa: PLC0415 - few labs need it

    rng = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    first, jump = rng.randrange(pages), rng.randrange(max(pages // 3, 1), pages + 1)
    while math.gcd(jump, pages) != 1:
        jump += 1
    return first, jump

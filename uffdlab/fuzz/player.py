"""Player: make calls on a region of a kernel and on its model, and compare the two."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from uffdlab.errors import AgentError, NoMessage, UffdlabError, errno_name
from uffdlab.fuzz.blocked_copy import BlockedCopy
from uffdlab.fuzz.generator import pages_used
from uffdlab.fuzz.model import Model
from uffdlab.fuzz.page import ObservedPage
from uffdlab.fuzz.rules import ANY, MEMORIES, SKIP, Op, Rules, region_pages
from uffdlab.pte import State
from uffdlab.target.open_userfaultfd import DEFAULT_FEATURES
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import IOCTLS, Feature, RegisterMode
from uffdlab.uapi.messages import Message, Remap, Remove, Unmap
from uffdlab.uapi.protocol.agent import ReserveHugepages

if TYPE_CHECKING:
    from uffdlab.lab import Lab
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.child import Child
    from uffdlab.target.region import Region
    from uffdlab.target.results import CallResult, IoctlResult
    from uffdlab.target.touch import Touch
    from uffdlab.target.userfaultfd import Userfaultfd

EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP
_MESSAGES: dict[str, type[Message]] = {"fork": Fork, "remap": Remap, "remove": Remove, "unmap": Unmap}
# After this number of calls the best witness is used, too: pagemap is faster, but has no writable bit.
_BOTH_WITNESSES = 4
_EHWPOISON = 133
_DEADLINE = 10.0  # seconds for a touch to end or to wait


class Mismatch(UffdlabError):
    """A kernel and the model differ.

    Attributes
    ----------
    message : str
        The expected and the observed result.
    rules : Rules
        The memory, userfaultfd and kernel.
    calls : tuple of Op
        The calls on a new region; the kernel and the model differ after the last one.
    """

    def __init__(self, message: str, rules: Rules, calls: Sequence[Op]) -> None:
        steps = "\n".join(f"  {op}," for op in calls)
        super().__init__(f"{message}, after\n{steps}\nwith {rules}")
        self.message = message
        self.rules = rules
        self.calls = tuple(calls)


class Player:
    """Makes calls on one region and on its model.  Also a context manager that unmaps the region.

    Parameters
    ----------
    lab : Lab
    rules : Rules
    rules_for : callable
        Returns the rules of other memory that replaces the region.
    """

    def __init__(self, lab: Lab, rules: Rules, rules_for: Callable[[str], Rules]) -> None:
        self._lab, self._rules, self._rules_for = lab, rules, rules_for
        self._region = self._map(rules)
        self._blocked: BlockedCopy | None = None
        features = DEFAULT_FEATURES | (EVENTS if rules.events else Feature(0))
        features |= Feature.WP_UNPOPULATED if rules.unpopulated else Feature(0)
        features |= Feature.RWP if "rwprotect" not in rules.leave_out else Feature(0)
        self._uffd = lab.userfaultfd(features & lab.capabilities.features)
        self._model = Model(rules, len(self._region))
        self._calls: list[Op] = []

    def _map(self, rules: Rules) -> Region:
        pages = region_pages(rules.memory)
        region = self._lab.map(pages=pages, memory=rules.memory)
        if rules.hugetlb:  # more huge pages, for the copies of a child, of a private page, and after a hole was punched
            self._lab.ask(ReserveHugepages(region.page_size, 3 * pages))
        return region

    @property
    def calls(self) -> int:
        """The number of calls that were made; calls that the model cannot predict are not made."""
        return len(self._calls)

    def play(self, op: Op) -> None:
        """Make one call, and compare its result and all pages with the model.

        Raises
        ------
        Mismatch
            The result or a page differs from the model.
        """
        if op.call == "replace":
            self._replace(op)
            return
        pages = self._model.pages_of(op)
        expected = self._model.apply(op)
        if expected == SKIP:
            return
        self._calls.append(op)
        try:
            got = self._fork(op) if op.call == "fork" else self._call(op, pages)
        except AgentError as error:  # it waits, and the model does not expect that
            raise self._disagree(f"{op} should return {expected!r}, but waits: {error}") from error
        if expected not in (ANY, got):
            raise self._disagree(f"{op} should return {expected!r} and returned {got!r}")
        self._compare_messages(op)
        self._compare(op, self._region.snapshot("pagemap"), self._model)
        if len(self._calls) % _BOTH_WITNESSES == 0:
            self._compare(op, self._region.snapshot(), self._model)

    def _replace(self, op: Op) -> None:
        # Map other memory at the same address.
        if self._model.blocked and not self._model.rules.checks_destination:
            return
        self._calls.append(op)
        rules, place = self._rules_for(MEMORIES[op.value]), self._region.start
        if self._rules.events:
            self._uffd.unregister(self._region)  # else munmap() would wait until its message is read
        self._region.unmap()
        self._region = self._map(rules)
        self._region.mremap(place)
        self._model = self._model.replaced(rules, len(self._region))
        self._compare(op, self._region.snapshot(), self._model)

    def finish(self) -> None:
        """Release a copy that waits, unregister the region, and compare the content of the pages."""
        self.play(Op("release_copy", 0))
        self.play(Op("register", 0, 0, count=len(self._model.pages)))
        for number in pages_used(len(self._model.pages)):
            self.play(Op("read", number))

    # --- comparing

    def _compare(self, op: Op, seen: Snapshot, model: Model, whose: str = "") -> None:
        states = {state: (seen.has(state), seen.knows(state)) for state in _COMPARED_STATES}
        for number in range(len(model.pages)):
            bits = {state: bool(has[number]) if known[number] else None for state, (has, known) in states.items()}
            page = ObservedPage(
                bool(bits[State.PRESENT]),
                bool(bits[State.UFFD_WP]),
                bits[State.FILE],
                bits[State.SWAPPED],
                bits[State.WRITABLE],
            )
            if not model.agrees(number, page):
                raise self._disagree(
                    f"after {op} page {number}{whose} should be {model.pages[number]}; {seen.witness} reports {page}"
                )

    def _compare_messages(self, op: Op) -> None:
        # Read every message that the model expects, and no other.
        for name in self._model.messages:
            try:
                message = self._uffd.wait_for(_MESSAGES[name])
            except NoMessage:
                raise self._disagree(f"{op} sent no {name} message, which it should send") from None
            if isinstance(message, Fork):
                message.userfaultfd.close()
            if name == "remove" and isinstance(message, Remove) and message.first != op.page:
                raise self._disagree(f"{op} sent {message}")
        for other in self._uffd.messages(0):
            raise self._disagree(f"{op} sent {other}, which it should not send")

    def _disagree(self, message: str) -> Mismatch:
        return Mismatch(message, self._rules, self._calls)

    # --- calls

    def _call(self, op: Op, pages: range) -> str:
        if op.call == "register":
            where = self._region[pages.start : pages.stop]
            self._uffd.unregister(where)
            return (
                _errno_name(self._uffd.register(where, RegisterMode(op.value), check=False).errno) if op.value else "ok"
            )
        if op.call in _ACCESSES:
            return self._access(op, self._uffd)
        if op.call in ("alias_read", "alias_write"):
            alias = self._region.alias
            return _outcome(op, alias.read(op.page) if op.call == "alias_read" else alias.write(op.page, op.value))
        if op.call in ("block_copy", "release_copy"):
            return self._block_copy(op) if op.call == "block_copy" else self._release_copy()
        if op.call == "mremap":
            return _errno_name(self._region.mremap().errno)
        return self._mapping_call(op, pages) or self._ioctl(op, pages)

    def _block_copy(self, op: Op) -> str:
        size = self._region.page_size
        start = self._region.start + op.page * size
        self._blocked = BlockedCopy(self._lab, self._uffd, start, size, op.value, wp=op.mode_bit)
        return "ok"

    def _release_copy(self) -> str:
        assert self._blocked is not None
        copy, self._blocked = self._blocked, None
        return _errno_name(copy.release().errno)

    def _ioctl(self, op: Op, pages: range) -> str:
        ioctl = next(each for each in IOCTLS.values() if each.random_call == op.call)
        if ioctl.moves:
            result = self._move(op)
        else:
            bits = {name.lower(): op.dontwake if name == "DONTWAKE" else op.mode_bit for name in ioctl.mode_bits}
            content = {"data": self._content(op.value, len(pages))} if op.call == "copy" else {}
            where = self._region[pages.start : pages.stop]
            result = getattr(self._uffd, ioctl.method)(where, **bits, **content, check=False)
        if result.errno == errno.EAGAIN and result.done:
            return f"EAGAIN after {result.done // self._region.page_size}"
        return _errno_name(result.errno)

    def _move(self, op: Op) -> IoctlResult:
        # The kernel returns EAGAIN if it does not get the lock of a page at once.
        region = self._region
        first = self._uffd.move(
            region[op.page], region[op.value], allow_src_holes=op.mode_bit, dontwake=op.dontwake, check=False
        )
        return self._uffd.resume(first, check=False)

    def _content(self, value: int, pages: int) -> bytes:
        return b"".join(
            (value + each).to_bytes(8, "little").ljust(self._region.page_size, b"\0") for each in range(pages)
        )

    def _mapping_call(self, op: Op, pages: range) -> str:
        where = self._region[pages.start : pages.stop]
        calls: dict[str, Callable[[], CallResult]] = {
            "dontneed": lambda: where.madvise("dontneed", check=False),
            "remove": lambda: self._region[op.page].madvise("remove", check=False),
            "page_out": lambda: where.madvise("pageout", check=False),
            "collapse": lambda: self._region.madvise("collapse", check=False),
            "mprotect": lambda: where.mprotect("rw" if op.writable else "r", check=False),
            "alias_remove": lambda: self._region.alias[op.page].madvise("remove", check=False),
        }
        return _errno_name(calls[op.call]().errno) if op.call in calls else ""

    def _access(self, op: Op, uffd: Userfaultfd | None, by: Child | None = None) -> str:
        # An access that faults is withdrawn, so it changes nothing.
        page, write = self._region[op.page], op.call.endswith("write")
        access = getattr(page, op.call)
        touch: Touch[object] = access(0, op.value, by=by) if write else access(0, by=by)
        until = time.monotonic() + _DEADLINE
        while touch.state == "running" and time.monotonic() < until:
            time.sleep(0.0005)
        if touch.state != "waiting":
            return _outcome(op, touch)
        if uffd is None:
            touch.withdraw()
            return "waits"
        fault = uffd.read_fault()
        touch.withdraw()
        kind = next(name for name in ("rwp", "wp", "minor", "missing") if getattr(fault, name))
        return f"fault {kind}" if fault.page == op.page and fault.write == write else f"{fault}"

    def _fork(self, op: Op) -> str:
        # Compare the child's pages, and let it make one access.
        child_model = self._model.child()
        access = Op("write" if op.child_writes else "read", op.page, op.value)
        with self._lab.fork() as child:
            uffd = None
            if self._model.messages:
                uffd = self._uffd.wait_for(Fork).userfaultfd
                self._model.messages.clear()
            try:
                self._compare(op, child.snapshot(self._region), child_model, " of the child")
                self._compare_access(access, uffd, child, child_model)
            finally:
                if uffd is not None:
                    uffd.close()
        return "ok"

    def _compare_access(self, op: Op, uffd: Userfaultfd | None, child: Child, model: Model) -> None:
        expected = model.apply(op)
        if expected == SKIP:
            return
        got = self._access(op, uffd, child)
        if expected != got:
            raise self._disagree(f"the child's {op} should return {expected!r} and returned {got!r}")
        self._compare(op, child.snapshot(self._region), model, " of the child")

    def close(self) -> None:
        """Unmap the region and close the userfaultfd."""
        if self._blocked is not None:
            self._blocked.close()
        self._uffd.close()
        if self._region in self._lab.regions:
            self._region.unmap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ACCESSES = ("read", "write", "kernel_read", "kernel_write")
_COMPARED_STATES = (State.PRESENT, State.UFFD_WP, State.FILE, State.SWAPPED, State.WRITABLE)


def _outcome(op: Op, touch: Touch[object]) -> str:
    end = touch.outcome()
    if end.returned < 0:
        return _errno_name(-end.returned)
    return end.signal or (f"= {end.value}" if op.call.endswith("read") else "ok")


def _errno_name(error: int) -> str:
    if error == _EHWPOISON:
        return "EFAULT"  # poison in kernel mode: which of the two depends on how the kernel copies
    return errno_name(error)

"""Make the write of a WriteProbe on its own thread, and withdraw it if it traps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, Protocol

from uffdlab.errors import FaultUnresolved, UsageError
from uffdlab.observations.write_probe import WriteProbe
from uffdlab.uapi.messages import Fault, Message
from uffdlab.uapi.protocol.target import SyncFeed
from uffdlab.witnesses.base import TargetPages

if TYPE_CHECKING:
    from uffdlab.observations.snapshot import Snapshot
    from uffdlab.target.process import TargetProcess
    from uffdlab.target.touch import Touch

_DEADLINE = 5.0  # seconds for a write that neither ends nor traps: the page may be read from swap
_PAUSE = 0.001


class ProbedPage(TargetPages, Protocol):
    """The page to write to: a :class:`uffdlab.target.region.PageRange` is one."""

    @property
    def start(self) -> int:
        """Its address."""
        ...  # pragma: no cover

    @property
    def length(self) -> int:
        """Its length in bytes."""
        ...  # pragma: no cover

    def snapshot(self, witness: str | None = None) -> Snapshot:
        """Return its state, as a witness reports it."""
        ...  # pragma: no cover


def probe(target: TargetProcess, page: ProbedPage) -> WriteProbe:
    """Write to one page without changing its content; withdraw the write if a userfaultfd traps it.

    The lab removes the fault message of this write, so that nobody else reads it.  Nothing else should touch the page
    meanwhile.

    Parameters
    ----------
    target : TargetProcess
    page : PageRange
        One page.

    Raises
    ------
    UsageError
        `page` is not one page.
    FaultUnresolved
        The write waits and cannot be withdrawn; or it neither ended nor trapped in time, and was withdrawn.
    """
    if page.count != 1:
        raise UsageError(f"a probe writes to one page, not to {page.count}: region.probe(3) or lab.probe(region[3])")
    before = page.snapshot()
    faults: list[Fault] = []
    write_started = False

    def is_fault_of_write(message: Fault | Message) -> bool:
        of_write = write_started and isinstance(message, Fault) and 0 <= message.address - page.start < page.length
        if of_write:
            assert isinstance(message, Fault)
            faults.append(message)
        return of_write

    with ExitStack() as interceptors:
        for uffd in target.registry.userfaultfds:
            interceptors.callback(uffd.intercept(is_fault_of_write))
        write_started = True
        touch = target.touch("modify", page.start, f"probe of {page} of {page.mapping.name}", length=8, value=0)
        state = _ended_or_trapped(touch, faults)
        # A write that ends while it is withdrawn was made: it did not trap, unless there was a message.
        withdrawn = state != "ended" and touch.withdraw()
        end = touch.outcome(_DEADLINE)
        target.ask(SyncFeed())  # so that all earlier messages have arrived
    if withdrawn and state == "running" and not faults:
        raise FaultUnresolved(
            f"the probe of {page} of {page.mapping.name} neither ended nor waited for a fault within {_DEADLINE:g} s; "
            "it was withdrawn and not made. The guest may be busy, or read the page from swap: try again",
            address=page.start,
        )
    fault = faults[0] if faults else None
    return WriteProbe(page.first, withdrawn or bool(faults), fault, end.signal, before, page.snapshot())


def _ended_or_trapped(touch: Touch[object], faults: list[Fault]) -> Literal["ended", "waiting", "running"]:
    # A write that waits without a message traps too; it takes until the deadline to know that none comes.
    until = time.monotonic() + _DEADLINE
    while True:
        state = touch.state
        if state not in ("waiting", "running"):
            return "ended"
        if (state == "waiting" and faults) or time.monotonic() > until:
            return "waiting" if state == "waiting" else "running"
        time.sleep(_PAUSE)

"""Touch: the ticket for one access to memory that may fault."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from uffdlab.errors import FaultUnresolved, ProtocolError, TouchFailed, UffdlabError, errno_name
from uffdlab.uapi.protocol.target import CountAccesses, TouchWaits, WithdrawTouch

if TYPE_CHECKING:
    from uffdlab.machines.connection import Connection
    from uffdlab.uapi.protocol.target import StartTouch, TouchResult

_GIVE_A_WORD = ("read", "modify", "sweep", "syscall")
_MANY = ("sweep", "fill")
_Given_co = TypeVar("_Given_co", covariant=True)  # what its result is


class Outcome(Struct, frozen=True):
    """How an access ended.  A signal is one way to end.

    Attributes
    ----------
    state : str
        ``done``, ``signal``, ``withdrawn``, or ``lost`` when the child that was to make it had ended.
    value : int
        What was read; for a sweep the sum of it.
    data : bytes
        What ``copy_out`` has read.
    signal : str
        ``SIGBUS`` or ``SIGSEGV``; empty if there was none.
    signal_code : int
        Its si_code: BUS_ADRERR is 2, BUS_MCEERR_AR (poison) is 4.
    signal_address : int
        Where.
    returned : int
        What a system call returned, -errno if it failed; 0 for any other access.
    took_ns : int
        How long it took in the guest, in ns.
    fields : dict
        The argument of an ioctl as the kernel left it; empty for any other access.
    why : str
        How the child ended that was to make it; empty if it made it.
    """

    state: str
    value: int
    data: bytes
    signal: str
    signal_code: int
    signal_address: int
    returned: int
    took_ns: int
    fields: dict[str, int] = {}
    why: str = ""

    @property
    def errno(self) -> int:
        """The errno of its system call, 0 if there is none."""
        return max(0, -self.returned)

    @property
    def ok(self) -> bool:
        """The access was made."""
        return self.state == "done" and self.returned >= 0


class Touch(Generic[_Given_co]):
    """One read or write of the target, on a thread of its own in the guest.

    It may end at once, or wait for a page fault as long as you like: nothing else of the lab waits with it.  To a type
    checker it is a ``Touch[int]``, ``Touch[bytes]`` or ``Touch[None]``, by what :meth:`result` gives.

    Attributes
    ----------
    number : int
        Which one of this lab.
    kind : str
        ``read``, ``write``, ``modify``, ``fill``, ``sweep``, ``copy_out`` or ``syscall``.
    address : int
        Where it reads or writes, in the target.
    what : str
        The access as text, ``write to page 3 of region-1``.
    """

    def __init__(self, connection: Connection, request: StartTouch, what: str) -> None:
        self._connection = connection
        self._request = request
        self.number = request.number
        self.kind = request.kind
        self.address = request.address
        self.what = what
        self._end: Future[TouchResult] = Future()

    @property
    def state(self) -> str:
        """``done``, ``waiting`` (asleep in the kernel), ``running`` (neither yet), ``failed`` or ``withdrawn``."""
        if self._end.done():
            if self._end.exception():
                return "failed"
            state = self._end.result().state
            return "failed" if state in ("signal", "lost") else state
        return "waiting" if self._connection.ask(TouchWaits(self.number)) else "running"

    def result(self, timeout: float = 10.0) -> _Given_co:
        """Wait for the access to end and return what it read.

        Parameters
        ----------
        timeout : float
            Seconds to wait.  When they are over the touch still waits, and can be asked again.

        Returns
        -------
        int, bytes or None
            ``read``: the 64-bit value that it read.  ``modify``: the value before.  ``sweep``: the sum of the values.
            ``copy_out``: the bytes.  ``syscall``: the value that the kernel transferred.  ``write``, ``fill``: None.

        Raises
        ------
        FaultUnresolved
            When it still waits after `timeout`; has the address.
        TouchFailed
            When it ended in SIGBUS or SIGSEGV, its system call in an errno, or it was withdrawn.
            :meth:`outcome` tells the same without an exception.
        TargetLost
            When the target died.
        """
        end = self.outcome(timeout)
        if not end.ok:
            raise self.failure(end)
        given: Any = end.value if self.kind in _GIVE_A_WORD else end.data if self.kind == "copy_out" else None
        return given  # type: ignore[no-any-return]

    def outcome(self, timeout: float = 10.0) -> Outcome:
        """Wait for the access to end and tell how: a signal, an errno and a withdrawal are results here.

        Raises
        ------
        FaultUnresolved
            When it still waits after `timeout` (seconds); has the address.
        TargetLost
            When the target died.
        MachineError
            When the machine did, or answers nothing any more; has the console's last lines.
        """
        try:
            end = self._end.result(timeout)
        except FutureTimeoutError:
            self._connection.must_answer()  # a machine that hangs is no unresolved fault
            why = self._not_ended(timeout)
            if not self._end.done():
                raise FaultUnresolved(why, address=self.address) from None
            end = self._end.result()
        return Outcome(
            state=end.state,
            value=end.value,
            data=end.bytes,
            signal=_signal_name(end.signal) if end.state == "signal" else "",
            signal_code=end.signal_code,
            signal_address=end.signal_address,
            returned=end.returned,
            took_ns=end.ended_ns - end.started_ns,
            fields=end.fields,
            why=end.why,
        )

    def failure(self, end: Outcome) -> TouchFailed:
        """Return the error that says how an access ended that did not succeed."""
        if end.state == "lost":
            how = f": {end.why}, and whether it was made is not known"
        elif end.state == "signal":
            how = f" ended in {end.signal} at {end.signal_address:#x}"
        elif end.state == "withdrawn":
            how = f" was withdrawn; {self._not_made(end)}"
        else:
            how = f" → {errno_name(-end.returned)}: {os.strerror(-end.returned)}"
        return TouchFailed(f"{self.what}{how}", address=self.address)

    def _not_ended(self, seconds: float) -> str:
        access = f"{self.what} (address {self.address:#x})"
        if self.state == "waiting":
            return (
                f"{access} still waits after {seconds:g} s: nobody has resolved its page fault. uffd.read_fault() "
                "tells which fault it is; continue_, copy or writeprotect resolve it, touch.withdraw() takes the "
                "access back."
            )
        return (
            f"{access} has not ended after {seconds:g} s, and does not sleep: it is still at work. Give it longer, or "
            "take it back by touch.withdraw()."
        )

    def _not_made(self, end: Outcome) -> str:
        if self.kind in _MANY:
            return f"{self.progress} of its accesses were made before"
        if self.kind == "syscall" and end.returned:
            return f"its call came back with {errno_name(-end.returned)}"
        return "the access was not made"

    def outcome_or_withdraw(self, deadline: float) -> Outcome:
        """Return :meth:`outcome`; withdraw it and raise FaultUnresolved if it has not ended at `deadline` (seconds)."""
        try:
            return self.outcome(deadline)
        except FaultUnresolved:
            if self.withdraw():
                raise
            return self.outcome()  # it ended by itself just now
        except KeyboardInterrupt:
            with suppress(UffdlabError):
                self.withdraw()
            raise

    def result_or_withdraw(self, deadline: float) -> _Given_co:
        """Return :meth:`result`; withdraw it and raise FaultUnresolved if it has not ended at `deadline` (seconds)."""
        self.outcome_or_withdraw(deadline)
        return self.result(0)

    @property
    def progress(self) -> int:
        """How many accesses of a sweep or fill have been made so far."""
        if self._end.done():
            return 0 if self._end.exception() else self._end.result().progress
        return self._connection.ask(CountAccesses(self.number))

    def withdraw(self, timeout: float = 5.0) -> bool:
        """Take a waiting access back, as if it had not been made.

        Returns
        -------
        bool
            True if it was withdrawn: no access was made, or of many those that :attr:`progress` counts.  False if
            it had ended before.

        Raises
        ------
        FaultUnresolved
            If it has not come back after `timeout` (seconds): the kernel's own fault, in a system call, takes no
            signal.  It goes on when its fault is resolved, and is done then: :meth:`outcome` tells.
        """
        self._connection.ask(WithdrawTouch(self.number))
        try:
            return self._end.result(timeout).state == "withdrawn"
        except FutureTimeoutError:
            self._connection.must_answer()
            raise FaultUnresolved(
                f"{self.what} was not withdrawn within {timeout:g} s: it is in the kernel where no signal reaches it. "
                "It goes on when its page fault is resolved, and its outcome tells whether it was made.",
                address=self.address,
            ) from None

    @property
    def waited_ns(self) -> int | None:
        """How long it took in the guest, in ns; None while it waits."""
        if not self._end.done() or self._end.exception():
            return None
        end = self._end.result()
        return end.ended_ns - end.started_ns

    def finish(self, end: TouchResult) -> None:
        """Take the end of the access from the target; its notification calls this."""
        try:
            self._request.check_end(end)
        except ValueError as error:
            self.fail(ProtocolError(f"the end of {self.what}: {error}"))
        else:
            self._end.set_result(end)

    def fail(self, error: BaseException) -> None:
        """Take the error that ends every wait for it; the registry calls this when the target is lost."""
        if not self._end.done():
            self._end.set_exception(error)

    def __repr__(self) -> str:
        ended = self._end.done()
        state = self.state if ended else "not ended"
        return f"<Touch: {self.what}, {state}>"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, most of which have no name
        return f"signal {number}"

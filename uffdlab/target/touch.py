"""Touch: one access to memory in the target, which may wait for a page fault."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from uffdlab.arguments import checked, seconds_to_wait
from uffdlab.errors import FaultUnresolved, ProtocolError, TouchFailed, UffdlabError, errno_name
from uffdlab.uapi.protocol.target import CountAccesses, TouchWaits, WithdrawTouch

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.machines.connection import Connection
    from uffdlab.uapi.protocol.target import StartTouch, TouchResult

_RETURN_A_VALUE = ("read", "modify", "sweep", "syscall")
_OF_MANY_ACCESSES = ("sweep", "fill")
_Result_co = TypeVar("_Result_co", covariant=True)  # the type of its result


class Outcome(Struct, frozen=True):
    """How an access ended, for example by a signal.

    Attributes
    ----------
    state : str
        ``done``, ``signal``, ``withdrawn``, or ``lost`` if the child that should make it had ended.
    value : int
        The value that was read; for a sweep the sum of the values.
    data : bytes
        The bytes that ``copy_out`` read.
    signal : str
        ``SIGBUS`` or ``SIGSEGV``; empty if there was none.
    signal_code : int
        Its si_code: BUS_ADRERR is 2, BUS_MCEERR_AR (poison) is 4.
    signal_address : int
        Its si_addr.
    returned : int
        The return value of a system call, -errno if it failed; 0 for any other access.
    took_ns : int
        The time that it took in the guest, in ns.
    fields : dict
        The fields of an ioctl's argument after the call; empty for any other access.
    why : str
        How the child ended that should make the access; empty if the child made it.
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
        """Whether the access was made."""
        return self.state == "done" and self.returned >= 0


@checked("touch", result="touch.result(timeout=1)")
class Touch(Generic[_Result_co]):
    """One access of the target, on its own thread in the guest.

    It may end at once, or wait for a page fault without a limit.  Nothing else in the lab has to wait.  Its type is
    ``Touch[int]``, ``Touch[bytes]`` or ``Touch[None]``, after the type of :meth:`result`.

    Attributes
    ----------
    number : int
        Its number in this lab.
    kind : str
        ``read``, ``write``, ``modify``, ``fill``, ``sweep``, ``copy_out`` or ``syscall``.
    address : int
        The address that it accesses, in the target.
    what : str
        The access as text, ``write to page 3 of region-1``.
    started_ns : int
        When it was asked for, on the guest's CLOCK_MONOTONIC, in ns.  The host estimates it; it is not after the fault.
    """

    def __init__(
        self,
        connection: Connection,
        request: StartTouch,
        what: str,
        advice: Callable[[StartTouch], str] = lambda _: "",
        *,
        started_ns: int = 0,
    ) -> None:
        self._connection = connection
        self._advice = advice  # on what resolves the fault that it waits for
        self._request = request
        self.number = request.number
        self.kind = request.kind
        self.address = request.address
        self.what = what
        self.started_ns = started_ns
        self._end: Future[TouchResult] = Future()

    @property
    def state(self) -> str:
        """``running``, ``waiting``, ``done``, ``failed`` or ``withdrawn``.

        ``waiting``: it sleeps in the kernel.  ``running``: it has not ended, and does not sleep.
        """
        if self._end.done():
            if self._end.exception():
                return "failed"
            state = self._end.result().state
            return "failed" if state in ("signal", "lost") else state
        return "waiting" if self._connection.ask(TouchWaits(self.number)) else "running"

    def result(self, timeout: float = 10.0) -> _Result_co:
        """Wait until the access ends, and return the value that it read.

        Parameters
        ----------
        timeout : float
            The time to wait, in seconds.  After it the touch goes on waiting; call this again to wait longer.

        Returns
        -------
        int, bytes or None
            ``read``: the 64-bit value that it read.  ``modify``: the value before.  ``sweep``: the sum of the values.
            ``copy_out``: the bytes.  ``syscall``: the value that the kernel transferred.  ``write``, ``fill``: None.

        Raises
        ------
        FaultUnresolved
            The access still waits after `timeout` seconds.  The error has the address.
        TouchFailed
            It ended by SIGBUS or SIGSEGV, its system call failed with an errno, or it was withdrawn.
            :meth:`outcome` returns the same without an exception.
        TargetLost
            The target died.
        """
        end = self.outcome(timeout)
        if not end.ok:
            raise self._failure(end)
        result: Any = end.value if self.kind in _RETURN_A_VALUE else end.data if self.kind == "copy_out" else None
        return result  # type: ignore[no-any-return]

    def outcome(self, timeout: float = 10.0) -> Outcome:
        """Wait until the access ends, and return how.  A signal, an errno or a withdrawal is not an error here.

        Raises
        ------
        FaultUnresolved
            The access still waits after `timeout` seconds.  The error has the address.
        TargetLost
            The target died.
        MachineError
            The machine ended, or does not answer any more.  The error has the last lines of the console.
        """
        try:
            end = self._end.result(seconds_to_wait(timeout))
        except FutureTimeoutError:
            self._connection.must_answer()  # raises MachineError if the machine hangs
            why = self._not_ended_text(timeout)
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

    def _failure(self, end: Outcome) -> TouchFailed:
        # Return the error for an access that did not succeed; its text says how it ended.
        if end.state == "lost":
            how = f": {end.why}, and whether it was made is not known"
        elif end.state == "signal":
            how = f" ended in {end.signal} at {end.signal_address:#x}"
        elif end.state == "withdrawn":
            how = f" was withdrawn; {self._made_before_text(end)}"
        else:
            how = f" → {errno_name(-end.returned)}: {os.strerror(-end.returned)}"
        return TouchFailed(f"{self.what}{how}", address=self.address)

    def _not_ended_text(self, seconds: float) -> str:
        access = f"{self.what} (address {self.address:#x})"
        if self.state == "waiting":
            advice = self._advice(self._request) or (
                "nobody has resolved its page fault. uffd.read_fault() returns the fault; continue_, copy or "
                "writeprotect resolves it"
            )
            return f"{access} still waits after {seconds:g} s: {advice}; touch.withdraw() withdraws the access."
        return (
            f"{access} has not ended after {seconds:g} s, and does not wait: it still runs. Wait longer, or withdraw "
            "it: touch.withdraw()."
        )

    def _made_before_text(self, end: Outcome) -> str:
        if self.kind in _OF_MANY_ACCESSES:
            return f"{self.progress} of its accesses were made before"
        if self.kind == "syscall" and end.returned:
            return f"its call returned {errno_name(-end.returned)}"
        return "the access was not made"

    def _outcome_or_withdraw(self, deadline: float) -> Outcome:
        # Return `outcome`.  If it still waits after `deadline` seconds, withdraw it; raise FaultUnresolved.
        try:
            return self.outcome(deadline)
        except FaultUnresolved:
            if self.withdraw():
                raise
            return self.outcome()  # it ended at this moment
        except KeyboardInterrupt:
            with suppress(UffdlabError):
                self.withdraw()
            raise

    def _result_or_withdraw(self, deadline: float) -> _Result_co:
        # Return `result`.  If it still waits after `deadline` seconds, withdraw it; raise FaultUnresolved.
        self._outcome_or_withdraw(deadline)
        return self.result(0)

    @property
    def progress(self) -> int:
        """The number of accesses that a sweep or fill has made so far."""
        if self._end.done():
            return 0 if self._end.exception() else self._end.result().progress
        return self._connection.ask(CountAccesses(self.number))

    def withdraw(self, timeout: float = 5.0) -> bool:
        """Withdraw a waiting access, so that it is not made.

        Returns
        -------
        bool
            True if it was withdrawn: the access was not made.  For a sweep or fill, only the accesses that
            :attr:`progress` counts were made.  False if it had ended before.

        Raises
        ------
        FaultUnresolved
            It has not ended after `timeout` seconds.  A fault in kernel mode, inside a system call, cannot be
            interrupted.  The access is made when that fault is resolved; :meth:`outcome` returns how it ended.
        """
        longest = seconds_to_wait(timeout)  # before anything is done
        self._connection.ask(WithdrawTouch(self.number))
        try:
            return self._end.result(longest).state == "withdrawn"
        except FutureTimeoutError:
            self._connection.must_answer()
            raise FaultUnresolved(
                f"{self.what} was not withdrawn within {timeout:g} s: it waits in the kernel, where no signal reaches "
                "it. It goes on when its page fault is resolved; its outcome says whether it was made.",
                address=self.address,
            ) from None

    @property
    def waited_ns(self) -> int | None:
        """Duration of the access in the guest, in ns, whether it waited or not; None until it has ended."""
        if not self._end.done() or self._end.exception():
            return None
        end = self._end.result()
        return end.ended_ns - end.started_ns

    def _finish(self, end: TouchResult) -> None:
        # Store how the access ended; the notification from the target calls this.
        try:
            self._request.check_end(end)
        except ValueError as error:
            self._fail(ProtocolError(f"the end of {self.what}: {error}"))
        else:
            self._end.set_result(end)

    def _fail(self, error: BaseException) -> None:
        # End every wait for it with this error; the registry calls this when the target is lost.
        if not self._end.done():
            self._end.set_exception(error)

    def __repr__(self) -> str:
        ended = self._end.done()
        state = self.state if ended else "not ended"
        return f"<Touch: {self.what}, {state}>"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"

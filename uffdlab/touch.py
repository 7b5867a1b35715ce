"""Touch: the ticket for one access to memory that may fault."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from uffdlab.errors import FaultUnresolved, TouchFailed

if TYPE_CHECKING:
    from uffdlab.lab import Lab


class Touch:
    """One read or write of the target, on a thread of its own in the guest.

    It may end at once, or wait for a page fault as long as you like: nothing else of the lab waits with it.

    Attributes
    ----------
    kind : str
        ``read``, ``write``, ``fill`` or ``copy_out``.
    address : int
        Where it reads or writes, in the target.
    what : str
        The access in words, ``write to page 3 of region-1``.
    """

    def __init__(self, lab: Lab, number: int, kind: str, address: int, what: str) -> None:
        self._lab = lab
        self._number = number
        self.kind = kind
        self.address = address
        self.what = what
        self._end: Future[dict[str, Any]] = Future()

    @property
    def state(self) -> str:
        """``done``, ``waiting`` (asleep in the kernel), ``running`` (neither yet), ``failed`` or ``withdrawn``."""
        if self._end.done():
            if self._end.exception():
                return "failed"
            state = str(self._end.result()["state"])
            return "failed" if state == "signal" else state
        return "waiting" if self._lab.target_call("touch_waits", self._number) else "running"

    def result(self, timeout: float = 10.0) -> Any:
        """Wait for the access to end and give what it read.

        Parameters
        ----------
        timeout : float
            Seconds to wait.  When they are over the touch still waits, and can be asked again.

        Returns
        -------
        int, bytes or None
            ``read``: the 64-bit word it read.  ``copy_out``: the bytes.  ``write`` and ``fill``: None.

        Raises
        ------
        FaultUnresolved
            When it still waits after `timeout`; has the address.
        TouchFailed
            When it ended in SIGBUS or SIGSEGV, was withdrawn, or its userfaultfd was closed under it.
        TargetLost
            When the target died.
        """
        try:
            end = self._end.result(timeout)
        except FutureTimeout:
            raise FaultUnresolved(
                f"{self.what} (address {self.address:#x}) still waits after {timeout:g} s: nobody has resolved its "
                "page fault. uffd.read_fault() tells which fault it is; continue_, copy or writeprotect resolve it, "
                "touch.withdraw() takes the access back.",
                address=self.address,
            ) from None
        if end["state"] == "signal":
            name = signal.Signals(end["signal"]).name
            raise TouchFailed(f"{self.what} ended in {name} at {end['signal_address']:#x}", address=self.address)
        if end["state"] == "withdrawn":
            raise TouchFailed(f"{self.what} was withdrawn; the access was not made", address=self.address)
        if self.kind == "copy_out":
            return end["bytes"]
        return end["value"] if self.kind == "read" else None

    def withdraw(self, timeout: float = 5.0) -> bool:
        """Take a waiting access back, as if it had not been made.

        Returns
        -------
        bool
            True if it was withdrawn, False if it had ended before.
        """
        self._lab.target_call("withdraw", self._number)
        try:
            return bool(self._end.result(timeout)["state"] == "withdrawn")
        except FutureTimeout:
            message = f"{self.what} cannot be withdrawn: it waits in the kernel where no signal reaches it"
            raise FaultUnresolved(message, address=self.address) from None

    @property
    def waited_ns(self) -> int | None:
        """How long it took in the guest, in ns; None while it waits."""
        if not self._end.done() or self._end.exception():
            return None
        end = self._end.result()
        return int(end["ended_ns"] - end["started_ns"])

    def finish(self, end: dict[str, Any]) -> None:
        """Take the end of the access from the target; the lab calls this."""
        self._end.set_result(end)

    def fail(self, error: BaseException) -> None:
        """Take the reason why its end will never be told; the lab calls this."""
        if not self._end.done():
            self._end.set_exception(error)

    def __repr__(self) -> str:
        ended = self._end.done()
        state = self.state if ended else "not ended"
        return f"<Touch: {self.what}, {state}>"

"""Fault handlers: loops that resolve page faults, in C beside the target or in Python on the host."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import asdict

from uffdlab.arguments import seconds_to_wait
from uffdlab.errors import UsageError
from uffdlab.target.message_queue import AnyMessage, MessageQueue
from uffdlab.uapi.messages import Fault
from uffdlab.uapi.protocol.target import CountFaults, StartHandler, StopHandler

if TYPE_CHECKING:
    from uffdlab.machines.connection import Connection
    from uffdlab.uapi.protocol.target import FaultCounts

_POLICIES = {
    "missing": ("forward", "copy", "copy_wp", "zeropage", "poison"),
    "minor": ("forward", "continue", "continue_wp", "poison"),
    "wp": ("forward", "unprotect"),
    "rwp": ("forward", "unprotect"),
}
_MOST_ERRORS = 100  # kept of a Python handler


class HandlerCounts(Struct, frozen=True):
    """What a native handler has done so far.

    Attributes
    ----------
    served : dict
        The number of faults that it resolved, by kind: missing, minor, wp, rwp.
    forwarded : int
        The number of messages that it passed on.
    failed : int
        The number of faults that it could not resolve; they are passed on as well.
    last_errno : int
        The errno of the last fault that failed.
    running : bool
        Whether it still runs.
    latency : tuple of int
        A histogram: ``latency[i]`` faults took more than 2^(i-1) and at most 2^i ns from read to resolved.
    """

    served: dict[str, int]
    forwarded: int
    failed: int
    last_errno: int
    running: bool
    latency: tuple[int, ...]

    @property
    def total(self) -> int:
        """The number of faults that it resolved."""
        return sum(self.served.values())

    def percentile(self, share: float) -> int:
        """Return a time in ns within which this share (0 to 1) of the faults was resolved; 0 if there were none."""
        seen = 0
        for power, count in enumerate(self.latency):
            seen += count
            if seen and seen >= share * self.total:
                return 1 << power
        return 0

    def __str__(self) -> str:
        served = ", ".join(f"{count} {kind}" for kind, count in self.served.items() if count) or "none"
        rows = [f"  ≤ {(1 << power) / 1000:>10,.1f} µs {count:>8}" for power, count in enumerate(self.latency) if count]
        text = f"faults resolved: {served}; passed on: {self.forwarded}; failed: {self.failed}"
        return "\n".join([text, *rows])


class NativeHandler:
    """A loop in C beside the target that resolves faults.  Also a context manager that stops it.

    Parameters
    ----------
    connection : Connection
    number : int
        The number of the userfaultfd.
    policies : dict
        The policy for each kind of fault.
    page_size : int
    content : bytes
        The content for the policies ``copy`` and ``copy_wp``.
    """

    def __init__(
        self, connection: Connection, number: int, policies: dict[str, str], page_size: int, content: bytes
    ) -> None:
        for fault, policy in policies.items():
            if policy not in _POLICIES[fault]:
                raise UsageError(f"{fault}={policy!r}: there is {', '.join(_POLICIES[fault])}")
        if len(content) > page_size:
            raise UsageError(f"{len(content)} bytes do not fit into a page of {page_size} bytes")
        self._connection = connection
        self._number = number
        self._last: HandlerCounts | None = None
        connection.ask(StartHandler(number, policies, page_size, content))

    @property
    def counts(self) -> HandlerCounts:
        """What the handler has done so far."""
        return self._last or _counts(self._connection.ask(CountFaults(self._number)))

    def stop(self) -> HandlerCounts:
        """Stop the loop and return its last counts; faults are messages again.  It may be called twice."""
        if self._last is None:
            self._last = _counts(self._connection.ask(StopHandler(self._number)))
        return self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _counts(answer: FaultCounts) -> HandlerCounts:
    return HandlerCounts(**{**asdict(answer), "served": asdict(answer.served)})


def one_page_size(sizes: set[int]) -> int:
    """Return the one page size in bytes that a native handler serves; UsageError if there are several or none."""
    if len(sizes) != 1:
        raise UsageError(
            "say page_size=…: a native handler serves pages of one size, and this userfaultfd has registered "
            + (f"pages of {' and '.join(map(str, sorted(sizes)))} bytes" if sizes else "nothing yet")
        )
    return next(iter(sizes))


class PythonHandler:
    """Python code that resolves faults, on its own thread on the host.  Also a context manager that stops it.

    It cannot deadlock with the touches: they wait in the guest, on native threads, and hold nothing that this code
    needs.  If the code itself touches a page that nobody resolves, its ``result()`` ends at its deadline.  Messages
    that are not page faults are left for :meth:`Userfaultfd.read_message`.

    Attributes
    ----------
    served : int
        The number of faults that the code was called with.
    errors : list of Exception
        The last 100 exceptions that the code raised.  Such a fault goes on waiting, and the next one is served.
    """

    def __init__(self, messages: MessageQueue, resolve: Callable[[Fault], object]) -> None:
        self.served = 0
        self.errors: list[Exception] = []
        self._resolve = resolve
        self._pending: queue.SimpleQueue[Fault | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="uffdlab-handler", daemon=True)
        self._stop_intercepting = messages.intercept(self._take, lambda: self._pending.put(None))
        self._thread.start()

    def _take(self, message: AnyMessage) -> bool:
        if not isinstance(message, Fault):
            return False
        self._pending.put(message)
        return True

    def _serve(self) -> None:
        while (fault := self._pending.get()) is not None:
            self.served += 1
            try:
                self._resolve(fault)
            except Exception as error:  # noqa: BLE001 - kept for the reader, the loop goes on
                self.errors = [*self.errors[-_MOST_ERRORS + 1 :], error]

    def stop(self, timeout: float = 30.0) -> None:
        """Serve the faults that have arrived, then stop.

        Raises
        ------
        UsageError
            The code still runs after `timeout` seconds.
        """
        self._stop_intercepting()
        self._pending.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds_to_wait(timeout))
            if self._thread.is_alive():
                raise UsageError(f"the handler has not stopped within {timeout:g} s: its code has not returned")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

"""Requests to the lab on background threads, so that a slow guest does not block the notebook.

A thread ends with its work. Results are delivered on the notebook kernel's event loop. In a script or a test there is
none; there everything is done immediately on the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from uffdlab.widgets._base import event_loop

_Result = TypeVar("_Result")


class BackgroundReader(Generic[_Result]):
    """Reads the lab in the background, one read at a time: requests during a read cause one more read after it.

    Parameters
    ----------
    read : callable
        Reads the lab, on any thread.
    show : callable
        Called with the result of `read`, on the event loop. A result older than the one shown is dropped.
    failed : callable
        Called with the exception that `read` raised, on the event loop.
    """

    def __init__(
        self, read: Callable[[], _Result], show: Callable[[_Result], None], failed: Callable[[Exception], None]
    ) -> None:
        self._read, self._show, self._failed = read, show, failed
        self._requested = self._shown = 0  # numbers of reads
        self._busy = self._again = self._closed = False
        self._inside = threading.local()

    @property
    def here(self) -> bool:
        """Whether the calling thread is inside such a read."""
        return getattr(self._inside, "reading", False)

    @property
    def busy(self) -> bool:
        """Whether a read is running."""
        return self._busy

    def ask(self) -> None:
        """Request a read. Called on the event loop."""
        if self._closed:
            return
        if event_loop.running() is None:
            self.now()
        elif self._busy:
            self._again = True
        else:
            self._busy = True
            self._requested += 1
            threading.Thread(target=self._work, args=(self._requested,), name="uffdlab reader", daemon=True).start()

    def now(self) -> None:
        """Read on this thread and show the result."""
        if self._closed:
            return
        self._again = False
        self._requested += 1
        self._read_once(self._requested)()

    def forget(self) -> None:
        """Drop the result of a running read; it reads another object."""
        self._shown = self._requested

    def close(self) -> None:
        """Show nothing any more, not even the result of a running read."""
        self._closed = True

    def _work(self, number: int) -> None:
        done = self._read_once(number)

        def deliver() -> None:
            self._busy = False
            done()
            if self._again:
                self._again = False
                self.ask()

        event_loop.run_in_loop(deliver)

    def _read_once(self, number: int) -> Callable[[], None]:
        self._inside.reading = True
        try:
            seen = self._read()
        except Exception as error:  # noqa: BLE001 - every error is shown to the user
            failure = error
            return lambda: self._deliver(number, lambda: self._failed(failure))
        finally:
            self._inside.reading = False
        return lambda: self._deliver(number, lambda: self._show(seen))

    def _deliver(self, number: int, action: Callable[[], None]) -> None:
        if not self._closed and number > self._shown:
            self._shown = number
            action()


def run_in_background(action: Callable[[], _Result], done: Callable[[_Result], None]) -> threading.Thread | None:
    """Run `action` on a thread, then call `done` with its result, on the event loop.

    `action` must not raise.

    Returns
    -------
    Thread or None
        None if the work is already done.
    """
    if event_loop.running() is None:
        done(action())
        return None

    def work() -> None:
        result = action()
        event_loop.run_in_loop(lambda: done(result))

    thread = threading.Thread(target=work, name="uffdlab background", daemon=True)
    thread.start()
    return thread

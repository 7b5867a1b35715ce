"""Requests to the lab on threads of their own, so that a slow guest does not block the notebook.

A thread ends with its work. Results are delivered on the notebook kernel's event loop. Where there is none, in a
script or a test, everything is done at once on the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from uffdlab.widgets._base import event_loop

_Seen = TypeVar("_Seen")


class BackgroundReader(Generic[_Seen]):
    """Reads the lab in the background, once at a time: requests during a read lead to one more read after it.

    Parameters
    ----------
    read : callable
        Reads the lab, on any thread.
    show : callable
        Takes what `read` returned, on the event loop. A result older than the one shown is left out.
    failed : callable
        Takes what `read` raised, on the event loop.
    """

    def __init__(
        self, read: Callable[[], _Seen], show: Callable[[_Seen], None], failed: Callable[[Exception], None]
    ) -> None:
        self._read, self._show, self._failed = read, show, failed
        self._asked = self._shown = 0  # numbers of reads
        self._busy = self._again = self._closed = False
        self._inside = threading.local()

    @property
    def here(self) -> bool:
        """Whether the caller is inside of such a read."""
        return getattr(self._inside, "reading", False)

    @property
    def busy(self) -> bool:
        """Whether a read is on its way."""
        return self._busy

    def ask(self) -> None:
        """Read soon. Called on the event loop."""
        if self._closed:
            return
        if event_loop.running() is None:
            self.now()
        elif self._busy:
            self._again = True
        else:
            self._busy = True
            self._asked += 1
            threading.Thread(target=self._work, args=(self._asked,), name="uffdlab reader", daemon=True).start()

    def now(self) -> None:
        """Read on this thread and show it."""
        if self._closed:
            return
        self._again = False
        self._asked += 1
        self._read_once(self._asked)()

    def forget(self) -> None:
        """Do not show what is on its way; it is of something else."""
        self._shown = self._asked

    def close(self) -> None:
        """Show nothing any more, not even of a read that is on its way."""
        self._closed = True

    def _work(self, number: int) -> None:
        done = self._read_once(number)

        def deliver() -> None:
            self._busy = False
            done()
            if self._again:
                self._again = False
                self.ask()

        event_loop.soon(deliver)

    def _read_once(self, number: int) -> Callable[[], None]:
        self._inside.reading = True
        try:
            seen = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told where the user looks
            failure = error
            return lambda: self._tell(number, lambda: self._failed(failure))
        finally:
            self._inside.reading = False
        return lambda: self._tell(number, lambda: self._show(seen))

    def _tell(self, number: int, action: Callable[[], None]) -> None:
        if not self._closed and number > self._shown:
            self._shown = number
            action()


def run_in_background(action: Callable[[], _Seen], done: Callable[[_Seen], None]) -> threading.Thread | None:
    """Run `action` on a thread, then call `done` with what it returned, on the event loop.

    `action` raises nothing.

    Returns
    -------
    Thread or None
        None if it is done already.
    """
    if event_loop.running() is None:
        done(action())
        return None

    def work() -> None:
        came = action()
        event_loop.soon(lambda: done(came))

    thread = threading.Thread(target=work, name="uffdlab background", daemon=True)
    thread.start()
    return thread
